"""The line of a branch: ids and times of its versions in compact arrays, kept on local disk from one mount to the next.

28 bytes a version. What a line says never gets wrong: history below a commit doesn't change, so whoever reaches the
line's highest commit from a branch's tip may believe the rest. Belongs to one task at a time; `walk`, `save` and `load`
are for threads.
"""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvcfs.errors import CorruptData, NotFound
from mvcfs.versions.git.format import parse_commit
from mvcfs.versions.git.objects import GitObjects

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

_ID_BYTES = 20
_TIME_BYTES = 8
_MAGIC = b"mvcfs line 1\n"
_DIGEST_BYTES = 20


class Step(NamedTuple):
    """A commit on the way along first parents."""

    oid: str
    time_s: int
    parent: str | None


def walk(objects: GitObjects, start: str, count: int) -> list[Step]:
    """Up to `count` commits from `start` on along first parents.

    Raises:
        CorruptData: One is missing or damaged.
    """
    steps: list[Step] = []
    oid: str | None = start
    while oid is not None and len(steps) < count:
        try:
            data = objects.read_kind(oid, "commit")
        except NotFound as error:
            raise CorruptData(f"history is incomplete: {error}") from error
        step = _quick_step(oid, data) or _step(oid, data)
        steps.append(step)
        oid = step.parent
    return steps


def _quick_step(oid: str, data: bytes) -> Step | None:
    """What a commit written in the usual way says; None for any other."""
    headers = data.partition(b"\n\n")[0].split(b"\n", 4)
    parent = None
    if len(headers) > 2 and headers[1].startswith(b"parent ") and len(headers[1]) == 47:
        parent = headers[1][7:].decode("ascii", "replace")
        headers = headers[1:]
    if len(headers) < 3 or not (headers[1].startswith(b"author ") and headers[2].startswith(b"committer ")):
        return None
    words = headers[2].rsplit(b" ", 2)
    return Step(oid, int(words[1]), parent) if len(words) == 3 and words[1].isdigit() else None


def _step(oid: str, data: bytes) -> Step:
    commit = parse_commit(data, oid)
    return Step(oid, commit.committer.time_s, commit.parents[0] if commit.parents else None)


class _Run:
    """Ids and times that are only ever added to."""

    def __init__(self) -> None:
        self.ids = bytearray()
        self.times = array("q")

    def __len__(self) -> int:
        return len(self.times)

    def add(self, step: Step) -> None:
        self.ids += bytes.fromhex(step.oid)
        self.times.append(step.time_s)

    def oid(self, index: int) -> str:
        return self.ids[index * _ID_BYTES : (index + 1) * _ID_BYTES].hex()

    def find(self, oid: str) -> int | None:
        if not self.times:
            return None
        found = np.flatnonzero(np.frombuffer(self.ids, f"S{_ID_BYTES}") == np.bytes_(bytes.fromhex(oid)))
        return int(found[0]) if len(found) else None

    def at_most(self, time_s: int) -> Array:
        """Where the time is not after `time_s`."""
        return np.flatnonzero(np.frombuffer(self.times, np.int64) <= time_s) if self.times else np.empty(0, np.int64)


class Line:
    """What is known of one branch: all versions from `lowest` to `highest`, without a gap.

    Numbers below 1 are commits from before the branch was made.

    Attributes:
        end: The first commit that wasn't walked; None at the root of history.
        saved: The highest version that is on local disk, 0 for none.
    """

    def __init__(self, highest: int, steps: Sequence[Step]) -> None:
        """A line that begins with these commits, the newest, which is version `highest`, first."""
        self._top = highest
        self._down = _Run()
        self._up = _Run()
        self.end: str | None = None
        self.saved = 0
        self.add_below(steps)

    @property
    def highest(self) -> int:
        """The newest version known."""
        return self._top + len(self._up)

    @property
    def lowest(self) -> int:
        """The oldest known."""
        return self._top - len(self._down) + 1

    def __contains__(self, version: int) -> bool:
        return self.lowest <= version <= self.highest

    def add_below(self, steps: Sequence[Step]) -> None:
        """Adds what comes before the lowest, newest first."""
        for step in steps:
            self._down.add(step)
        if steps:
            self.end = steps[-1].parent

    def add_above(self, steps: Sequence[Step]) -> None:
        """Adds what comes after the highest, newest first."""
        for step in reversed(steps):
            self._up.add(step)

    def oid(self, version: int) -> str:
        """The commit of a version that is known."""
        return self._up.oid(version - self._top - 1) if version > self._top else self._down.oid(self._top - version)

    def time_s(self, version: int) -> int:
        """When a version that is known was published."""
        return self._up.times[version - self._top - 1] if version > self._top else self._down.times[self._top - version]

    def number_of(self, oid: str) -> int | None:
        """The version that a commit is, None if it isn't known here."""
        if len(oid) != 2 * _ID_BYTES:
            return None
        if (index := self._up.find(oid)) is not None:
            return self._top + 1 + index
        index = self._down.find(oid)
        return None if index is None else self._top - index

    def last_at(self, time_s: int) -> int | None:
        """The newest known version that was published at or before a time."""
        if len(found := self._up.at_most(time_s)):
            return self._top + 1 + int(found[-1])
        found = self._down.at_most(time_s)
        return self._top - int(found[0]) if len(found) else None

    def marks(self, first: int, last: int) -> Iterator[tuple[int, str, int]]:
        """Number, commit and time of the versions [first, last], oldest first."""
        for version in range(first, last + 1):
            yield version, self.oid(version), self.time_s(version)

    def snapshot(self) -> bytes:
        """All versions from 1 on, which must be known, for `save`."""
        count = min(len(self._down), self._top)
        before = self.oid(0) if 0 in self else self.end
        return b"".join(
            [
                _MAGIC,
                bytes(_ID_BYTES) if before is None else bytes.fromhex(before),
                np.frombuffer(bytes(self._down.ids), f"V{_ID_BYTES}")[:count][::-1].tobytes(),
                self._up.ids,
                self._down.times[:count][::-1].tobytes(),
                self._up.times.tobytes(),
            ]
        )


def save(path: Path, body: bytes) -> None:
    """Keeps what `Line.snapshot` gave. A failure is only logged: it is walked anew then."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(body + hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest())
        os.replace(temporary, path)
    except OSError as error:
        log.warning("the versions of a branch can't be kept in %s: %s", path, error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(path: Path) -> Line | None:
    """What was saved; None if there is nothing, or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    start = len(_MAGIC) + _ID_BYTES
    count, rest = divmod(len(body) - start, _ID_BYTES + _TIME_BYTES)
    if (
        not body.startswith(_MAGIC)
        or rest
        or count < 1
        or hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest
    ):
        return None
    line = Line(0, [])
    before = body[len(_MAGIC) : start]
    line.end = before.hex() if any(before) else None
    line._up.ids += body[start : start + count * _ID_BYTES]
    line._up.times.frombytes(body[start + count * _ID_BYTES :])
    line.saved = count
    return line
