"""No call lasts longer than its deadline, whatever the store does (a stopped NameNode never answers)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from mvcfs.errors import Transient, UnknownOutcome
from mvcfs.storage.protocol import Storage
from mvcfs.storage.wrapper import Call, StorageWrapper

T = TypeVar("T")


class DeadlineStorage(StorageWrapper):
    """Gives up calls that take too long: Transient for those that change nothing, else UnknownOutcome.

    It cancels the call, so the storage inside must be one whose calls end when cancelled.
    """

    def __init__(self, inner: Storage, *, metadata_s: float, data_s: float):
        super().__init__(inner)
        self._metadata_s = metadata_s
        self._data_s = data_s

    async def around(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        """Makes the call, for as long as its kind may last."""
        seconds = self._data_s if call.bulk else self._metadata_s
        with trio.move_on_after(seconds):
            return await run()
        error = UnknownOutcome if call.mutates else Transient
        raise error(f"{self.url}: no answer to {call} within {seconds:g} s")
