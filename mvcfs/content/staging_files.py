"""Open descriptors of staging files, bounded, so that a mount of many changed files doesn't run out of them.

Invariants: at most `limit` descriptors are kept open, not counting those pinned by work in threads; a descriptor in use by
a thread is never closed under it (its number could come to name another file). Files are opened by name without following
symlinks, and made private to the user.

All system calls on staging files go through `_os`, which tests replace to stop the program after any one of them.

Threading: trio thread only; a thread may use a descriptor for as long as it is pinned.
"""

from __future__ import annotations

import os as _os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPEN_FILES_MAX = 512


class OpenFiles:
    """Descriptors of the files of one folder, opened when needed, the least recently used closed first."""

    def __init__(self, directory: Path, limit: int = OPEN_FILES_MAX) -> None:
        """Opens nothing yet.

        Args:
            directory: The folder.
            limit: How many descriptors may stay open.
        """
        self._prefix = f"{directory}/"
        self._limit = limit
        self._fds: OrderedDict[str, int] = OrderedDict()
        self._pins: dict[int, int] = {}
        self._closing: set[int] = set()

    def __len__(self) -> int:
        return len(self._fds) + len(self._closing)

    def fd(self, name: str) -> int:
        """A descriptor for reading and writing, valid until the next await."""
        fd = self._fds.get(name)
        if fd is not None:
            self._fds.move_to_end(name)
            return fd
        return self._keep(name, _os.open(self._prefix + name, _os.O_RDWR | _os.O_NOFOLLOW | _os.O_CLOEXEC))

    def create(self, name: str, *, exclusive: bool = True) -> int:
        """Makes a file, or with `exclusive` False takes the one that is there; the descriptor is as `fd` gives it."""
        self.close(name)
        flags = _os.O_RDWR | _os.O_CREAT | _os.O_NOFOLLOW | _os.O_CLOEXEC | (_os.O_EXCL if exclusive else 0)
        return self._keep(name, _os.open(self._prefix + name, flags, 0o600))

    @contextmanager
    def pinned(self, name: str) -> Iterator[int]:
        """A descriptor that stays valid for the block, awaits included."""
        fd = self.fd(name)
        self._pins[fd] = self._pins.get(fd, 0) + 1
        try:
            yield fd
        finally:
            self._unpin(fd)

    def close(self, name: str) -> None:
        """Closes a file's descriptor, once no thread uses it."""
        fd = self._fds.pop(name, None)
        if fd is None:
            return
        if fd in self._pins:
            self._closing.add(fd)
        else:
            _os.close(fd)

    def close_all(self) -> None:
        """Closes everything that no thread uses."""
        for name in list(self._fds):
            self.close(name)

    def _keep(self, name: str, fd: int) -> int:
        self._fds[name] = fd
        if len(self._fds) > self._limit:
            for old, old_fd in self._fds.items():
                if old_fd not in self._pins and old != name:
                    self.close(old)
                    break
        return fd

    def _unpin(self, fd: int) -> None:
        left = self._pins[fd] - 1
        if left:
            self._pins[fd] = left
            return
        del self._pins[fd]
        if fd in self._closing:
            self._closing.remove(fd)
            _os.close(fd)
