"""`show`: what a version is and changed, or what a path in it is. Threading: trio thread."""

from __future__ import annotations

import os

from mvcfs.errors import InvalidArgument, NotFound
from mvcfs.types import NS_PER_S
from mvcfs.versions.history.version_walk import Wanted
from mvcfs.versions.trees.comparing import Changes
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.change_rows import ChangeRows, entry_fields
from mvcfs.vfs.commands.history import path_fields, tags_by_commit, version_row
from mvcfs.vfs.commands.targets import Target, parse_target
from mvcfs.vfs.comparison import Spot, compare_spots
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService


class ShowCommands:
    """`show`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def show(self, args: Json) -> Json:
        """A version with its changes against the one before it, or a file or directory of a version.

        Args:
            args: A target; `revision`, another version in its place; `attributes` and `text`, see `ChangeRows`.
        """
        target = await parse_target(self._engine, args)
        model = target.require_model()
        text = args.get("revision") or target.revision or target.branch
        if not text:
            raise InvalidArgument(f"name a version of {model.name}, such as main@1")
        repository = model.data.repository
        commit = await repository.resolve(str(text), branch=target.branch)
        place = await repository.place_of(commit, prefer=target.branch)
        branch, version = (target.branch, None) if place is None else (place.branch, place.version)
        info = await repository.commit_info(commit)
        tags = await tags_by_commit(model)
        found = {"model": model.name, "branch": branch, **version_row(info, version, tags.get(commit, []))}
        found["authored_ns"] = info.author_time_s * NS_PER_S
        found["trailers"] = [list(pair) for pair in info.trailers]
        if target.path:
            return {**found, "entry": await self._entry(model, target, commit, version)}
        before = Spot(info.parents[0] if info.parents else None)
        changes = await compare_spots(model.data, before, Spot(commit))
        rows = ChangeRows(model.data, attributes=bool(args.get("attributes")), text=bool(args.get("text")))
        return {**found, **await rows.report(changes or Changes())}

    async def _entry(self, model: OpenModel, target: Target, commit: str, version: int | None) -> Json:
        """What a version has at a path, and the version that changed it last."""
        repository = model.data.repository
        entry = await repository.entry_at(commit, target.path)
        if entry is None:
            raise NotFound(f"{os.fsdecode(target.path)} is not in {model.name}@{commit[:10]}")
        attributes = entry.attributes
        found: Json = {
            "path": os.fsdecode(target.path),
            **entry_fields(entry),
            "uid": attributes.uid,
            "gid": attributes.gid,
        }
        found["mtime_ns"] = attributes.mtime_ns
        if attributes.is_symlink and entry.content is not None:
            found["target"] = os.fsdecode(await model.data.source(entry.content).read(0, entry.content.size_bytes))
        if entry.tree is not None:
            found["entries"] = len(await repository.list_tree(entry.tree))
        last = await repository.looking_back.walk(commit, version, Wanted(target.path)).take(1)
        found["last_change"] = None
        if last:
            found["last_change"] = {**version_row(last[0].info, last[0].version, []), **path_fields(last[0])}
        return found
