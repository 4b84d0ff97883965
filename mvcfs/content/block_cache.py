"""Chunks of large files on local disk, so that what was fetched once is not fetched from the store again.

One file a chunk, `<2 hex>/<64 hex>`, named by the chunk's BLAKE3; there is no index, so nothing is loaded at start and
nothing can disagree with the files. A file appears by a rename and is never changed afterwards. Nothing is synced:
after a power loss files may hold anything, so each is checked against its name at its first use after a start, and
removed if it lies. Losing the cache costs time, never data: no error of the local disk leaves this module.

Several processes of one user may share a folder: a file is whole from the moment it has its name, and one that is gone
is a miss. Each counts what others put only when it scans, which it does after putting an eighth of its bound; so n processes
may hold up to n eighths more than the bound for a while.

The bound is kept by removing the files used longest ago (modification times, touched on use) when puts reach it. Files
in the folder that don't look like the cache's own are never counted, read or removed, and symlinks are not followed.

Threading: methods are called on the trio thread; the work on files is done in threads by functions of values.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio
from blake3 import blake3

logger = logging.getLogger(__name__)

_CHUNK_NAME = re.compile(r"[0-9a-f]{64}")
_TEMPORARY_NAME = re.compile(r"tmp-[0-9a-f]{32}")
_FOLDER_NAME = re.compile(r"[0-9a-f]{2}")
_VERIFIED_MAX = 1 << 16
_TOUCH_AFTER_S = 60.0
_STALE_TEMPORARY_S = 3600.0
_PAUSE_AFTER_ERROR_S = 60.0
_TRIM_TO = 0.9
_READ_THREADS = 8
_WRITE_THREADS = 2


@dataclass(frozen=True, slots=True)
class _Found:
    data: bytes
    inode: int


@dataclass(frozen=True, slots=True)
class _Scan:
    used_bytes: int
    removed: int


class _Damaged(Exception):
    """A file that doesn't hold what its name says."""


class _NoRoom(Exception):
    """A write would take space of the local disk that is to be left alone."""


class BlockCache:
    """A bounded set of chunks on local disk. Without a folder, or with a bound of 0, it holds nothing."""

    def __init__(self, directory: Path | None, limit_bytes: int, min_free_bytes: int) -> None:
        """Makes the folder (mode 0700) if it isn't there; never raises on account of it.

        Args:
            directory: The cache's folder; None turns the cache off.
            limit_bytes: How many bytes of chunks it may hold.
            min_free_bytes: Free space of the local disk that the cache leaves to others.
        """
        self._root: Path | None = None
        self._limit = limit_bytes
        self._min_free = min_free_bytes
        self._used = 0
        self._put_since_scan = 0
        self._scanned = False
        self._trimming = False
        self._paused_until = 0.0
        self._warned = False
        self._verified: OrderedDict[bytes, int] = OrderedDict()
        self._readers = trio.CapacityLimiter(_READ_THREADS)
        self._writers = trio.CapacityLimiter(_WRITE_THREADS)
        if directory is not None and limit_bytes > 0:
            try:
                self._root = _prepare(directory)
            except OSError as error:
                logger.warning("no block cache: %s can't be used (%s)", directory, error)

    @property
    def used_bytes(self) -> int:
        """Bytes of the chunks held, as far as known; files of an earlier run count after the first `put` or `trim`."""
        return self._used

    @property
    def limit_bytes(self) -> int:
        """How many bytes of chunks it may hold."""
        return self._limit

    async def get(self, hash: bytes, length: int) -> bytes | None:
        """The chunk named `hash`, or None.

        Args:
            hash: BLAKE3 of the chunk, 32 bytes.
            length: The chunk's length; a file of another length is damaged.
        """
        if self._root is None:
            return None
        verified = self._verified.get(hash)
        try:
            found = await trio.to_thread.run_sync(_read, self._root, hash, length, verified, limiter=self._readers)
        except _Damaged as damage:
            logger.warning("block cache: %s; removed", damage)
            self._verified.pop(hash, None)
            self._used = max(0, self._used - length)
            return None
        except OSError:
            self._verified.pop(hash, None)
            return None
        self._verified[hash] = found.inode
        self._verified.move_to_end(hash)
        if len(self._verified) > _VERIFIED_MAX:
            self._verified.popitem(last=False)
        return found.data

    async def put(self, hash: bytes, data: bytes | memoryview) -> None:
        """Keeps a chunk that the caller has checked against `hash`; does nothing where that is not possible."""
        size = len(data)
        if self._root is None or size > self._limit or trio.current_time() < self._paused_until:
            return
        if not self._scanned or self._used + size > self._limit or self._put_since_scan > self._limit // 8:
            await self.trim()
        if self._used + size > self._limit:
            return
        self._used += size
        self._put_since_scan += size
        added = False
        try:
            added = await trio.to_thread.run_sync(_write, self._root, hash, data, self._min_free, limiter=self._writers)
            self._warned = False
        except _NoRoom:
            self._pause("the local disk is full up to the space that is left alone")
            await self.trim()
        except OSError as error:
            self._pause(str(error))
        finally:
            if not added:
                self._used = max(0, self._used - size)

    async def trim(self) -> None:
        """Counts what is there and removes the least recently used down to the bound; does nothing while one runs."""
        if self._root is None or self._trimming:
            return
        self._trimming = True
        before = self._used
        try:
            scan = await trio.to_thread.run_sync(_trim, self._root, self._limit, self._min_free, limiter=self._writers)
        except OSError as error:
            self._pause(str(error))
            return
        finally:
            self._trimming = False
        # Chunks put while the scan ran may have been seen or not: counting them keeps the error on the safe side.
        self._used = scan.used_bytes + max(0, self._used - before)
        self._put_since_scan = 0
        self._scanned = True

    def _pause(self, reason: str) -> None:
        self._paused_until = trio.current_time() + _PAUSE_AFTER_ERROR_S
        if not self._warned:
            self._warned = True
            logger.warning("block cache %s: nothing is added for now (%s)", self._root, reason)


def _prepare(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = directory.resolve()
    status = root.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to user {status.st_uid}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        root.chmod(0o700)
    return root


def _open_folder(root: Path, name: str) -> int:
    return os.open(root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _read(root: Path, hash: bytes, length: int, verified_inode: int | None) -> _Found:
    name = hash.hex()
    folder = _open_folder(root, name[:2])
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(name)
            data = os.pread(fd, length, 0) if status.st_size == length else b""
            good = len(data) == length and (verified_inode == status.st_ino or blake3(data).digest() == hash)
            if good:
                _touch(fd, status.st_mtime)
        finally:
            os.close(fd)
        if not good:
            _remove(folder, name)
            raise _Damaged(f"{root / name[:2] / name} doesn't hold the chunk that it is named for")
    finally:
        os.close(folder)
    return _Found(data, status.st_ino)


def _touch(fd: int, mtime: float) -> None:
    if abs(time.time() - mtime) > _TOUCH_AFTER_S:
        try:
            os.utime(fd)
        except OSError:
            return  # a read-only folder: the chunk is good all the same


def _remove(folder: int, name: str) -> bool:
    """Whether it is gone, by whomever: other processes may tidy the same folder."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(root: Path, hash: bytes, data: bytes | memoryview, min_free_bytes: int) -> bool:
    """Adds a file; False if it was there."""
    name = hash.hex()
    with suppress(FileExistsError):
        os.mkdir(root / name[:2], 0o700)
    folder = _open_folder(root, name[:2])
    try:
        if _is_there(folder, name, len(data)):
            return False
        disk = os.fstatvfs(folder)
        if disk.f_bavail * disk.f_frsize - len(data) < min_free_bytes:
            raise _NoRoom
        temporary = f"tmp-{secrets.token_hex(16)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            try:
                _write_all(fd, data)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            _remove(folder, temporary)
            raise
    finally:
        os.close(folder)
    return True


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _is_there(folder: int, name: str, length: int) -> bool:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == length


def _trim(root: Path, limit_bytes: int, min_free_bytes: int) -> _Scan:
    found: list[tuple[float, int, str]] = []
    with os.scandir(root) as folders:
        names = [entry.name for entry in folders if _FOLDER_NAME.fullmatch(entry.name)]
    for name in names:
        try:
            folder = _open_folder(root, name)
        except OSError:
            continue
        try:
            found += _scan_folder(folder, name)
        finally:
            os.close(folder)
    used = sum(size for _, size, _ in found)
    disk = os.statvfs(root)
    missing = max(0, min_free_bytes - disk.f_bavail * disk.f_frsize)
    target = min(limit_bytes, used) if used <= limit_bytes * _TRIM_TO else int(limit_bytes * _TRIM_TO)
    target = min(target, used - missing)
    removed = 0
    for _, size, chunk in sorted(found):
        if used <= target:
            break
        if _remove_chunk(root, chunk):
            used -= size
            removed += 1
    return _Scan(used, removed)


def _scan_folder(folder: int, prefix: str) -> list[tuple[float, int, str]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if _CHUNK_NAME.fullmatch(entry.name) and entry.name.startswith(prefix):
                found.append((status.st_mtime, status.st_size, entry.name))
            elif _TEMPORARY_NAME.fullmatch(entry.name) and status.st_mtime < time.time() - _STALE_TEMPORARY_S:
                _remove(folder, entry.name)
    return found


def _remove_chunk(root: Path, name: str) -> bool:
    try:
        folder = _open_folder(root, name[:2])
    except OSError:
        return False
    try:
        return _remove(folder, name)
    finally:
        os.close(folder)
