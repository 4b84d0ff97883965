"""What a mount needs of the file system it shows: protocols, so that the adapter is tested without one.

`mvcfs.vfs.filesystem.FileSystem` satisfies `ServedFileSystem`. All methods are called on the trio thread; inode and
handle numbers are ints, names are bytes. Errors are those of `mvcfs.errors`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mvcfs.types import Caller
from mvcfs.vfs.attr import Attr, Opened, SetAttr, Statfs

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""A command of the control socket: JSON in, JSON out, errors of `mvcfs.errors`."""


class ServedFileSystem(Protocol):
    """A POSIX file system without a kernel.

    Every Attr that `lookup`, `mknod`, `mkdir`, `symlink`, `link` or `create` returns counts as one lookup of its inode,
    which the kernel gives back by `forget`. Entries of `readdir` count only once `remember` was called for them.
    """

    async def lookup(self, parent: int, name: bytes, caller: Caller) -> Attr:
        """Finds a name; NotFound if there is none."""

    def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        """Gives back lookups: pairs of inode and how many."""

    def remember(self, ino: int) -> None:
        """Counts one lookup of an inode that a listing showed the kernel."""

    async def getattr(self, ino: int) -> Attr:
        """Returns the attributes of an inode."""

    async def setattr(self, ino: int, change: SetAttr, fh: int | None, caller: Caller) -> Attr:
        """Changes attributes, of an open file if `fh` is given."""

    async def readlink(self, ino: int) -> bytes:
        """Returns the target of a symbolic link."""

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attr:
        """Makes a file, fifo, socket or device."""

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attr:
        """Makes a directory."""

    async def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """Removes a name of something that is no directory."""

    async def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Removes an empty directory."""

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attr:
        """Makes a symbolic link."""

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None:
        """Moves a name; `flags` are those of renameat2."""

    async def link(self, ino: int, new_parent: int, new_name: bytes, caller: Caller) -> Attr:
        """Gives a file one more name."""

    async def open(self, ino: int, flags: int, caller: Caller) -> Opened:
        """Opens a file; O_TRUNC and O_APPEND may be among the flags."""

    async def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Opened, Attr]:
        """Makes a regular file and opens it."""

    async def read(self, fh: int, offset: int, length: int) -> bytes | memoryview:
        """Returns `length` bytes, fewer only at the end of the file."""

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Writes all of `data` and returns its length."""

    async def flush(self, fh: int) -> None:
        """One descriptor of the handle was closed."""

    async def release(self, fh: int) -> None:
        """The last descriptor of the handle was closed."""

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Makes the file durable."""

    async def opendir(self, ino: int, caller: Caller) -> int:
        """Opens a directory for listing and returns its handle."""

    async def readdir(self, fh: int, start: int) -> Iterable[tuple[int, bytes, Attr]]:
        """Returns the entries after the one whose next id was `start` (0: from the first), each with its own next id."""

    async def releasedir(self, fh: int) -> None:
        """Closes a directory handle."""

    async def fsyncdir(self, fh: int) -> None:
        """Makes the names of a directory durable."""

    async def statfs(self) -> Statfs:
        """Returns the size and free space of the store."""

    async def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Sets an extended attribute."""

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """Returns an extended attribute; NotFound if it isn't set."""

    async def listxattr(self, ino: int) -> Sequence[bytes]:
        """Returns the names of the extended attributes."""

    async def removexattr(self, ino: int, name: bytes, caller: Caller) -> None:
        """Removes an extended attribute; NotFound if it isn't set."""


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What an unmount left behind in the overlay.

    Attributes:
        left_files: Changed files that are in no durable version yet.
        left_bytes: Their bytes.
        reason: Why something is left, empty if nothing went wrong.
    """

    left_files: int = 0
    left_bytes: int = 0
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything is in the store."""
        return self.left_files == 0 and not self.reason

    def as_json(self) -> dict[str, Any]:
        """Returns the report as the control socket shows it."""
        return {
            "left_files": self.left_files,
            "left_bytes": self.left_bytes,
            "reason": self.reason,
            "complete": self.complete,
        }


class MountedFileSystem(Protocol):
    """A file system with what belongs to its mount."""

    @property
    def filesystem(self) -> ServedFileSystem:
        """What the kernel sees."""

    @property
    def commands(self) -> Mapping[str, Command]:
        """What the control socket serves beside its own commands."""

    @property
    def read_only(self) -> bool:
        """Whether nothing in it can be changed: the kernel is told so."""

    def progress(self) -> Mapping[str, Any]:
        """Returns, at once, how far uploads and commits are: shown by commands that take their time."""

    async def drain(self, timeout_s: float) -> DrainReport:
        """Commits and uploads what is changed, for at most `timeout_s`; with 0 it only counts what is left.

        Called once the kernel has let go: handles that were never released count as closed. May be cancelled at any
        point without losing anything from the overlay.
        """

    async def aclose(self) -> None:
        """Gives back everything: tasks, files, the overlay's lock. Called on every way out."""
