"""Commands on branches, tags and removed models. Threading: trio thread."""

from __future__ import annotations

import os

from mvcfs.errors import InvalidArgument, NotFound, NotPermitted
from mvcfs.types import NS_PER_S
from mvcfs.versions.refs import BranchState
from mvcfs.vfs.changes import Json, count_changes
from mvcfs.vfs.commands.arguments import author_given, name_of
from mvcfs.vfs.commands.targets import Target, parse_target
from mvcfs.vfs.messages import author_of
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService


class RefCommands:
    """`branch`, `tag` and `undelete`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def _target(self, args: Json) -> Target:
        return await parse_target(self._engine, args)

    async def branches(self, args: Json) -> Json:
        """The branches of a model."""
        model = (await self._target(args)).require_model()
        refs = model.data.repository.refs
        return {
            "model": model.name,
            "branches": [await self._branch_row(model, state) for state in refs.branches.values()],
            "deleted": [state.name for state in refs.deleted],
        }

    async def _branch_row(self, model: OpenModel, state: BranchState) -> Json:
        time_ns = None
        if state.tip is not None:
            time_ns = (await model.data.repository.commit_info(state.tip)).committer_time_s * NS_PER_S
        return {"branch": state.name, "id": state.id, "tip": state.tip, "version": state.version, "time_ns": time_ns,
                "protected": state.protected}  # fmt: skip

    async def branch_create(self, args: Json) -> Json:
        """Makes a branch from a revision, or an empty one."""
        target = await self._target(args)
        model = target.require_model()
        repository = model.data.repository
        revision = args.get("revision") or target.revision
        commit = None if not revision else await repository.resolve(str(revision), branch=target.branch)
        state = await repository.create_branch(name_of(args), commit)
        return {"model": model.name, "branch": state.name, "tip": state.tip, "version": state.version}

    async def branch_delete(self, args: Json) -> Json:
        """Deletes a branch; its versions are kept and `branch_undelete` brings it back."""
        model = (await self._target(args)).require_model()
        name = name_of(args)
        state = model.data.repository.refs.branches.get(name)
        if state is None:
            raise NotFound(f"{model.name} has no branch {name}")
        branch = model.branches.get(state.id)
        if branch is not None and branch.tree.root.changed:
            counts = count_changes(branch)
            unpublished = counts["changed_files"] + counts["ignored_files"]
            if unpublished and not args.get("force"):
                raise NotPermitted(
                    f"{model.name}/{name} has {unpublished} files that no version holds: "
                    "commit them first, or delete with --force"
                )
        await model.delete_branch(name)
        return {"model": model.name, "branch": name, "deleted": True}

    async def branch_undelete(self, args: Json) -> Json:
        """Brings a deleted branch back with its last version that is not empty."""
        model = (await self._target(args)).require_model()
        state = await model.data.repository.undelete_branch(name_of(args))
        await model.follow()
        return {"model": model.name, "branch": state.name, "tip": state.tip, "version": state.version}

    async def tags(self, args: Json) -> Json:
        """The tags of a model."""
        model = (await self._target(args)).require_model()
        repository = model.data.repository
        rows = []
        for tag in repository.refs.tags:
            commit = await repository.resolve(tag)
            info = await repository.commit_info(commit)
            rows.append({"tag": tag, "commit": commit, "time_ns": info.committer_time_s * NS_PER_S})
        return {"model": model.name, "tags": rows}

    async def tag_create(self, args: Json) -> Json:
        """Gives a revision a name for good."""
        target = await self._target(args)
        model = target.require_model()
        repository = model.data.repository
        revision = args.get("revision") or target.revision or target.branch
        if not revision:
            raise InvalidArgument("name the revision to tag, such as main@42")
        commit = await repository.resolve(str(revision), branch=target.branch)
        message = args.get("message")
        author = author_given(args) or author_of(os.getuid(), self._engine.config.host)
        await repository.create_tag(name_of(args), commit, message=message, author=author if message else None)
        return {"model": model.name, "tag": name_of(args), "commit": commit}

    async def tag_delete(self, args: Json) -> Json:
        """Removes a tag."""
        model = (await self._target(args)).require_model()
        await model.data.repository.delete_tag(name_of(args))
        return {"model": model.name, "tag": name_of(args), "deleted": True}

    async def undelete(self, args: Json) -> Json:
        """Brings a removed model back."""
        name = str(args.get("model") or args.get("mount_path") or "").strip("/")
        if not name or "/" in name:
            raise InvalidArgument("name the removed model: MOUNTPOINT/MODEL, or MODEL with --store")
        states = await self._engine.undelete_model(name)
        return {"model": name, "branches": [{"branch": state.name, "version": state.version} for state in states]}
