"""Comparing the tensors of safetensors files, reading no more of them than it takes.

Headers are read always; bytes only of tensors that have one shape and kind on both sides, and of those only what isn't in the
same chunks at the same places of the tensor: chunk lists say so. What is read comes in pieces of some MiB and is gone when
the next one comes.

Threading: trio thread; numbers are compared in threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from mvcfs.content.tasks import plain_nursery
from mvcfs.errors import Busy, CorruptData
from mvcfs.vfs.tensors.numbers import Difference, difference, has_numbers
from mvcfs.vfs.tensors.safetensors_header import LENGTH_BYTES, Tensor, header_length, parse_header

PIECE_BYTES = 8 << 20
_WINDOW_BYTES = 256 << 20
"""Chunk lists are looked at for so much of a tensor at a time."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a stored file whose content is named.

    Attributes:
        name: Equal names are equal bytes.
        start: Where it stands in the file.
        length: How long it is.
    """

    name: bytes
    start: int
    length: int


class StoredFile(Protocol):
    """A stored file that tensors are read from."""

    @property
    def size_bytes(self) -> int:
        """Its length."""
        ...

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """A range of it."""
        ...

    async def pieces(self, begin: int, end: int) -> Sequence[Piece]:
        """The pieces that hold any of [begin, end), in order; no data is read."""
        ...


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor and the file that it is in.

    Attributes:
        tensor: The tensor.
        path: What the file is known by on both sides: its path now.
        file: The file.
        shown: Its path on its side.
    """

    tensor: Tensor
    path: str
    file: StoredFile
    shown: str


async def read_tensors(file: StoredFile, path: str, shown: str) -> list[Placed]:
    """The tensors of a file, by its header; for `path` and `shown` see `Placed`.

    Raises:
        CorruptData: It is no safetensors file, or its header is damaged.
        StorageError: The store failed.
    """
    start = bytes(await file.read(0, LENGTH_BYTES))
    length = header_length(start, file.size_bytes, shown)
    header = bytes(await file.read(LENGTH_BYTES, length))
    if len(header) < length:
        raise CorruptData(f"{shown}: its header is cut off")
    tensors = await trio.to_thread.run_sync(parse_header, header, file.size_bytes, shown)
    return [Placed(tensor, path, file, shown) for tensor in tensors]


def match_tensors(before: Iterable[Placed], after: Iterable[Placed]) -> list[tuple[Placed | None, Placed | None]]:
    """Pairs the tensors of files that belong together: by name and file, then by name whatever the file.

    So a tensor that moved to another shard is found there. Of a name that is left in several files, they are paired in
    the order of their paths.
    """
    old: dict[tuple[str, str], Placed] = {(one.tensor.name, one.path): one for one in before}
    pairs: list[tuple[Placed | None, Placed | None]] = []
    moved: list[Placed] = []
    for new in after:
        same = old.pop((new.tensor.name, new.path), None)
        if same is None:
            moved.append(new)
        else:
            pairs.append((same, new))
    left: dict[str, list[Placed]] = {}
    for one in sorted(old.values(), key=lambda placed: placed.path, reverse=True):
        left.setdefault(one.tensor.name, []).append(one)
    for new in sorted(moved, key=lambda placed: placed.path):
        others = left.get(new.tensor.name)
        pairs.append((others.pop() if others else None, new))
    pairs += [(one, None) for others in left.values() for one in others]
    return pairs


@dataclass(slots=True)
class Compared:
    """What became of a tensor whose kind and shape are the same.

    Attributes:
        same: Whether all its bytes are.
        numbers: How much it differs; None for a kind that has no numbers here.
        read_bytes: How much of each side was read.
    """

    same: bool
    numbers: Difference | None
    read_bytes: int = 0


async def compare_bytes(before: Placed, after: Placed) -> Compared:
    """Compares two tensors of one kind and shape.

    Raises:
        CorruptData: A file is damaged in the store.
        Busy: A file of a working tree was cut off meanwhile.
        StorageError: The store failed.
    """
    dtype = before.tensor.dtype
    found = Compared(True, Difference() if has_numbers(dtype) else None)
    for first in range(0, before.tensor.size_bytes, _WINDOW_BYTES):
        for begin, end in await _unequal(before, after, first):
            old, new = await _read_both(before, after, begin, end)
            found.read_bytes += end - begin
            if old == new:
                continue
            found.same = False
            if found.numbers is None:
                return found
            found.numbers.add(await trio.to_thread.run_sync(difference, dtype, old, new))
    return found


async def _unequal(before: Placed, after: Placed, first: int) -> list[tuple[int, int]]:
    """The ranges of the window that begins at `first` that aren't known to be equal, none longer than a piece."""
    old, new = before.tensor, after.tensor
    last = min(first + _WINDOW_BYTES, old.size_bytes)
    spans = unequal_spans(
        await before.file.pieces(old.begin + first, old.begin + last),
        await after.file.pieces(new.begin + first, new.begin + last),
        old.begin, new.begin, (first, last), old.item_bytes,
    )  # fmt: skip
    return [piece for begin, end in spans for piece in _cut(begin, end)]


def unequal_spans(
    before: Sequence[Piece],
    after: Sequence[Piece],
    before_begin: int,
    after_begin: int,
    window: tuple[int, int],
    item_bytes: int,
) -> list[tuple[int, int]]:
    """The parts of a window of a tensor that aren't in equal pieces at the same places of it.

    Args:
        before: The pieces of one file that the window touches.
        after: Those of the other.
        before_begin: Where the tensor begins in the one.
        after_begin: Where in the other.
        window: What is looked at, counted from the tensor's beginning; begins and ends with an element.
        item_bytes: Bytes of an element.

    Returns:
        Ranges of whole elements, counted from the tensor's beginning, in order and apart.
    """
    known = {(piece.start - after_begin, piece.length, piece.name) for piece in after}
    spans: list[tuple[int, int]] = []
    at = window[0]
    for piece in before:
        start = piece.start - before_begin
        if (start, piece.length, piece.name) in known:
            _add_span(spans, at, max(start, at), window, item_bytes)
            at = max(at, start + piece.length)
    _add_span(spans, at, window[1], window, item_bytes)
    return spans


def _add_span(spans: list[tuple[int, int]], begin: int, end: int, window: tuple[int, int], item_bytes: int) -> None:
    """Adds a range, widened to whole elements and joined with the last one where they meet."""
    end = min(end, window[1])
    if begin >= end:
        return
    begin -= begin % item_bytes
    end = min(window[1], end + -end % item_bytes)
    if spans and spans[-1][1] >= begin:
        spans[-1] = (spans[-1][0], end)
    else:
        spans.append((begin, end))


def _cut(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for first in range(begin, end, PIECE_BYTES):
        yield first, min(first + PIECE_BYTES, end)


async def _read_both(before: Placed, after: Placed, begin: int, end: int) -> tuple[bytes, bytes]:
    """A range of a tensor from both files, at the same time."""
    found: dict[int, bytes] = {}

    async def read(side: int, placed: Placed) -> None:
        data = await placed.file.read(placed.tensor.begin + begin, end - begin)
        if len(data) != end - begin:
            raise Busy(f"{placed.shown} was cut off while it was compared")
        found[side] = bytes(data)

    async with plain_nursery() as nursery:
        nursery.start_soon(read, 0, before)
        nursery.start_soon(read, 1, after)
    return found[0], found[1]
