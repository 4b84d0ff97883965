"""Publishing one record: the only way anything becomes visible.

A record is written under a temporary name and renamed to the next number, which only one of many writers can do. What
makes this safe when acknowledgements are lost, renames happen late, or a writer sleeps for a week:

* The temporary file is written into the model's folder first and the folder's identity is checked after that: if the
  folder is replaced later, the rename finds no source, so no record ever lands in another model's log.
* `on_attempt` tells the caller txn, number and temporary name before the rename, to be kept on disk until `on_attempt`
  tells None. A restart settles what was left with `settle`.
* An attempt is given up only once its temporary file is known to be gone and the record isn't at its number: then no
  late rename can make it come true.
* After the rename the log is listed: a checkpoint at or past our number that doesn't know our txn means that the
  number had been trimmed: our record is no part of the log, and is removed.

From the first look at the store to the settled attempt everything is shielded from cancellation; each storage call has
its own deadline. All on the trio thread, one publish of a model at a time.
"""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from mvcfs.errors import (
    AlreadyExists,
    CorruptData,
    MvcfsError,
    NotFound,
    PermissionDenied,
    StorageError,
    Transient,
    UnknownOutcome,
    UnsupportedFormat,
)
from mvcfs.storage.protocol import Storage
from mvcfs.types import Author, StoredFile
from mvcfs.versions.log.checkpoint import encode_checkpoint
from mvcfs.versions.log.records import Condemned, InlineObject, Record, RefChange, encode_record
from mvcfs.versions.log.reflog import Fate, RefLog, checkpoint_name, record_name, temporary_name
from mvcfs.versions.log.refs import new_id
from mvcfs.versions.log.state import LogState, StoredRecord

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 64
_LOOK_AGAIN_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_WRITE_TRIES = 3
_BACKOFF_FIRST_S = 0.02
_BACKOFF_MOST_S = 2.0


@dataclass(frozen=True, slots=True)
class Publisher:
    """In whose name records are published.

    Attributes:
        host: This host's name.
        user: The user, for people.
        software: Program and version, for people.
        clock: The time in ns since 1970.
        holder: The mount or command, 32 hex, as its leases name it.
    """

    host: str
    user: str
    software: str
    clock: Callable[[], int]
    holder: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A rename that is about to be tried, or was and nobody knows its outcome.

    Attributes:
        txn: The record's txn.
        number: The number it is to have.
        temporary: The file's name in the log's folder before.
        commit: The commit that the record publishes, "" for none.
        branch: Id of the branch that it moves, "" for none.
    """

    txn: str
    number: int
    temporary: str
    commit: str = ""
    branch: str = ""


OnAttempt = Callable[[Attempt | None], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """A version to be published.

    Attributes:
        branch: Id of the branch.
        base: The commit that the changes were made on; None: on an empty branch.
        tree: The whole tree as it shall be, as `build_tree` gave it.
        author: Who made the changes.
        message: Commit message with trailers.
        manifests: Manifests that the tree's large files need beside the live ones.
        packs: Packs that those manifests need beside the live ones.
        conflict_branch: Where the commit goes if it can't be joined with what others published.
        on_attempt: Told before each rename what is tried, and None once its outcome is known.
        merge_base: The tree that the changes were made on, where it isn't that of `base`.
        override_protection: Publish even if the branch is protected.
        renames: Directories that were renamed since the base: new paths by old ones. The message notes them, too.
        aside: Publish to a branch that is made for it, named by `conflict_branch`, whatever `branch` says.
    """

    branch: str
    base: str | None
    tree: str
    author: Author
    message: str
    conflict_branch: str
    manifests: tuple[StoredFile, ...] = ()
    packs: tuple[StoredFile, ...] = ()
    on_attempt: OnAttempt | None = None
    merge_base: str | None = None
    override_protection: bool = False
    renames: Mapping[bytes, bytes] = field(default_factory=dict)
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a `CommitRequest`.

    Attributes:
        commit: The branch's tip that now holds the changes.
        tree: That commit's tree.
        version: Its number.
        branch: The branch's name: another than asked for after a conflict.
        merged: Others' changes are in the tree as well.
        conflict: The commit went to the conflict branch.
        aside: It went to a branch that was made for it, as asked.
        unchanged: The tip held all this already; nothing was published.
        joined: After a conflict, the commit that brought everything else to the branch asked for, if there was any.
        lost: Of a `WorkRequest`: the paths that another host made, or took away, first.
        number: Of a `WorkRequest`: the record from which on all this is so.
    """

    commit: str
    tree: str
    version: int
    branch: str
    merged: bool = False
    conflict: bool = False
    aside: bool = False
    unchanged: bool = False
    joined: str | None = None
    lost: frozenset[bytes] = frozenset()
    number: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """What a record is to say; number, time and the like are added when it is written. Fields as in `Record`."""

    kind: str
    refs: tuple[RefChange, ...] = ()
    objects: tuple[tuple[str, bytes, str], ...] = field(default=(), repr=False)
    packed: int | None = None
    git: tuple[StoredFile, ...] = ()
    manifests: tuple[StoredFile, ...] = ()
    packs: tuple[StoredFile, ...] = ()
    drop: tuple[str, ...] = ()
    condemn: tuple[Condemned, ...] = ()
    commit: str = ""
    branch: str = ""

    def record(self, publisher: Publisher, state: LogState, txn: str) -> Record:
        """The record that says this after `state`. `objects` are (type, data, id)."""
        number = state.number + 1
        return Record(
            model=state.model,
            number=number,
            previous=state.sha256,
            txn=txn,
            time_ns=max(publisher.clock(), state.time_ns + 1),
            host=publisher.host,
            user=publisher.user,
            software=publisher.software,
            kind=self.kind,
            refs=self.refs,
            objects=tuple([InlineObject(kind, data, number, oid) for kind, data, oid in self.objects]),
            packed=self.packed,
            git=self.git,
            manifests=self.manifests,
            packs=self.packs,
            drop=self.drop,
            condemn=self.condemn,
        )


async def tell(on_attempt: OnAttempt | None, attempt: Attempt | None) -> None:
    """Calls a caller's `on_attempt`, which may be a plain function or an async one."""
    if on_attempt is not None:
        result: Any = on_attempt(attempt)
        if inspect.isawaitable(result):
            await result


class LogWriter:
    """Appends records to one model's log."""

    def __init__(self, storage: Storage, ref_log: RefLog, publisher: Publisher) -> None:
        self._storage = storage
        self._log = ref_log
        self._publisher = publisher

    async def back_off(self, lost: int) -> None:
        """Waits a random while before the next try, longer the more races were lost."""
        most = min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2 ** min(lost, 10))
        await trio.sleep(random.uniform(0, most))

    async def try_append(
        self, draft: Draft, state: LogState, on_attempt: OnAttempt | None = None
    ) -> StoredRecord | None:
        """Publishes the record that `draft` comes to after `state`, which it was planned on.

        Returns:
            The record; None if another one took its number: read what is new and try again.

        Raises:
            NotFound: The model was renamed or removed. An attempt that was told of may have come true.
            Transient: The store failed and nothing was published.
            UnknownOutcome: The store doesn't tell whether the record was published: `settle` finds out.
            PermissionDenied: The store refuses.
        """
        with trio.CancelScope(shield=True):
            txn, data, record = await self._write_temporary(draft, state)
            attempt = Attempt(txn, record.number, temporary_name(txn), draft.commit, draft.branch)
            try:
                await self._log.check_identity(state.model)
                await tell(on_attempt, attempt)
            except BaseException:
                await self._discard(attempt.temporary)
                raise
            source, target = self._log.path(attempt.temporary), self._log.path(record_name(record.number))
            failure: MvcfsError | None = None
            try:
                await self._storage.rename(source, target)
            except (StorageError, AlreadyExists, NotFound) as error:
                log.debug("rename to record %d: %s", record.number, error)
                failure = error
            won = await self._settle(attempt, state.model, record if failure is None else None)
            if won is None:
                raise UnknownOutcome(f"{target}: the log went on too far to tell whether it was published")
            stored = StoredRecord.of(record, data, target) if won else None
            if stored is not None:
                self._log.append(stored)
            await tell(on_attempt, None)
            if stored is None and isinstance(failure, PermissionDenied):
                raise failure
        return stored

    async def settle(self, attempt: Attempt, model_id: str) -> bool | None:
        """Finds out whether an attempt came true, and makes sure that it never will if it hasn't.

        Returns:
            None if it can't come true any more, but the log has gone on too far to tell whether it did.

        Raises:
            NotFound: The model was renamed or removed: ask again where it is now.
            UnknownOutcome: The store doesn't answer.
        """
        with trio.CancelScope(shield=True):
            settled = [await self._settle(attempt, model_id, None)]
        return settled[0]

    async def _settle(self, attempt: Attempt, model_id: str, known: Record | None) -> bool | None:
        waits = iter(_LOOK_AGAIN_S)
        while True:
            try:
                return await self._look(attempt, model_id, known)
            except (Transient, UnknownOutcome) as error:
                wait_s = next(waits, None)
                if wait_s is None:
                    raise UnknownOutcome(
                        f"{self._log.folder}: whether record {attempt.number} was published can't be told: {error}"
                    ) from error
                await trio.sleep(wait_s)

    async def write_checkpoint_if_due(self) -> None:
        """Writes a checkpoint of the log's state if the last one is long ago. A failure is only logged."""
        state = self._log.state
        if state.number - self._log.newest_checkpoint < CHECKPOINT_EVERY:
            return
        try:
            await self.write_checkpoint(state)
        except MvcfsError as error:
            log.warning("no checkpoint of record %d was written: %s", state.number, error)

    async def write_checkpoint(self, state: LogState) -> None:
        """Writes a checkpoint of a state; does nothing if it has one.

        Raises:
            StorageError, NotFound: The store failed.
        """
        data = await trio.to_thread.run_sync(encode_checkpoint, state)
        name = temporary_name(new_id())
        with trio.CancelScope(shield=True):
            await self._storage.write_file(self._log.path(name), data)
            try:
                await self._storage.rename(self._log.path(name), self._log.path(checkpoint_name(state.number)))
            except BaseException as error:
                await self._discard(name)
                if not isinstance(error, AlreadyExists):
                    raise
        self._log.newest_checkpoint = max(self._log.newest_checkpoint, state.number)

    # --- inside

    async def _write_temporary(self, draft: Draft, state: LogState) -> tuple[str, bytes, Record]:
        """Writes the record under a temporary name; a new one whenever it isn't sure what became of the last."""
        last: MvcfsError | None = None
        for _ in range(_WRITE_TRIES):
            txn = new_id()
            record = draft.record(self._publisher, state, txn)
            data = encode_record(record)
            try:
                await self._storage.write_file(self._log.path(temporary_name(txn)), data)
            except NotFound as error:
                raise self._log.gone() from error
            except (Transient, UnknownOutcome, AlreadyExists) as error:
                last = error
                await self._discard(temporary_name(txn))
            else:
                return txn, data, record
        raise Transient(f"{self._log.folder}: no record could be written, nothing was published: {last}") from last

    async def _discard(self, name: str) -> None:
        """Removes a file that nothing depends on, if the store answers; nobody looks at it if it stays."""
        try:
            await self._storage.delete(self._log.path(name))
        except MvcfsError as error:
            log.debug("%s stays: %s", self._log.path(name), error)

    async def _look(self, attempt: Attempt, model_id: str, known: Record | None) -> bool | None:
        """One look at what became of an attempt; `known` is its record if it was seen at its number."""
        record = known or await self._at_number(attempt)
        if record is None:
            try:
                await self._storage.delete(self._log.path(attempt.temporary))
            except NotFound:
                # Renamed, or deleted by an earlier look.
                record = await self._at_number(attempt)
                await self._log.check_identity(model_id)
            else:
                # There was something to delete, so the rename hadn't happened, and can't any more.
                return False
        fate = await self._log.fate(attempt.number, attempt.txn)
        if record is None:
            return {Fate.TAKEN_IN: True, Fate.FORGOTTEN: None}.get(fate, False)
        if fate in (Fate.OPEN, Fate.TAKEN_IN):
            return True
        # Records are trimmed before the checkpoints that know them, so one that is forgotten is void too.
        log.warning("record %d came after the log was trimmed there: it is void", attempt.number)
        await self._storage.delete(self._log.path(record_name(attempt.number)))
        return False

    async def _at_number(self, attempt: Attempt) -> Record | None:
        """The attempt's record if it stands at its number."""
        try:
            stored = await self._log.read_record(attempt.number)
        except (CorruptData, UnsupportedFormat):
            return None
        return stored.record if stored is not None and stored.record.txn == attempt.txn else None
