"""Reading the ref log of one model from its store.

The log is the files `log/<n>` and `log/checkpoint-<n>`. `RefLog` keeps the state after the last record that it has read
and goes on from there. Looking for news costs two small calls at once; only when there is news is the folder listed.

How it stays right:

* The next record's name being free says that nothing is new only as long as our own last record is still there: records
  are trimmed oldest first (but for record 0), so if that one stands, its successors were not trimmed.
* A record that stands at a number below a checkpoint may be a ghost, renamed there too late by a writer that slept
  through a trim. Whenever a checkpoint ahead of us exists, records up to it count only if they lead to exactly the
  record that it names; otherwise the checkpoint does.
* A model folder that was renamed, removed or replaced by another of the same name is told apart by the id in record 0,
  which is never trimmed.

All on the trio thread, one call of `open` or `refresh` at a time. Reads may be cancelled anywhere: the state changes in
one step at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from mvcfs.errors import CorruptData, LimitExceeded, NotADirectory, NotFound
from mvcfs.storage.protocol import Storage, StoreEntry
from mvcfs.versions.gather import gather
from mvcfs.versions.log.checkpoint import parse_checkpoint
from mvcfs.versions.log.records import MAX_RECORD_BYTES, parse_record
from mvcfs.versions.log.state import LogState, StoredRecord, apply

_CHECKPOINT = "checkpoint-"
_TEMPORARY = "tmp-"
_DIGITS = 20
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a log's folder.

    Attributes:
        records: Numbers of the records, ascending.
        checkpoints: Numbers of the checkpoints, ascending.
        temporary: Names of files that are no record yet.
    """

    records: tuple[int, ...]
    checkpoints: tuple[int, ...]
    temporary: tuple[str, ...]

    @classmethod
    def of(cls, entries: Iterable[StoreEntry]) -> Listing:
        """What a folder's entries are; unknown names are left out."""
        names = [entry.name for entry in entries if not entry.is_dir]
        return cls(
            tuple(sorted(int(name) for name in names if _is_number(name))),
            tuple(
                sorted(
                    int(name.removeprefix(_CHECKPOINT))
                    for name in names
                    if name.startswith(_CHECKPOINT) and _is_number(name.removeprefix(_CHECKPOINT))
                )
            ),
            tuple(name for name in names if name.startswith(_TEMPORARY)),
        )


class Fate(Enum):
    """What the log's checkpoints say of a record."""

    OPEN = "no checkpoint has passed its number: the file there decides"
    TAKEN_IN = "it is part of the log"
    VOID = "another record is part of the log at its number"
    FORGOTTEN = "the log has gone on too far to tell"


def _is_number(name: str) -> bool:
    return len(name) == _DIGITS and name.isascii() and name.isdigit()


def record_name(number: int) -> str:
    """The name of a record's file in the log's folder."""
    return f"{number:0{_DIGITS}d}"


def checkpoint_name(number: int) -> str:
    """The name of a checkpoint's file in the log's folder."""
    return _CHECKPOINT + record_name(number)


def temporary_name(txn: str) -> str:
    """The name under which a record (or checkpoint) is written before it is renamed."""
    return _TEMPORARY + txn


class RefLog:
    """A model's ref log as far as it was read.

    Attributes:
        state: The state after the last record read.
        newest_checkpoint: Number of the newest checkpoint that was seen, 0 for none.
    """

    state: LogState

    def __init__(self, storage: Storage, model_path: Callable[[], str]) -> None:
        self._storage = storage
        self._model_path = model_path
        self.newest_checkpoint = 0
        self._own_entry: tuple[int, int, int] | None = None

    @property
    def folder(self) -> str:
        """The log's folder in the store, where the model is now."""
        return f"{self._model_path()}/log"

    def path(self, name: str) -> str:
        """A name in the log's folder, as a path in the store."""
        return f"{self.folder}/{name}"

    # --- reading

    async def open(self) -> None:
        """Reads the log from its newest checkpoint.

        Raises:
            NotFound: There is no such model.
            CorruptData: The log is damaged; the message names the file.
            UnsupportedFormat: A newer mvcfs wrote it.
        """
        self.state = await self._settled(self._reopen)

    async def refresh(self) -> bool:
        """Takes in new records; True if there were any.

        Raises:
            NotFound: The model was renamed or removed.
            CorruptData: The log is damaged.
            UnsupportedFormat: A newer mvcfs wrote what is new.
        """
        number = self.state.number
        ahead, own = await gather(
            [lambda: self._stat(record_name(number + 1)), lambda: self._stat(record_name(number))]
        )
        if own is not None:
            await self._check_own(number, own)
            # Record 0 stays whatever is trimmed, so that it stands says nothing.
            if ahead is None and number > 0:
                return False
        state = await self._settled(self._advance)
        changed = state.number != self.state.number
        self.state = state
        return changed

    def append(self, stored: StoredRecord) -> None:
        """Takes in a record that we have published ourselves, unless a refresh has taken it in already."""
        if stored.record.number == self.state.number + 1:
            self.state = apply(self.state, [stored])

    async def listing(self) -> Listing:
        """The folder's names now.

        Raises:
            NotFound: The model was renamed or removed.
        """
        try:
            listing = Listing.of(await self._storage.list_dir(self.folder))
        except (NotFound, NotADirectory) as error:
            raise self.gone() from error
        if listing.checkpoints:
            self.newest_checkpoint = max(self.newest_checkpoint, listing.checkpoints[-1])
        return listing

    def gone(self) -> NotFound:
        """The error of a model that isn't where it was."""
        return NotFound(f"model {self._model_path().rpartition('/')[2]!r} was renamed or removed, or the store is gone")

    async def check_identity(self, model_id: str) -> None:
        """Makes sure that the folder is still this model's, and not another's under the same name.

        Raises:
            NotFound: The model was renamed or removed.
        """
        first = await self.read_record(0)
        if first is None or first.record.model != model_id:
            raise self.gone()

    async def read_record(self, number: int) -> StoredRecord | None:
        """A record's file; None if there is none.

        Raises:
            CorruptData, UnsupportedFormat: As `parse_record`.
        """
        where = self.path(record_name(number))
        data = await self._read(where)
        if data is None:
            return None
        record = parse_record(data, where)
        if record.number != number:
            raise CorruptData(f"{where}: holds record {record.number}")
        return StoredRecord.of(record, data, where)

    async def read_checkpoint(self, number: int) -> LogState | None:
        """A checkpoint; None if there is none.

        Raises:
            CorruptData, UnsupportedFormat: As `parse_checkpoint`.
        """
        where = self.path(checkpoint_name(number))
        data = await self._read(where)
        if data is None:
            return None
        state = parse_checkpoint(data, where)
        if state.number != number:
            raise CorruptData(f"{where}: holds the checkpoint of record {state.number}")
        return state

    async def read_records(self, numbers: range) -> list[StoredRecord | None]:
        """Several records, read at once; None for each that isn't there."""
        return await gather([functools.partial(self.read_record, number) for number in numbers])

    async def fate(self, number: int, txn: str) -> Fate:
        """What the checkpoints say of a record that was published, or was meant to be, at a number.

        Raises:
            NotFound: The model was renamed or removed.
        """
        for _ in range(_ROUNDS):
            later = [checkpoint for checkpoint in (await self.listing()).checkpoints if checkpoint >= number]
            if not later:
                return Fate.OPEN
            checkpoint = await self.read_checkpoint(later[0])
            if checkpoint is not None:
                found = checkpoint.txn_of(number)
                return Fate.FORGOTTEN if found is None else Fate.TAKEN_IN if found == txn else Fate.VOID
        raise CorruptData(f"{self.folder}: checkpoints are listed that can't be read")

    # --- inside

    async def _stat(self, name: str) -> StoreEntry | None:
        try:
            return await self._storage.stat(self.path(name))
        except (NotFound, NotADirectory):
            return None

    async def _check_own(self, number: int, entry: StoreEntry) -> None:
        """A last record that looks other than it did may be another model's: then its identity is looked at."""
        mark = (number, entry.size_bytes, entry.mtime_ns)
        if self._own_entry is not None and self._own_entry[0] == number and self._own_entry != mark:
            await self.check_identity(self.state.model)
        self._own_entry = mark

    async def _read(self, path: str) -> bytes | None:
        try:
            return await self._storage.read_file(path, max_bytes=MAX_RECORD_BYTES)
        except (NotFound, NotADirectory):
            return None
        except LimitExceeded as error:
            raise CorruptData(f"{path}: longer than any record or checkpoint") from error

    async def _settled(self, attempt: Callable[[], Awaitable[LogState | None]]) -> LogState:
        """Tries until files that were listed were also there to be read: a trim may pass in between."""
        for _ in range(_ROUNDS):
            state = await attempt()
            if state is not None:
                return state
        raise CorruptData(f"{self.folder}: records or checkpoints are listed that can't be read")

    async def _reopen(self) -> LogState | None:
        """The state by the newest checkpoint and what follows it; None if it vanished meanwhile."""
        listing = await self.listing()
        if not listing.records:
            raise CorruptData(f"{self.folder}: there are no records")
        base, damage = await self._newest_checkpoint(listing)
        try:
            return await self._follow(base, listing)
        except CorruptData as error:
            raise damage or error from error

    async def _newest_checkpoint(self, listing: Listing) -> tuple[LogState | None, CorruptData | None]:
        """The newest checkpoint that can be read, and what was wrong with a newer one."""
        damage: CorruptData | None = None
        for number in reversed(listing.checkpoints):
            try:
                state = await self.read_checkpoint(number)
            except CorruptData as error:
                damage = damage or error
            else:
                if state is not None:
                    return state, damage
        return None, damage

    async def _advance(self) -> LogState | None:
        """The state with what is new; None if files vanished meanwhile."""
        listing = await self.listing()
        state = self.state
        if listing.checkpoints and listing.checkpoints[-1] > state.number:
            return await self._advance_past_checkpoint(listing)
        try:
            if not listing.records or listing.records[-1] < state.number:
                raise CorruptData(f"{self.folder}: record {state.number} is gone")
            return await self._follow(state, listing)
        except CorruptData:
            await self.check_identity(state.model)
            raise

    async def _advance_past_checkpoint(self, listing: Listing) -> LogState | None:
        """Follows the records if they lead to what the checkpoint says, else goes by the checkpoint."""
        checkpoint = await self.read_checkpoint(listing.checkpoints[-1])
        if checkpoint is None:
            return None
        if checkpoint.model != self.state.model:
            raise self.gone()
        return await self._follow(checkpoint, listing)

    async def _follow(self, base: LogState | None, listing: Listing) -> LogState | None:
        """`base` with the records after it; None if one vanished after the folder was listed."""
        first = 0 if base is None else base.number + 1
        last = listing.records[-1]
        stored = await self.read_records(range(first, last + 1))
        present: list[StoredRecord] = []
        for number, entry in zip(range(first, last + 1), stored, strict=True):
            if entry is None:
                if (await self.listing()).checkpoints != listing.checkpoints:
                    return None
                raise CorruptData(f"{self.path(record_name(number))}: missing, though record {last} is there")
            present.append(entry)
        if base is not None:
            await self._check_base(base)
        return apply(base, present) if present or base is None else base

    async def _check_base(self, base: LogState) -> None:
        """The record that a checkpoint speaks of stays as long as the checkpoint: they must agree."""
        if hasattr(self, "state") and base is self.state:
            return
        stored = await self.read_record(base.number)
        if stored is not None and (stored.sha256 != base.sha256 or stored.record.model != base.model):
            raise CorruptData(f"{stored.where}: is not the record that {checkpoint_name(base.number)} speaks of")
