"""Giving a local file or directory its name, exclusively and durably.

Threading: blocking functions for worker threads; an `Unfinished` is used in one thread at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat

from mvcfs.errors import StorageError
from mvcfs.storage.paths import temporary_name

_RENAME_NOREPLACE = 1
_NO_SUCH_CALL = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


class Unfinished:
    """A file that has no name yet. Used in one thread at a time."""

    def __init__(self, directory: int, name: str, path: str):
        self._name = name
        self._path = path
        self._temporary = temporary_name()
        self._directory = os.dup(directory)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._temporary, flags, 0o644, dir_fd=directory)
        except BaseException:
            os.close(self._directory)
            raise
        self._open = True
        self._named = False

    def write(self, data: bytes | bytearray) -> None:
        """Appends all of it."""
        if not self._open:
            raise StorageError(f"{self._path}: the writer is closed")
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def publish(self) -> None:
        """Makes it durable, then visible, then the name durable."""
        if not self._open:
            raise StorageError(f"{self._path}: the writer is closed")
        os.fsync(self._fd)
        publish(self._directory, self._temporary, self._directory, self._name)
        self._named = True
        os.fsync(self._directory)

    def discard(self) -> None:
        """Closes it and, unless it was published, removes it. Never raises; may be repeated."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError):
            os.close(self._fd)
        if not self._named:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self._directory)


def publish(old_directory: int, old: str, new_directory: int, new: str) -> None:
    """Renames without ever replacing; of many who try at once one succeeds."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    if rename is not None:
        result = rename(old_directory, os.fsencode(old), new_directory, os.fsencode(new), _RENAME_NOREPLACE)
        code = ctypes.get_errno()
        if result == 0:
            return
        if code not in _NO_SUCH_CALL:
            raise OSError(code, os.strerror(code), new)
    publish_portably(old_directory, old, new_directory, new)


def publish_portably(old_directory: int, old: str, new_directory: int, new: str) -> None:
    """The same for file systems without RENAME_NOREPLACE, which NFS is one of."""
    if not stat.S_ISDIR(os.stat(old, dir_fd=old_directory, follow_symlinks=False).st_mode):
        os.link(old, new, src_dir_fd=old_directory, dst_dir_fd=new_directory, follow_symlinks=False)
        os.unlink(old, dir_fd=old_directory)
        return
    os.mkdir(new, dir_fd=new_directory)
    try:
        os.rename(old, new, src_dir_fd=old_directory, dst_dir_fd=new_directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(new, dir_fd=new_directory)
        raise
