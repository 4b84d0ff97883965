"""Blocking calls in threads, such that a call that never returns costs its waiter the deadline and others nothing.

A cancelled call is abandoned: its thread runs on, but its place is free for the next one at once. The number of such
threads is bounded; beyond it calls fail right away instead of piling up.

Threading: `run` is called on the trio thread. The state of a call and the count of abandoned ones are shared with the
worker threads, under one lock.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import TypeVar

import trio

from mvcfs.errors import Transient

T = TypeVar("T")


class _State(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    ABANDONED = enum.auto()
    OVER = enum.auto()


class _Call:
    """Where one call stands."""

    def __init__(self) -> None:
        self.state = _State.WAITING


class CallThreads:
    """At most `limit` calls at a time whose callers wait, and `abandoned_limit` that nobody waits for any more."""

    def __init__(self, name: str, limit: int, *, abandoned_limit: int = 64):
        self._name = name
        self._places = trio.Semaphore(limit)
        self._abandoned_limit = abandoned_limit
        self._lock = threading.Lock()
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """How many calls still run that nobody waits for."""
        return self._abandoned

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`, run in a thread; Transient when too many abandoned calls still hang."""
        if self._abandoned >= self._abandoned_limit:
            raise Transient(f"{self._name}: {self._abandoned} earlier calls are still unanswered")
        async with self._places:
            call = _Call()
            try:
                # A limiter of its own: a token comes back only when the thread ends, an abandoned call's perhaps never.
                return await trio.to_thread.run_sync(
                    self._in_thread, call, function, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                )
            finally:
                self._leave(call)

    def _in_thread(self, call: _Call, function: Callable[[], T]) -> T:
        with self._lock:
            if call.state is _State.OVER:
                raise Transient(f"{self._name}: the caller left before the call began")
            call.state = _State.RUNNING
        try:
            return function()
        finally:
            with self._lock:
                if call.state is _State.ABANDONED:
                    self._abandoned -= 1
                call.state = _State.OVER

    def _leave(self, call: _Call) -> None:
        with self._lock:
            if call.state is _State.RUNNING:
                call.state = _State.ABANDONED
                self._abandoned += 1
            elif call.state is _State.WAITING:
                call.state = _State.OVER
