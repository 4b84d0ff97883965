"""What an upload holds of a file while it is added: pieces read ahead in reserved memory, chunk rows in a local file.

Threading: trio thread. `Spool.append` writes to the page cache in the thread, a few hundred KiB at most.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

import trio

from mvcfs.content.budget import Budget
from mvcfs.content.config import ContentConfig
from mvcfs.content.manifest_file import ROW
from mvcfs.content.packs import Reservation
from mvcfs.errors import Conflict

_ROW = struct.Struct("<32sQQII")
_SPOOL_ROWS = 8192


class Source(Protocol):
    """The content of a large file that doesn't change while it is read."""

    @property
    def size_bytes(self) -> int:
        """Its length."""
        ...

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Exactly the bytes [offset, offset+length), clamped at the end."""
        ...


class PieceReader:
    """Reads a source one piece ahead, each piece in memory that is reserved first.

    Iterating gives (data, whether it is the last, reservation), the reservation to be dropped by the receiver.
    """

    def __init__(self, source: Source, config: ContentConfig, budgets: Sequence[Budget]) -> None:
        """Reads nothing before `run`.

        Args:
            source: What to read.
            config: Sizes.
            budgets: Where memory is reserved, in this order.
        """
        self._source = source
        self._config = config
        self._budgets = budgets
        self._send, self._receive = trio.open_memory_channel[tuple[bytes | memoryview, bool, Reservation]](0)

    def __aiter__(self) -> PieceReader:
        return self

    async def __anext__(self) -> tuple[bytes | memoryview, bool, Reservation]:
        try:
            item = await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        return item

    async def run(self) -> None:
        """Reads to the end. Raises what the source raises, Conflict if it gives fewer bytes than it has."""
        size, offset, last = self._source.size_bytes, 0, False
        async with self._send:
            while not last:
                length = min(self._config.piece_bytes, size - offset)
                reservation = await self._reserve(2 * length + min(self._config.chunk_max_bytes, offset))
                handed_on = False
                try:
                    data = await self._source.read(offset, length)
                    if len(data) != length:
                        raise Conflict(f"a file of {size} bytes gave {len(data)} of {length} at {offset}")
                    offset += length
                    last = offset >= size
                    await self._send.send((data, last, reservation))
                    handed_on = True
                finally:
                    if not handed_on:
                        reservation.drop()
                del data

    async def _reserve(self, n: int) -> Reservation:
        taken: list[Budget] = []
        try:
            for budget in self._budgets:
                await budget.reserve(n)
                taken.append(budget)
        except BaseException:
            for budget in taken:
                budget.release(n)
            raise
        return Reservation(self._budgets, n)


class Spool:
    """A local file of chunk rows, without a name that would outlive a crash for long: it goes when it is closed."""

    def __init__(self, directory: Path) -> None:
        """Makes the file; OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(dir=directory, prefix="tmp-spool-")  # noqa: SIM115 - close()
        self._rows = 0

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self._file.name)

    def append(self, rows: bytes) -> tuple[int, int]:
        """Adds whole rows; returns which they are: first and count."""
        span = self._rows, len(rows) // ROW.itemsize
        self._file.write(rows)
        self._rows += span[1]
        return span

    def flush(self) -> None:
        """Makes what was appended readable at `path`."""
        self._file.flush()

    def close(self) -> None:
        """Removes the file."""
        self._file.close()


class Rows:
    """The chunk list of one file being added."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._pending = bytearray()
        self._spans: list[tuple[int, int]] = []

    def append(self, hash: bytes, start: int, offset: int, length: int, pack: int) -> None:
        """Adds the next chunk."""
        self._pending += _ROW.pack(hash, start, offset, length, pack)
        if len(self._pending) >= _SPOOL_ROWS * _ROW.size:
            self._flush()

    def finish(self) -> tuple[tuple[int, int], ...]:
        """Which rows of the spool the list became."""
        self._flush()
        return tuple(self._spans)

    def _flush(self) -> None:
        if self._pending:
            self._spans.append(self._spool.append(bytes(self._pending)))
            self._pending.clear()
