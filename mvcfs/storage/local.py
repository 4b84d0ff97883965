"""A store in a local folder (or on any file system that is mounted there), with the same promises as HDFS.

Files are written under a hidden temporary name, forced to disk, and given their name by an operation that fails if the
name is taken: `renameat2(RENAME_NOREPLACE)`, or where the file system lacks it `link` + `unlink` (directories: `mkdir` of
the target, then a rename onto the empty directory). A crash leaves a hidden temporary file at worst.

No symbolic link inside the store is ever followed: every path is walked from the root, a directory at a time. The root
itself may be one.

Threading: all system calls are in threads, bulk data and metadata apart; nothing is shared between calls. A system call
can't be given up: while a disk hangs, so do its callers, whatever their deadline.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import trio

from mvcfs.errors import (
    AlreadyExists,
    CorruptData,
    InvalidArgument,
    IsADirectory,
    LimitExceeded,
    MvcfsError,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    PermissionDenied,
    ReadOnly,
    StorageError,
    Transient,
)
from mvcfs.storage.config import DEFAULT_BLOCK_BYTES
from mvcfs.storage.local_publish import Unfinished, publish
from mvcfs.storage.paths import check_identity, check_range, is_temporary, split, split_child
from mvcfs.storage.protocol import Space, StoreEntry, Writer
from mvcfs.types import SELF, Identity

T = TypeVar("T")

_METADATA_THREADS = 8
_BULK_THREADS = 6
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_ERRORS: dict[int, type[MvcfsError]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.ELOOP: CorruptData,
    errno.EEXIST: AlreadyExists,
    errno.ENOTEMPTY: NotEmpty,
    errno.EISDIR: IsADirectory,
    errno.EINVAL: InvalidArgument,
    errno.ENAMETOOLONG: NameTooLong,
    errno.ENOSPC: LimitExceeded,
    errno.EDQUOT: LimitExceeded,
    errno.EFBIG: LimitExceeded,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.EROFS: ReadOnly,
    errno.EAGAIN: Transient,
    errno.EINTR: Transient,
    errno.ENOMEM: Transient,
    errno.EMFILE: Transient,
    errno.ENFILE: Transient,
}
"""What a system call's error means. A parent that is no directory counts as missing, as HDFS has it."""


def translate(error: OSError, about: str) -> MvcfsError:
    """The error of the protocol for one of the operating system; `about` is store and path, for the message."""
    kind = _ERRORS.get(error.errno or 0, StorageError)
    return kind(f"{about}: {os.strerror(error.errno) if error.errno else error}")


class LocalStorage:
    """The files below `root`. The root must not be changed by anything but mvcfs."""

    def __init__(self, root: Path, *, block_bytes: int = DEFAULT_BLOCK_BYTES):
        self._root = root
        self._block_bytes = block_bytes
        self._metadata = trio.CapacityLimiter(_METADATA_THREADS)
        self._bulk = trio.CapacityLimiter(_BULK_THREADS)

    @property
    def url(self) -> str:
        """The store's address."""
        return f"file://{self._root}"

    @property
    def block_bytes(self) -> int:
        """The size that no pack exceeds."""
        return self._block_bytes

    async def stat(self, path: str, *, identity: Identity = SELF) -> StoreEntry:
        """What is at `path`."""
        check_identity(identity, self.url)
        return await self._run(path, lambda: self._stat(path))

    async def list_dir(self, path: str, *, identity: Identity = SELF) -> list[StoreEntry]:
        """The names in a directory, sorted."""
        check_identity(identity, self.url)
        return await self._run(path, lambda: self._list(path))

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        """The bytes of a range, all of them."""
        check_identity(identity, self.url)
        check_range(path, offset, length)
        return await self._run(path, lambda: self._read(path, offset, length, None), self._bulk)

    async def read_file(self, path: str, *, max_bytes: int, identity: Identity = SELF) -> bytes:
        """A whole file of at most `max_bytes`."""
        check_identity(identity, self.url)
        return await self._run(path, lambda: self._read(path, 0, None, max_bytes), self._bulk)

    async def create(self, path: str, *, identity: Identity = SELF) -> Writer:
        """Starts a new file under a hidden name; its own name is taken at `close`."""
        check_identity(identity, self.url)
        return _LocalWriter(self._about(path), await self._run(path, lambda: self._begin(path)), self._bulk)

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        """Makes a new file with `data`."""
        check_identity(identity, self.url)

        def write() -> None:
            unfinished = self._begin(path)
            try:
                unfinished.write(data)
                unfinished.publish()
            finally:
                unfinished.discard()

        await self._run(path, write, self._bulk)

    async def rename(self, source: str, target: str, *, identity: Identity = SELF) -> None:
        """Moves a file or directory to a free name."""
        check_identity(identity, self.url)
        await self._run(f"{source} -> {target}", lambda: self._rename(source, target))

    async def mkdir(self, path: str, *, parents: bool = False, identity: Identity = SELF) -> None:
        """Makes a directory; the root only with `parents`."""
        check_identity(identity, self.url)
        await self._run(path, lambda: self._mkdir_all(path) if parents else self._mkdir(path))

    async def delete(self, path: str, *, recursive: bool = False, identity: Identity = SELF) -> None:
        """Removes a file, an empty directory, or with `recursive` a tree."""
        check_identity(identity, self.url)
        await self._run(path, lambda: self._delete(path, recursive))

    async def space(self, *, identity: Identity = SELF) -> Space:
        """Room of the file system that holds the root."""
        check_identity(identity, self.url)

        def measure() -> Space:
            found = os.statvfs(self._root)
            return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

        return await self._run("", measure)

    async def aclose(self) -> None:
        """Nothing is held."""
        await trio.lowlevel.checkpoint()

    async def _run(self, path: str, function: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
        return await _translated(self._about(path), function, limiter or self._metadata)

    def _about(self, path: str) -> str:
        return f"{self.url}: {path}" if path else self.url

    # -- in threads -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _directory(self, segments: tuple[str, ...]) -> Iterator[int]:
        """A descriptor of a directory, reached without following links."""
        fd = os.open(self._root, _DIRECTORY & ~os.O_NOFOLLOW)
        try:
            for segment in segments:
                below = os.open(segment, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _stat(self, path: str) -> StoreEntry:
        segments = split(path)
        if not segments:
            with self._directory(()) as fd:
                return StoreEntry("", True, 0, os.fstat(fd).st_mtime_ns)
        with self._directory(segments[:-1]) as fd:
            found = os.stat(segments[-1], dir_fd=fd, follow_symlinks=False)
        entry = _entry(segments[-1], found)
        if entry is None:
            raise CorruptData(f"{path} in the store is neither a file nor a directory")
        return entry

    def _list(self, path: str) -> list[StoreEntry]:
        segments = split(path)
        entries = []
        try:
            with self._directory(segments) as fd, os.scandir(fd) as found:
                for item in found:
                    if is_temporary(item.name):
                        continue
                    with contextlib.suppress(FileNotFoundError):  # removed since the listing named it
                        entry = _entry(item.name, item.stat(follow_symlinks=False))
                        entries += [entry] if entry else []
        except NotADirectoryError:
            if self._stat(path).is_dir:
                raise
            raise NotADirectory(f"{path} is a file") from None
        return sorted(entries, key=lambda entry: entry.name)

    def _read(self, path: str, offset: int, length: int | None, max_bytes: int | None) -> bytes:
        segments = split_child(path)
        with self._directory(segments[:-1]) as directory:
            fd = os.open(segments[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise IsADirectory(f"{path} is no file")
            if max_bytes is not None and found.st_size > max_bytes:
                raise LimitExceeded(f"{path}: {found.st_size} bytes are more than the {max_bytes} expected at most")
            wanted = found.st_size if length is None else length
            if offset + wanted > found.st_size:
                raise CorruptData(f"{path} has {found.st_size} bytes, {wanted} were to be read at {offset}")
            return _pread_all(fd, wanted, offset, path)
        finally:
            os.close(fd)

    def _begin(self, path: str) -> Unfinished:
        segments = split_child(path)
        with self._directory(segments[:-1]) as directory:
            with contextlib.suppress(FileNotFoundError):
                os.stat(segments[-1], dir_fd=directory, follow_symlinks=False)
                raise AlreadyExists(f"{path} is there already")
            return Unfinished(directory, segments[-1], path)

    def _rename(self, source: str, target: str) -> None:
        old, new = split_child(source), split_child(target)
        with self._directory(old[:-1]) as old_fd, self._directory(new[:-1]) as new_fd:
            publish(old_fd, old[-1], new_fd, new[-1])
            os.fsync(new_fd)
            os.fsync(old_fd)

    def _mkdir(self, path: str) -> None:
        segments = split_child(path)
        with self._directory(segments[:-1]) as fd:
            os.mkdir(segments[-1], 0o755, dir_fd=fd)
            os.fsync(fd)

    def _mkdir_all(self, path: str) -> None:
        segments = split(path)
        self._root.mkdir(parents=True, exist_ok=True)
        for depth in range(1, len(segments) + 1):
            try:
                self._mkdir("/".join(segments[:depth]))
            except FileExistsError:
                if not self._stat("/".join(segments[:depth])).is_dir:
                    raise

    def _delete(self, path: str, recursive: bool) -> None:
        segments = split_child(path)
        with self._directory(segments[:-1]) as fd:
            found = os.stat(segments[-1], dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(segments[-1], dir_fd=fd)
            elif recursive:
                shutil.rmtree(segments[-1], dir_fd=fd)
            else:
                os.rmdir(segments[-1], dir_fd=fd)
            os.fsync(fd)


class _LocalWriter:
    """The protocol's writer over an unfinished file."""

    def __init__(self, about: str, unfinished: Unfinished, limiter: trio.CapacityLimiter):
        self._about = about
        self._unfinished = unfinished
        self._limiter = limiter

    async def write(self, data: bytes | bytearray) -> None:
        """Appends `data`."""
        await _translated(self._about, lambda: self._unfinished.write(data), self._limiter)

    async def close(self) -> None:
        """Makes the file durable and visible."""

        def close() -> None:
            try:
                self._unfinished.publish()
            finally:
                self._unfinished.discard()

        await _translated(self._about, close, self._limiter)

    async def abort(self) -> None:
        """Removes what was written."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._unfinished.discard, limiter=self._limiter)


async def _translated(about: str, function: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    """Runs a blocking function in a thread, with its errors made those of the protocol."""
    try:
        return await trio.to_thread.run_sync(function, limiter=limiter)
    except OSError as error:
        raise translate(error, about) from error


def _entry(name: str, found: os.stat_result) -> StoreEntry | None:
    """The entry for a file or directory; None for anything else, which no store has."""
    if stat.S_ISDIR(found.st_mode):
        return StoreEntry(name, True, 0, found.st_mtime_ns)
    return StoreEntry(name, False, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _pread_all(fd: int, length: int, offset: int, path: str) -> bytes:
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise CorruptData(f"{path} ended at {offset + len(data)} while it was read")
        data += more
    return data
