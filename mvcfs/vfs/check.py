"""Checking a store: is the log unbroken, is every file there that it names, do trees, manifests and packs fit together.

Reads only. A damaged store is reported, never raised. Threading: trio thread; hashing is in threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvcfs.errors import MvcfsError
from mvcfs.types import LargeContent

if TYPE_CHECKING:
    from mvcfs.vfs.engine import Engine
    from mvcfs.vfs.model import OpenModel

Json = dict[str, Any]


async def check_store(engine: Engine, *, data: bool) -> Json:
    """Checks every model of a store.

    Args:
        engine: The store.
        data: Whether every chunk is read and hashed as well.

    Returns:
        `problems` (each with `model`, `file`, `text`, `versions`) and `counts`.
    """
    checker = _Checker(engine, data)
    for name in await engine.store.models():
        await checker.check_model(name)
    return {"problems": checker.problems, "counts": checker.counts, "data": data}


class _Checker:
    def __init__(self, engine: Engine, data: bool) -> None:
        self._engine = engine
        self._data = data
        self.problems: list[Json] = []
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
        model.data.content.set_live(refs.manifests, refs.packs)
        self.counts["records"] += refs.number + 1
        self.counts["versions"] += sum(state.version for state in refs.branches.values())
        self.counts["git_packs"] += len(refs.git)
        for problem in await model.data.repository.fsck():
            self._add(name, problem.name, problem.text, list(problem.versions))
        await self._check_contents(model)

    async def _check_contents(self, model: OpenModel) -> None:
        refs, content = model.data.repository.refs, model.data.content
        found = []
        for manifest in refs.manifests:
            self.counts["manifests"] += 1
            found += await content.check_manifest(manifest.name)
        for pack in refs.packs:
            self.counts["packs"] += 1
            self.counts["pack_bytes"] += pack.size_bytes
            found += await content.check_pack(pack.name, self._data)
        for problem in found:
            self._add(model.name, problem.name, problem.text, await self._versions_of(model, problem.oids))
        await self._check_large_files(model)

    async def _check_large_files(self, model: OpenModel) -> None:
        try:
            contents = await model.data.repository.large_contents()
        except MvcfsError as error:
            self._add(model.name, "git", str(error))
            return
        for oid, size in sorted(contents):
            self.counts["large_files"] += 1
            try:
                await model.data.content.open(LargeContent(oid, size))
            except MvcfsError as error:
                self._add(model.name, f"sha256:{oid}", str(error), await self._versions_of(model, (oid,)))

    async def _versions_of(self, model: OpenModel, oids: tuple[str, ...]) -> list[str]:
        """Where large files are needed: `branch@version path`."""
        if not oids:
            return []
        try:
            return await model.data.repository.places_of(frozenset(oids))
        except MvcfsError:
            return []
