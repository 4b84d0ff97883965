"""A store in memory, for tests and simulations: several `MemoryStorage` may be hosts that share one `MemoryStore`.

Threading: everything is on the trio thread. Every call passes one checkpoint, before it does anything, and is atomic
after it, so that a schedule of calls is a schedule of the whole simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from mvcfs.errors import (
    AlreadyExists,
    CorruptData,
    InvalidArgument,
    IsADirectory,
    LimitExceeded,
    NotADirectory,
    NotEmpty,
    NotFound,
    StorageError,
)
from mvcfs.storage.config import DEFAULT_BLOCK_BYTES
from mvcfs.storage.paths import check_identity, check_range, split, split_child
from mvcfs.storage.protocol import Space, StoreEntry, Writer
from mvcfs.types import SELF, Identity


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    mtime_ns: int


@dataclass(slots=True)
class _Directory:
    mtime_ns: int
    names: dict[str, _Node] = field(default_factory=dict)


_Node = _File | _Directory


class MemoryStore:
    """The files themselves. `clock` gives modification times, ns since 1970."""

    def __init__(self, *, clock: Callable[[], int] = time.time_ns, capacity_bytes: int = 1 << 40):
        self.clock = clock
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.root = _Directory(clock())

    def find(self, path: str) -> _Node:
        """The file or directory at `path`; NotFound."""
        node: _Node = self.root
        for segment in split(path):
            found = node.names.get(segment) if isinstance(node, _Directory) else None
            if found is None:
                raise NotFound(f"{path}: no such file or directory")
            node = found
        return node

    def parent(self, path: str) -> tuple[_Directory, str]:
        """The directory that holds, or is to hold, `path`, and the last segment; NotFound."""
        *above, name = split_child(path)
        node = self.find("/".join(above))
        if not isinstance(node, _Directory):
            raise NotFound(f"{path}: {'/'.join(above)} is a file")
        return node, name

    def put(self, path: str, data: bytes) -> None:
        """Makes a file; AlreadyExists."""
        directory, name = self.parent(path)
        if name in directory.names:
            raise AlreadyExists(f"{path} is there already")
        if self.used_bytes + len(data) > self.capacity_bytes:
            raise LimitExceeded(f"{path}: the store is full")
        self.used_bytes += len(data)
        directory.names[name] = _File(data, self.clock())

    def forget(self, node: _Node) -> None:
        """Gives back the room of what was removed."""
        if isinstance(node, _File):
            self.used_bytes -= len(node.data)
        else:
            for below in node.names.values():
                self.forget(below)


class MemoryStorage:
    """One host's view of a `MemoryStore`."""

    def __init__(
        self, store: MemoryStore | None = None, *, url: str = "memory://", block_bytes: int = DEFAULT_BLOCK_BYTES
    ):
        self.store = store or MemoryStore()
        self._url = url
        self._block_bytes = block_bytes

    @property
    def url(self) -> str:
        """The store's address, for messages only."""
        return self._url

    @property
    def block_bytes(self) -> int:
        """The size that no pack exceeds."""
        return self._block_bytes

    async def stat(self, path: str, *, identity: Identity = SELF) -> StoreEntry:
        """What is at `path`."""
        await self._begin(identity)
        return _entry(path.rpartition("/")[2], self.store.find(path))

    async def list_dir(self, path: str, *, identity: Identity = SELF) -> list[StoreEntry]:
        """The names in a directory, sorted."""
        await self._begin(identity)
        node = self.store.find(path)
        if not isinstance(node, _Directory):
            raise NotADirectory(f"{path} is a file")
        return [_entry(name, node.names[name]) for name in sorted(node.names)]

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        """The bytes of a range, all of them."""
        check_range(path, offset, length)
        data = await self._data(path, identity)
        if offset + length > len(data):
            raise CorruptData(f"{path} has {len(data)} bytes, {length} were to be read at {offset}")
        return data[offset : offset + length]

    async def read_file(self, path: str, *, max_bytes: int, identity: Identity = SELF) -> bytes:
        """A whole file of at most `max_bytes`."""
        data = await self._data(path, identity)
        if len(data) > max_bytes:
            raise LimitExceeded(f"{path}: {len(data)} bytes are more than the {max_bytes} expected at most")
        return data

    async def create(self, path: str, *, identity: Identity = SELF) -> Writer:
        """Starts a new file; its name is taken at `close`."""
        await self._begin(identity)
        directory, name = self.store.parent(path)
        if name in directory.names:
            raise AlreadyExists(f"{path} is there already")
        return _MemoryWriter(self.store, path)

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        """Makes a new file with `data`."""
        await self._begin(identity)
        self.store.put(path, bytes(data))

    async def rename(self, source: str, target: str, *, identity: Identity = SELF) -> None:
        """Moves a file or directory to a free name."""
        await self._begin(identity)
        split_child(target)
        old, old_name = self.store.parent(source)
        if old_name not in old.names:
            raise NotFound(f"{source}: no such file or directory")
        if isinstance(old.names[old_name], _Directory) and target.startswith(f"{source}/"):
            raise InvalidArgument(f"{source} can't be moved into itself ({target})")
        new, new_name = self.store.parent(target)
        if new_name in new.names:
            raise AlreadyExists(f"{target} is there already")
        new.names[new_name] = old.names.pop(old_name)

    async def mkdir(self, path: str, *, parents: bool = False, identity: Identity = SELF) -> None:
        """Makes a directory."""
        await self._begin(identity)
        if not parents:
            directory, name = self.store.parent(path)
            if name in directory.names:
                raise AlreadyExists(f"{path} is there already")
            directory.names[name] = _Directory(self.store.clock())
            return
        node: _Node = self.store.root
        for segment in split(path):
            if not isinstance(node, _Directory):
                raise NotFound(f"{path} goes through a file")
            node = node.names.setdefault(segment, _Directory(self.store.clock()))
        if not isinstance(node, _Directory):
            raise AlreadyExists(f"{path} is a file")

    async def delete(self, path: str, *, recursive: bool = False, identity: Identity = SELF) -> None:
        """Removes a file, an empty directory, or with `recursive` a tree."""
        await self._begin(identity)
        directory, name = self.store.parent(path)
        node = self.store.find(path)
        if isinstance(node, _Directory) and node.names and not recursive:
            raise NotEmpty(f"{path} is not empty")
        del directory.names[name]
        self.store.forget(node)

    async def space(self, *, identity: Identity = SELF) -> Space:
        """What is left of the store's capacity."""
        await self._begin(identity)
        return Space(self.store.capacity_bytes, self.store.capacity_bytes - self.store.used_bytes)

    async def aclose(self) -> None:
        """Nothing is held."""
        await trio.lowlevel.checkpoint()

    async def _begin(self, identity: Identity) -> None:
        await trio.lowlevel.checkpoint()
        check_identity(identity, self._url)

    async def _data(self, path: str, identity: Identity) -> bytes:
        await self._begin(identity)
        node = self.store.find(path)
        if isinstance(node, _Directory):
            raise IsADirectory(f"{path} is a directory")
        return node.data


class _MemoryWriter:
    """Collects a file, puts it into the store at `close`."""

    def __init__(self, store: MemoryStore, path: str):
        self._store = store
        self._path = path
        self._parts: list[bytes] | None = []

    async def write(self, data: bytes | bytearray) -> None:
        """Appends `data`."""
        await trio.lowlevel.checkpoint()
        self._open_parts().append(bytes(data))

    async def close(self) -> None:
        """Puts the file into the store."""
        await trio.lowlevel.checkpoint()
        parts, self._parts = self._open_parts(), None
        self._store.put(self._path, b"".join(parts))

    async def abort(self) -> None:
        """Forgets what was written."""
        self._parts = None

    def _open_parts(self) -> list[bytes]:
        if self._parts is None:
            raise StorageError(f"{self._path}: the writer is closed")
        return self._parts


def _entry(name: str, node: _Node) -> StoreEntry:
    if isinstance(node, _Directory):
        return StoreEntry(name, True, 0, node.mtime_ns)
    return StoreEntry(name, False, len(node.data), node.mtime_ns)
