"""What the file system's front sees of any inode, and the table of those the kernel knows.

Every kind of directory (the root, a model, a snapshot, a working tree) and of file is an `Inode`. An operation that a kind
does not have raises through `refuse`, so a kind says once why it can't be changed.

Invariants: an inode number belongs to one inode for as long as the process lives. An inode is in the table exactly while
the kernel holds lookups of it or a handle is open, and the root always. Threading: trio thread only.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import replace

from mvcfs.errors import InvalidArgument, MvcfsError, NotADirectory, NotFound, ReadOnly
from mvcfs.types import Caller
from mvcfs.vfs.attr import Attr, SetAttr

ROOT_INO = 1


class Inode:
    """One inode; the base of all kinds."""

    __slots__ = ("handles", "ino", "lookups")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.lookups = 0
        self.handles = 0

    def attr(self) -> Attr:
        """Attributes as `stat` shows them."""
        raise NotImplementedError

    def describe(self) -> str:
        """Where it is, for messages."""
        raise NotImplementedError

    def refuse(self, doing: str) -> MvcfsError:
        """The error for an operation that this kind doesn't have."""
        return ReadOnly(f"{self.describe()} can't be changed ({doing})")

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.attr().mode)

    def forgotten(self) -> None:
        """Called when the kernel and all handles let go."""

    async def child(self, name: bytes) -> Inode:
        """The inode a name of this directory stands for; NotFound."""
        raise NotADirectory(f"{self.describe()} is not a directory")

    async def names(self) -> Sequence[bytes]:
        """The names that a listing shows."""
        raise NotADirectory(f"{self.describe()} is not a directory")

    async def child_of_listing(self, name: bytes) -> Inode | None:
        """Like `child`, for a name that was listed; None if it is gone since."""
        try:
            return await self.child(name)
        except NotFound:
            return None

    def entry_timeout_s(self) -> float | None:
        """How long the names of this directory may be kept at most; None leaves it to what they stand for."""
        return None

    async def refreshed(self) -> None:
        """Brings attributes up to date that may have changed elsewhere."""

    async def look_again(self) -> None:
        """Takes in what names other hosts have made by now, where a name was not found."""

    async def set_attr(self, change: SetAttr, caller: Caller) -> None:
        """Changes attributes."""
        raise self.refuse("set attributes")

    async def mkdir(self, name: bytes, mode: int, caller: Caller) -> Inode:
        """Makes a directory."""
        raise self.refuse("mkdir")

    async def mknod(self, name: bytes, mode: int, rdev: int, caller: Caller) -> Inode:
        """Makes a file of any kind but a directory."""
        raise self.refuse("create")

    async def symlink(self, name: bytes, target: bytes, caller: Caller) -> Inode:
        """Makes a symbolic link."""
        raise self.refuse("symlink")

    async def unlink(self, name: bytes, caller: Caller) -> None:
        """Removes a name of a file."""
        raise self.refuse("unlink")

    async def rmdir(self, name: bytes, caller: Caller) -> None:
        """Removes an empty directory."""
        raise self.refuse("rmdir")

    async def rename_child(self, name: bytes, target: Inode, new_name: bytes, flags: int) -> None:
        """Renames a model or a branch; files are renamed by their working tree."""
        raise self.refuse("rename")

    async def readlink(self) -> bytes:
        """The target of a symbolic link."""
        raise InvalidArgument(f"{self.describe()} is not a symbolic link")

    def xattrs(self) -> Sequence[tuple[bytes, bytes]]:
        """User extended attributes that are kept with it."""
        return ()

    async def set_xattr(self, name: bytes, value: bytes | None) -> None:
        """Sets or (None) removes a user extended attribute."""
        raise self.refuse("set an extended attribute")


class InodeTable:
    """The inodes that the kernel or a handle holds, by number."""

    def __init__(self, root: Inode) -> None:
        """Knows the root.

        Args:
            root: The root of the mount, which the kernel calls 1 whatever its own number is, and never forgets.
        """
        self._root = root
        self._inodes: dict[int, Inode] = {}
        root.lookups += 1

    def __len__(self) -> int:
        return len(self._inodes)

    def get(self, ino: int) -> Inode:
        """The inode of a number that the kernel was given."""
        if ino == ROOT_INO:
            return self._root
        try:
            return self._inodes[ino]
        except KeyError:
            raise NotFound(f"inode {ino} is not known") from None

    def attr(self, inode: Inode) -> Attr:
        """An inode's attributes, with the number that the kernel has for it."""
        attr = inode.attr()
        return replace(attr, ino=ROOT_INO) if inode is self._root and attr.ino != ROOT_INO else attr

    def remember(self, inode: Inode) -> None:
        """Counts one lookup that the kernel was answered."""
        inode.lookups += 1
        self._inodes[inode.ino] = inode

    def forget(self, ino: int, count: int) -> None:
        """Takes lookups back."""
        inode = self._inodes.get(ino)
        if inode is None or inode is self._root:
            return
        inode.lookups = max(0, inode.lookups - count)
        self.release(inode)

    def hold(self, inode: Inode) -> None:
        """Counts an open handle."""
        inode.handles += 1
        self._inodes[inode.ino] = inode

    def unhold(self, inode: Inode) -> None:
        """Takes a handle back."""
        inode.handles -= 1
        self.release(inode)

    def release(self, inode: Inode) -> None:
        """Drops an inode that nobody holds."""
        if inode.lookups == 0 and inode.handles == 0 and inode is not self._root:
            self._inodes.pop(inode.ino, None)
            inode.forgotten()
