"""Commands on the branches of a model. Threading: trio thread."""

from __future__ import annotations

import time

from mvcfs.errors import Busy, NotPermitted
from mvcfs.types import NS_PER_S
from mvcfs.versions.history.divergence import Divergence
from mvcfs.versions.log.refs import BranchState
from mvcfs.vfs.changes import Json, count_changes
from mvcfs.vfs.commands.arguments import name_of, text_of
from mvcfs.vfs.commands.targets import parse_target
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService


class BranchCommands:
    """`branch`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def _model(self, args: Json) -> OpenModel:
        return (await parse_target(self._engine, args)).require_model()

    async def branches(self, args: Json) -> Json:
        """The branches of a model, each compared with its default branch."""
        model = await self._model(args)
        refs = model.data.repository.refs
        default = refs.default_branch()
        compared = await model.data.repository.divergences(None if default is None else default.name)
        return {
            "model": model.name,
            "default": None if default is None else default.name,
            "branches": [
                await self._row(model, state) | _compared(compared.get(state.name)) | _unpublished(model, state)
                for state in refs.branches.values()
            ],
            "deleted": [state.name for state in refs.deleted],
        }

    async def _row(self, model: OpenModel, state: BranchState) -> Json:
        time_ns = None
        if state.tip is not None:
            time_ns = (await model.data.repository.commit_info(state.tip)).committer_time_s * NS_PER_S
        age_s = None if time_ns is None else max(0.0, round(time.time() - time_ns / NS_PER_S, 3))
        return {"branch": state.name, "id": state.id, "tip": state.tip, "version": state.version, "time_ns": time_ns,
                "age_s": age_s, "protected": state.protected}  # fmt: skip

    async def create(self, args: Json) -> Json:
        """Makes a branch from a revision, or an empty one."""
        target = await parse_target(self._engine, args)
        model = target.require_model()
        repository = model.data.repository
        revision = args.get("revision") or target.revision
        commit = None if not revision else await repository.resolve(str(revision), branch=target.branch)
        state = await repository.create_branch(name_of(args), commit)
        return await self._done(model, state)

    async def rename(self, args: Json) -> Json:
        """Gives a branch another name; its history and its unpublished files stay with it."""
        model = await self._model(args)
        new = text_of(args, "new_name")
        await model.data.repository.rename_branch(name_of(args), new)
        return await self._done(model, model.data.repository.refs.branch(new)) | {"old": name_of(args)}

    async def protect(self, args: Json) -> Json:
        """Lets only merges and commits that override it change a branch; `protected` false takes that back."""
        model = await self._model(args)
        state = await model.data.repository.protect_branch(name_of(args), bool(args.get("protected", True)))
        return await self._done(model, state) | {"protected": state.protected} | _unpublished(model, state)

    async def delete(self, args: Json) -> Json:
        """Deletes a branch; its versions are kept and `undelete` brings it back."""
        model = await self._model(args)
        name = name_of(args)
        state = model.data.repository.refs.branch(name)
        branch = model.branches.get(state.id)
        if branch is not None and branch is self._engine.part.branch:
            raise Busy(
                f"this mount shows {model.name}/{name} as its root: unmount it first, or delete the branch elsewhere"
            )
        if branch is not None and branch.tree.root.changed:
            counts = count_changes(branch)
            unpublished = counts["changed_files"] + counts["ignored_files"]
            if unpublished and not args.get("force"):
                raise NotPermitted(
                    f"{model.name}/{name} has {unpublished} files that no version holds: "
                    "commit them first, or delete with --force"
                )
        await model.delete_branch(name)
        await self._engine.show_refs(model)
        return {"model": model.name, "branch": name, "deleted": True}

    async def undelete(self, args: Json) -> Json:
        """Brings a deleted branch back with its last version that is not empty."""
        model = await self._model(args)
        return await self._done(model, await model.data.repository.undelete_branch(name_of(args)))

    async def _done(self, model: OpenModel, state: BranchState) -> Json:
        """What became of a branch, once this mount shows it."""
        await self._engine.show_refs(model)
        return {"model": model.name, "branch": state.name, "tip": state.tip, "version": state.version}


def _compared(divergence: Divergence | None) -> Json:
    """How a branch and the default branch went apart; `None` where one of them has no version."""
    if divergence is None:
        return {"ahead": None, "behind": None, "ahead_behind_complete": True}
    return {
        "ahead": divergence.ahead,
        "behind": divergence.behind,
        "ahead_behind_complete": divergence.complete,
    }


def _unpublished(model: OpenModel, state: BranchState) -> Json:
    """What of a branch no version holds, on this mount."""
    branch = model.branches.get(state.id)
    counts: Json = {} if branch is None else count_changes(branch)
    keys = ("changed_files", "changed_bytes", "ignored_files")
    return {key: counts.get(key, 0) for key in keys}
