"""A storage that fails on demand, for tests: errors before and after the deed, hangs, delays, cut files, late renames."""

from __future__ import annotations

import fnmatch
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import trio

from mvcfs.errors import MvcfsError, Transient, UnknownOutcome
from mvcfs.storage.protocol import Storage, Writer
from mvcfs.storage.wrapper import Call, StorageWrapper, WrappedWriter
from mvcfs.types import SELF, Identity

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with the calls that match. What is set happens in the order of the attributes.

    Attributes:
        op: Glob of the operation, as in `Call.op`.
        path: Glob of the path; a rename matches by its source or its target.
        skip: So many matching calls go well first.
        times: So many then have the fault; None for all.
        hook: Is awaited, with the call, before anything else.
        delay_s: Pause before the call.
        hang: The call never ends (it can be cancelled) and is not made.
        before: Raised instead of making the call.
        truncate_to: The file that a `create` or `write_file` makes is cut to so many bytes, and its end is unacknowledged:
            what a store without our promises leaves after a crash.
        late: The call isn't made now but by `run_late`; it fails with UnknownOutcome.
        after: Raised after the call was made: a lost acknowledgement.
    """

    op: str = "*"
    path: str = "*"
    skip: int = 0
    times: int | None = 1
    hook: Callable[[Call], Awaitable[None]] | None = None
    delay_s: float = 0.0
    hang: bool = False
    before: MvcfsError | None = None
    truncate_to: int | None = None
    late: bool = False
    after: MvcfsError | None = None

    def matches(self, call: Call) -> bool:
        """Whether the call is one of those meant."""
        paths = (call.path, call.target) if call.target else (call.path,)
        return fnmatch.fnmatchcase(call.op, self.op) and any(fnmatch.fnmatchcase(p, self.path) for p in paths)


class FaultyStorage(StorageWrapper):
    """Passes calls on, except those that a fault of the plan matches. `calls` lists all that were made."""

    def __init__(self, inner: Storage, plan: Iterable[Fault] = ()):
        super().__init__(inner)
        self.calls: list[Call] = []
        self.dead: MvcfsError | None = None
        self._plan: list[tuple[Fault, list[int]]] = []
        self._late: list[Callable[[], Awaitable[object]]] = []
        for fault in plan:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Adds a fault to the plan; its count starts now."""
        self._plan.append((fault, [0]))

    def clear(self) -> None:
        """From now on all goes well, `dead` aside."""
        self._plan.clear()

    def die(self, error: MvcfsError | None = None) -> None:
        """From now on every call fails: the store, or this host, is gone. `revive` ends it."""
        self.dead = error or Transient(f"{self.url}: gone")

    def revive(self) -> None:
        """Ends what `die` began."""
        self.dead = None

    async def run_late(self) -> list[MvcfsError | None]:
        """Makes the calls that were put off, in order; each one's error, or None."""
        results: list[MvcfsError | None] = []
        while self._late:
            run = self._late.pop(0)
            try:
                await run()
            except MvcfsError as error:
                results.append(error)
            else:
                results.append(None)
        return results

    async def around(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        """Makes the call, or what its fault wants."""
        self.calls.append(call)
        if self.dead is not None:
            await trio.lowlevel.checkpoint()
            raise self.dead
        fault = self._next_fault(call)
        if fault is None:
            return await run()
        if fault.hook is not None:
            await fault.hook(call)
        await trio.sleep(fault.delay_s)
        if fault.hang:
            await trio.sleep_forever()
        if fault.before is not None:
            raise fault.before
        if fault.late:
            self._late.append(run)
            raise UnknownOutcome(f"{call}: no acknowledgement")
        result = await run()
        if fault.after is not None:
            raise fault.after
        return result

    async def create(self, path: str, *, identity: Identity = SELF) -> Writer:
        """Starts a new file, which may be cut at its end."""
        limit = self._truncation("create", path)
        writer = await super().create(path, identity=identity)
        return writer if limit is None else _CutWriter(self, path, writer, limit)

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        """Makes a new file, which may be cut at its end."""
        limit = self._truncation("write_file", path)
        await super().write_file(path, data if limit is None else data[:limit], identity=identity)
        if limit is not None:
            raise UnknownOutcome(f"write_file {path}: no acknowledgement")

    def _next_fault(self, call: Call) -> Fault | None:
        return self._choose(call, lambda fault: fault.truncate_to is None)

    def _truncation(self, op: str, path: str) -> int | None:
        fault = self._choose(Call(op, path), lambda fault: fault.truncate_to is not None)
        return None if fault is None else fault.truncate_to

    def _choose(self, call: Call, wanted: Callable[[Fault], bool]) -> Fault | None:
        """The first fault that is due for the call; every matching one counts it."""
        chosen = None
        for fault, seen in self._plan:
            if not wanted(fault) or not fault.matches(call):
                continue
            seen[0] += 1
            due = seen[0] > fault.skip and (fault.times is None or seen[0] <= fault.skip + fault.times)
            chosen = fault if due and chosen is None else chosen
        return chosen


class _CutWriter(WrappedWriter):
    """A writer that keeps the first bytes only and whose close isn't acknowledged."""

    def __init__(self, owner: StorageWrapper, path: str, inner: Writer, limit: int):
        super().__init__(owner, path, inner)
        self._room = limit

    async def write(self, data: bytes | bytearray) -> None:
        """Appends what of `data` is kept."""
        kept = data[: self._room]
        self._room -= len(kept)
        await self._inner.write(kept)

    async def close(self) -> None:
        """Makes the cut file visible, then fails."""
        await self._inner.close()
        raise UnknownOutcome(f"writer.close {self._path}: no acknowledgement")
