"""Reading through a stack of layers: which bytes come from where, and fetching them together.

A read is a snapshot of the moment it was made: bytes of layers that may still change are read before the first await, and
what is awaited (the base, layers under a frozen view) doesn't change.

Threading: trio thread; reads that would wait for the disk go to a thread, with their descriptors pinned.
"""

from __future__ import annotations

import os as _os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import trio

from mvcfs.content.staging_layer import Layer, Source
from mvcfs.content.staging_room import StagingRoom
from mvcfs.errors import CorruptData


class Base(Protocol):
    """Unchanged content below the layers."""

    @property
    def size_bytes(self) -> int:
        """Its length."""
        ...

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """The bytes [offset, offset+length), cut at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of bytes of one source; `layer` and `base` None: zeros."""

    start: int
    end: int
    layer: Layer | None = None
    base: Base | None = None


def plan(layers: Sequence[Layer], base: Base | None, offset: int, end: int) -> list[Segment]:
    """The sources of [offset, end) of a stack, zeros left out.

    Args:
        layers: From the lowest to the topmost.
        base: What is below them.
        offset: First byte.
        end: Behind the last byte; at most the stack's size.
    """
    found: list[Segment] = []
    pending = [(len(layers) - 1, offset, end)]
    while pending:
        depth, start, stop = pending.pop()
        if depth < 0:
            if base is not None and start < min(stop, base.size_bytes):
                found.append(Segment(start, min(stop, base.size_bytes), base=base))
            continue
        layer = layers[depth]
        below = []
        while start < stop:
            run_end, source = layer.next_run(start, stop)
            if source is Source.OWN:
                found.append(Segment(start, run_end, layer=layer))
            elif source is Source.BELOW:
                below.append((depth - 1, start, run_end))
            start = run_end
        pending += below
    return found


async def read_stack(
    room: StagingRoom, layers: Sequence[Layer], base: Base | None, offset: int, end: int, *, inline: bool
) -> bytes | bytearray | memoryview:
    """The bytes [offset, end) of a stack.

    Args:
        room: Where the layers live.
        layers: From the lowest to the topmost.
        base: What is below them.
        offset: First byte.
        end: Behind the last byte; at most the stack's size.
        inline: Whether to read layers on the trio thread as far as they are in memory.
    """
    segments = plan(layers, base, offset, end)
    if len(segments) == 1 and segments[0].base is not None and segments[0].end - segments[0].start == end - offset:
        return await _read_base(segments[0].base, offset, end)
    buffer = bytearray(end - offset)
    view = memoryview(buffer)
    waiting = []
    for segment in segments:
        layer = segment.layer
        if layer is not None:
            part = view[segment.start - offset : segment.end - offset]
            if not (inline and layer.read_cached(segment.start, part)):
                waiting.append((layer, segment.start, part))
    if waiting:
        await _read_in_thread(room, waiting)
    for segment in segments:
        if segment.base is not None:
            part = view[segment.start - offset : segment.end - offset]
            part[:] = await _read_base(segment.base, segment.start, segment.end)
    return buffer


async def _read_base(base: Base, start: int, end: int) -> bytes | memoryview:
    data = await base.read(start, end - start)
    if len(data) != end - start:
        raise CorruptData(f"stored content gave {len(data)} bytes for [{start}, {end}) of its {base.size_bytes}")
    return data


async def _read_in_thread(room: StagingRoom, parts: list[tuple[Layer, int, memoryview]]) -> None:
    with ExitStack() as stack:
        jobs = [(stack.enter_context(room.files.pinned(layer.name)), start, view) for layer, start, view in parts]
        for layer, _, _ in parts:
            layer.readers += 1
        try:
            # Not abandoned on cancellation: the descriptors must outlive the thread's work.
            await trio.to_thread.run_sync(_read_all, jobs, limiter=room.threads)
        finally:
            for layer, _, _ in parts:
                layer.readers -= 1


def _read_all(jobs: list[tuple[int, int, memoryview]]) -> None:
    for fd, start, view in jobs:
        while view:
            count = _os.preadv(fd, [view], start)
            if not count:
                break
            start += count
            view = view[count:]
