"""A storage that can't be written: what a read-only mount uses, so that no way through the code leads to a change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from mvcfs.errors import ReadOnly
from mvcfs.storage.wrapper import Call, StorageWrapper

T = TypeVar("T")


class ReadOnlyStorage(StorageWrapper):
    """Hands on what reads, and refuses the rest with ReadOnly."""

    async def around(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        """See `StorageWrapper.around`."""
        if call.mutates or call.op == "create":
            raise ReadOnly(f"{self.url} is mounted read-only here: mount it without --read-only to change it")
        return await run()
