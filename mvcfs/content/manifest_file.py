"""Manifest files: for each large file its chunks in order. Their format, read without holding one whole.

One row of the Arrow file is a run of chunks of one large file, rows are sorted by the file's oid; a run holds at most
65,536 chunks, and a longer file has several rows, in file order. Reading maps the file: looking up a chunk is two
binary searches on mapped columns.

Invariants: a `Manifest` that was loaded with `check=True` is consistent: every file's chunks follow each other without
gap from 0 to its size and every pack index names a pack. What the chunks hold is checked by their BLAKE3 only.

Threading: `Manifest.load` runs in threads; a loaded `Manifest` is immutable.
"""

from __future__ import annotations

import json
import mmap
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mvcfs.errors import CorruptData

Array = np.ndarray[Any, Any]

RUN_CHUNKS = 65_536
ROW = np.dtype([("hash", "S32"), ("start", "<u8"), ("offset", "<u8"), ("length", "<u4"), ("pack", "<u4")])
"""A chunk as uploads keep it until the manifest is written."""

CHUNK_FIELDS = [
    pa.field("hash", pa.binary(32), nullable=False),
    pa.field("length", pa.uint32(), nullable=False),
    pa.field("pack", pa.uint32(), nullable=False),
    pa.field("offset", pa.uint64(), nullable=False),
    pa.field("start", pa.uint64(), nullable=False),
]
_CHUNK_TYPE = pa.struct(CHUNK_FIELDS)
SCHEMA = pa.schema(
    [
        pa.field("oid", pa.binary(32), nullable=False),
        pa.field("size", pa.uint64(), nullable=False),
        pa.field("chunks", pa.list_(pa.field("item", _CHUNK_TYPE, nullable=False)), nullable=False),
    ]
)
_PACK_NAME = re.compile(r"packs/[0-9a-f]{32}")
_MAX_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """Where a chunk is.

    Attributes:
        hash: BLAKE3 of its bytes.
        length: How many there are.
        pack: The pack's name, `packs/…`.
        offset: Where it stands in the pack.
        start: Where it stands in the file.
    """

    hash: bytes
    length: int
    pack: str
    offset: int
    start: int


class FileChunks:
    """The chunks of one large file, in a mapped manifest."""

    def __init__(self, manifest: Manifest, runs: Sequence[_Run], size_bytes: int) -> None:
        """Made by `Manifest.find`."""
        self.size_bytes = size_bytes
        self.manifest = manifest.name
        self._manifest = manifest
        self._runs = runs
        self._starts = [int(run.start[0]) if len(run.start) else 0 for run in runs]

    def refs(self, begin: int, end: int) -> list[ChunkRef]:
        """The chunks that hold any of [begin, end), in order."""
        found: list[ChunkRef] = []
        end = min(end, self.size_bytes)
        if begin >= end:
            return found
        for number in range(max(0, bisect_right(self._starts, begin) - 1), len(self._runs)):
            if self._starts[number] >= end:
                break
            found += self._runs[number].refs(begin, end, self._manifest.packs)
        return found

    def fingerprints(self) -> tuple[Array, Array]:
        """For each chunk in order the first 8 bytes of its hash as a number, and its length: 12 bytes a chunk, copies."""
        if not self._runs:
            return np.empty(0, np.uint64), np.empty(0, np.uint32)
        hashes = [np.ascontiguousarray(run.hash).view("<u8").reshape(-1, 4)[:, 0] for run in self._runs]
        return np.concatenate(hashes), np.concatenate([run.length for run in self._runs])


class Manifest:
    """A mapped manifest file.

    Attributes:
        name: Its name, as messages have it.
        packs: What its pack numbers mean.
        batches: Its record batches.
    """

    def __init__(self, name: str, packs: tuple[str, ...], batches: Sequence[Batch]) -> None:
        """Made by `load`."""
        self.name = name
        self.packs = packs
        self.batches = batches

    @staticmethod
    def load(path: Path, name: str, *, check: bool) -> Manifest:
        """Maps a manifest file.

        Args:
            path: The local copy.
            name: What messages call it.
            check: Whether all of it is looked at, which a file needs once.

        Raises:
            CorruptData: It isn't a manifest, or one that contradicts itself.
        """
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
            packs = _pack_names(reader.schema, name)
            batches = []
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                batch.validate(full=check)
                batches.append(Batch(batch))
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise CorruptData(f"manifest {name} can't be read: {error}") from error
        if check:
            _check(batches, len(packs), name)
        return Manifest(name, packs, batches)

    def files(self) -> tuple[Array, Array]:
        """Oids (S32, sorted, each once) and sizes of all files: copies, not views."""
        if not self.batches:
            return np.empty(0, "S32"), np.empty(0, np.uint64)
        oids = np.concatenate([batch.oid for batch in self.batches])
        sizes = np.concatenate([batch.size for batch in self.batches])
        unique, first = np.unique(oids, return_index=True)
        return unique, sizes[first]

    def find(self, oid: bytes) -> FileChunks | None:
        """The chunks of the file named `oid`, if it is here."""
        runs: list[_Run] = []
        size = 0
        for batch in self.batches:
            first, last = (int(np.searchsorted(batch.oid, np.bytes_(oid), side)) for side in ("left", "right"))
            for row in range(first, last):
                runs.append(batch.run(row))
                size = int(batch.size[row])
        return FileChunks(self, runs, size) if runs else None

    def chunk_columns(self) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Hash, length, pack number and offset of all chunks, a batch at a time, as mapped columns."""
        for batch in self.batches:
            yield batch.hash, batch.length, batch.pack, batch.offset

    def chunk_oids(self) -> Iterator[Array]:
        """The oid that each chunk belongs to, in the order of `chunk_columns`."""
        for batch in self.batches:
            yield np.repeat(batch.oid, np.diff(batch.bounds))


class _Run:
    """The columns of one row's chunks."""

    __slots__ = ("hash", "length", "offset", "pack", "start")

    def __init__(self, hash: Array, length: Array, pack: Array, offset: Array, start: Array) -> None:
        self.hash, self.length, self.pack, self.offset, self.start = hash, length, pack, offset, start

    def refs(self, begin: int, end: int, packs: Sequence[str]) -> list[ChunkRef]:
        first = max(0, int(np.searchsorted(self.start, np.uint64(begin), "right")) - 1)
        last = int(np.searchsorted(self.start, np.uint64(end), "left"))
        part = slice(first, last)
        hashes = self.hash[part].tobytes()
        columns = zip(
            self.length[part].tolist(),
            self.pack[part].tolist(),
            self.offset[part].tolist(),
            self.start[part].tolist(),
            strict=True,
        )
        return [
            ChunkRef(hashes[32 * i : 32 * i + 32], length, packs[pack], offset, start)
            for i, (length, pack, offset, start) in enumerate(columns)
        ]


class Batch:
    """The mapped columns of one record batch; chunk columns begin at the first row's first chunk.

    Attributes:
        oid: Each row's file.
        size: That file's length.
        bounds: Where each row's chunks begin, and where the last one's end.
        hash, length, pack, offset, start: Of each chunk.
    """

    __slots__ = ("_record", "bounds", "hash", "length", "offset", "oid", "pack", "size", "start")

    def __init__(self, record: pa.RecordBatch) -> None:
        lists = record.column("chunks")
        if record.num_rows == 0 or any(column.null_count for column in record.columns) or lists.values.null_count:
            raise ValueError("a batch is empty or has nulls")
        bounds = lists.offsets.to_numpy().astype(np.int64)
        chunks = lists.values.slice(int(bounds[0]), int(bounds[-1] - bounds[0]))
        fields = {field.name: chunks.field(index) for index, field in enumerate(CHUNK_FIELDS)}
        if any(column.null_count for column in fields.values()):
            raise ValueError("a chunk has nulls")
        self._record = record  # keeps the mapping alive
        self.bounds = bounds - bounds[0]
        self.oid = _fixed_binary(record.column("oid"))
        self.size = record.column("size").to_numpy()
        self.hash = _fixed_binary(fields["hash"])
        self.length, self.pack = fields["length"].to_numpy(), fields["pack"].to_numpy()
        self.offset, self.start = fields["offset"].to_numpy(), fields["start"].to_numpy()

    def run(self, row: int) -> _Run:
        """The chunks of a row."""
        part = slice(int(self.bounds[row]), int(self.bounds[row + 1]))
        return _Run(self.hash[part], self.length[part], self.pack[part], self.offset[part], self.start[part])


def _fixed_binary(column: pa.FixedSizeBinaryArray) -> Array:
    if len(column) == 0:
        return np.empty(0, "S32")
    data = column.buffers()[1]
    return np.frombuffer(data, dtype="S32", count=len(column), offset=32 * column.offset)


def _pack_names(schema: pa.Schema, name: str) -> tuple[str, ...]:
    metadata = schema.metadata or {}
    if metadata.get(b"mvcfs.manifest") != b"1" or not schema.remove_metadata().equals(SCHEMA):
        raise CorruptData(f"manifest {name} has a schema that is not known")
    packs = json.loads(metadata.get(b"mvcfs.packs", b"null"))
    if not isinstance(packs, list) or not all(isinstance(p, str) and _PACK_NAME.fullmatch(p) for p in packs):
        raise CorruptData(f"manifest {name} names packs that can't be")
    return tuple(packs)


def _check(batches: Sequence[Batch], pack_count: int, name: str) -> None:
    previous: tuple[bytes, int, int] | None = None  # oid, size and where the chunks have come to
    for batch in batches:
        if len(batch.pack) and int(batch.pack.max()) >= pack_count:
            raise CorruptData(f"manifest {name} refers to a pack that it doesn't name")
        if len(batch.length) and (int(batch.length.min()) == 0 or int(batch.offset.max()) > _MAX_BYTES):
            raise CorruptData(f"manifest {name} has an empty chunk or one beyond any pack")
        if int(batch.size.max()) > _MAX_BYTES or (len(batch.start) and int(batch.start.max()) > _MAX_BYTES):
            raise CorruptData(f"manifest {name} has a file of impossible size")
        begins, ends = _row_spans(batch, name)
        oids = batch.oid.astype("V32").tolist()
        for oid, size, begin, end in zip(oids, batch.size.tolist(), begins, ends, strict=True):
            at = 0
            if previous is not None and previous[0] == oid:
                at = previous[2]
            elif previous is not None and (previous[0] > oid or previous[1] != previous[2]):
                raise CorruptData(f"manifest {name} isn't sorted, or a file's chunks don't add up to its size")
            if (begin != at and end > begin) or (previous is not None and previous[0] == oid and previous[1] != size):
                raise CorruptData(f"manifest {name}: chunks of {oid.hex()} don't follow each other")
            previous = (oid, size, max(at, end))
    if previous is not None and previous[1] != previous[2]:
        raise CorruptData(f"manifest {name}: a file's chunks don't add up to its size")


def _row_spans(batch: Batch, name: str) -> tuple[list[int], list[int]]:
    """Where each row's chunks begin and end in their file; rows without chunks give 0, 0."""
    first, last = batch.bounds[:-1], batch.bounds[1:]
    if len(batch.start) == 0:
        return [0] * len(first), [0] * len(first)
    ends = batch.start + batch.length.astype(np.uint64)
    inner = np.ones(len(batch.start), dtype=bool)
    inner[first[first < last]] = False  # the first chunk of a row follows nothing
    if not np.array_equal(batch.start[1:][inner[1:]], ends[:-1][inner[1:]]):
        raise CorruptData(f"manifest {name} has a file with a gap or an overlap between chunks")
    filled = first < last
    begins_of = np.where(filled, batch.start[np.minimum(first, len(ends) - 1)], 0)
    ends_of = np.where(filled, ends[np.maximum(last - 1, 0)], 0)
    return begins_of.tolist(), ends_of.tolist()
