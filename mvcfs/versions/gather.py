"""Several awaitable calls at once, with plain errors.

A nursery wraps what its tasks raise in exception groups; callers here want the first error itself, so that
`except NotFound` means what it says. The other calls are cancelled then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

T = TypeVar("T")


async def gather(calls: Sequence[Callable[[], Awaitable[T]]], *, at_once: int = 16) -> list[T]:
    """Results of all calls, in their order; the first error that any of them raises."""
    results: dict[int, T] = {}
    errors: list[Exception] = []
    limiter = trio.CapacityLimiter(at_once)

    async with trio.open_nursery() as nursery:

        async def run(index: int, call: Callable[[], Awaitable[T]]) -> None:
            try:
                async with limiter:
                    results[index] = await call()
            except Exception as error:  # noqa: BLE001 - raised below, outside the nursery
                errors.append(error)
                nursery.cancel_scope.cancel()

        for index, call in enumerate(calls):
            nursery.start_soon(run, index, call)
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(calls))]
