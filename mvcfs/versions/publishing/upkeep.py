"""What keeps a model of many versions light: joining its small files, deleting what was joined, trimming its log.

Done by whoever publishes, after a publish was acknowledged, and never in its way: the long part of a join happens
before anything is published, and its record gives way to others'. A record of kind `join` adds the joined file, drops
those that it was made of, and condemns them for a while. If another host joined any of them first the record doesn't
apply: it isn't written, and the file made for it is removed.

Threading: trio thread, one call at a time; packs are made in threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from mvcfs.errors import MvcfsError, UnknownOutcome
from mvcfs.storage.protocol import Storage
from mvcfs.types import NS_PER_S, StoredFile
from mvcfs.versions.log.publish import Draft
from mvcfs.versions.log.records import Condemned
from mvcfs.versions.log.state import LogState
from mvcfs.versions.log.trimming import Trimmer
from mvcfs.versions.publishing.pack_joining import plan_join
from mvcfs.versions.publishing.synced import SyncedModel

log = logging.getLogger(__name__)

GRACE_S = 60.0
"""How long joined files stay for readers that are about to fetch them."""

_TRIES = 3


class Upkeep:
    """Joins and trims one model."""

    def __init__(self, storage: Storage, model: SyncedModel, clock: Callable[[], int]) -> None:
        self._storage = storage
        self._model = model
        self._clock = clock
        self._trimmer = Trimmer(storage, model.log)
        self._lock = trio.Lock()

    def on_published(self, wake: Callable[[], None]) -> None:
        """Has `wake` called whenever this repository has published: there may be something to do."""
        self._model.on_published = wake

    async def run(self) -> None:
        """Does what is due. What fails is logged and tried again after another publish.

        Raises:
            Nothing that the store or its data are the cause of.
        """
        async with self._lock:
            try:
                await self._join_git()
                state = self._model.state
                await self._trimmer.delete_joined(state, max(self._clock(), state.time_ns))
                await self._trimmer.trim_log(state)
            except (MvcfsError, OSError) as error:
                log.warning("%s: joining and trimming goes on later: %s", self._model.log.folder, error)

    async def publish_join(
        self, inputs: Sequence[StoredFile], *, git: tuple[StoredFile, ...] = (), manifests: tuple[StoredFile, ...] = ()
    ) -> bool:
        """Puts a file that is in the store in the place of those that it was made of.

        Returns:
            False if one of them is live no longer, or others published too much meanwhile: then nothing was published,
            and the caller removes its file.

        Raises:
            NotFound, Transient, PermissionDenied: As a publish; nothing was published.
            UnknownOutcome: It may be: the file has to stay.
        """
        names = tuple(file.name for file in inputs)
        tries = 0

        async def draft(state: LogState) -> tuple[Draft | None, bool]:
            nonlocal tries
            tries += 1
            live = {file.name for file in (*state.refs.git, *state.refs.manifests)}
            if tries > _TRIES or not live.issuperset(names):
                return None, False
            now_ns = max(self._clock(), state.time_ns)
            condemn = tuple(Condemned(name, now_ns + int(GRACE_S * NS_PER_S), joined=True) for name in names)
            gone = self._trimmer.deleted & {entry.name for entry in state.condemned}
            drop = (*names, *sorted(gone))
            return Draft("join", git=git, manifests=manifests, drop=drop, condemn=condemn), True

        return await self._model.publish(draft)

    async def _join_git(self) -> None:
        """Joins Git packs as long as a level is full."""
        while True:
            live = self._model.state.refs.git
            inputs = plan_join(await trio.to_thread.run_sync(self._model.files.joinable, live))
            if not inputs:
                return
            joined = await self._model.files.upload_joined(inputs)
            stays = False
            try:
                stays = await self.publish_join(inputs, git=(joined,))
            except UnknownOutcome:
                stays = True
                raise
            finally:
                self._model.files.abandon([joined])
                if not stays:
                    await self._discard(joined)
            if not stays:
                return

    async def _discard(self, file: StoredFile) -> None:
        """Removes a Git pack that nothing refers to. What can't be removed is left over."""
        with trio.CancelScope(shield=True):
            for name in (file.name, file.name.removesuffix(".pack") + ".idx"):
                try:
                    await self._storage.delete(f"{self._model.log.folder.removesuffix('/log')}/{name}")
                except MvcfsError as error:
                    log.info("%s is left over: %s", name, error)
