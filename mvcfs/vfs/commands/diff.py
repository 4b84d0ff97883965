"""`diff`: what changed from one version of a model to another, or in a working tree. Threading: trio thread."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.change_rows import ChangeRows
from mvcfs.vfs.commands.diff_sides import Side, add_changes, compare_sides, parse_sides
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.working_tree.working_changes import WorkingChanges


class DiffCommands:
    """`diff`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def diff(self, args: Json) -> Json:
        """What changed from one side to the other.

        Args:
            args: A target; `revision`, another one of its model in its place; `other`, what it is compared with: a
                revision, or (`other_path`) a path; `paths`, what of both; `attributes` and `text`, see `ChangeRows`.
        """
        found = await compare(self._engine, args)
        rows = ChangeRows(
            found.model.data,
            attributes=bool(args.get("attributes")),
            text=bool(args.get("text")),
            working=found.working,
        )
        return {**await found.shown(), **await rows.report(found.working.changes)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides of a model, and what changed from one to the other."""

    model: OpenModel
    before: Side
    after: Side
    working: WorkingChanges

    async def shown(self) -> Json:
        """The model and its two sides, as results begin."""
        return {
            "model": self.model.name,
            "before": await self._shown(self.model, self.before),
            "after": await self._shown(self.model, self.after),
        }

    async def _shown(self, model: OpenModel, side: Side) -> Json:
        version, spot = None, side.spot
        if side.branch is not None and spot.commit is not None:
            version = await model.data.repository.version_of(side.branch, spot.commit)
        return {
            "branch": side.branch,
            "version": version,
            "commit": spot.commit,
            "path": os.fsdecode(spot.path),
            "unpublished": side.working is not None,
        }


async def compare(engine: StoreService, args: Json) -> Comparison:
    """What the arguments of `diff` name, and the changes between them."""
    model, before, after = await parse_sides(engine, args)
    found = WorkingChanges()
    for path in _distinct(args.get("paths") or [""]):
        add_changes(found, await compare_sides(model, before, after, path))
    return Comparison(model, before, after, found)


def _distinct(paths: list[str]) -> list[bytes]:
    """Paths without those that are in another one, sorted."""
    found: list[bytes] = []
    for path in sorted({os.fsencode(os.path.normpath(path)).strip(b"/") if path else b"" for path in paths}):
        clean = b"" if path == b"." else path
        if not any(clean == above or not above or clean.startswith(above + b"/") for above in found):
            found.append(clean)
    return found
