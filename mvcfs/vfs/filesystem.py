"""The file system as the kernel's requests see it: inode numbers, handles, and the operations on them.

Thin: it finds inodes and handles and hands on; what names and bytes mean is in the kinds of inode. It knows nothing of FUSE,
so tests drive it directly. Threading: trio thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from mvcfs.errors import (
    CorruptData,
    CrossDevice,
    InvalidArgument,
    IsADirectory,
    NoAttribute,
    NotADirectory,
    NotFound,
    NotPermitted,
    ReadOnly,
    StorageError,
)
from mvcfs.types import Caller, Content
from mvcfs.vfs.attr import Attr, Opened, SetAttr, Statfs
from mvcfs.vfs.inode import Inode, InodeTable
from mvcfs.vfs.snapshot import SnapshotFile
from mvcfs.vfs.sources import ContentSource
from mvcfs.vfs.working_tree.node import Node

_WRITABLE = os.O_WRONLY | os.O_RDWR
# Entries answered to one request of a listing: about what fits the kernel's buffer.
_LISTING_PART = 256


class Shown(Protocol):
    """What shows mvcfs's own attributes of an inode (`user.mvcfs.*`)."""

    async def shown_xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """The attributes by name."""
        ...


class Space(Protocol):
    """What answers statfs."""

    async def statfs(self) -> Statfs:
        """Room of the store."""
        ...


@dataclass(slots=True)
class FileHandle:
    """An open file.

    Attributes:
        inode: What is open.
        writable: Whether it may be written.
        append: Whether each write goes to the end.
        caller: Who opened it.
        source: Reader of the stored content as it was when it was opened.
        wrote: Whether anything was written through it.
    """

    inode: Inode
    writable: bool
    append: bool
    caller: Caller
    source: ContentSource | None = None
    wrote: bool = False


@dataclass(slots=True)
class DirHandle:
    """An open directory with the listing it was opened with."""

    inode: Inode
    names: Sequence[bytes] | None = None
    answered: dict[int, Inode] = field(default_factory=dict)


class FileSystem:
    """All operations of a mounted store."""

    def __init__(self, root: Inode, space: Space, shown: Shown | None = None) -> None:
        """Makes the file system.

        Args:
            root: The root directory: of the store, a model, a branch or a version.
            space: Answers statfs.
            shown: Shows `user.mvcfs.*`; None where extended attributes are off.
        """
        self.table = InodeTable(root)
        self._space = space
        self._shown = shown
        self._handles: dict[int, FileHandle | DirHandle] = {}
        self._listed: dict[int, tuple[Inode, int]] = {}
        self._next_handle = 1

    @property
    def open_handles(self) -> int:
        """Number of open files and directories."""
        return len(self._handles)

    # -- names -------------------------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes, caller: Caller) -> Attr:
        """The attributes of a name; counts a lookup."""
        directory = self.table.get(parent)
        inode = await directory.child(name)
        await inode.refreshed()
        return self._answer(directory, inode)

    def _answer(self, directory: Inode, inode: Inode) -> Attr:
        self.table.remember(inode)
        attr = inode.attr()
        timeout = directory.entry_timeout_s()
        return attr if timeout is None else replace(attr, entry_timeout_s=min(timeout, attr.entry_timeout_s))

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """Takes lookups back."""
        for ino, count in counts:
            self.table.forget(ino, count)

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attr:
        """Makes a directory, a branch or a model."""
        directory = self.table.get(parent)
        return self._answer(directory, await directory.mkdir(name, mode, caller))

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attr:
        """Makes a file, fifo, socket or device."""
        directory = self.table.get(parent)
        return self._answer(directory, await directory.mknod(name, mode, rdev, caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attr:
        """Makes a symbolic link."""
        directory = self.table.get(parent)
        return self._answer(directory, await directory.symlink(name, target, caller))

    async def link(self, ino: int, new_parent: int, new_name: bytes, caller: Caller) -> Attr:
        """Gives a file another name, inside its branch."""
        node, directory = self.table.get(ino), self.table.get(new_parent)
        if not isinstance(directory, Node):
            raise directory.refuse("link")
        if not isinstance(node, Node) or node.tree is not directory.tree:
            raise CrossDevice("hard links stay inside one branch")
        return self._answer(directory, await directory.tree.namespace.link(node, directory, new_name, caller))

    async def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """Removes a name of a file."""
        await self.table.get(parent).unlink(name, caller)

    async def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Removes an empty directory, branch or model."""
        await self.table.get(parent).rmdir(name, caller)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None:
        """Moves a name."""
        source, target = self.table.get(parent), self.table.get(new_parent)
        if isinstance(source, Node) and isinstance(target, Node):
            if source.tree.model is not target.tree.model:
                raise CrossDevice("two models share no data")
            await source.tree.namespace.rename(source, name, target, new_name, flags, caller)
            return
        for side in (source, target):
            if isinstance(side.refuse("rename"), ReadOnly):
                raise side.refuse("rename")
        if isinstance(source, Node) or isinstance(target, Node):
            raise CrossDevice("files can't move in or out of branches, nor branches into files")
        await source.rename_child(name, target, new_name, flags)

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        return await self.table.get(ino).readlink()

    # -- attributes ----------------------------------------------------------------------------------------------------

    async def getattr(self, ino: int) -> Attr:
        """Attributes of an inode."""
        inode = self.table.get(ino)
        await inode.refreshed()
        return self.table.attr(inode)

    async def setattr(self, ino: int, change: SetAttr, fh: int | None, caller: Caller) -> Attr:
        """Changes attributes; a change of size needs no open handle."""
        inode = self.table.get(ino)
        await inode.set_attr(change, caller)
        if fh is not None and change.size is not None:
            handle = self._handles.get(fh)
            if isinstance(handle, FileHandle):
                handle.wrote = True
        return self.table.attr(inode)

    async def statfs(self) -> Statfs:
        """Room of the store."""
        return await self._space.statfs()

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """An extended attribute; NoAttribute."""
        for key, value in (await self._all_xattrs(ino)).items():
            if key == name:
                return value
        raise NoAttribute(f"no attribute {name!r}")

    async def listxattr(self, ino: int) -> list[bytes]:
        """The names of all extended attributes."""
        return list(await self._all_xattrs(ino))

    async def _all_xattrs(self, ino: int) -> dict[bytes, bytes]:
        inode = self.table.get(ino)
        found = dict(inode.xattrs())
        if self._shown is not None:
            found.update(await self._shown.shown_xattrs(inode))
        return found

    async def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Sets a user extended attribute."""
        if name.startswith(b"user.mvcfs."):
            raise NotPermitted("user.mvcfs.* attributes are shown by mvcfs and can't be set")
        await self.table.get(ino).set_xattr(name, value)

    async def removexattr(self, ino: int, name: bytes, caller: Caller) -> None:
        """Removes a user extended attribute."""
        inode = self.table.get(ino)
        if not any(key == name for key, _ in inode.xattrs()):
            raise NoAttribute(f"no attribute {name!r}")
        await inode.set_xattr(name, None)

    # -- files -------------------------------------------------------------------------------------------------------

    def _add_handle(self, handle: FileHandle | DirHandle) -> int:
        fh = self._next_handle
        self._next_handle += 1
        self._handles[fh] = handle
        self.table.hold(handle.inode)
        return fh

    def _file(self, fh: int) -> FileHandle:
        handle = self._handles.get(fh)
        if not isinstance(handle, FileHandle):
            raise InvalidArgument(f"file handle {fh} is not open")
        return handle

    async def open(self, ino: int, flags: int, caller: Caller) -> Opened:
        """Opens a file."""
        inode = self.table.get(ino)
        if inode.is_dir:
            raise IsADirectory(f"{inode.describe()} is a directory")
        writable = bool(flags & _WRITABLE)
        if isinstance(inode, SnapshotFile):
            if writable or flags & os.O_TRUNC:
                raise inode.refuse("open for writing")
            return self._open(inode, inode.content, flags, caller, keep_cache=True)
        if not isinstance(inode, Node):
            raise NotPermitted(f"{inode.describe()} is no file")
        if writable:
            inode.tree.check_writable(inode)
        opened = self._open(inode, inode.content if inode.staged is None else None, flags, caller, keep_cache=True)
        if writable:
            inode.writers += 1
        if flags & os.O_TRUNC and writable:
            try:
                await inode.tree.data.truncate(inode, 0)
            except BaseException:
                await self.release(opened.fh)
                raise
            self._file(opened.fh).wrote = True
        return opened

    def _open(self, inode: Inode, content: Content | None, flags: int, caller: Caller, *, keep_cache: bool) -> Opened:
        handle = FileHandle(inode, bool(flags & _WRITABLE), bool(flags & os.O_APPEND), caller)
        data = inode.data if isinstance(inode, SnapshotFile) else inode.tree.model if isinstance(inode, Node) else None
        if content is not None and data is not None:
            handle.source = data.source(content, windowed=True)
        return Opened(self._add_handle(handle), keep_cache=keep_cache)

    async def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Opened, Attr]:
        """Makes and opens a file."""
        directory = self.table.get(parent)
        inode = await directory.mknod(name, mode, 0, caller)
        attr = self._answer(directory, inode)
        assert isinstance(inode, Node)
        opened = self._open(inode, None, flags, caller, keep_cache=True)
        handle = self._file(opened.fh)
        if handle.writable:
            inode.writers += 1
            handle.wrote = True
        return opened, attr

    async def read(self, fh: int, offset: int, length: int) -> bytes | memoryview:
        """Reads a range, cut at the end of the file."""
        handle = self._file(fh)
        try:
            return await self._read(handle, offset, length)
        except (CorruptData, StorageError) as error:
            raise type(error)(f"{handle.inode.describe()}: {error}") from error

    async def _read(self, handle: FileHandle, offset: int, length: int) -> bytes | memoryview:
        inode = handle.inode
        if isinstance(inode, Node):
            return await inode.tree.data.read(inode, offset, length, handle.source)
        if handle.source is None:
            return b""
        return await handle.source.read_view(offset, length)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Writes at an offset (the kernel has applied O_APPEND already)."""
        handle = self._file(fh)
        inode = handle.inode
        if not isinstance(inode, Node):
            raise inode.refuse("write")
        await inode.tree.data.write(inode, offset, data)
        handle.wrote = True
        return len(data)

    async def flush(self, fh: int) -> None:
        """A descriptor of the handle was closed: what it wrote is complete as far as its program is concerned."""
        handle = self._file(fh)
        if handle.wrote and isinstance(handle.inode, Node):
            handle.inode.tree.save_if_newer(handle.inode)

    async def release(self, fh: int) -> None:
        """The last descriptor and mapping of a handle are gone."""
        handle = self._file(fh)
        del self._handles[fh]
        inode = handle.inode
        if handle.source is not None:
            handle.source.close()
        if isinstance(inode, Node) and handle.writable:
            inode.writers -= 1
            if handle.wrote:
                inode.quiet_since = time.monotonic()
                inode.tree.save_if_newer(inode)
            # A version may have left out what another handle wrote, because this one was open.
            inode.tree.data.note_change(inode, handle.caller)
        self.table.unhold(inode)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Makes a file durable on this host."""
        inode = self._file(fh).inode
        if isinstance(inode, Node):
            await inode.tree.data.fsync(inode)

    # -- directories -----------------------------------------------------------------------------------------------------

    async def opendir(self, ino: int, caller: Caller) -> int:
        """Opens a directory."""
        inode = self.table.get(ino)
        if not inode.is_dir:
            raise NotADirectory(f"{inode.describe()} is not a directory")
        return self._add_handle(DirHandle(inode))

    async def readdir(self, fh: int, start: int) -> list[tuple[int, bytes, Attr]]:
        """Some entries of a listing from position `start`; none at its end. Position 0 lists anew (rewinddir).

        Returns:
            For each entry the position after it, its name and its attributes. An entry counts as looked up only when
            `remember` is called for it before the next request of this handle.
        """
        handle = self._handles.get(fh)
        if not isinstance(handle, DirHandle):
            raise InvalidArgument(f"directory handle {fh} is not open")
        directory = handle.inode
        if start == 0 or handle.names is None:
            handle.names = await directory.names()
        self._drop_unused(handle)
        found: list[tuple[int, bytes, Attr]] = []
        timeout = directory.entry_timeout_s()
        for position in range(start, min(len(handle.names), start + _LISTING_PART)):
            name = handle.names[position]
            inode = await directory.child_of_listing(name)
            if inode is None:
                continue
            attr = inode.attr()
            if timeout is not None:
                attr = replace(attr, entry_timeout_s=min(timeout, attr.entry_timeout_s))
            if inode.ino not in handle.answered:
                handle.answered[inode.ino] = inode
                self._listed[inode.ino] = (inode, self._listed.get(inode.ino, (inode, 0))[1] + 1)
            found.append((position + 1, name, attr))
        if not found and start + _LISTING_PART < len(handle.names):
            return await self.readdir(fh, start + _LISTING_PART)
        return found

    def remember(self, ino: int) -> None:
        """Counts a lookup of an entry that the kernel took from a listing."""
        if ino in self._listed:
            self.table.remember(self._listed[ino][0])

    def _drop_unused(self, handle: DirHandle) -> None:
        for inode in handle.answered.values():
            _, listings = self._listed.pop(inode.ino)
            if listings > 1:
                self._listed[inode.ino] = (inode, listings - 1)
            elif not inode.lookups and not inode.handles:
                inode.forgotten()
        handle.answered.clear()

    async def releasedir(self, fh: int) -> None:
        """Closes a directory."""
        handle = self._handles.pop(fh, None)
        if isinstance(handle, DirHandle):
            self._drop_unused(handle)
            self.table.unhold(handle.inode)

    async def fsyncdir(self, fh: int) -> None:
        """Makes a directory's names durable on this host."""
        handle = self._handles.get(fh)
        if handle is None:
            raise NotFound(f"directory handle {fh} is not open")
        if isinstance(handle.inode, Node):
            await handle.inode.tree.data.fsync(handle.inode)
