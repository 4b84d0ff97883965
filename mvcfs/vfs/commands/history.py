"""Commands on the versions of a branch, of a path and of any revision. Threading: trio thread."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mvcfs.errors import InvalidArgument, NotFound
from mvcfs.types import NS_PER_S
from mvcfs.versions.history.revisions import parse_time
from mvcfs.versions.history.version_walk import Found, Wanted
from mvcfs.versions.history.versions import CommitInfo
from mvcfs.versions.trees.comparing import Changes
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.change_rows import ChangeRows, entry_fields
from mvcfs.vfs.commands.targets import Target, parse_target
from mvcfs.vfs.comparison import Spot, compare_spots
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.working_tree.messages import STORED_TRAILER

_DEFAULT_LOG_LIMIT = 1000


class HistoryCommands:
    """`log` and `history`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def log(self, args: Json) -> Json:
        """Versions, newest first.

        Args:
            args: A target: a branch or a revision, and maybe a path in it, then only versions in which that changed, under
                the names that it had; `limit`, `since`, `until`, `author` say which, `stat` adds what each changed.
                `graph`: what was merged in as well, as it is drawn.
        """
        target = await parse_target(self._engine, args)
        model = target.require_model()
        found = await (self._graph if args.get("graph") else self._found)(model, target, args)
        tags = await tags_by_commit(model)
        tips: dict[str | None, list[str]] = {}
        for state in model.data.repository.refs.branches.values():
            tips.setdefault(state.tip, []).append(state.name)
        rows = []
        for each in found:
            row = version_row(each.info, each.version, tags.get(each.info.oid, []))
            row["branches"] = tips.get(each.info.oid, [])
            row["place"] = await _place(model, each)
            if target.path:
                row |= path_fields(each)
            if args.get("stat"):
                row["stat"] = await self._stat(model, each)
            rows.append(row)
        return {"model": model.name, "branch": target.branch, "versions": rows}

    async def history(self, args: Json) -> Json:
        """The versions in which a file or directory changed, with what it was in each."""
        target = await parse_target(self._engine, args)
        model = target.require_model()
        if not target.path:
            raise InvalidArgument(
                "name a file or directory of a branch; `mvcfs log` lists the versions of a whole branch"
            )
        rows = []
        for each in await self._found(model, target, args):
            entry = None
            if each.change != "removed":
                entry = await model.data.repository.entry_at(each.info.oid, each.path)
            row = version_row(each.info, each.version, [])
            row["place"] = await _place(model, each)
            rows.append({**row, **path_fields(each), **entry_fields(entry)})
        return {"model": model.name, "branch": target.branch, "path": os.fsdecode(target.path), "versions": rows}

    async def _found(self, model: OpenModel, target: Target, args: Json) -> Sequence[Found]:
        repository = model.data.repository
        start, version = await self._start(model, target)
        wanted = Wanted(target.path, str(args.get("author") or ""), _time(args.get("since")), _time(args.get("until")))
        limit = int(args.get("limit") or _DEFAULT_LOG_LIMIT)
        found = await repository.looking_back.walk(start, version, wanted).take(limit)
        if target.path and not found and wanted == Wanted(target.path):
            raise NotFound(f"no version of {_shown(model, target)} has {os.fsdecode(target.path)}")
        return found

    async def _graph(self, model: OpenModel, target: Target, args: Json) -> Sequence[Found]:
        """The newest versions and what was merged into them, in the order in which they are drawn."""
        if target.path or args.get("since") or args.get("until") or args.get("author"):
            raise InvalidArgument("a graph shows whole histories: no path, no --since, --until and --author")
        start, version = await self._start(model, target)
        if start is None:
            return []
        commits = await model.data.repository.looking_back.newest_commits(
            start, int(args.get("limit") or _DEFAULT_LOG_LIMIT)
        )
        numbers: dict[str, int] = {}
        on_line: str | None = start
        by_id = {info.oid: info for info in commits}
        while version and on_line in by_id:
            numbers[on_line] = version
            version, on_line = version - 1, next(iter(by_id[on_line].parents), None)
        return [Found(numbers.get(info.oid), info) for info in commits]

    async def _start(self, model: OpenModel, target: Target) -> tuple[str | None, int | None]:
        """The commit that a target names, and which version of its branch it is."""
        repository = model.data.repository
        if target.revision is None:
            model, name = target.require_branch()
            state = repository.refs.branch(name)
            return state.tip, state.version
        commit = await repository.resolve(target.revision, branch=target.branch)
        if target.branch is None:
            return commit, None
        return commit, await repository.version_of(target.branch, commit)

    async def _stat(self, model: OpenModel, each: Found) -> Json:
        """What a version changed against the one before it, at the path that was asked for."""
        before = Spot(each.info.parents[0] if each.info.parents else None, each.old_path or each.path)
        changes = await compare_spots(model.data, before, Spot(each.info.oid, each.path))
        return dict((await ChangeRows(model.data).report(changes or Changes()))["totals"])


async def tags_by_commit(model: OpenModel) -> dict[str, list[str]]:
    """The names of a model's tags by the commit that they stand for."""
    repository = model.data.repository
    tags: dict[str, list[str]] = {}
    for tag in repository.refs.tags:
        tags.setdefault(await repository.resolve(tag), []).append(tag)
    return tags


async def _place(model: OpenModel, each: Found) -> str | None:
    """Which version of another branch a commit is, None for one of this branch, or of none."""
    if each.version is not None:
        return None
    place = await model.data.repository.place_of(each.info.oid)
    return None if place is None else f"{place.branch}@{place.version}"


def version_row(info: CommitInfo, version: int | None, tags: Sequence[str]) -> Json:
    """A version as `log` and `show` print it."""
    stored = dict(info.trailers).get(STORED_TRAILER, "")
    return {
        "version": version,
        "commit": info.oid,
        "parents": list(info.parents),
        "time_ns": info.committer_time_s * NS_PER_S,
        "author": info.author.name,
        "email": info.author.email,
        "message": info.message,
        "tags": list(tags),
        "stored_bytes": int(stored) if stored.isascii() and stored.isdecimal() else None,
    }


def path_fields(each: Found) -> Json:
    """What became of a path in a version."""
    return {
        "path": os.fsdecode(each.path),
        "change": each.change,
        "old_path": None if each.old_path is None else os.fsdecode(each.old_path),
    }


def _time(text: object) -> int | None:
    if not text:
        return None
    time_s = parse_time(str(text))
    if time_s is None:
        raise InvalidArgument(
            f"{text!r} is no time: write for example 2026-11-20, 2026-11-20T1200 or 20261120T120000+0100"
        )
    return time_s


def _shown(model: OpenModel, target: Target) -> str:
    return f"{model.name}/{target.branch or target.revision}"
