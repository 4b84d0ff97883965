"""Leases: small files in a model's folder by which mounts tell each other that they are there, and what they still need.

A lease is `leases/<random>`, never changed: it is renewed by a new file, after which the old one is deleted. Whether one
is alive is judged by the store's times only: it is dead once the newest file of whoever asks is later than it by more
than it says it is good for. No clock of any host counts.

Nothing here ever stops a publish: what the store refuses is logged, and tried again at the next renewal. Threading: trio
thread.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mvcfs.errors import AlreadyExists, CorruptData, LimitExceeded, MvcfsError, NotADirectory, NotFound
from mvcfs.storage.protocol import Storage
from mvcfs.types import NS_PER_S
from mvcfs.versions.gather import gather
from mvcfs.versions.log.json_fields import Fields, encode, hex_item, is_hex
from mvcfs.versions.log.refs import new_id

log = logging.getLogger(__name__)

OVERLAY, SNAPSHOT, PUBLISH, GC = "overlay", "snapshot", "publish", "gc"
RENEW_S = 60.0
# A mount whose store or machine has a bad minute is not taken for dead.
GOOD_FOR_S = 5 * RENEW_S
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pin:
    """A branch that a mount shows.

    Attributes:
        branch: Its id.
        name: Its name then.
        commit: The commit that the mount's unpublished changes stand on; None for an empty branch.
    """

    branch: str
    name: str
    commit: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """What one lease file says.

    Attributes:
        holder: Whose it is, 32 hex: a mount by its local folder, the same after a remount; or a command.
        host: Its host's name.
        user: Who mounted it.
        purpose: `overlay`, `snapshot`, `publish` or `gc`.
        since_ns: Since when it holds one, by its own clock; for people.
        good_for_s: How long after the file's time it counts.
        branches: The branches that it shows.
        commits: Commits that it reads.
    """

    holder: str
    host: str
    user: str
    purpose: str
    since_ns: int
    good_for_s: float
    branches: tuple[Pin, ...] = ()
    commits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """A lease as it stands in the store: `name` in its folder, `mtime_ns` by the store's clock."""

    name: str
    mtime_ns: int
    lease: Lease = field(compare=False)


def encode_lease(lease: Lease) -> bytes:
    """A lease's file."""
    value = {
        "format": 1, "holder": lease.holder, "host": lease.host, "user": lease.user, "purpose": lease.purpose,
        "since_ns": lease.since_ns, "good_for_ns": int(lease.good_for_s * NS_PER_S),
        "branches": [{"branch": pin.branch, "name": pin.name, "commit": pin.commit} for pin in lease.branches],
        "commits": list(lease.commits),
    }  # fmt: skip
    return encode(value)


def parse_lease_file(data: bytes, where: str) -> Lease:
    """A lease; CorruptData."""
    fields = Fields.parse(data, where)

    def pin(value: object, at: str) -> Pin:
        found = Fields(value, at)
        return Pin(found.hexadecimal("branch", 32), found.text("name"), found.optional_hexadecimal("commit", 40))

    return Lease(
        fields.hexadecimal("holder", 32), fields.text("host"), fields.text("user"), fields.text("purpose"),
        fields.integer("since_ns"), fields.integer("good_for_ns") / NS_PER_S, fields.items("branches", pin),
        fields.items("commits", hex_item(40)),
    )  # fmt: skip


class LeaseFolder:
    """The leases of one model."""

    def __init__(self, storage: Storage, model_path: Callable[[], str]) -> None:
        self._storage = storage
        self._model_path = model_path
        self._known: dict[str, Lease | None] = {}

    def _path(self, name: str) -> str:
        return f"{self._model_path()}/leases/{name}"

    async def read(self) -> list[LeaseFile]:
        """All leases, the oldest first. What can't be read is left out. MvcfsError where the store doesn't answer."""
        try:
            listed = await self._storage.list_dir(f"{self._model_path()}/leases")
        except (NotFound, NotADirectory):
            return []
        entries = [entry for entry in listed if not entry.is_dir and is_hex(entry.name, 32)]
        fresh = [entry.name for entry in entries if entry.name not in self._known]
        read = await gather([functools.partial(self._read, name) for name in fresh])
        found = {entry.name: self._known.get(entry.name) for entry in entries} | dict(zip(fresh, read, strict=True))
        self._known = found
        files = [LeaseFile(entry.name, entry.mtime_ns, lease) for entry in entries if (lease := found[entry.name])]
        return sorted(files, key=lambda file: (file.mtime_ns, file.name))

    async def _read(self, name: str) -> Lease | None:
        path = self._path(name)
        try:
            return parse_lease_file(await self._storage.read_file(path, max_bytes=_MAX_BYTES), path)
        except (NotFound, CorruptData, LimitExceeded) as error:
            log.debug("lease %s: %s", path, error)
            return None

    async def write(self, lease: Lease, name: str) -> None:
        """Writes a lease under a name that nobody had; MvcfsError."""
        data = encode_lease(lease)
        try:
            await self._storage.write_file(self._path(name), data)
        except NotFound:
            # A model of an older mvcfs has no such folder. One that was renamed or removed gets none: its parent is gone.
            with suppress(AlreadyExists):
                await self._storage.mkdir(f"{self._model_path()}/leases")
            await self._storage.write_file(self._path(name), data)

    async def delete(self, name: str) -> bool:
        """Deletes a lease; whether it is gone."""
        try:
            await self._storage.delete(self._path(name))
        except NotFound:
            return True
        except MvcfsError as error:
            log.debug("lease %s stays: %s", self._path(name), error)
            return False
        return True


class MountLease:
    """A mount's own lease of one model: that it is there, and what it needs."""

    def __init__(self, folder: LeaseFolder, holder: str, host: str, user: str, clock: Callable[[], int]) -> None:
        self._folder = folder
        self._holder, self._host, self._user = holder, host, user
        self._clock = clock
        self._since_ns: int | None = None
        self._own: str | None = None
        self._old: list[str] = []

    async def renew(self, purpose: str, branches: Sequence[Pin], commits: Sequence[str]) -> None:
        """Writes the lease anew, then deletes the one before, and those of mounts that are gone.

        Raises:
            MvcfsError: The store doesn't take it; the one before stands.
        """
        if self._since_ns is None:
            self._since_ns = self._clock()
        lease = Lease(
            self._holder, self._host, self._user, purpose, self._since_ns, GOOD_FOR_S, tuple(branches), tuple(commits)
        )
        name = new_id()
        try:
            await self._folder.write(lease, name)
        except MvcfsError:
            self._old.append(name)
            raise
        if self._own is not None:
            self._old.append(self._own)
        self._own = name
        await self._delete_old()
        files = await self._folder.read()
        now_ns = self._now_ns(files)
        for file in files:
            # A mount that was killed and came back finds its own.
            left = file.lease.holder == self._holder and file.lease.purpose in (OVERLAY, SNAPSHOT)
            if file.name != self._own and (left or not self._is_alive(file, now_ns)):
                await self._folder.delete(file.name)

    async def release(self) -> None:
        """Deletes it: this mount needs nothing of the model any more."""
        if self._own is not None:
            self._old.append(self._own)
        self._own = self._since_ns = None
        await self._delete_old()

    async def others(self) -> list[tuple[LeaseFile, float]]:
        """The living leases of other mounts, each with its age in seconds by the store's clock. MvcfsError."""
        files = await self._folder.read()
        now_ns = self._now_ns(files)
        return [
            (file, max(0.0, (now_ns - file.mtime_ns) / NS_PER_S))
            for file in files
            if file.lease.holder != self._holder and self._is_alive(file, now_ns)
        ]

    async def _delete_old(self) -> None:
        self._old = [name for name in self._old if not await self._folder.delete(name)]

    def _now_ns(self, files: Sequence[LeaseFile]) -> int:
        """The store's time, as far as it can be told: that of our own newest file, else the newest of all."""
        own = [file.mtime_ns for file in files if file.name == self._own]
        return own[0] if own else max([file.mtime_ns for file in files], default=0)

    @staticmethod
    def _is_alive(file: LeaseFile, now_ns: int) -> bool:
        return now_ns - file.mtime_ns <= file.lease.good_for_s * NS_PER_S
