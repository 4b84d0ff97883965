"""A store's folder on this host, and which process has which part of it.

    stores/<id>/                a writable mount: overlay/, models/ (Git packs, manifests), lock
    stores/<id>/readers/<n>/    the same for a read-only mount, which has nothing to keep
    stores/<id>/blocks/         the block cache of all of them

A writable mount has its folder to itself, since the overlay is one. Read-only mounts take the first reader's folder that
nobody has: what an earlier one fetched is used again, and there are never more folders than mounts at one time. The
block cache is shared: its files are named by what they hold, appear by a rename, and are checked at their first use.

A lock is the kernel's (flock), so none outlives its process. Threading: trio thread; nothing here waits.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mvcfs.errors import Busy

_MOST_READERS = 4096


@dataclass(slots=True)
class LocalFolder:
    """A folder that this process has.

    Attributes:
        path: Of overlay and models.
        blocks: Of the block cache, which other processes may use as well.
    """

    path: Path
    blocks: Path
    _lock: int | None

    @classmethod
    def take(cls, store_dir: Path, *, reader: bool) -> LocalFolder:
        """Takes a folder of a store, and makes it if need be.

        Args:
            store_dir: `stores/<id>` of the cache directory.
            reader: Whether for a read-only mount; it finds no overlay there.

        Raises:
            Busy: Another process has it; the message says which.
        """
        blocks = store_dir / "blocks"
        if not reader:
            return cls(store_dir, blocks, _lock(store_dir))
        for number in range(_MOST_READERS):
            folder = store_dir / "readers" / str(number)
            try:
                lock = _lock(folder)
            except Busy:
                continue
            shutil.rmtree(folder / "overlay", ignore_errors=True)
            return cls(folder, blocks, lock)
        raise Busy(f"{store_dir} has {_MOST_READERS} read-only mounts: use another --cache-dir")

    def release(self) -> None:
        """Lets go of it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 200).decode(errors="replace").strip() or "another process"
        os.close(fd)
        raise Busy(
            f"the local folder {folder} is in use by {holder}: unmount that one, or mount with another --cache-dir"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"process {os.getpid()}".encode())
    return fd
