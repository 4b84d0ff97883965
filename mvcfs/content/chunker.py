"""Cuts a stream into content-defined chunks (FastCDC 2020) and names them, so that an edit changes few chunks.

The cuts depend on the bytes alone, not on the pieces they arrive in: the unfinished chunk at a piece's end is carried
over and cut again with what follows.

Threading: a `Chunker` and the two hash objects in it belong to one upload of one file. `cut` and `update` are run in
threads, at most one call of each at a time; the two may overlap, they share nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from blake3 import blake3
from pyfastcdc import FastCDC

from mvcfs.content.config import ContentConfig

_NORMALIZATION: Literal[2] = 2


@dataclass(frozen=True, slots=True)
class Cut:
    """A chunk of a piece.

    Attributes:
        hash: BLAKE3 of its bytes.
        length: How many there are.
    """

    hash: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Finished chunks that follow each other.

    Attributes:
        start: Where they begin in the file.
        data: Their bytes, no more.
        cuts: The chunks, in order.
    """

    start: int
    data: bytes
    cuts: tuple[Cut, ...]


def chunker_name(config: ContentConfig) -> str:
    """How packs name the chunker that cut their chunks."""
    return (
        f"fastcdc2020:min={config.chunk_min_bytes},avg={config.chunk_avg_bytes},"
        f"max={config.chunk_max_bytes},nc={_NORMALIZATION}"
    )


class Chunker:
    """Cuts and hashes one file."""

    def __init__(self, config: ContentConfig) -> None:
        self._cdc = FastCDC(
            config.chunk_avg_bytes,
            min_size=config.chunk_min_bytes,
            max_size=config.chunk_max_bytes,
            normalized_chunking=_NORMALIZATION,
        )
        self._whole = hashlib.sha256()
        self._carry = b""
        self._start = 0

    def update(self, data: bytes | memoryview) -> None:
        """Takes the next bytes into the hash of the whole."""
        self._whole.update(data)

    def cut(self, data: bytes | memoryview, *, last: bool) -> Piece:
        """Takes the next bytes and returns the chunks that are finished.

        Args:
            data: The bytes after those of the call before.
            last: Whether the file ends here; then all is finished.
        """
        buffer = self._carry + data if self._carry else bytes(data)
        lengths = [chunk.length for chunk in self._cdc.cut_buf(buffer)]
        if not last and lengths:
            lengths.pop()  # it ended because the bytes did
        finished = sum(lengths)
        self._carry = buffer[finished:]
        done = buffer[:finished]
        view = memoryview(done)
        cuts, at = [], 0
        for length in lengths:
            cuts.append(Cut(blake3(view[at : at + length]).digest(), length))
            at += length
        piece = Piece(self._start, done, tuple(cuts))
        self._start += finished
        return piece

    def digest(self) -> str:
        """SHA-256 of everything given to `update`, in hex: the LFS oid."""
        return self._whole.hexdigest()
