"""Checking a store: is the log unbroken, is every file there that it names, do trees, manifests and packs fit together.

Reads only. A damaged store is reported, never raised. Threading: trio thread; hashing is in threads.
"""

from __future__ import annotations

import os
from typing import Any

from mvcfs.errors import MvcfsError
from mvcfs.types import LargeContent
from mvcfs.versions.check import Severity
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService

Json = dict[str, Any]

# A damaged file of a long history is named in this many versions at most, searched for in so many.
_SHOWN_PLACES = 20
_SEARCHED_VERSIONS = 1000


async def check_store(engine: StoreService, *, data: bool) -> Json:
    """Checks every model of a store.

    Args:
        engine: The store.
        data: Whether every chunk is read and hashed as well.

    Returns:
        `problems` (each with `model`, `file`, `text`, `versions`), `notes` (of no consequence) and `counts`.
    """
    checker = _Checker(engine, data)
    for name in await engine.store.models():
        await checker.check_model(name)
    return {"problems": checker.problems, "notes": checker.notes, "counts": checker.counts, "data": data}


class _Checker:
    def __init__(self, engine: StoreService, data: bool) -> None:
        self._engine = engine
        self._data = data
        self.problems: list[Json] = []
        self.notes: list[Json] = []
        self.counts: dict[str, int] = {
            "models": 0, "records": 0, "versions": 0, "git_packs": 0, "manifests": 0, "packs": 0, "large_files": 0,
            "pack_bytes": 0,
        }  # fmt: skip

    def _add(self, model: str, file: str, text: str, versions: list[str] | None = None) -> None:
        self.problems.append({"model": model, "file": file, "text": text, "versions": versions or []})

    async def check_model(self, name: str) -> None:
        """Checks one model; what can't be opened is a problem by itself."""
        self.counts["models"] += 1
        try:
            model = await self._engine.model(name)
            await model.data.repository.refresh()
        except MvcfsError as error:
            self._add(name, "log", str(error))
            return
        refs = model.data.repository.refs
        model.data.set_live()
        self.counts["records"] += refs.number + 1
        self.counts["versions"] += sum(state.version for state in refs.branches.values())
        self.counts["git_packs"] += len(refs.git)
        for problem in await model.data.repository.fsck():
            if problem.severity is Severity.DAMAGE:
                self._add(name, problem.what, problem.message, list(problem.versions))
            else:
                self.notes.append({"model": name, "file": problem.what, "text": problem.message})
        await self._check_contents(model)

    async def _check_contents(self, model: OpenModel) -> None:
        repository, content = model.data.repository, model.data.content
        while True:
            refs = repository.refs
            found = []
            for manifest in refs.manifests:
                found += await content.check_manifest(manifest.name)
            # What is damaged may have been joined meanwhile: then it is looked at as it is now.
            if not found or not await repository.refresh():
                break
            model.data.set_live()
        for pack in refs.packs:
            found += await content.check_pack(pack.name, self._data)
        self.counts["manifests"] += len(refs.manifests)
        self.counts["packs"] += len(refs.packs)
        self.counts["pack_bytes"] += sum(pack.size_bytes for pack in refs.packs)
        for problem in found:
            self._add(model.name, problem.name, problem.text, await self._versions_of(model, problem.oids))
        await self._check_large_files(model)

    async def _check_large_files(self, model: OpenModel) -> None:
        try:
            contents = await model.data.repository.large_contents()
        except MvcfsError as error:
            self._add(model.name, "git", str(error))
            return
        for large in sorted(contents, key=lambda one: one.oid):
            self.counts["large_files"] += 1
            try:
                await model.data.content.open(large)
            except MvcfsError as error:
                self._add(model.name, f"sha256:{large.oid}", str(error), await self._versions_of(model, (large.oid,)))

    async def _versions_of(self, model: OpenModel, oids: tuple[str, ...]) -> list[str]:
        """Where large files are needed: `branch@version:path`, the newest versions first."""
        if not oids:
            return []
        repository = model.data.repository
        paths: dict[str, list[str]] = {}
        found: list[str] = []
        try:
            for branch in repository.refs.branches:
                for info in await repository.history(branch, limit=_SEARCHED_VERSIONS):
                    hit = await self._paths_of(model, info.tree, frozenset(oids), paths)
                    found += [f"{branch}@{info.version}:{path}" for path in hit]
                    if len(found) >= _SHOWN_PLACES:
                        return found[:_SHOWN_PLACES]
        except MvcfsError as error:
            found.append(f"(not all versions can be read: {error})")
        return found

    async def _paths_of(
        self, model: OpenModel, tree: str, oids: frozenset[str], known: dict[str, list[str]]
    ) -> list[str]:
        """The paths of a tree whose content is among `oids`; `known` remembers trees that versions share."""
        if tree in known:
            return known[tree]
        found: list[str] = []
        for entry in await model.data.repository.list_tree(tree):
            name = os.fsdecode(entry.name)
            if isinstance(entry.content, LargeContent) and entry.content.oid in oids:
                found.append(name)
            elif entry.tree is not None:
                found += [f"{name}/{path}" for path in await self._paths_of(model, entry.tree, oids, known)]
        known[tree] = found
        return found
