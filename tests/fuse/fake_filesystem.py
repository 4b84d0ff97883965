"""A small in-memory POSIX tree behind the API that the adapter expects, and a mount of it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    ReadOnly,
    Transient,
)
from mvcfs.fuse.served import Command, DrainReport
from mvcfs.types import Caller
from mvcfs.vfs.attr import Attr, Opened, SetAttr, Statfs

ROOT = 1
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

RAISED_BY_NAME: dict[bytes, BaseException] = {
    b"raise-bug": RuntimeError("a bug"),
    b"raise-readonly": ReadOnly("a snapshot"),
    b"raise-full": LimitExceeded("the staging disk is full"),
    b"raise-transient": Transient("the store is away"),
    b"raise-corrupt": CorruptData("wrong bytes"),
    b"raise-group": ExceptionGroup("several", [ReadOnly("one"), ExceptionGroup("more", [NotFound("two")])]),
    b"raise-mixed": ExceptionGroup("several", [ReadOnly("one"), KeyError("a bug")]),
}
"""Lookups of these names fail in these ways."""


class Panic(BaseException):
    """Like pyo3's PanicException."""


@dataclass(eq=False)
class Node:
    ino: int
    mode: int
    uid: int
    gid: int
    rdev: int = 0
    nlink: int = 1
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, Node] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    lookups: int = 0

    def touch(self) -> None:
        self.mtime_ns = self.ctime_ns = time.time_ns()


class FakeFileSystem:
    def __init__(self, uid: int, gid: int) -> None:
        self._next = ROOT
        self._nodes: dict[int, Node] = {}
        self._handles: dict[int, tuple[Node, int]] = {}
        self._listings: dict[int, list[tuple[bytes, Node]]] = {}
        self.calls: dict[str, int] = {}
        self.held = trio.Event()
        self.root = self._make(stat.S_IFDIR | 0o755, uid, gid)

    def _make(self, mode: int, uid: int, gid: int, rdev: int = 0) -> Node:
        node = Node(self._next, mode, uid, gid, rdev)
        node.atime_ns = node.mtime_ns = node.ctime_ns = time.time_ns()
        node.nlink = 2 if stat.S_ISDIR(mode) else 1
        self._nodes[node.ino] = node
        self._next += 1
        return node

    def _attr(self, node: Node) -> Attr:
        size = len(node.data)
        return Attr(
            node.ino, node.mode, node.nlink, node.uid, node.gid, node.rdev, size,
            node.atime_ns, node.mtime_ns, node.ctime_ns, 1.0, 1.0,
        )  # fmt: skip

    def _looked_up(self, node: Node) -> Attr:
        node.lookups += 1
        return self._attr(node)

    def _dir(self, ino: int) -> Node:
        node = self._nodes[ino]
        if not stat.S_ISDIR(node.mode):
            raise NotADirectory(f"inode {ino}")
        return node

    def _add(self, parent: int, name: bytes, mode: int, caller: Caller, rdev: int = 0) -> Node:
        directory = self._dir(parent)
        if name in directory.children:
            raise AlreadyExists(repr(name))
        node = self._make(mode, caller.uid, caller.gid, rdev)
        directory.children[name] = node
        directory.nlink += stat.S_ISDIR(mode)
        directory.touch()
        return node

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    async def lookup(self, parent: int, name: bytes, caller: Caller) -> Attr:
        self._count("lookup")
        if name in RAISED_BY_NAME:
            raise RAISED_BY_NAME[name]
        if name == b"raise-panic":
            raise Panic("range end out of bounds")
        if name == b"wait":
            await self.held.wait()
        node = self._dir(parent).children.get(name)
        if node is None:
            raise NotFound(repr(name))
        return self._looked_up(node)

    def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        for ino, count in inodes:
            node = self._nodes[ino]
            node.lookups -= count
            assert node.lookups >= 0 or ino == ROOT
            if node.lookups == 0 and node.nlink == 0:
                del self._nodes[ino]

    def remember(self, ino: int) -> None:
        self._nodes[ino].lookups += 1

    async def getattr(self, ino: int) -> Attr:
        return self._attr(self._nodes[ino])

    async def setattr(self, ino: int, change: SetAttr, fh: int | None, caller: Caller) -> Attr:
        node = self._nodes[ino]
        if change.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(change.mode)
        node.uid = node.uid if change.uid is None else change.uid
        node.gid = node.gid if change.gid is None else change.gid
        if change.size is not None:
            del node.data[change.size :]
            node.data.extend(bytes(change.size - len(node.data)))
            node.touch()
        node.atime_ns = node.atime_ns if change.atime_ns is None else change.atime_ns
        node.mtime_ns = node.mtime_ns if change.mtime_ns is None else change.mtime_ns
        node.ctime_ns = time.time_ns()
        return self._attr(node)

    async def readlink(self, ino: int) -> bytes:
        return bytes(self._nodes[ino].data)

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attr:
        return self._looked_up(self._add(parent, name, mode, caller, rdev))

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attr:
        return self._looked_up(self._add(parent, name, stat.S_IFDIR | mode & ~caller.umask, caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attr:
        node = self._add(parent, name, stat.S_IFLNK | 0o777, caller)
        node.data[:] = target
        return self._looked_up(node)

    def _child(self, parent: int, name: bytes) -> Node:
        node = self._dir(parent).children.get(name)
        if node is None:
            raise NotFound(repr(name))
        return node

    def _drop(self, parent: int, name: bytes) -> None:
        node = self._dir(parent).children.pop(name)
        node.nlink -= 2 if stat.S_ISDIR(node.mode) else 1
        self._nodes[parent].touch()

    async def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        if stat.S_ISDIR(self._child(parent, name).mode):
            raise IsADirectory(repr(name))
        self._drop(parent, name)

    async def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        if self._child(parent, name).children:
            raise NotEmpty(repr(name))
        self._drop(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None:
        node = self._child(parent, name)
        target = self._dir(new_parent).children.get(new_name)
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise InvalidArgument("flags")
        if flags & RENAME_EXCHANGE:
            self._nodes[parent].children[name] = self._child(new_parent, new_name)
        else:
            if target is not None and flags & RENAME_NOREPLACE:
                raise AlreadyExists(repr(new_name))
            if target is not None and target.children:
                raise NotEmpty(repr(new_name))
            if target is not None:
                self._drop(new_parent, new_name)
            del self._nodes[parent].children[name]
        self._nodes[new_parent].children[new_name] = node

    async def link(self, ino: int, new_parent: int, new_name: bytes, caller: Caller) -> Attr:
        node = self._nodes[ino]
        self._dir(new_parent).children[new_name] = node
        node.nlink += 1
        return self._looked_up(node)

    def _open(self, node: Node, flags: int) -> Opened:
        if flags & os.O_TRUNC:
            node.data.clear()
        fh = max(self._handles, default=0) + 1
        self._handles[fh] = (node, flags)
        return Opened(fh, keep_cache=not flags & os.O_TRUNC)

    async def open(self, ino: int, flags: int, caller: Caller) -> Opened:
        return self._open(self._nodes[ino], flags)

    async def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Opened, Attr]:
        node = self._add(parent, name, stat.S_IFREG | mode & ~caller.umask, caller)
        return self._open(node, flags), self._looked_up(node)

    async def read(self, fh: int, offset: int, length: int) -> bytes | memoryview:
        data = self._handles[fh][0].data[offset : offset + length]
        return memoryview(data)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        self._count("write")
        node = self._handles[fh][0]
        node.data.extend(bytes(max(0, offset - len(node.data))))
        node.data[offset : offset + len(data)] = data
        node.touch()
        return len(data)

    async def flush(self, fh: int) -> None:
        self._count("flush")

    async def release(self, fh: int) -> None:
        del self._handles[fh]

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._count("fdatasync" if datasync else "fsync")

    async def opendir(self, ino: int, caller: Caller) -> int:
        fh = max(self._listings, default=0) + 1
        self._listings[fh] = sorted(self._dir(ino).children.items())
        return fh

    async def readdir(self, fh: int, start: int) -> Iterable[tuple[int, bytes, Attr]]:
        entries = self._listings[fh]
        return ((i + 1, entries[i][0], self._attr(entries[i][1])) for i in range(start, len(entries)))

    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    async def fsyncdir(self, fh: int) -> None:
        self._count("fsyncdir")

    async def statfs(self) -> Statfs:
        return Statfs(4096, 1000, 500, 100, 50, 255)

    async def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None:
        self._nodes[ino].xattrs[name] = value

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        self._count("getxattr")
        try:
            return self._nodes[ino].xattrs[name]
        except KeyError:
            raise NotFound(repr(name)) from None

    async def listxattr(self, ino: int) -> Sequence[bytes]:
        return sorted(self._nodes[ino].xattrs)

    async def removexattr(self, ino: int, name: bytes, caller: Caller) -> None:
        if self._nodes[ino].xattrs.pop(name, None) is None:
            raise NotFound(repr(name))

    def dump(self, directory: Path) -> None:
        """Writes the tree's regular files out, as a drain would."""
        self._dump(self.root, directory)

    def _dump(self, node: Node, path: Path) -> None:
        if stat.S_ISDIR(node.mode):
            path.mkdir(exist_ok=True)
            for name, child in node.children.items():
                self._dump(child, path / os.fsdecode(name))
        elif stat.S_ISREG(node.mode):
            path.write_bytes(node.data)


class FakeMount:
    """The fake file system with what belongs to its mount. Drains by writing the files to a folder."""

    read_only = False

    def __init__(self, drained: Path, *, drain_s: float = 0.0) -> None:
        self.filesystem = FakeFileSystem(os.getuid(), os.getgid())
        self._drained = drained
        self._drain_s = drain_s
        self._log: list[str] = []

    @property
    def commands(self) -> Mapping[str, Command]:
        return {
            "echo": self._echo,
            "fail": self._fail,
            "bug": self._bug,
            "slow": self._slow,
            "calls": self._calls,
            "let-go": self._let_go,
        }

    def progress(self) -> Mapping[str, Any]:
        return {"uploaded_bytes": 7}

    async def drain(self, timeout_s: float) -> DrainReport:
        if timeout_s == 0:
            return DrainReport(3, 300, "told not to wait")
        await trio.sleep(self._drain_s)
        self.filesystem.dump(self._drained)
        return DrainReport()

    async def aclose(self) -> None:
        (self._drained.parent / "closed").touch()

    async def _echo(self, args: dict[str, Any]) -> dict[str, Any]:
        return args

    async def _fail(self, args: dict[str, Any]) -> dict[str, Any]:
        raise AlreadyExists("there is one already")

    async def _bug(self, args: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("oops")

    async def _slow(self, args: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep(args["s"])
        await trio.Path(args["touch"]).touch()
        return {"slept": args["s"]}

    async def _let_go(self, args: dict[str, Any]) -> dict[str, Any]:
        self.filesystem.held.set()
        return {}

    async def _calls(self, args: dict[str, Any]) -> dict[str, Any]:
        return dict(self.filesystem.calls)
