"""A store in use: its models, the local state of this mount, and the tasks that keep them up to date.

Invariants: a process has its local folder to itself (see `local_folder`); without an overlay no working tree is opened.
Threading: trio thread.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import trio

from mvcfs.config import EngineConfig
from mvcfs.content.block_cache import BlockCache
from mvcfs.content.budget import Budget
from mvcfs.content.config import ContentConfig
from mvcfs.content.model_content import ModelContent
from mvcfs.content.staging import Staging
from mvcfs.errors import MvcfsError, NotEmpty, NotFound, StorageError
from mvcfs.storage.protocol import Storage
from mvcfs.storage.read_only import ReadOnlyStorage
from mvcfs.versions.log.publish import Publisher
from mvcfs.versions.log.refs import BranchState
from mvcfs.versions.repository import ModelRepository
from mvcfs.versions.store import Store
from mvcfs.vfs.attr import Statfs
from mvcfs.vfs.invalidate import Invalidator
from mvcfs.vfs.local_folder import LocalFolder
from mvcfs.vfs.model import OpenModel, Services
from mvcfs.vfs.open_models import OpenModels
from mvcfs.vfs.part import Part, find_part, names_version
from mvcfs.vfs.presence import Presence
from mvcfs.vfs.room import Room
from mvcfs.vfs.snapshot import SnapshotPool
from mvcfs.vfs.sources import ModelData
from mvcfs.vfs.working_tree.follow import Invalidation
from mvcfs.vfs.working_tree.overlay import Overlay

log = logging.getLogger(__name__)

SOFTWARE = "mvcfs"
_WARNINGS_KEPT = 1000
# A program that waits for the daemon in a directory keeps its names from being dropped; their timeout ends soon.
_KERNEL_TOLD_S = 2.0


class StoreService:
    """A store in use, without the tree and the commands that show it. Made by `open`."""

    def __init__(
        self,
        storage: Storage,
        store: Store,
        config: EngineConfig,
        folder: LocalFolder,
        nursery: trio.Nursery,
        invalidator: Invalidator | None,
    ) -> None:
        self.storage = storage
        self.store = store
        self.config = config
        self.content_config = ContentConfig()
        self.budget = Budget(config.memory_bytes)
        self.local_dir = folder.path
        self.models = OpenModels(store, config.refresh_s, self._open_model)
        self.since_s = time.time()
        self.overlay: Overlay | None = None
        self.staging: Staging | None = None
        self.cache = BlockCache(
            folder.blocks if config.block_cache_bytes else None, config.block_cache_bytes or 1, 1 << 30
        )
        self.part = Part()
        self.store_error: str | None = None
        self.store_error_since_s: float | None = None
        self._presence = Presence(storage, self.models.all, self.publisher, read_only=config.read_only)
        self._nursery = nursery
        self._invalidator = invalidator
        self._folder = folder
        self._room = Room(storage)
        self._warned: dict[str, None] = {}
        self._next_ino = 2
        self.pool = SnapshotPool(self.allocate_ino)

    @classmethod
    async def open(
        cls,
        storage: Storage,
        config: EngineConfig,
        nursery: trio.Nursery,
        *,
        mounted: bool = False,
        invalidator: Invalidator | None = None,
    ) -> Self:
        """Opens a store.

        Args:
            storage: Where it is.
            config: Configuration.
            nursery: Where background tasks run; it outlives the engine.
            mounted: Whether a file system is to be shown: finds its root, and unless that is one version for good opens
                the overlay; takes in what other hosts publish.
            invalidator: Told what the kernel has to forget.

        Raises:
            NotFound: There is no store, or not what its root shall be.
            InvalidName: The revision that shall be the root is none.
            UnsupportedFormat: It is newer than this mvcfs.
            Busy: Another mount has the local folder.
        """
        store, files = await Store.open(storage), storage
        pinned = mounted and await names_version(store, config.root)
        config = replace(config, read_only=config.read_only or pinned)
        if config.read_only:
            storage = ReadOnlyStorage(storage)
            store = Store(storage, store.id)
        folder = LocalFolder.take(config.cache_dir / "stores" / store.id, reader=config.read_only)
        engine = cls(storage, store, config, folder, nursery, invalidator)
        engine._presence.use(files, engine.local_dir)
        try:
            if mounted and not pinned:
                await engine._open_overlay()
            if mounted:
                engine.part = await find_part(config.root, engine.pool, engine.model, pinned=pinned)
                nursery.start_soon(engine._refresh_forever)
                nursery.start_soon(engine._presence.run)
        except BaseException:
            await engine.aclose()
            raise
        return engine

    async def _open_overlay(self) -> None:
        directory = self.local_dir / "overlay"
        directory.mkdir(exist_ok=True, mode=0o700)
        self.overlay = Overlay(directory)
        self.staging = Staging(
            directory / "staging",
            limit_bytes=self.config.staging_bytes,
            min_free_bytes=self.config.staging_min_free_bytes,
            sync_rows=self.overlay.sync,
        )
        self.staging.on_pressure = self._hurry_versions
        self.staging.can_free = self._can_free
        self.staging.sweep(self.overlay.staged_states())
        await self._replay(self.overlay)

    async def _replay(self, overlay: Overlay) -> None:
        """Opens the branches that have changes, so that they become versions."""
        for row in overlay.branches():
            name = await self.store.find_by_id(row.model)
            if name is None:
                log.error(
                    "the model %s is not in the store any more; its unpublished writes stay in the overlay", row.model
                )
                continue
            model = await self.model(name)
            state = model.data.repository.refs.branch_by_id(row.id)
            if state is None or state.deleted:
                log.error("%s: a branch with unpublished writes was deleted elsewhere; they stay in the overlay", name)
                continue
            await model.branch(state.name)

    # -- models --------------------------------------------------------------------------------------------------------

    def allocate_ino(self) -> int:
        """A number that no inode had."""
        if self.overlay is not None:
            return self.overlay.allocate_ino()
        self._next_ino += 1
        return self._next_ino

    async def model(self, name: str) -> OpenModel:
        """An open model; NotFound."""
        return await self.models.open(name)

    async def _open_model(self, name: str, model_id: str) -> OpenModel:
        local_dir = self._model_dir(model_id)
        repository = await self.store.open_model(name, local_dir=local_dir, publisher=self.publisher())
        services = Services(
            self.config,
            self.content_config,
            self.overlay,
            self.staging,
            self._nursery,
            self._invalidate,
            self._look,
        )
        return OpenModel(self._model_data(repository, local_dir), services)

    def _model_dir(self, model_id: str) -> Path:
        local_dir = self.local_dir / "models" / model_id
        local_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return local_dir

    def _model_data(self, repository: ModelRepository, local_dir: Path) -> ModelData:
        async def reread() -> None:
            await repository.refresh()
            data.set_live()

        content = ModelContent(
            self.storage,
            model_path=lambda: repository.path,
            local_dir=local_dir,
            cache=self.cache,
            budget=self.budget,
            config=self.content_config,
            nursery=self._nursery,
            reread=reread,
        )
        data = ModelData(repository, content, self._presence.lease_of(repository))
        data.set_live()
        return data

    @asynccontextmanager
    async def new_model(self, name: str) -> AsyncIterator[ModelData]:
        """A model to be filled, which nobody sees before the block ends; if it ends with an error there is none.

        Raises:
            InvalidName, AlreadyExists: It can't have the name, at the end.
        """
        publisher = self.publisher()
        hidden = await self.store.make_hidden(publisher)
        local_dir = self._model_dir(hidden.id)
        try:
            repository = await self.store.open_hidden(hidden, local_dir=local_dir, publisher=publisher)
            data = self._model_data(repository, local_dir)
            try:
                yield data
            finally:
                await data.content.aclose()
            await self.store.show(hidden, name)
        except BaseException:
            await self.store.discard_hidden(hidden)
            shutil.rmtree(local_dir, ignore_errors=True)
            raise
        self.models.forget_names()

    def publisher(self) -> Publisher:
        """Who publishes from here."""
        config, holder = self.config, self._presence.mount_id
        return Publisher(config.host, config.user, SOFTWARE, time.time_ns, holder)

    async def create_model(self, name: str) -> None:
        """Makes a model with an empty branch main."""
        await self.store.create_model(name, publisher=self.publisher())
        self.models.forget_names()

    async def rename_model(self, old: str, new: str) -> None:
        """Renames a model."""
        model = await self.model(old)
        await self.store.rename_model(old, new)
        self.models.forget_names()
        self.models.renamed(model, new)

    async def remove_model(self, name: str) -> None:
        """Removes a model without branches, or with one empty branch."""
        model = await self.model(name)
        branches = model.data.repository.refs.branches
        if len(branches) > 1:
            raise NotEmpty(f"the model {name} has the branches {', '.join(branches)}")
        for branch in list(branches):
            await self.delete_branch(model, branch)
        await self.store.remove_model(name)
        self.models.forget_names()
        self.models.removed(name)
        await model.aclose()

    async def delete_branch(self, model: OpenModel, name: str) -> None:
        """Deletes a branch whose working tree is empty."""
        if self.overlay is not None:
            branch = await model.branch(name)
            branch.tree.check_unprotected()
            if await branch.tree.namespace.names(branch.tree.root):
                raise NotEmpty(f"the branch {model.name}/{name} is not empty")
        await model.delete_branch(name)

    async def undelete_model(self, name: str) -> list[BranchState]:
        """Brings a removed model back with the branches it had at the end."""
        await self.store.undelete_model(name)
        self.models.forget_names()
        model = await self.model(name)
        repository = model.data.repository
        if not repository.refs.branches:
            for state in list(repository.refs.deleted):
                if state.tip is not None or len(repository.refs.deleted) == 1:
                    with suppress(MvcfsError):
                        await repository.undelete_branch(state.name)
        return list(repository.refs.branches.values())

    # -- what the file system asks ------------------------------------------------------------------------------------

    async def statfs(self) -> Statfs:
        """Room of the store; the last known when it does not answer."""
        return await self._room.statfs()

    def _hurry_versions(self) -> None:
        """Writers wait for room: closed files become versions at once, so that their staging files can go."""
        for model in self.models.by_name.values():
            for branch in model.branches.values():
                branch.settler.hurry()

    def _can_free(self) -> bool:
        return any(
            branch.committer.lock.locked() or branch.settler.has_closed()
            for model in self.models.by_name.values()
            for branch in model.branches.values()
        )

    def warn_once(self, text: str) -> None:
        """Logs a warning that many calls would repeat."""
        if text in self._warned:
            return
        if len(self._warned) >= _WARNINGS_KEPT:
            self._warned.clear()
        self._warned[text] = None
        log.warning("%s", text)

    def _invalidate(self, invalid: list[Invalidation]) -> None:
        if self._invalidator is None:
            return
        for one in invalid:
            ino = self.part.kernel_ino(one.ino)
            if one.name is None:
                self._invalidator.invalidate_inode(ino, attr_only=True)
            else:
                self._invalidator.invalidate_entry(ino, one.name)

    async def show_refs(self, model: OpenModel) -> None:
        """Makes a model's directories show its refs as they are, the kernel's memory of them too. For commands."""
        await model.follow()
        if self._invalidator is not None:
            with trio.move_on_after(_KERNEL_TOLD_S):
                await self._invalidator.settled()

    # -- tasks -----------------------------------------------------------------------------------------------------------

    async def _refresh_forever(self) -> None:
        while True:
            await trio.sleep(self.config.refresh_s)
            for model in self.models.watched(self.part.model):
                await self._refresh(model)
            await self._tidy()

    async def _tidy(self) -> None:
        """What local disk needs now and then. A failure is logged, and the next round tries again."""
        try:
            self.mend_overlay()
            if self.staging is not None:
                await self.staging.reap()
        except Exception:
            log.exception("tidying %s failed", self.local_dir)

    def mend_overlay(self) -> None:
        """Writes the overlay anew once a write of it has failed; changes are refused until that works."""
        if self.overlay is None or self.overlay.failed is None:
            return

        def rewrite() -> None:
            for model in self.models.by_name.values():
                for branch in model.branches.values():
                    branch.tree.rewrite()

        self.overlay.mend(rewrite)

    async def _refresh(self, model: OpenModel) -> None:
        try:
            await self._look(model)
        except MvcfsError as error:
            self._note_store_error(str(error))
        except Exception:
            log.exception("reading what is new in %s failed", model.name)
        else:
            if self.store_error is not None:
                log.info("the store answers again")
            self.store_error = self.store_error_since_s = None

    async def _look(self, model: OpenModel) -> None:
        """Reads what others published of a model. That the store is gone is a StorageError: no name is missing for it."""
        try:
            try:
                await model.refresh()
            except NotFound:
                await self.models.missing(model)
                if self.models.by_name.get(model.name) is model:
                    await model.refresh()
            else:
                self.models.answered(model)
        except NotFound as error:
            raise StorageError(f"there is no mvcfs store at {self.storage.url} any more") from error

    def _note_store_error(self, text: str) -> None:
        if self.store_error is None:
            log.warning("the store does not answer: %s", text)
            self.store_error_since_s = time.time()
        self.store_error = text

    async def drain(self) -> None:
        """One last version of everything that has changes and is closed."""
        for model in self.models.all():
            await model.drain()

    async def aclose(self) -> None:
        """Ends everything and lets go of the local folder."""
        await self._presence.release()
        for model in self.models.all():
            await model.aclose()
        if self.staging is not None:
            self.staging.close()
        if self.overlay is not None:
            self.overlay.close()
        self._folder.release()
        await self.storage.aclose()
