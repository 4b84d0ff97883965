"""Tells the kernel to drop what it remembers of inodes and names, from a thread of its own.

The kernel takes a directory's lock to drop a name. A handler that waited for it would wait for a request which waits
for the handler, so nothing here ever blocks the trio thread: callers put what changed into a bounded table, in which
equal wishes become one, and one daemon thread works it off. A name or inode that the kernel doesn't know is no error.

Threads: `_pending` is guarded by `_condition`; the public methods are called on the trio thread.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable

import pyfuse3
import trio

_log = logging.getLogger(__name__)

_UNKNOWN_TO_THE_KERNEL = (errno.ENOENT, errno.ENOTDIR, errno.ENOTCONN, errno.ENODEV)
_Key = tuple[int, bytes | None]


class Invalidator:
    """The kernel's memory of one mount, from the side that knows what is stale.

    Args:
        limit: How many wishes may wait. Past it they are dropped with one log line: what is stale then stays so until
            its timeout ends. Somebody who has very many shall `await settled()` now and then.
        drop_inode: What drops an inode; pyfuse3's function but in tests.
        drop_entry: What drops a name; pyfuse3's function but in tests.
    """

    def __init__(
        self,
        limit: int = 1_000_000,
        drop_inode: Callable[[int, bool], None] | None = None,
        drop_entry: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._limit = limit
        self._drop_inode = drop_inode or _drop_inode
        self._drop_entry = drop_entry or _drop_entry
        self._condition = threading.Condition()
        self._pending: dict[_Key, bool] = {}
        self._waiting: list[Callable[[], None]] = []
        self._working = False
        self._stopping = False
        self._overflowed = False
        self._thread: threading.Thread | None = None

    def invalidate_inode(self, ino: int, attr_only: bool = False) -> None:
        """Drops the attributes of an inode, and its pages unless `attr_only`. Returns at once."""
        with self._condition:
            key = (ino, None)
            self._add(key, attr_only and self._pending.get(key, True))

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Drops a name of a directory. Returns at once."""
        with self._condition:
            self._add((parent, name), False)

    def start(self) -> None:
        """Starts the thread. Not before the mount exists: pyfuse3 has no session to speak to."""
        self._thread = threading.Thread(target=self._work, name="invalidator", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Ends the thread, dropping what waits. False if it is stuck in the kernel: the session must then live on."""
        with self._condition:
            self._stopping = True
            self._pending.clear()
            self._condition.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    async def settled(self) -> None:
        """Waits until nothing waits any more. Never call it inside a request handler."""
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()
        with self._condition:
            if self._stopping or (not self._pending and not self._working):
                return
            self._waiting.append(lambda: token.run_sync_soon(done.set))
        await done.wait()

    def _add(self, key: _Key, attr_only: bool) -> None:
        if self._stopping:
            return
        if len(self._pending) >= self._limit and key not in self._pending:
            if not self._overflowed:
                _log.warning("More than %d kernel invalidations wait: some are left to their timeouts", self._limit)
            self._overflowed = True
            return
        self._pending[key] = attr_only
        self._condition.notify_all()

    def _work(self) -> None:
        while True:
            with self._condition:
                self._working = False
                if not self._pending:
                    self._overflowed = False
                    self._wake_waiting()
                while not self._pending and not self._stopping:
                    self._condition.wait()
                if self._stopping:
                    self._wake_waiting()
                    return
                (number, name), attr_only = next(iter(self._pending.items()))
                del self._pending[(number, name)]
                self._working = True
            self._drop(number, name, attr_only)

    def _wake_waiting(self) -> None:
        for wake in self._waiting:
            try:
                wake()
            except trio.RunFinishedError:
                _log.debug("nobody waits for the invalidator any more")
        self._waiting.clear()

    def _drop(self, number: int, name: bytes | None, attr_only: bool) -> None:
        try:
            if name is None:
                self._drop_inode(number, attr_only)
            else:
                self._drop_entry(number, name)
        except OSError as error:
            if error.errno not in _UNKNOWN_TO_THE_KERNEL:
                _log.debug("invalidating inode %d, name %r: %s", number, name, error)


def _drop_inode(ino: int, attr_only: bool) -> None:
    pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only)


def _drop_entry(parent: int, name: bytes) -> None:
    pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))
