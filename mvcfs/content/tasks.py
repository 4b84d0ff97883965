"""A nursery whose failure is the error itself, so that callers can catch `CorruptData` and not a group with one in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A trio nursery that raises the first error that isn't a cancellation, else the cancellation."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = _leaves(group)
        real = [error for error in errors if not isinstance(error, trio.Cancelled)]
        raise (real or errors)[0] from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
