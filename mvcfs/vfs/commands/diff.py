"""`diff` and what it compares: two versions of a model. Threading: trio thread."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mvcfs.errors import InvalidArgument, InvalidName, NotFound
from mvcfs.versions.comparing import Changes
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.change_rows import ChangeRows
from mvcfs.vfs.commands.targets import Target, parse_target
from mvcfs.vfs.comparison import Spot, compare_spots
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two things that are compared.

    Attributes:
        spot: The version, and what of it is compared.
        branch: The branch that it was named by, None for none.
    """

    spot: Spot
    branch: str | None


class DiffCommands:
    """`diff`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def diff(self, args: Json) -> Json:
        """What changed from one version to another.

        Args:
            args: A target; `revision`, another one of its model in its place; `other`, what it is compared with: a
                revision, or (`other_path`) a path; `paths`, what of both; `attributes` and `text`, see `ChangeRows`.
        """
        target = await parse_target(self._engine, args)
        model = target.require_model()
        before, after = await self._sides(model, target, args)
        changes = Changes()
        for path in _distinct(args.get("paths") or [""]):
            found = await self._compare(model, before, after, path)
            changes.listed += found.listed
            changes.not_listed += found.not_listed
            changes.not_listed_added_bytes += found.not_listed_added_bytes
        rows = ChangeRows(model.data, attributes=bool(args.get("attributes")), text=bool(args.get("text")))
        return {
            "model": model.name,
            "before": await self._shown(model, before),
            "after": await self._shown(model, after),
            **await rows.report(changes),
        }

    async def _sides(self, model: OpenModel, target: Target, args: Json) -> tuple[Side, Side]:
        first = await self._side(model, target, args.get("revision"))
        other, other_path = args.get("other"), args.get("other_path")
        if other is None and other_path is None:
            return await self._before(model, first), first
        if other is not None:
            try:
                commit = await model.data.repository.resolve(str(other), branch=first.branch)
            except (NotFound, InvalidName):
                if other_path is None:
                    raise
            else:
                return first, Side(Spot(commit, target.path), _branch_named(model, str(other)))
        second = await parse_target(self._engine, {"mount_path": other_path})
        if second.model is not model:
            raise InvalidArgument(f"{other_path} is not in the model {model.name}: versions of one model are compared")
        return first, await self._side(model, second, None)

    async def _side(self, model: OpenModel, target: Target, revision: str | None) -> Side:
        text = revision or target.revision or target.branch
        if not text:
            raise InvalidArgument(f"name two versions of {model.name}, such as main@1 main@2")
        commit = await model.data.repository.resolve(str(text), branch=target.branch)
        branch = target.branch if revision is None else _branch_named(model, revision)
        return Side(Spot(commit, target.path), branch or target.branch)

    async def _before(self, model: OpenModel, side: Side) -> Side:
        """The version before another."""
        assert side.spot.commit is not None
        parents = (await model.data.repository.commit_info(side.spot.commit)).parents
        return Side(Spot(parents[0] if parents else None, side.spot.path), side.branch)

    async def _compare(self, model: OpenModel, before: Side, after: Side, path: bytes) -> Changes:
        spot = after.spot.below(path)
        found = await compare_spots(model.data, before.spot.below(path), spot)
        if found is None:
            raise NotFound(f"{os.fsdecode(spot.path) or model.name} is in neither version")
        return found

    async def _shown(self, model: OpenModel, side: Side) -> Json:
        version, spot = None, side.spot
        if side.branch is not None and spot.commit is not None:
            version = await model.data.repository.version_of(side.branch, spot.commit)
        return {"branch": side.branch, "version": version, "commit": spot.commit, "path": os.fsdecode(spot.path)}


def _branch_named(model: OpenModel, revision: str) -> str | None:
    """The branch that a revision begins with, None for none."""
    for mark in ("@", "~"):
        name = revision.split(mark, 1)[0]
        if name in model.data.repository.refs.branches:
            return name
    return None


def _distinct(paths: list[str]) -> list[bytes]:
    """Paths without those that are in another one, sorted."""
    found: list[bytes] = []
    for path in sorted({os.fsencode(os.path.normpath(path)).strip(b"/") if path else b"" for path in paths}):
        clean = b"" if path == b"." else path
        if not any(clean == above or not above or clean.startswith(above + b"/") for above in found):
            found.append(clean)
    return found
