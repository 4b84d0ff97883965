"""Chunks on their way into memory: values that the chunk store and its readers share.

Threading: trio thread only, but for `check_chunks`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import trio
from blake3 import blake3

from mvcfs.content.manifest_file import ChunkRef
from mvcfs.errors import MvcfsError, StorageError

Key = tuple[bytes, int]


@dataclass(eq=False, slots=True, weakref_slot=True)
class Segment:
    """Checked chunks that follow each other, in one buffer.

    Attributes:
        data: Their bytes.
        fetch: What brought them.
        keys: Which they are.
    """

    data: bytes
    fetch: Fetch
    keys: list[Key] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk in memory: `segment.data[begin:begin + length]`."""

    segment: Segment
    begin: int
    length: int

    @property
    def view(self) -> memoryview:
        """The chunk's bytes."""
        return memoryview(self.segment.data)[self.begin : self.begin + self.length]


class Fetch:
    """Chunks being fetched together, and what became of them.

    Interest is that of readers (`waiters` among them) and windows. `found` is emptied once nobody waits, so that a
    fetch a window still holds keeps no memory alive that the store has given back.
    """

    def __init__(self, refs: Sequence[ChunkRef], reserved_bytes: int) -> None:
        self.refs = refs
        self.reserved_bytes = reserved_bytes
        self.interest = 0
        self.waiters = 0
        self.started = False
        self.ahead = False
        self.found: dict[Key, Span] = {}
        self.errors: dict[Key, MvcfsError] = {}
        self.failed: Exception | None = StorageError("reading was given up")
        self.fresh: list[ChunkRef] = []
        self.segments: weakref.WeakSet[Segment] = weakref.WeakSet()
        self.done = trio.Event()
        self.scope = trio.CancelScope()

    def add(self, data: bytes, refs: Sequence[ChunkRef]) -> None:
        """Takes checked chunks that fill `data`."""
        segment, begin = Segment(data, self), 0
        for ref in refs:
            segment.keys.append(key_of(ref))
            self.found[key_of(ref)] = Span(segment, begin, ref.length)
            begin += ref.length
        self.segments.add(segment)

    def result(self, key: Key) -> Span:
        """A chunk, or the error that stands for it."""
        span = self.found.get(key)
        if span is not None:
            return span
        error = self.errors.get(key) or self.failed or StorageError("reading was given up")
        raise type(error)(*error.args) from error


def key_of(ref: ChunkRef) -> Key:
    """What a chunk is found by."""
    return ref.hash, ref.length


def range_groups(refs: Iterable[ChunkRef], range_bytes: int) -> list[list[ChunkRef]]:
    """Chunks that stand next to each other in one pack, in ranges of bounded length."""
    groups: list[list[ChunkRef]] = []
    total = 0
    for ref in refs:
        last = groups[-1][-1] if groups else None
        follows = last is not None and last.pack == ref.pack and last.offset + last.length == ref.offset
        if follows and total + ref.length <= range_bytes:
            groups[-1].append(ref)
            total += ref.length
        else:
            groups.append([ref])
            total = ref.length
    return groups


def check_chunks(data: bytes, refs: Sequence[ChunkRef]) -> list[bool]:
    """Which of the chunks that follow each other in `data` are what they should be. For a thread."""
    view, begin, good = memoryview(data), 0, []
    for ref in refs:
        part = view[begin : begin + ref.length]
        good.append(len(part) == ref.length and blake3(part).digest() == ref.hash)
        begin += ref.length
    return good
