"""Which models of a store are open, under which names, when other hosts rename, remove and bring back models.

Invariants: a model is open once, whatever it is called, because its overlay is one; an open model stays open while it is
removed elsewhere, because its unpublished writes wait for an undelete. Threading: trio thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import trio

from mvcfs.errors import NotFound, StorageError
from mvcfs.versions.store import Store
from mvcfs.vfs.model import OpenModel

log = logging.getLogger(__name__)

_NEVER = -1e9


class OpenModels:
    """The open models of a store, and the names of all.

    Args:
        store: The store.
        refresh_s: How old the list of all names may be, in seconds.
        make: Opens a model by its name and id.
    """

    def __init__(self, store: Store, refresh_s: float, make: Callable[[str, str], Awaitable[OpenModel]]) -> None:
        self.by_name: dict[str, OpenModel] = {}
        self._gone: dict[str, OpenModel] = {}
        self._store = store
        self._refresh_s = refresh_s
        self._make = make
        self._opening = trio.Lock()
        self._names: tuple[float, list[str]] = (_NEVER, [])

    async def names(self) -> list[str]:
        """The models of the store, as of at most `refresh_s` ago; that the store is gone is a StorageError."""
        when, names = self._names
        if time.monotonic() - when > self._refresh_s:
            try:
                names = await self._store.models()
            except NotFound as error:
                raise StorageError(f"there is no mvcfs store at {self._store.url} any more") from error
            self._names = (time.monotonic(), names)
        return names

    def forget_names(self) -> None:
        """Has the models listed anew when they are asked for next."""
        self._names = (_NEVER, [])

    async def open(self, name: str) -> OpenModel:
        """An open model; NotFound."""
        found = self.by_name.get(name)
        if found is not None:
            return found
        async with self._opening:
            if name in self.by_name:
                return self.by_name[name]
            if name not in await self.names():
                raise NotFound(f"no model {name} in {self._store.url}")
            model_id = await self._store.id_of(name)
            model = next((one for one in self.all() if one.data.id == model_id), None)
            if model is None:
                model = self.by_name[name] = await self._make(name, model_id)
            else:
                self.renamed(model, name)
            return model

    def all(self) -> list[OpenModel]:
        """Those that are open, also those that another host removed: their changes wait for an undelete."""
        return [*self.by_name.values(), *self._gone.values()]

    def watched(self, shown: OpenModel | None) -> list[OpenModel]:
        """The models whose news count: what the mount shows also while it is removed, since it may come back."""
        return [*self.by_name.values(), *(model for model in self._gone.values() if model is shown)]

    def renamed(self, model: OpenModel, name: str) -> None:
        """An open model has another name."""
        self._leave(model)
        self._gone.pop(model.data.id, None)
        displaced = self.by_name.get(name)
        if displaced is not None:
            self._gone[displaced.data.id] = displaced
        model.data.repository.renamed(name)
        self.by_name[name] = model

    def answered(self, model: OpenModel) -> None:
        """A model is there: if it was removed, it came back."""
        if self._gone.get(model.data.id) is model:
            self.renamed(model, model.name)

    def removed(self, name: str) -> None:
        """A model was removed here."""
        self.by_name.pop(name, None)

    def _leave(self, model: OpenModel) -> None:
        if self.by_name.get(model.name) is model:
            del self.by_name[model.name]

    async def missing(self, model: OpenModel) -> None:
        """A model is not where it was: renamed or removed on another host."""
        old = model.name
        new = await self._store.find_by_id(model.data.id)
        self.forget_names()
        if new is None and model.data.id in self._gone:
            return
        if new is None:
            log.warning("the model %s was removed elsewhere", old)
            self._leave(model)
            self._gone[model.data.id] = model
            return
        log.warning("the model %s was renamed to %s elsewhere", old, new)
        self.renamed(model, new)
