"""How much room a store has, for `df`: asked now and then, and the last answer while the store gives none.

Threading: trio thread.
"""

from __future__ import annotations

import logging
import time

from mvcfs.errors import MvcfsError
from mvcfs.storage.protocol import Storage
from mvcfs.vfs.attr import Statfs

log = logging.getLogger(__name__)

_BLOCK_BYTES = 4096
_KEPT_S = 5.0
_FILES = 1 << 32
_NAME_BYTES = 255


class Room:
    """The room of a store."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._last: tuple[float, Statfs] | None = None

    async def statfs(self) -> Statfs:
        """What statfs(2) says of the store; an error only if it never answered."""
        now = time.monotonic()
        if self._last is not None and now - self._last[0] < _KEPT_S:
            return self._last[1]
        try:
            space = await self._storage.space()
        except MvcfsError as error:
            if self._last is None:
                raise
            log.warning("the store does not say how much room it has: %s", error)
            return self._last[1]
        block = _BLOCK_BYTES
        found = Statfs(block, space.total_bytes // block, space.free_bytes // block, _FILES, _FILES, _NAME_BYTES)
        self._last = (now, found)
        return found
