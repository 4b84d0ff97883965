"""One bound for the memory that reading ahead and uploading use together.

Read windows, the chunk cache and upload buffers each know only themselves; what keeps a mount's memory bounded is that
all of them take their bytes from here first.

Invariants: `used_bytes <= limit_bytes`, except while one request larger than the limit is served, which then holds
everything alone. Waiters are served strictly in order, so a large request isn't starved by small ones.

Threading: trio thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio


class Budget:
    """A number of bytes, reserved and given back."""

    def __init__(self, limit_bytes: int) -> None:
        """Makes a budget nothing is taken from.

        Args:
            limit_bytes: How much may be held at once; positive.
        """
        if limit_bytes <= 0:
            raise ValueError(f"a budget needs a positive limit, not {limit_bytes}")
        self._limit = limit_bytes
        self._used = 0
        self._waiters: deque[tuple[int, trio.Event]] = deque()
        self._reclaimers: list[Callable[[int], None]] = []

    @property
    def limit_bytes(self) -> int:
        """How much may be held at once."""
        return self._limit

    @property
    def used_bytes(self) -> int:
        """How much is held now."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiters)

    def on_pressure(self, reclaim: Callable[[int], None]) -> None:
        """Registers somebody who can give bytes back.

        Args:
            reclaim: Called with the number of missing bytes when a request doesn't fit; it may call `release` at
                once or later, and must not wait.
        """
        self._reclaimers.append(reclaim)

    def try_reserve(self, n: int) -> bool:
        """Takes `n` bytes if they are free and nobody waits for them; says whether it did."""
        if self._waiters or not self._fits(n):
            return False
        self._used += n
        return True

    async def reserve(self, n: int) -> None:
        """Takes `n` bytes, waiting in line for them. A cancelled wait takes nothing."""
        if self.try_reserve(n):
            return
        granted = trio.Event()
        waiter = (n, granted)
        self._waiters.append(waiter)
        self._press(n)
        if granted.is_set():
            return
        try:
            await granted.wait()
        except BaseException:
            if granted.is_set():
                self.release(n)
            else:
                self._waiters.remove(waiter)
                self._grant()
            raise

    def release(self, n: int) -> None:
        """Gives `n` bytes back."""
        if not 0 <= n <= self._used:
            raise ValueError(f"{n} bytes given back, {self._used} held")
        self._used -= n
        self._grant()

    @asynccontextmanager
    async def hold(self, n: int) -> AsyncIterator[None]:
        """Holds `n` bytes for the time of a block."""
        await self.reserve(n)
        try:
            yield
        finally:
            self.release(n)

    def _fits(self, n: int) -> bool:
        return self._used == 0 or self._used + n <= self._limit

    def _press(self, n: int) -> None:
        for reclaim in self._reclaimers:
            missing = self._used + min(n, self._limit) - self._limit
            if missing > 0:
                reclaim(missing)

    def _grant(self) -> None:
        while self._waiters and self._fits(self._waiters[0][0]):
            n, granted = self._waiters.popleft()
            self._used += n
            granted.set()
