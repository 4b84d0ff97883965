"""Joining manifests: one sorted file of what several hold, written without holding any of them.

Inputs are mapped, and a record batch of the result is gathered from their columns at a time. In memory stays what is a
row: some 50 bytes a large file, nothing a chunk. For a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mvcfs.content.manifest_file import RUN_CHUNKS, Batch, Manifest
from mvcfs.content.manifest_writing import encode_batch, manifest_schema

Array = np.ndarray[Any, Any]


def write_joined_manifest(path: Path, manifests: Sequence[Manifest]) -> int:
    """Writes a manifest of all files that these hold; returns its length.

    Where several have a file the first one's chunks are taken. Named are the packs that chunks refer to.
    """
    rows = _Rows(manifests)
    numbers, names = _packs(manifests, rows)
    schema = manifest_schema(names)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for first, last in _groups(rows.counts):
            writer.write_batch(_gather(rows, numbers, slice(first, last), schema))
    return path.stat().st_size


class _Rows:
    """The rows of the result, in its order: where each is in the inputs.

    Attributes:
        batches: All batches of all inputs.
        owners: The input that each batch belongs to.
        oids: Each row's file.
        batch: Each row's batch.
        begins: Where in that batch its chunks begin.
        counts: How many they are.
        sizes: Its file's size.
    """

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self.batches: list[Batch] = [batch for manifest in manifests for batch in manifest.batches]
        self.owners = np.repeat(np.arange(len(manifests)), [len(manifest.batches) for manifest in manifests])
        none: list[Array] = [np.empty(0, "S32")]
        oids = np.concatenate([batch.oid for batch in self.batches] or none)
        order = np.argsort(oids, kind="stable")
        self.oids = oids[order]
        lengths = [len(batch.oid) for batch in self.batches]
        self.batch = np.repeat(np.arange(len(self.batches)), lengths)[order]
        self.begins = _concatenated([batch.bounds[:-1] for batch in self.batches])[order]
        self.counts = _concatenated([np.diff(batch.bounds) for batch in self.batches])[order]
        self.sizes = _concatenated([batch.size for batch in self.batches])[order]
        self._keep(self._of_first_owner())

    def _of_first_owner(self) -> Array:
        """Which rows belong to the first input that has their file: rows of equal oid are in the order of inputs."""
        owner = self.owners[self.batch] if len(self.batch) else self.batch
        starts = np.ones(len(self.oids), dtype=bool)
        starts[1:] = self.oids[1:] != self.oids[:-1]
        first = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
        kept: Array = owner == owner[first]
        return kept

    def _keep(self, kept: Array) -> None:
        self.oids, self.batch, self.begins = self.oids[kept], self.batch[kept], self.begins[kept]
        self.counts, self.sizes = self.counts[kept], self.sizes[kept]


def _concatenated(columns: Sequence[Array]) -> Array:
    return np.concatenate(columns).astype(np.int64) if columns else np.empty(0, np.int64)


def _packs(manifests: Sequence[Manifest], rows: _Rows) -> tuple[list[Array], list[str]]:
    """For each input what its pack numbers are in the result, and the result's pack names."""
    used = [np.zeros(len(manifest.packs), dtype=bool) for manifest in manifests]
    for number, batch in enumerate(rows.batches):
        mine = rows.batch == number
        places = _chunk_places(rows.begins[mine], rows.counts[mine])
        used[int(rows.owners[number])][batch.pack[places]] = True
    names: dict[str, int] = {}
    numbers = []
    for manifest, is_used in zip(manifests, used, strict=True):
        of_input = [
            names.setdefault(name, len(names)) if wanted else 0
            for name, wanted in zip(manifest.packs, is_used.tolist(), strict=True)
        ]
        numbers.append(np.array(of_input, dtype=np.uint32))
    return numbers, list(names)


def _chunk_places(begins: Array, counts: Array) -> Array:
    """The places of the chunks of rows that begin there and have so many, one after another."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(begins - (ends - counts), counts) + np.arange(total)


def _groups(counts: Array) -> Iterator[tuple[int, int]]:
    """Rows [first, last) of each batch: at most `RUN_CHUNKS` chunks and as many rows."""
    ends = np.cumsum(counts)
    first, before = 0, 0
    while first < len(counts):
        last = int(np.searchsorted(ends, before + RUN_CHUNKS, "right"))
        last = min(max(last, first + 1), first + RUN_CHUNKS)
        yield first, last
        first, before = last, int(ends[last - 1])


def _gather(rows: _Rows, numbers: Sequence[Array], part: slice, schema: pa.Schema) -> pa.RecordBatch:
    """One batch of the result."""
    counts, sources = rows.counts[part], rows.batch[part]
    places = _chunk_places(rows.begins[part], counts)
    source_of_chunk = np.repeat(sources, counts)
    total = len(places)
    hashes, starts, offsets = np.empty(total, "S32"), np.empty(total, np.uint64), np.empty(total, np.uint64)
    lengths, packs = np.empty(total, np.uint32), np.empty(total, np.uint32)
    for source in np.unique(sources).tolist():
        mine = source_of_chunk == source
        batch, of_mine = rows.batches[source], places[mine]
        hashes[mine], starts[mine], offsets[mine] = batch.hash[of_mine], batch.start[of_mine], batch.offset[of_mine]
        lengths[mine] = batch.length[of_mine]
        packs[mine] = numbers[int(rows.owners[source])][batch.pack[of_mine]]
    oids = np.ascontiguousarray(rows.oids[part]).tobytes()
    return encode_batch(oids, rows.sizes[part], counts, (hashes, lengths, packs, offsets, starts), schema)
