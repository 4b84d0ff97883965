"""A store: what it is, and its models by name.

A model is one folder, so making, renaming, removing and bringing back are each one rename of a folder, which the store
does whole or not at all. A rename whose outcome isn't known is looked after by the model's id, never repeated
blindly: by then the name may be another model's.

All on the trio thread. Nothing is kept of the store but its id: every call looks anew.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from mvcfs.errors import (
    AlreadyExists,
    CorruptData,
    InvalidName,
    LimitExceeded,
    MvcfsError,
    NotADirectory,
    NotFound,
    Transient,
    UnknownOutcome,
    UnsupportedFormat,
)
from mvcfs.storage.protocol import Storage
from mvcfs.versions.gather import gather
from mvcfs.versions.log.json_fields import Fields, encode, is_hex, text_item
from mvcfs.versions.log.publish import Publisher
from mvcfs.versions.log.records import BranchMove, Record, RefChange, encode_record
from mvcfs.versions.log.reflog import RefLog, record_name
from mvcfs.versions.log.refs import Refs, new_id
from mvcfs.versions.names import check_model_name
from mvcfs.versions.repository import ModelRepository

log = logging.getLogger(__name__)

FORMAT = 1
FEATURES: frozenset[str] = frozenset()
"""What stores may ask of their readers, and this mvcfs can do."""

_MARK = "mvcfs.json"
_HIDDEN = "tmp"
_FOLDERS = ("log", "git", "manifests", "packs", "leases")
_MAX_SMALL_FILE = 1 << 20
_LOOK_AGAIN_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class RemovedModel:
    """A model that was removed and can be brought back.

    Attributes:
        name: Its name when it was removed.
        id: Its id.
        time_ns: When it was removed, by the clock of who did it if that was told, else by the store's.
        path: Its folder in the store.
    """

    name: str
    id: str
    time_ns: int
    path: str


@dataclass(frozen=True, slots=True)
class HiddenModel:
    """A model that has no name yet.

    Attributes:
        id: Its id.
        folder: The name of its folder.
    """

    id: str
    folder: str

    @property
    def path(self) -> str:
        """Its folder in the store."""
        return f"{_HIDDEN}/{self.folder}"


class Store:
    """A store.

    Attributes:
        id: Its id, 32 hex digits.
    """

    def __init__(self, storage: Storage, store_id: str) -> None:
        """Use `init` or `open`."""
        self._storage = storage
        self.id = store_id

    @property
    def url(self) -> str:
        """Where it is."""
        return self._storage.url

    # --- the store itself

    @staticmethod
    async def init(storage: Storage, *, created_ns: int = 0) -> Store:
        """Makes a store.

        Raises:
            AlreadyExists: There is one.
            StorageError: The store's place can't be written.
        """
        for folder in ("models", "deleted", "tmp"):
            await storage.mkdir(folder, parents=True)
        store_id = new_id()
        data = encode({"mvcfs": FORMAT, "id": store_id, "features": [], "created_ns": created_ns})
        try:
            await storage.write_file(_MARK, data)
        except AlreadyExists as error:
            raise AlreadyExists(f"there is an mvcfs store at {storage.url} already") from error
        except UnknownOutcome:
            if (await Store.open(storage)).id != store_id:
                raise AlreadyExists(f"there is an mvcfs store at {storage.url} already") from None
        return Store(storage, store_id)

    @staticmethod
    async def open(storage: Storage) -> Store:
        """Opens a store.

        Raises:
            NotFound: There is none.
            UnsupportedFormat: It needs a newer mvcfs; the message says what it needs.
            CorruptData: Its description is damaged.
        """
        try:
            data = await storage.read_file(_MARK, max_bytes=_MAX_SMALL_FILE)
        except (NotFound, NotADirectory) as error:
            raise NotFound(f"no mvcfs store at {storage.url}; make one with: mvcfs init {storage.url}") from error
        except LimitExceeded as error:
            raise CorruptData(f"{storage.url}: {_MARK} is no description of a store") from error
        fields = Fields.parse(data, f"{storage.url}: {_MARK}")
        version = fields.integer("mvcfs", minimum=1)
        if version > FORMAT:
            raise UnsupportedFormat(
                f"the store at {storage.url} has format {version}, this mvcfs reads up to {FORMAT}: use a newer mvcfs"
            )
        unknown = sorted(set(fields.items("features", text_item)) - FEATURES)
        if unknown:
            raise UnsupportedFormat(
                f"the store at {storage.url} needs {', '.join(unknown)}, which this mvcfs can't do: use a newer mvcfs"
            )
        return Store(storage, fields.hexadecimal("id", 32))

    # --- models

    async def models(self) -> list[str]:
        """Names of the models, sorted."""
        return [entry.name for entry in await self._storage.list_dir("models") if entry.is_dir]

    async def find_by_id(self, model_id: str) -> str | None:
        """The name of the model with this id now; None if it isn't in the store, or is removed."""
        names = await self.models()
        ids = await gather([functools.partial(self._id_at, f"models/{name}") for name in names])
        return next((name for name, found in zip(names, ids, strict=True) if found == model_id), None)

    async def create_model(self, name: str, *, publisher: Publisher) -> str:
        """Makes a model with an empty branch `main`; returns its id.

        Raises:
            InvalidName: No model can be called so.
            AlreadyExists: There is a model of that name.
        """
        check_model_name(name)
        hidden = await self.make_hidden(publisher, (BranchMove(new_id(), "main", None, 0),))
        try:
            await self.show(hidden, name)
        except BaseException:
            await self.discard_hidden(hidden)
            raise
        return hidden.id

    async def make_hidden(self, publisher: Publisher, refs: tuple[RefChange, ...] = ()) -> HiddenModel:
        """Makes a model that nobody sees until `show` gives it a name, with what the ref changes make."""
        hidden = HiddenModel(new_id(), new_id())
        record = Record(
            model=hidden.id,
            number=0,
            previous=None,
            txn=new_id(),
            time_ns=publisher.clock(),
            host=publisher.host,
            user=publisher.user,
            software=publisher.software,
            kind="create",
            refs=refs,
        )
        with trio.CancelScope(shield=True):
            try:
                for part in _FOLDERS:
                    await self._storage.mkdir(f"{hidden.path}/{part}", parents=True)
                await self._storage.write_file(f"{hidden.path}/log/{record_name(0)}", encode_record(record))
            except BaseException:
                await self.discard_hidden(hidden)
                raise
        return hidden

    async def open_hidden(self, hidden: HiddenModel, *, local_dir: Path, publisher: Publisher) -> ModelRepository:
        """Opens a hidden model, as `open_model`. Whoever has it open closes it before it is shown."""
        return await ModelRepository.open(
            self._storage, hidden.folder, local_dir=local_dir, publisher=publisher, parent=_HIDDEN
        )

    async def show(self, hidden: HiddenModel, name: str) -> None:
        """Gives a hidden model a name.

        Raises:
            InvalidName: No model can be called so.
            AlreadyExists: There is a model of that name.
        """
        check_model_name(name)
        await self._move(hidden.path, f"models/{name}", hidden.id)

    async def discard_hidden(self, hidden: HiddenModel) -> None:
        """Removes a hidden model, if the store answers."""
        with trio.CancelScope(shield=True):
            await self._discard(hidden.path)

    async def rename_model(self, old: str, new: str) -> None:
        """Gives a model another name; its id stays.

        Raises:
            InvalidName: No model can be called so.
            NotFound: There is no such model.
            AlreadyExists: The new name is taken.
        """
        check_model_name(new)
        model_id = await self.id_of(old)
        await self._move(f"models/{old}", f"models/{new}", model_id)

    async def remove_model(self, name: str, *, time_ns: int = 0) -> None:
        """Takes a model out of sight; its data stays until it is collected. NotFound."""
        model_id = await self.id_of(name)
        removal = new_id()
        # Written before the model goes: a removed model without its name could not be brought back by name.
        note = f"models/{name}/removed-{removal}"
        try:
            await self._storage.write_file(note, encode({"name": name, "id": model_id, "time_ns": time_ns}))
        except NotFound as error:
            raise NotFound(f"no model {name!r}: it was renamed or removed just now") from error
        await self._move(f"models/{name}", f"deleted/{model_id}-{removal}", model_id)

    async def removed_models(self) -> list[RemovedModel]:
        """Models that can be brought back, the last removed one last."""
        entries = [entry.name for entry in await self._storage.list_dir("deleted") if entry.is_dir]
        found = await gather([functools.partial(self._removed, name) for name in entries])
        removed = [(model, mtime) for model, mtime in found if model is not None]
        return [model for model, _ in sorted(removed, key=lambda pair: (pair[1], pair[0].path))]

    async def undelete_model(self, name: str) -> None:
        """Brings back the model that was removed last under this name.

        Raises:
            NotFound: None was.
            AlreadyExists: There is a model of that name now.
        """
        removed = [model for model in await self.removed_models() if model.name == name]
        if not removed:
            raise NotFound(f"no removed model {name!r}")
        model = removed[-1]
        await self._move(model.path, f"models/{name}", model.id)
        await self._discard(f"models/{name}/removed-{model.path.rpartition('-')[2]}")

    async def open_model(self, name: str, *, local_dir: Path, publisher: Publisher) -> ModelRepository:
        """Opens a model; `local_dir` is its own and no other process's.

        Raises:
            NotFound: There is no such model.
            CorruptData, UnsupportedFormat: As `ModelRepository.open`.
        """
        try:
            return await ModelRepository.open(self._storage, name, local_dir=local_dir, publisher=publisher)
        except NotFound as error:
            if await self._id_at(f"models/{name}") is None:
                raise await self._no_model(name) from error
            raise

    async def refs_of(self, name: str) -> Refs:
        """What a model's log says of its branches, tags and files, no object fetched.

        Raises:
            NotFound: There is no such model.
            CorruptData, UnsupportedFormat: As `ModelRepository.open`.
        """
        reflog = RefLog(self._storage, lambda: f"models/{name}")
        try:
            check_model_name(name)
            await reflog.open()
        except (NotFound, NotADirectory, InvalidName) as error:
            raise await self._no_model(name) from error
        return reflog.state.refs

    # --- inside

    async def _id_at(self, folder: str) -> str | None:
        """The id of the model in a folder; None if there is none that can be read."""
        try:
            first = await RefLog(self._storage, lambda: folder).read_record(0)
        except (CorruptData, UnsupportedFormat) as error:
            log.warning("%s: %s", folder, error)
            return None
        return None if first is None else first.record.model

    async def id_of(self, name: str) -> str:
        """The id of the model with a name; NotFound."""
        model_id = await self._id_at(f"models/{name}")
        if model_id is None:
            raise await self._no_model(name)
        return model_id

    async def _no_model(self, name: str) -> NotFound:
        names = await self.models()
        there = "there is none yet" if not names else f"there is {', '.join(names[:20])}"
        return NotFound(f"no model {name!r} in {self._storage.url}; {there}")

    async def _move(self, source: str, target: str, model_id: str) -> None:
        """Renames a model's folder, and finds out what happened if the store doesn't say."""
        name = target.rpartition("/")[2]
        with trio.CancelScope(shield=True):
            waits = iter(_LOOK_AGAIN_S)
            while True:
                try:
                    await self._storage.rename(source, target)
                    return
                except AlreadyExists as error:
                    if await self._id_at(target) == model_id:
                        return
                    raise AlreadyExists(f"there is already a model {name!r}") from error
                except NotFound:
                    if await self._id_at(target) == model_id:
                        return
                    raise
                except (Transient, UnknownOutcome):
                    wait_s = next(waits, None)
                    if wait_s is None:
                        raise
                    await trio.sleep(wait_s)
                    # Only the same model may be moved again: its old name may be another's by now.
                    if await self._later(lambda: self._id_at(target)) == model_id:
                        return
                    if await self._later(lambda: self._id_at(source)) != model_id:
                        raise

    async def _later(self, look: Callable[[], Awaitable[str | None]]) -> str | None:
        """A look at the store that is repeated while it doesn't answer."""
        for wait_s in _LOOK_AGAIN_S:
            try:
                return await look()
            except Transient:
                await trio.sleep(wait_s)
        return await look()

    async def _removed(self, name: str) -> tuple[RemovedModel | None, int]:
        """A removed model by its folder's name, and the store's time of its removal."""
        model_id, _, removal = name.partition("-")
        path = f"deleted/{name}"
        note = f"{path}/removed-{removal}"
        if not is_hex(model_id, 32) or not is_hex(removal, 32):
            return None, 0
        try:
            data = await self._storage.read_file(note, max_bytes=_MAX_SMALL_FILE)
            mtime_ns = (await self._storage.stat(note)).mtime_ns
            fields = Fields.parse(data, note)
            removed = RemovedModel(fields.text("name"), model_id, fields.integer("time_ns", 0) or mtime_ns, path)
        except (NotFound, NotADirectory, LimitExceeded, CorruptData) as error:
            log.warning("removed model %s can't be read: %s", path, error)
            return None, 0
        return removed, mtime_ns

    async def _discard(self, path: str) -> None:
        """Removes something of no consequence, if the store answers."""
        try:
            await self._storage.delete(path, recursive=True)
        except MvcfsError as error:
            log.debug("%s stays: %s", path, error)
