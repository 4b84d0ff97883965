"""Publishing what is closed and taking in what others published, now. Threading: trio thread."""

from __future__ import annotations

from mvcfs.errors import InvalidArgument, NotFound
from mvcfs.types import NS_PER_S
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.targets import parse_target
from mvcfs.vfs.model import Branch, OpenModel
from mvcfs.vfs.service import StoreService

# So many versions of others are named; a host that was away for a week is told how many there were.
_MOST_SHOWN = 100


class SyncCommands:
    """`sync`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def sync(self, args: Json) -> Json:
        """Makes a version of all closed files without waiting for quiet, and moves to what others published."""
        model, name = (await parse_target(self._engine, args)).require_branch()
        if self._engine.overlay is None:
            raise InvalidArgument(f"{model.name}/{name} is not mounted here: there is nothing to sync")
        branch = await model.branch(name)
        before = self._version(model, branch)
        await model.refresh()
        outcome = await branch.settler.commit_closed() if branch.tree.root.changed else None
        await model.refresh()
        await self._engine.show_refs(model)
        published = outcome is not None and not outcome.unchanged
        own = outcome.commit if outcome is not None and published else None
        count, versions = await self._came(model, branch, before, own)
        state = model.data.repository.refs.branch_by_id(branch.tree.branch_id)
        return {
            "model": model.name,
            "branch": outcome.branch if outcome is not None else branch.tree.branch_name,
            "version": outcome.version if outcome is not None and outcome.conflict else self._version(model, branch),
            "commit": own if own is not None else None if state is None else state.tip,
            "published": published,
            "conflict": outcome is not None and outcome.conflict,
            "left_out_files": 0 if outcome is None else outcome.left_out,
            "ignored_files": 0 if outcome is None else outcome.ignored,
            "came_versions": count,
            "came": versions,
            "waits_for": branch.tree.collision,
        }

    @staticmethod
    def _version(model: OpenModel, branch: Branch) -> int:
        state = model.data.repository.refs.branch_by_id(branch.tree.branch_id)
        return 0 if state is None else state.version

    async def _came(self, model: OpenModel, branch: Branch, before: int, own: str | None) -> tuple[int, list[Json]]:
        """How many versions of others came since one, and the newest of them."""
        now = self._version(model, branch)
        if now <= before:
            return 0, []
        try:
            found = await model.data.repository.history(
                branch.tree.branch_name, limit=min(now - before, _MOST_SHOWN + 1)
            )
        except NotFound:
            return 0, []
        rows = [
            {
                "version": info.version,
                "commit": info.commit,
                "time_ns": info.time_s * NS_PER_S,
                "author": info.author.name,
                "message": info.message,
            }
            for info in found
            if info.commit != own
        ]
        mine = len(found) - len(rows)
        return now - before - mine, rows[:_MOST_SHOWN]
