"""A model's state and objects, kept in step with its log, and the loop that every publish runs.

`state` moves only once all Git objects that it names are here, so whatever it shows can be read. A publish takes in what
is new, plans a record on it, tries to append it, and after a lost race waits a little and starts over.

Threading: all on the trio thread. Refreshing and publishing may overlap; each is one at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from mvcfs.errors import CorruptData, MvcfsError, UnknownOutcome
from mvcfs.storage.protocol import Storage
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.log.leases import LeaseFolder
from mvcfs.versions.log.publish import Attempt, Draft, LogWriter, OnAttempt, Publisher, tell
from mvcfs.versions.log.reflog import RefLog
from mvcfs.versions.log.state import LogState
from mvcfs.versions.log.turns import Turns
from mvcfs.versions.publishing.git_files import GitFiles

log = logging.getLogger(__name__)
T = TypeVar("T")


class SyncedModel:
    """One model's log, Git objects and Git files.

    Attributes:
        state: What the log says, as far as it was taken in.
        objects: The model's Git objects.
        files: Their packs, here and in the store.
        log: The log's reader, which may be ahead of `state` for a moment.
        on_published: Called when a record of ours was published.
    """

    state: LogState

    def __init__(self, storage: Storage, model_path: Callable[[], str], local_dir: Path, publisher: Publisher) -> None:
        """Use `open`."""
        local_dir.mkdir(parents=True, exist_ok=True)
        self.log = RefLog(storage, model_path)
        self.objects = GitObjects(local_dir / "git")
        self.files = GitFiles(storage, model_path, self.objects)
        self._writer = LogWriter(storage, self.log, publisher)
        self._publisher = publisher
        self._turns = Turns(LeaseFolder(storage, model_path), publisher.holder, publisher.host, publisher.user)
        self._sync_lock = trio.Lock()
        self._publish_lock = trio.Lock()
        self._inline_oids: frozenset[str] = frozenset()
        self._unsettled: tuple[Attempt, bool] | None = None
        self.on_published: Callable[[], None] | None = None

    async def open(self) -> None:
        """Reads the log and fetches the Git packs. NotFound, CorruptData, UnsupportedFormat, Transient."""
        await self.log.open()
        await self._take_in_newest()

    async def refresh(self) -> bool:
        """Takes in what others have published; True if the state changed.

        Raises:
            NotFound: The model was renamed or removed.
            CorruptData: The log or a Git pack is damaged.
            Transient: The store failed.
        """
        async with self._sync_lock:
            await self.log.refresh()
            return await self._take_in_newest()

    async def _take_in_newest(self) -> bool:
        """`_take_in`, again with what is new as long as a Git pack is missing: it may have been joined into another."""
        while True:
            try:
                return await self._take_in()
            except CorruptData:
                if not await self.log.refresh():
                    raise

    async def _take_in(self) -> bool:
        """Makes the log's state ours, once its objects are here. Under the sync lock."""
        state = self.log.state
        if hasattr(self, "state") and state is self.state:
            return False
        await self.files.ensure(state.refs.git)
        for entry in state.inline:
            if entry.oid not in self._inline_oids:
                self.objects.write(entry.kind, entry.data)
        now_inline = frozenset(entry.oid for entry in state.inline)
        self.objects.forget(self._inline_oids - now_inline)
        self._inline_oids = now_inline
        self.state = state
        return True

    async def publish(
        self,
        plan: Callable[[LogState], Awaitable[tuple[Draft | None, T]]],
        on_attempt: OnAttempt | None = None,
        *,
        caller_resolves: bool = False,
    ) -> T:
        """Appends the record that `plan` comes to on the newest state, if any; gives back the plan's result.

        Args:
            plan: Called anew for each try.
            on_attempt: Told of each try, see `CommitRequest`.
            caller_resolves: An attempt of unknown outcome is for the caller to resolve before anything else is
                published; else the next publish does it.

        Raises:
            NotFound, Transient, UnknownOutcome, PermissionDenied: As `LogWriter.try_append`, and what `plan` raises.
        """

        async def note(attempt: Attempt | None) -> None:
            await tell(on_attempt, attempt)
            self._unsettled = None if attempt is None else (attempt, caller_resolves)

        async with self._publish_lock:
            await self._settle_earlier()
            try:
                return await self._race(plan, note)
            finally:
                with trio.CancelScope(shield=True):
                    await self._turns.give_back()

    async def _race(self, plan: Callable[[LogState], Awaitable[tuple[Draft | None, T]]], note: OnAttempt) -> T:
        """Plans and tries until a record of ours is published or there is nothing to publish."""
        lost = 0
        while True:
            await self._turns.wait()
            await self.refresh()
            state = self.state
            draft, result = await plan(state)
            if draft is None:
                return result
            with trio.CancelScope(shield=True):
                stored = await self._writer.try_append(draft, state, note)
                if stored is not None:
                    await self._take_in_own(draft)
                    await self._writer.write_checkpoint_if_due()
            if stored is not None:
                if self.on_published is not None:
                    self.on_published()
                return result
            lost += 1
            await self._writer.back_off(lost)
            await self._turns.lost(lost, self._publisher.clock())

    async def resolve(self, attempt: Attempt) -> bool | None:
        """Settles an attempt, see `LogWriter.settle`, and takes in what came of it.

        Raises:
            NotFound: The model was renamed or removed: ask where it is now.
            UnknownOutcome: The store doesn't answer.
        """
        async with self._publish_lock:
            outcome = await self._writer.settle(attempt, self.state.model)
            if self._unsettled is not None and self._unsettled[0].txn == attempt.txn:
                self._unsettled = None
        if outcome is not False:
            await self.refresh()
        return outcome

    async def _settle_earlier(self) -> None:
        """An attempt of unknown outcome comes first: it may come true any time."""
        if self._unsettled is None:
            return
        attempt, caller_resolves = self._unsettled
        if caller_resolves:
            raise UnknownOutcome(f"{self.log.folder}: record {attempt.number} may be published: resolve it first")
        await self._writer.settle(attempt, self.state.model)
        self._unsettled = None

    async def _take_in_own(self, draft: Draft) -> None:
        """Takes in our own record. It is published whatever happens here: the next refresh tries again."""
        try:
            async with self._sync_lock:
                self.files.adopt(draft.git)
                await self._take_in()
        except (MvcfsError, OSError) as error:
            log.warning("%s: the published record isn't taken in yet: %s", self.log.folder, error)
