"""The versions of a branch, by number, commit and time, and the commits of a model by prefix.

Version k of a branch whose tip is version v is the commit v-k first-parent steps behind the tip, so numbers are found by
walking. What was walked is kept (see `line`) and goes on from there: versions are only ever added at the tip. Walks are in
a thread; what is kept is changed on the trio thread only.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from mvcfs.errors import Conflict, CorruptData, NotFound
from mvcfs.types import Author
from mvcfs.versions.git.format import OID_DIGITS, RawCommit
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.trailers import parse_trailers
from mvcfs.versions.history.line import Line, Step, load, save, walk
from mvcfs.versions.log.alias_log import is_move
from mvcfs.versions.log.refs import BranchState, Refs

_STEPS_AT_LEAST = 256
_SAVED_STEPS = 1024
"""A line that has grown by so much is kept on disk anew: a restart walks no more than that."""

_MOVE_TRAILER = "\nMvcfs-Alias: "


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """A commit.

    Attributes:
        oid: Its id.
        tree: Its root directory's tree.
        parents: Its parents, the version before it first.
        author: Who made the changes.
        author_time_s: When, seconds since 1970.
        committer_time_s: When it was published; never falls along first parents.
        message: The whole message.
        trailers: `Key: value` lines of its last paragraph.
    """

    oid: str
    tree: str
    parents: tuple[str, ...]
    author: Author
    author_time_s: int
    committer_time_s: int
    message: str
    trailers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, oid: str, raw: RawCommit) -> CommitInfo:
        """A commit as it was read."""
        return cls(
            oid,
            raw.tree,
            raw.parents,
            Author(raw.author.name, raw.author.email),
            raw.author.time_s,
            raw.committer.time_s,
            raw.message,
            parse_trailers(raw.message),
        )

    @property
    def subject(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """Where a version stands: `branch@version`."""

    branch: str
    version: int


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A version of a branch.

    Attributes:
        version: Its number, from 1.
        commit: Its commit.
        tree: That commit's tree.
        time_s: When it was published, seconds since 1970.
        author: Who made the changes.
        message: The whole message.
    """

    version: int
    commit: str
    tree: str
    time_s: int
    author: Author
    message: str

    @property
    def subject(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0]


class History:
    """Versions of one model's branches."""

    def __init__(self, objects: GitObjects) -> None:
        self._objects = objects
        self._limiter = trio.CapacityLimiter(2)
        self._lock = trio.Lock()
        self._lines: dict[str, Line] = {}

    async def commit_of(self, branch: BranchState, version: int) -> str:
        """The commit of a version; NotFound as `mark_of`."""
        return (await self.mark_of(branch, version))[0]

    async def mark_of(self, branch: BranchState, version: int) -> tuple[str, int]:
        """The commit of a version, and when it was published, seconds since 1970; no commit is read that is known.

        Raises:
            NotFound: The branch has no such version; the message says which it has.
        """
        if not 1 <= version <= branch.version:
            have = f"versions 1 to {branch.version}" if branch.version else "no version yet"
            raise NotFound(f"there is no {branch.name}@{version}: branch {branch.name!r} has {have}")
        line = await self._known(branch, version)
        if line is None or version not in line:
            raise CorruptData(f"history of branch {branch.name!r} ends before version {version}")
        return line.oid(version), line.time_s(version)

    async def version_of(self, branch: BranchState, commit: str) -> int | None:
        """Which version of the branch a commit is, None if it is none."""
        line = await self._known(branch, branch.version)
        number = None if line is None else line.number_of(commit)
        if number is None and (line := await self._known(branch, 1)) is not None:
            number = line.number_of(commit)
        return number if number is not None and number >= 1 else None

    async def place_of(self, refs: Refs, commit: str, prefer: str | None = None) -> VersionPlace | None:
        """Which version of which branch a commit is; of the preferred branch, the default one or the first by name.

        None if no branch has it as a version.
        """
        default = refs.default_branch()
        first = [
            name
            for name in (prefer, None if default is None else default.name)
            if name is not None and name in refs.branches
        ]
        for name in dict.fromkeys([*first, *refs.branches]):
            version = await self.version_of(refs.branches[name], commit)
            if version is not None:
                return VersionPlace(name, version)
        return None

    async def leads_to(self, branch: BranchState, commit: str) -> bool:
        """Whether a commit is a version of the branch, or one that the branch started from."""
        if await self.version_of(branch, commit) is not None:
            return True
        line = await self._known(branch, 0)
        while line is not None and line.number_of(commit) is None and line.end is not None:
            line = await self._known(branch, line.lowest - 10 * _STEPS_AT_LEAST)
        return line is not None and line.number_of(commit) is not None

    async def version_at(self, branch: BranchState, time_s: int) -> int | None:
        """The last version that was published at or before a time, None if there is none."""
        line = await self._known(branch, branch.version)
        while line is not None:
            version = line.last_at(time_s)
            if version is not None:
                return version if version >= 1 else None
            if line.lowest <= 1 or line.end is None:
                return None
            line = await self._known(branch, max(1, line.lowest - (branch.version - line.lowest) - _STEPS_AT_LEAST))
        return None

    async def versions(self, branch: BranchState, limit: int | None) -> list[VersionInfo]:
        """The branch's versions, newest first, at most `limit`."""
        count = branch.version if limit is None else min(limit, branch.version)
        lowest = branch.version - count + 1
        line = None if count <= 0 else await self._known(branch, lowest)
        if line is None:
            return []
        if lowest not in line:
            raise CorruptData(f"history of branch {branch.name!r} ends before version {lowest}")
        numbered = [(number, line.oid(number)) for number in range(branch.version, lowest - 1, -1)]
        return await trio.to_thread.run_sync(self._describe, numbered, limiter=self._limiter)

    async def marks(self, branch: BranchState) -> list[tuple[int, str, int]]:
        """Number, commit and time (seconds since 1970) of all versions of a branch, oldest first; no commit is read."""
        line = await self._known(branch, 1)
        return [] if line is None else list(line.marks(max(1, line.lowest), line.highest))

    def _describe(self, numbered: Sequence[tuple[int, str]]) -> list[VersionInfo]:
        found = []
        for number, oid in numbered:
            raw = self._objects.read_commit(oid)
            author = Author(raw.author.name, raw.author.email)
            found.append(VersionInfo(number, oid, raw.tree, raw.committer.time_s, author, raw.message))
        return found

    async def ancestor(self, commit: str, steps: int) -> str | None:
        """The commit so many first-parent steps behind another, None if history is shorter."""
        if steps == 0:
            return commit
        walked = await self._walk(commit, steps)
        return walked[-1].parent if len(walked) == steps else None

    async def commit_with_prefix(self, prefix: str, tips: Collection[str], logs: Collection[str] = ()) -> str:
        """The one commit that `tips` lead to whose id starts with these hex digits.

        A move of the aliases whose last moves `logs` are is found by its whole id only.

        Raises:
            NotFound: There is none.
            Conflict: There are several; the message shows some.
        """
        look = functools.partial(_commits_with_prefix, self._objects, prefix, tips, logs)
        matching = await trio.to_thread.run_sync(look, limiter=self._limiter)
        if not matching:
            raise NotFound(f"no commit {prefix!r} in this model")
        if len(matching) > 1:
            some = ", ".join(oid[:12] for oid in matching[:5])
            raise Conflict(f"{len(matching)} commits start with {prefix!r}: {some}: write more digits")
        return matching[0]

    async def _known(self, branch: BranchState, down_to: int) -> Line | None:
        return None if branch.tip is None else await self._line(branch, branch.tip, down_to)

    async def _line(self, branch: BranchState, tip: str, down_to: int) -> Line:
        """What is known of a branch, walked at least from its tip to version `down_to` or to history's root."""
        line = self._lines.get(branch.id)
        if line is not None and line.highest == branch.version and line.lowest <= down_to:
            return line
        async with self._lock:
            line = await self._reach_tip(branch, tip)
            while line.lowest > down_to and line.end is not None:
                count = max(line.lowest - down_to, _STEPS_AT_LEAST)
                line.add_below(await self._walk(line.end, count))
            if line.lowest <= 1 and line.highest - line.saved >= _SAVED_STEPS:
                body, line.saved = line.snapshot(), line.highest
                await trio.to_thread.run_sync(save, self._kept(branch), body, limiter=self._limiter)
            return line

    async def _reach_tip(self, branch: BranchState, tip: str) -> Line:
        """The line up to the branch's tip; anew if what is known of it doesn't lead there."""
        line = self._lines.get(branch.id)
        if line is None:
            line = await trio.to_thread.run_sync(load, self._kept(branch), limiter=self._limiter)
        if line is not None and line.highest < branch.version:
            steps = await self._walk(tip, branch.version - line.highest)
            if steps[-1].parent == line.oid(line.highest):
                line.add_above(steps)
            else:
                line = None
        if line is None or line.highest > branch.version or line.oid(line.highest) != tip:
            line = Line(branch.version, await self._walk(tip, 1))
        self._lines[branch.id] = line
        return line

    async def _walk(self, start: str, count: int) -> list[Step]:
        return await trio.to_thread.run_sync(walk, self._objects, start, count, limiter=self._limiter)

    def _kept(self, branch: BranchState) -> Path:
        return self._objects.git_dir.parent / "lines" / branch.id


def _commits_with_prefix(objects: GitObjects, prefix: str, tips: Collection[str], logs: Collection[str]) -> list[str]:
    """The commits whose ids start so: those in packs, as only what was published is in packs, and those that `tips` lead to.

    Moves of aliases are left out unless the id is whole.
    """
    found = [oid for oid in objects.find_prefix(prefix) if objects.header(oid)[0] == "commit"]
    if len(prefix) < OID_DIGITS:
        found = [oid for oid in found if not _is_move(objects, logs, oid)]
    unpacked = [oid for oid in found if not objects.in_packs(oid)]
    if not unpacked:
        return found
    versions: set[str] = set()
    todo = [objects.peel(tip) for tip in tips]
    while todo:
        oid = todo.pop()
        if oid not in versions and not objects.in_packs(oid):
            versions.add(oid)
            todo.extend(objects.read_commit(oid).parents)
    return [oid for oid in found if oid in versions or oid not in unpacked or _is_move(objects, logs, oid)]


def _is_move(objects: GitObjects, logs: Collection[str], oid: str) -> bool:
    return _MOVE_TRAILER in objects.read_commit(oid).message and is_move(objects, logs, oid)
