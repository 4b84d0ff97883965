"""Writing manifest files, a record batch at a time; see `manifest_file` for what they are. All functions are for threads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mvcfs.content.manifest_file import CHUNK_FIELDS, ROW, RUN_CHUNKS, SCHEMA

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A large file whose chunks are in an upload's spool.

    Attributes:
        oid: SHA-256 of its content.
        size_bytes: Its length.
        spans: First row and number of rows in the spool, in file order.
    """

    oid: bytes
    size_bytes: int
    spans: tuple[tuple[int, int], ...]


def write_manifest(
    path: Path, files: Sequence[SpooledFile], spool: Path, packs: Sequence[str]
) -> tuple[int, frozenset[str]]:
    """Writes a manifest; returns its length and the names of the packs that it refers to.

    Args:
        path: Where to.
        files: What it holds, each oid once.
        spool: File of `ROW`s that `files` refer to.
        packs: What the rows' `pack` numbers mean.
    """
    rows: Array = np.fromfile(spool, dtype=ROW) if spool.stat().st_size == 0 else np.memmap(spool, dtype=ROW, mode="r")
    ordered = sorted(files, key=lambda file: file.oid)
    used = _used_packs(rows, ordered, len(packs))
    numbers = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    names = [name for name, is_used in zip(packs, used, strict=True) if is_used]
    schema = manifest_schema(names)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in _batches(ordered):
            writer.write_batch(_encode(rows, batch, numbers, schema))
    return path.stat().st_size, frozenset(names)


def manifest_schema(packs: Sequence[str]) -> pa.Schema:
    """The schema of a manifest whose pack numbers mean these packs."""
    return SCHEMA.with_metadata({"mvcfs.manifest": "1", "mvcfs.packs": json.dumps(list(packs))})


def _used_packs(rows: Array, files: Sequence[SpooledFile], count: int) -> Array:
    used = np.zeros(count, dtype=bool)
    for file in files:
        for first, number in file.spans:
            used[rows["pack"][first : first + number]] = True
    return used


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of a file's chunks, as one row of the manifest."""

    file: SpooledFile
    spans: tuple[tuple[int, int], ...]
    count: int


def _batches(files: Sequence[SpooledFile]) -> Iterator[list[_Part]]:
    """Rows in groups of at most `RUN_CHUNKS` chunks and as many rows."""
    group: list[_Part] = []
    total = 0
    for file in files:
        for part in _parts(file):
            if group and (total + part.count > RUN_CHUNKS or len(group) >= RUN_CHUNKS):
                yield group
                group, total = [], 0
            group.append(part)
            total += part.count
    if group:
        yield group


def _parts(file: SpooledFile) -> Iterator[_Part]:
    spans: list[tuple[int, int]] = []
    total = 0
    for first, number in file.spans:
        while number:
            take = min(number, RUN_CHUNKS - total)
            spans.append((first, take))
            first, number, total = first + take, number - take, total + take
            if total == RUN_CHUNKS:
                yield _Part(file, tuple(spans), total)
                spans, total = [], 0
    if spans or not file.spans:
        yield _Part(file, tuple(spans), total)


def _encode(rows: Array, parts: Sequence[_Part], numbers: Array, schema: pa.Schema) -> pa.RecordBatch:
    pieces = [rows[first : first + number] for part in parts for first, number in part.spans]
    chunk_rows = np.concatenate(pieces) if pieces else np.empty(0, dtype=ROW)
    columns = (
        chunk_rows["hash"],
        chunk_rows["length"],
        numbers[chunk_rows["pack"]] if len(chunk_rows) else np.empty(0, np.uint32),
        chunk_rows["offset"],
        chunk_rows["start"],
    )
    sizes = np.array([part.file.size_bytes for part in parts], np.uint64)
    counts = np.array([part.count for part in parts], np.int64)
    return encode_batch(b"".join(part.file.oid for part in parts), sizes, counts, columns, schema)


def encode_batch(
    oids: bytes, sizes: Array, counts: Array, chunks: tuple[Array, Array, Array, Array, Array], schema: pa.Schema
) -> pa.RecordBatch:
    """A record batch of rows.

    Args:
        oids: The rows' oids, one after another.
        sizes: Lengths of their files.
        counts: How many chunks each row has.
        chunks: Hash, length, pack number, offset and start of all chunks, in the rows' order.
        schema: As `manifest_schema` gives it.
    """
    hash, length, pack, offset, start = (np.ascontiguousarray(column) for column in chunks)
    columns = [
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(hash), [None, pa.py_buffer(hash.tobytes())]),
        pa.array(length, pa.uint32()),
        pa.array(pack, pa.uint32()),
        pa.array(offset, pa.uint64()),
        pa.array(start, pa.uint64()),
    ]
    values = pa.StructArray.from_arrays(columns, fields=CHUNK_FIELDS)
    bounds = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=bounds[1:])
    lists = pa.ListArray.from_arrays(pa.array(bounds), values, type=SCHEMA.field("chunks").type)
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(counts), [None, pa.py_buffer(oids)])
    return pa.record_batch([ids, pa.array(sizes.astype(np.uint64), pa.uint64()), lists], schema=schema)
