"""The one place where failed calls are tried again."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from mvcfs.errors import StorageError, Transient, UnknownOutcome
from mvcfs.storage.config import RetryPolicy
from mvcfs.storage.protocol import Storage
from mvcfs.storage.wrapper import Call, StorageWrapper

T = TypeVar("T")

log = logging.getLogger(__name__)


class RetryingStorage(StorageWrapper):
    """Tries again what did nothing, and what may be done twice. A changing call whose outcome is unknown is passed up."""

    def __init__(self, inner: Storage, policy: RetryPolicy, *, rng: random.Random | None = None):
        super().__init__(inner)
        self._policy = policy
        self._random = rng or random.Random()

    async def around(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        """Makes the call, again and again with growing pauses while that may help."""
        policy = self._policy
        latest = trio.current_time() + policy.total_s
        pause = policy.first_pause_s
        for attempt in range(1, policy.attempts + 1):
            try:
                return await run()
            except (Transient, UnknownOutcome) as error:
                hopeless = not call.repeatable or (isinstance(error, UnknownOutcome) and call.mutates)
                wait = pause * self._random.uniform(0.5, 1.0)
                if hopeless or attempt == policy.attempts or trio.current_time() + wait > latest:
                    raise
                log.info("%s: %s failed (%s), attempt %d; next in %.2f s", self.url, call, error, attempt, wait)
            await trio.sleep(wait)
            pause = min(pause * 2, policy.max_pause_s)
        raise StorageError(f"{self.url}: {call}: the retry policy allows no attempt")
