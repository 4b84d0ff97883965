"""One layer of a staged file: a sparse data file, and a map of the blocks in it that hide what is below.

`st_size` of the data file is the layer's size at all times. Bytes below `base_bytes` come from below unless their block is
marked in the map; everything else is the data file's. The map file is a header (`base_bytes`, 8 bytes little-endian) and
one byte a block. A layer with nothing below has no map file.

**Order of system calls.** A kill between any two leaves the old or the new content of every block:
* The in-size bytes of an unmarked block are completed from below and written first, which nobody sees; then its mark;
  then the bytes beyond the old size. So garbage in unmarked blocks is possible, and always overwritten before a mark.
* Shrinking cuts the data file, then lowers `base_bytes` in the header. Loading takes the smaller of header and size and
  writes it down again before anything may grow, so bytes that were cut off never come back.

Threading: trio thread only. Every method is synchronous, so between two awaits of a caller a layer is whole.
"""

from __future__ import annotations

import errno
import os as _os
import secrets
import struct
from contextlib import suppress
from enum import Enum

from mvcfs.content.staging_room import StagingRoom
from mvcfs.content.staging_state import MAP_SUFFIX, Facts, LayerState
from mvcfs.errors import CorruptData
from mvcfs.types import MIB

BLOCK_BYTES = MIB

_HEADER = struct.Struct("<Q")
_PAGE = 4096
# Bytes written inside a file may fill holes or not: after this many the file itself is asked.
_RESYNC_BYTES = 8 * MIB
_NO_SUCH_FLAG = frozenset({errno.EOPNOTSUPP, errno.EINVAL})


class Source(Enum):
    """Where a run of a layer's bytes is."""

    OWN = 1
    BELOW = 2
    ZERO = 3


class Layer:
    """A layer. Made by `create`, `load` or `recover`.

    Attributes:
        name: Name of the data file.
        size: Length of the layer, and of the file as long as the layer is the topmost.
        base_bytes: How many bytes at most come from below; never more than `size`.
        views: How many frozen views show the layer; while there is one it must not be written.
        readers: How many threads read from it.
        writes: Grows with each change.
        synced: Value of `writes` that `durable` speaks of; -1 if none.
        durable: What is known to be on disk.
        let_go: Whether no row names it any more: its files go with the last view.
        mapped: Whether it has a map file.
        failed: Why its data can no longer be made durable, once the disk has failed to.
    """

    __slots__ = (
        "_blocks", "_charged", "_header", "_room", "_unsure", "base_bytes", "durable", "failed", "let_go", "mapped",
        "name", "readers", "size", "synced", "views", "writes",
    )  # fmt: skip

    def __init__(self, room: StagingRoom, name: str, size: int, base_bytes: int, blocks: bytearray) -> None:
        self._room = room
        self._blocks = blocks
        self._charged = 0
        self._unsure = 0
        self._header = base_bytes
        self.name = name
        self.mapped = bool(blocks)
        self.size = size
        self.base_bytes = base_bytes
        self.views = 0
        self.readers = 0
        self.writes = 0
        self.synced = -1
        self.durable: Facts | None = None
        self.failed: str | None = None
        self.let_go = False

    @staticmethod
    def create(room: StagingRoom, size: int, base_bytes: int) -> Layer:
        """A new layer that hides nothing of the first `base_bytes` below, and is zero from there to `size`."""
        name = secrets.token_hex(16)
        layer = Layer(room, name, size, base_bytes, bytearray(_block_count(base_bytes)))
        try:
            if layer.mapped:
                layer._write_map()
            fd = room.files.create(name)
            if size:
                _os.ftruncate(fd, size)
        except OSError:
            layer._unlink()
            raise
        layer.resync()
        return layer

    @staticmethod
    def load(room: StagingRoom, state: LayerState) -> Layer:
        """The layer as its files say, in the boot that wrote them; CorruptData if one is missing."""
        size = _size_of(room, state.name)
        base, blocks = 0, bytearray()
        if state.mapped:
            base, blocks = _read_map(room, state.name + MAP_SUFFIX)
        layer = Layer(room, state.name, size, min(base, size), blocks)
        layer.mapped = state.mapped
        layer.durable = state.durable
        layer._header = base
        layer._save_header()
        layer.resync()
        return layer

    @staticmethod
    def recover(room: StagingRoom, state: LayerState) -> Layer:
        """The layer after a power loss: what its durable facts say, cut at the size found. Repeatable."""
        facts = state.durable
        if facts is None:
            raise ValueError(f"nothing of {state.name} is durable")
        size = min(facts.size_bytes, _size_of(room, state.name))
        base = min(facts.base_bytes, size)
        layer = Layer(room, state.name, size, base, bytearray(facts.blocks))
        layer.mapped = state.mapped
        _os.ftruncate(room.files.fd(layer.name), size)
        if layer.mapped:
            layer._write_map(exclusive=False)
        layer.durable, layer.synced = Facts(size, base, facts.blocks), 0
        layer.resync()
        return layer

    def state(self) -> LayerState:
        """How a row names the layer."""
        return LayerState(self.name, self.mapped, self.durable)

    def facts(self) -> Facts:
        """What is durable once the data file has been synced from now on."""
        return Facts(self.size, self.base_bytes, bytes(self._blocks))

    def is_own(self, offset: int, end: int) -> bool:
        """Whether [offset, end) is in blocks of the data file only."""
        first = offset // BLOCK_BYTES
        if first * BLOCK_BYTES >= self.base_bytes:
            return True
        return self._blocks.find(0, first, min(_block_count(end), _block_count(self.base_bytes))) < 0

    def next_run(self, offset: int, end: int) -> tuple[int, Source]:
        """Where the run of bytes of one source ends that begins at `offset`, at most `end`, and their source."""
        block = offset // BLOCK_BYTES
        if not self._comes_from_below(block):
            stop = self._blocks.find(0, block, _block_count(self.base_bytes))
            return (end if stop < 0 else min(end, stop * BLOCK_BYTES)), Source.OWN
        if offset >= self.base_bytes:
            return min(end, (block + 1) * BLOCK_BYTES), Source.ZERO
        stop = self._blocks.find(1, block, _block_count(self.base_bytes))
        return min(end, self.base_bytes if stop < 0 else stop * BLOCK_BYTES), Source.BELOW

    def partial_blocks(self, offset: int, end: int) -> list[int]:
        """The blocks that a write of [offset, end) changes in part and that come from below."""
        return [block for block in partial_blocks(self.size, offset, end) if self._comes_from_below(block)]

    def write(self, offset: int, data: bytes | bytearray | memoryview, below: dict[int, bytes]) -> None:
        """Writes `data`.

        Args:
            offset: Where.
            data: What; not empty.
            below: Content from below of every block that `partial_blocks` names.
        """
        if self.is_own(offset, offset + len(data)):
            self._write_own(offset, data)
        else:
            self._write_over_base(offset, memoryview(data), below)
        self.writes += 1

    def truncate(self, size: int) -> None:
        """Sets the size; what is cut off is gone, what is added is zero."""
        fd = self._room.files.fd(self.name)
        if size < self.size:
            _os.ftruncate(fd, size)
            self.size = size
            self.base_bytes = min(self.base_bytes, size)
            self.writes += 1
            self._save_header()
            self.resync()
        elif size > self.size:
            self._save_header()
            _os.ftruncate(fd, size)
            self.size = size
            self.writes += 1

    def read_cached(self, offset: int, view: memoryview) -> bool:
        """Fills `view` with own bytes if they are in memory; False if the disk would have to be waited for."""
        fd = self._room.files.fd(self.name)
        try:
            return _os.preadv(fd, [view], offset, self._room.read_flags) == len(view)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._room.read_flags or error.errno not in _NO_SUCH_FLAG:
                raise
        # tmpfs and the like: there is no disk to wait for.
        self._room.read_flags = 0
        return _os.preadv(fd, [view], offset) == len(view)

    def mark(self, blocks: list[int]) -> None:
        """Makes blocks that were written into the data file from elsewhere the layer's own."""
        for block in blocks:
            if block < len(self._blocks) and not self._blocks[block]:
                self._set_marks(block, block + 1)
        self.writes += 1

    def own_blocks(self) -> list[int]:
        """The marked blocks in the part that may come from below."""
        return [i for i in range(_block_count(self.base_bytes)) if self._blocks[i]]

    def resync(self) -> None:
        """Counts what the data file really takes on disk."""
        status = _os.fstat(self._room.files.fd(self.name))
        size_on_disk = status.st_blocks * 512 + (_round_up(_HEADER.size + len(self._blocks)) if self.mapped else 0)
        self._charge(size_on_disk - self._charged)
        self._unsure = 0

    def close(self) -> None:
        """Closes the descriptors; they open again when needed."""
        self._room.files.close(self.name)
        if self.mapped:
            self._room.files.close(self.name + MAP_SUFFIX)

    def doom(self) -> None:
        """Gives the files up for removal."""
        names = (self.name, self.name + MAP_SUFFIX) if self.mapped else (self.name,)
        self._room.doom(names, self._charged)

    def _write_own(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        size = self.size
        end = offset + len(data)
        if end > size:
            if self._header != self.base_bytes:
                self._save_header()
            self._pwrite(offset, data)
            self._charge(_round_up(end) - _round_up(max(offset, size)))
            self.size = end
        else:
            self._pwrite(offset, data)
        if offset < size:
            self._unsure += len(data)
            if self._unsure > _RESYNC_BYTES:
                self.resync()

    def _write_over_base(self, offset: int, data: memoryview, below: dict[int, bytes]) -> None:
        end = offset + len(data)
        first, last = offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        stop = min(end, self.size)
        start, head, tail = offset, b"", b""
        if self._comes_from_below(first) and offset > first * BLOCK_BYTES:
            start = first * BLOCK_BYTES
            head = self._complete(first, below)[: offset - start]
        if self._comes_from_below(last) and end < self.size:
            tail = self._complete(last, below)[end - last * BLOCK_BYTES :]
        middle = data[: max(0, stop - offset)]
        if head or middle:
            self._pwrite(start, b"".join((head, middle, tail)) if head or tail else middle)
        self._set_marks(first, min(last + 1, _block_count(self.base_bytes)))
        self._charge(_round_up(len(head) + len(middle) + len(tail)))
        if end > stop:
            self._write_own(max(offset, stop), data[len(middle) :])

    def _complete(self, block: int, below: dict[int, bytes]) -> bytes:
        """A block's content up to the layer's size, as it is before a write."""
        start = block * BLOCK_BYTES
        content = below.get(block, b"")[: self.base_bytes - start]
        return content.ljust(min(BLOCK_BYTES, self.size - start), b"\0")

    def _comes_from_below(self, block: int) -> bool:
        return block * BLOCK_BYTES < self.base_bytes and not self._blocks[block]

    def _set_marks(self, first: int, stop: int) -> None:
        marks = b"\1" * (stop - first)
        _pwrite_all(self._room.files.fd(self.name + MAP_SUFFIX), marks, _HEADER.size + first)
        self._blocks[first:stop] = marks

    def _pwrite(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        fd = self._room.files.fd(self.name)
        try:
            written = _os.pwrite(fd, data, offset)
            if written != len(data):
                _pwrite_all(fd, memoryview(data)[written:], offset + written)
        except OSError:
            # Part of it may be there, as after any failed write.
            self.size = max(self.size, _os.fstat(fd).st_size)
            self.writes += 1
            self.resync()
            raise

    def _charge(self, n: int) -> None:
        if n:
            self._charged += n
            self._room.charge(n)

    def _save_header(self) -> None:
        if self.mapped and self._header != self.base_bytes:
            fd = self._room.files.fd(self.name + MAP_SUFFIX)
            _pwrite_all(fd, _HEADER.pack(self.base_bytes), 0)
        self._header = self.base_bytes

    def _write_map(self, *, exclusive: bool = True) -> None:
        fd = self._room.files.create(self.name + MAP_SUFFIX, exclusive=exclusive)
        _pwrite_all(fd, _HEADER.pack(self.base_bytes) + self._blocks, 0)
        self._header = self.base_bytes

    def _unlink(self) -> None:
        self.close()
        for name in (self.name, self.name + MAP_SUFFIX):
            with suppress(OSError):
                _os.unlink(self._room.directory / name)


def partial_blocks(size: int, offset: int, end: int) -> list[int]:
    """The blocks of a file of `size` bytes that a write of [offset, end) changes, but not wholly."""
    found = []
    for block in sorted({offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES}):
        start = block * BLOCK_BYTES
        if start < size and not (offset <= start and end >= min(start + BLOCK_BYTES, size)):
            found.append(block)
    return found


def _block_count(size: int) -> int:
    return -(-size // BLOCK_BYTES)


def _round_up(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _pwrite_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = _os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _size_of(room: StagingRoom, name: str) -> int:
    try:
        return _os.fstat(room.files.fd(name)).st_size
    except FileNotFoundError as error:
        raise _missing(room, name) from error


def _read_map(room: StagingRoom, name: str) -> tuple[int, bytearray]:
    try:
        fd = room.files.fd(name)
    except FileNotFoundError as error:
        raise _missing(room, name) from error
    data = _os.pread(fd, _os.fstat(fd).st_size, 0)
    if len(data) < _HEADER.size:
        raise CorruptData(f"the staging file {room.directory / name} is damaged: it is shorter than its header")
    base = _HEADER.unpack_from(data)[0]
    blocks = bytearray(data[_HEADER.size :])
    if len(blocks) < _block_count(base):
        raise CorruptData(f"the staging file {room.directory / name} is damaged: it is shorter than its header says")
    return base, blocks


def _missing(room: StagingRoom, name: str) -> CorruptData:
    return CorruptData(f"the staging file {room.directory / name} is missing; the overlay names it")
