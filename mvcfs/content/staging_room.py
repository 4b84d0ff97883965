"""The bound of the staging files of one overlay: who may write, who waits, and what may be removed from disk when.

Why removal is separate from dropping: a row of the overlay that a power loss brings back must find its files. So files
that no row names any more are first *doomed*; `reap` makes the rows durable and only then removes them.

Invariants: `used_bytes` is what the staging files take on disk, estimated upwards between looks at the files themselves;
a writer that waits holds nothing. Doomed files count until they are removed.

Threading: trio thread only; files are removed in a thread.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from mvcfs.content.staging_files import OpenFiles
from mvcfs.errors import LimitExceeded
from mvcfs.types import MIB

logger = logging.getLogger(__name__)

_DISK_CHECK_BYTES = 16 * MIB
_RECHECK_S = 1.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """Whether an error of the local disk says that there is no room."""
    return error.errno in _FULL


@dataclass(frozen=True, slots=True)
class _Doomed:
    names: tuple[str, ...]
    charged_bytes: int


class StagingRoom:
    """Room for staging files: counted, bounded, waited for.

    Attributes:
        directory: The folder of the staging files.
        files: Their descriptors.
        limit_bytes: How much they may take.
        waiting_writers: How many writers wait for room now.
        on_pressure: Called, without arguments, when a writer starts to wait; must not wait itself.
        can_free: Says whether anything under way can free room; asked before a writer waits. Without it a writer waits
            if there is an `on_pressure` to ask.
        read_flags: How to read only what is in memory; 0 once the file system turned out not to know.
        threads: Bound of the threads that work on staging files.
        sync_rows: Makes the rows that name staging files durable; awaited before files are removed.
    """

    def __init__(self, directory: Path, *, limit_bytes: int, min_free_bytes: int) -> None:
        """Counts nothing yet; the folder must be there."""
        self.directory = directory
        self.files = OpenFiles(directory)
        self.limit_bytes = limit_bytes
        self.waiting_writers = 0
        self.on_pressure: Callable[[], None] | None = None
        self.can_free: Callable[[], bool] | None = None
        self.sync_rows: Callable[[], Awaitable[None]] | None = None
        self.read_flags = os.RWF_NOWAIT
        self.threads = trio.CapacityLimiter(8)
        self._min_free = min_free_bytes
        self._used = 0
        self._until_check = 0
        self._freed = trio.Event()
        self._doomed: list[_Doomed] = []
        self._reaping = False

    @property
    def used_bytes(self) -> int:
        """What the staging files take on disk."""
        return self._used

    @property
    def doomed_bytes(self) -> int:
        """The part of `used_bytes` that `reap` would give back."""
        return sum(doomed.charged_bytes for doomed in self._doomed)

    def charge(self, n: int) -> None:
        """Counts `n` more bytes (fewer if negative); fewer wakes waiting writers."""
        self._used += n
        if n < 0:
            self.wake()

    def wake(self) -> None:
        """Lets waiting writers look again."""
        self._freed.set()
        self._freed = trio.Event()

    def admit(self, n: int) -> bool:
        """Whether `n` more bytes may be written now. Cheap; looks at the disk every few MiB."""
        if self._used + n > self.limit_bytes:
            return False
        self._until_check -= n
        return self._until_check >= 0 or self._check_disk(n)

    def _check_disk(self, n: int) -> bool:
        disk = os.statvfs(self.directory)
        spare = disk.f_bavail * disk.f_frsize - self._min_free - n
        self._until_check = min(_DISK_CHECK_BYTES, spare)
        return spare >= 0

    async def wait(self, n: int, *, full: bool = False) -> None:
        """Waits until `n` more bytes may be written.

        Args:
            n: Number of bytes.
            full: The disk has just refused a write, so look again after something was freed even if the count is low.

        Raises:
            LimitExceeded: There is no room and nothing can be freed.
        """
        pressed = False
        while full or not self.admit(n):
            full = False
            if self._doomed and not self._reaping:
                await self.reap()
                continue
            if n > self.limit_bytes or not (self._reaping or self._can_free()):
                raise LimitExceeded(self._no_room())
            freed = self._freed
            self.waiting_writers += 1
            try:
                if not pressed and self.on_pressure is not None:
                    self.on_pressure()
                pressed = True
                # Room that other programs free on the disk announces itself to nobody: look again now and then.
                with trio.move_on_after(_RECHECK_S):
                    await freed.wait()
            finally:
                self.waiting_writers -= 1

    def _can_free(self) -> bool:
        if self.can_free is not None:
            return self.can_free()
        return self.on_pressure is not None

    def _no_room(self) -> str:
        return (
            f"no room for changed files in {self.directory}: {self._used} of {self.limit_bytes} bytes are used, "
            f"{self._min_free} bytes of the disk are left free, and nothing can be freed"
        )

    def doom(self, names: tuple[str, ...], charged_bytes: int) -> None:
        """Takes over files that no row names any more."""
        self._doomed.append(_Doomed(names, charged_bytes))
        if self.waiting_writers:
            self.wake()

    async def reap(self) -> int:
        """Removes the doomed files, after making the rows durable that don't name them; returns how many went."""
        if self._reaping or not self._doomed:
            return 0
        self._reaping = True
        doomed, self._doomed = self._doomed, []
        try:
            if self.sync_rows is not None:
                await self.sync_rows()
            paths = [[self.directory / name for name in one.names] for one in doomed]
            for one in doomed:
                for name in one.names:
                    self.files.close(name)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_remove, paths, limiter=self.threads)
            freed = sum(one.charged_bytes for one in doomed)
            doomed = []
        finally:
            self._doomed += doomed
            self._reaping = False
        self._used -= freed
        self.wake()
        return sum(map(len, paths))


def _remove(groups: list[list[Path]]) -> None:
    for paths in groups:
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("a staging file that nothing needs stays until the next start: %s", error)
