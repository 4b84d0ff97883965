"""All that the ref log says as of one record, and how one record follows another.

A `LogState` is what a checkpoint holds and what a reader keeps. `apply` is the only way from one to the next: it checks
that a record belongs to this log and follows the last one, so a foreign, forged, missing or doubled record is reported
as damage and never taken in. Immutable and pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvcfs.errors import CorruptData
from mvcfs.types import StoredFile
from mvcfs.versions.log.records import Condemned, Expired, InlineObject, Lease, Record, digest
from mvcfs.versions.log.refs import Refs, RefTable

KEPT_TXNS = 1024
"""So many of the last records a checkpoint names by txn: how a late publisher finds out whether it was in time."""


@dataclass(frozen=True, slots=True)
class LogState:
    """The state of a model after a record.

    Attributes:
        model: The model's id.
        number: The record.
        sha256: Digest of the record's bytes: what the next one's `previous` must be.
        time_ns: The record's time; the next one's is greater.
        refs: Branches, tags, aliases and live files.
        condemned: Files that may go, by name.
        expired: Versions without large-file data.
        leases: Claims that hadn't ended at the record's time.
        inline: Git objects of records that no pack holds yet.
        txns: Txns of the last records up to this one, this one's last.
    """

    model: str
    number: int
    sha256: str
    time_ns: int
    refs: Refs
    condemned: tuple[Condemned, ...] = ()
    expired: tuple[Expired, ...] = ()
    leases: tuple[Lease, ...] = ()
    inline: tuple[InlineObject, ...] = ()
    txns: tuple[str, ...] = ()

    @property
    def inline_bytes(self) -> int:
        """Size of the Git objects that no pack holds yet."""
        return sum(len(entry.data) for entry in self.inline)

    def txn_of(self, number: int) -> str | None:
        """The txn of a record up to this one, None if it isn't known any more."""
        back = self.number - number
        return self.txns[-1 - back] if 0 <= back < len(self.txns) else None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was read or written."""

    record: Record
    sha256: str
    where: str

    @classmethod
    def of(cls, record: Record, data: bytes, where: str) -> StoredRecord:
        """A record with the digest of its bytes."""
        return cls(record, digest(data), where)


def apply(state: LogState | None, records: Sequence[StoredRecord]) -> LogState:
    """The state after these records, which follow `state` (None: they start with record 0).

    Raises:
        CorruptData: One doesn't follow the one before; the message names it.
        ValueError: There is neither a state nor a record.
    """
    for stored in records:
        _check_follows(state, stored)
        state = _after(state, stored)
    if state is None:
        raise ValueError("no records")
    return state


def _check_follows(state: LogState | None, stored: StoredRecord) -> None:
    record, where = stored.record, stored.where
    number, previous = (0, None) if state is None else (state.number + 1, state.sha256)
    if record.number != number:
        raise CorruptData(f"{where}: holds record {record.number} where {number} is expected")
    if state is not None and record.model != state.model:
        raise CorruptData(f"{where}: record {number} belongs to model {record.model}, not to {state.model}")
    if record.previous != previous:
        raise CorruptData(f"{where}: record {number} doesn't follow record {number - 1}: its 'previous' hash differs")
    if state is not None and record.time_ns <= state.time_ns:
        raise CorruptData(f"{where}: record {number} is not later than record {number - 1}")


def _after(state: LogState | None, stored: StoredRecord) -> LogState:
    record = stored.record
    table = RefTable() if state is None else RefTable.of(state.refs)
    for change in record.refs:
        table.apply(change, stored.where)
    git, manifests, packs = (state.refs.git, state.refs.manifests, state.refs.packs) if state else ((), (), ())
    dropped = set(record.drop)
    refs = table.refs(
        record.number,
        _files(git, record.git, dropped),
        _files(manifests, record.manifests, dropped),
        _files(packs, record.packs, dropped),
    )
    inline = state.inline if state else ()
    if record.packed is not None:
        limit = min(record.packed, record.number - 1)
        inline = tuple([entry for entry in inline if entry.number > limit])
    known = {entry.oid for entry in inline}
    inline += tuple([entry for entry in record.objects if entry.oid not in known])
    return LogState(
        record.model,
        record.number,
        stored.sha256,
        record.time_ns,
        refs,
        _condemned(state.condemned if state else (), record),
        (state.expired if state else ()) + record.expire,
        _leases(state.leases if state else (), record),
        inline,
        ((state.txns if state else ()) + (record.txn,))[-KEPT_TXNS:],
    )


def _files(files: tuple[StoredFile, ...], added: tuple[StoredFile, ...], dropped: set[str]) -> tuple[StoredFile, ...]:
    if not added and not dropped:
        return files
    by_name = {file.name: file for file in (*files, *added) if file.name not in dropped}
    return tuple(by_name.values())


def _condemned(entries: Iterable[Condemned], record: Record) -> tuple[Condemned, ...]:
    # What is dropped while it is condemned was deleted; what is dropped and condemned at once is about to be.
    settled = {*record.rescue, *record.drop}
    by_name = {entry.name: entry for entry in entries if entry.name not in settled}
    by_name |= {entry.name: entry for entry in record.condemn}
    return tuple(by_name.values())


def _leases(leases: Iterable[Lease], record: Record) -> tuple[Lease, ...]:
    held = {(lease.holder, lease.purpose): lease for lease in leases}
    if record.lease is not None:
        held[record.lease.holder, record.lease.purpose] = record.lease
    return tuple(lease for lease in held.values() if lease.until_ns > record.time_ns)
