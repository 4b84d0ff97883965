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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import trio

from mvcfs.config import EngineConfig
from mvcfs.content.block_cache import BlockCache
from mvcfs.content.budget import Budget
from mvcfs.content.config import ContentConfig
from mvcfs.content.model_content import ModelContent
from mvcfs.content.staging import Staging
from mvcfs.errors import MvcfsError, NotEmpty, NotFound
from mvcfs.storage.protocol import Storage
from mvcfs.storage.read_only import ReadOnlyStorage
from mvcfs.versions.log.publish import Publisher
from mvcfs.versions.log.refs import BranchState
from mvcfs.versions.repository import ModelRepository
from mvcfs.versions.store import Store
from mvcfs.vfs.attr import Statfs
from mvcfs.vfs.changes import Json, count_changes
from mvcfs.vfs.invalidate import Invalidator
from mvcfs.vfs.local_folder import LocalFolder
from mvcfs.vfs.model import OpenModel, Services
from mvcfs.vfs.part import Part, find_part, names_version
from mvcfs.vfs.presence import Presence
from mvcfs.vfs.snapshot import SnapshotPool
from mvcfs.vfs.sources import ModelData
from mvcfs.vfs.working_tree.follow import Invalidation
from mvcfs.vfs.working_tree.overlay import Overlay

log = logging.getLogger(__name__)

SOFTWARE = "mvcfs"
_STATFS_BLOCK_BYTES = 4096
_STATFS_KEPT_S = 5.0
_WARNINGS_KEPT = 1000
# A program that waits for the daemon in a directory keeps its names from being dropped; their timeout ends soon.
_KERNEL_TOLD_S = 2.0


@dataclass(frozen=True, slots=True)
class Left:
    """What an overlay still holds.

    Attributes:
        files: Changed files that no version holds.
        bytes: Their bytes.
        ignored: Files that versions never take.
    """

    files: int
    bytes: int
    ignored: int


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
        self.models: dict[str, OpenModel] = {}
        self._gone: dict[str, OpenModel] = {}
        self.since_s = time.time()
        self.overlay: Overlay | None = None
        self.staging: Staging | None = None
        self.cache = BlockCache(
            folder.blocks if config.block_cache_bytes else None, config.block_cache_bytes or 1, 1 << 30
        )
        self.part = Part()
        self.store_error: str | None = None
        self.store_error_since_s: float | None = None
        self._presence = Presence(storage, self._all_models, self.publisher, read_only=config.read_only)
        self._nursery = nursery
        self._invalidator = invalidator
        self._folder = folder
        self._opening = trio.Lock()
        self._model_names: tuple[float, list[str]] = (-1e9, [])
        self._statfs: tuple[float, Statfs] | None = None
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

    async def model_names(self) -> list[str]:
        """The models of the store, as of at most `refresh_s` ago."""
        when, names = self._model_names
        if time.monotonic() - when > self.config.refresh_s:
            names = await self.store.models()
            self._model_names = (time.monotonic(), names)
        return names

    def forget_names(self) -> None:
        """Has the models listed anew when they are asked for next."""
        self._model_names = (-1e9, [])

    async def model(self, name: str) -> OpenModel:
        """An open model; NotFound."""
        found = self.models.get(name)
        if found is not None:
            return found
        async with self._opening:
            if name in self.models:
                return self.models[name]
            if name not in await self.model_names():
                raise NotFound(f"no model {name} in {self.storage.url}")
            model_id = await self.store.id_of(name)
            model = next((one for one in self._all_models() if one.data.id == model_id), None)
            if model is None:
                model = self.models[name] = await self._open_model(name, model_id)
            else:
                self._renamed(model, name)
            return model

    def _all_models(self) -> list[OpenModel]:
        """Those that are open, also those that another host removed: their changes wait for an undelete."""
        return [*self.models.values(), *self._gone.values()]

    def _renamed(self, model: OpenModel, name: str) -> None:
        """An open model has another name; never is one open twice, for its overlay is one."""
        self._leaves(model)
        self._gone.pop(model.data.id, None)
        displaced = self.models.get(name)
        if displaced is not None:
            self._gone[displaced.data.id] = displaced
        model.data.repository.renamed(name)
        self.models[name] = model

    def _leaves(self, model: OpenModel) -> None:
        if self.models.get(model.name) is model:
            del self.models[model.name]

    async def _open_model(self, name: str, model_id: str) -> OpenModel:
        local_dir = self._model_dir(model_id)
        repository = await self.store.open_model(name, local_dir=local_dir, publisher=self.publisher())
        services = Services(
            self.config, self.content_config, self.overlay, self.staging, self._nursery, self._invalidate
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
        self._model_names = (-1e9, [])

    def publisher(self) -> Publisher:
        """Who publishes from here."""
        config, holder = self.config, self._presence.mount_id
        return Publisher(config.host, config.user, SOFTWARE, time.time_ns, holder)

    async def create_model(self, name: str) -> None:
        """Makes a model with an empty branch main."""
        await self.store.create_model(name, publisher=self.publisher())
        self._model_names = (-1e9, [])

    async def rename_model(self, old: str, new: str) -> None:
        """Renames a model."""
        model = await self.model(old)
        await self.store.rename_model(old, new)
        self._model_names = (-1e9, [])
        self._renamed(model, new)

    async def remove_model(self, name: str) -> None:
        """Removes a model without branches, or with one empty branch."""
        model = await self.model(name)
        branches = model.data.repository.refs.branches
        if len(branches) > 1:
            raise NotEmpty(f"the model {name} has the branches {', '.join(branches)}")
        for branch in list(branches):
            await self.delete_branch(model, branch)
        await self.store.remove_model(name)
        self._model_names = (-1e9, [])
        self.models.pop(name, None)
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
        self._model_names = (-1e9, [])
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
        now = time.monotonic()
        if self._statfs is not None and now - self._statfs[0] < _STATFS_KEPT_S:
            return self._statfs[1]
        try:
            space = await self.storage.space()
        except MvcfsError as error:
            if self._statfs is None:
                raise
            log.warning("the store does not say how much room it has: %s", error)
            return self._statfs[1]
        block = _STATFS_BLOCK_BYTES
        found = Statfs(block, space.total_bytes // block, space.free_bytes // block, 1 << 32, 1 << 32, 255)
        self._statfs = (now, found)
        return found

    def _hurry_versions(self) -> None:
        """Writers wait for room: closed files become versions at once, so that their staging files can go."""
        for model in self.models.values():
            for branch in model.branches.values():
                branch.settler.hurry()

    def _can_free(self) -> bool:
        return any(
            branch.committer.lock.locked() or branch.settler.has_closed()
            for model in self.models.values()
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
            for model in self._watched():
                await self._refresh(model)
            await self._tidy()

    def _watched(self) -> list[OpenModel]:
        """The models whose news count: what the mount shows also while it is removed, since it may come back."""
        shown = self.part.model
        return [*self.models.values(), *(model for model in self._gone.values() if model is shown)]

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
            for model in self.models.values():
                for branch in model.branches.values():
                    branch.tree.rewrite()

        self.overlay.mend(rewrite)

    async def _refresh(self, model: OpenModel) -> None:
        try:
            try:
                await model.refresh()
            except NotFound:
                await self._model_gone(model)
            else:
                if self._gone.get(model.data.id) is model:  # it was removed, and is there again
                    self._renamed(model, model.name)
        except NotFound:
            self._note_store_error(f"there is no mvcfs store at {self.storage.url} any more")
        except MvcfsError as error:
            self._note_store_error(str(error))
        except Exception:
            log.exception("reading what is new in %s failed", model.name)
        else:
            if self.store_error is not None:
                log.info("the store answers again")
            self.store_error = self.store_error_since_s = None

    def _note_store_error(self, text: str) -> None:
        if self.store_error is None:
            log.warning("the store does not answer: %s", text)
            self.store_error_since_s = time.time()
        self.store_error = text

    async def _model_gone(self, model: OpenModel) -> None:
        """A model was renamed or removed on another host."""
        old = model.name
        new = await self.store.find_by_id(model.data.id)
        self._model_names = (-1e9, [])
        if new is None and model.data.id in self._gone:
            return
        if new is None:
            log.warning("the model %s was removed elsewhere", old)
            self._leaves(model)
            self._gone[model.data.id] = model
            return
        log.warning("the model %s was renamed to %s elsewhere", old, new)
        self._renamed(model, new)

    def progress(self) -> Json:
        """What commits are under way, at once: for whoever waits for them."""
        running = []
        for model in self.models.values():
            for branch in model.branches.values():
                progress = branch.committer.progress
                if progress.step != "idle":
                    running.append(
                        {
                            "branch": f"{model.name}/{branch.tree.branch_name}",
                            "step": progress.step,
                            "files_done": progress.files_done,
                            "files_total": progress.files_total,
                            "bytes_done": progress.bytes_done,
                            "bytes_total": progress.bytes_total,
                            "uploaded_bytes": progress.upload.uploaded_bytes if progress.upload is not None else 0,
                        }
                    )
        return {"commits": running}

    async def left(self) -> Left:
        """What no version holds, ignored files not counted."""
        files = size = ignored = 0
        for model in self._all_models():
            for branch in model.branches.values():
                counts = count_changes(branch)
                files += int(counts["changed_files"])
                size += int(counts["changed_bytes"])
                ignored += int(counts["ignored_files"])
        return Left(files, size, ignored)

    async def drain(self) -> None:
        """One last version of everything that has changes and is closed."""
        for model in self._all_models():
            await model.drain()

    async def aclose(self) -> None:
        """Ends everything and lets go of the local folder."""
        await self._presence.release()
        for model in self._all_models():
            await model.aclose()
        if self.staging is not None:
            self.staging.close()
        if self.overlay is not None:
            self.overlay.close()
        self._folder.release()
        await self.storage.aclose()
