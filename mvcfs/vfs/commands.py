"""The commands of a store: JSON in, JSON out, the same over a mount's socket and without a mount.

Keys and their units are part of the command line's promise (`docs/cli.md`). Errors are those of `mvcfs.errors`. Threading:
trio thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping

from mvcfs.errors import InvalidArgument, NotFound, NotPermitted
from mvcfs.types import NS_PER_S, Author, BlobContent, Content, LargeContent, TreeEntry
from mvcfs.versions.refs import BranchState
from mvcfs.vfs.changes import Json, count_changes
from mvcfs.vfs.check import check_store
from mvcfs.vfs.messages import author_of
from mvcfs.vfs.model import Branch, OpenModel
from mvcfs.vfs.node import Node
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.targets import Target, parse_target

Command = Callable[[Json], Awaitable[Json]]

_DEFAULT_LOG_LIMIT = 1000


class Commands:
    """The commands of one engine."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    def table(self) -> Mapping[str, Command]:
        """The commands by name."""
        return {
            "status": self.status,
            "commit": self.commit,
            "log": self.log,
            "info": self.info,
            "branches": self.branches,
            "branch_create": self.branch_create,
            "branch_delete": self.branch_delete,
            "branch_undelete": self.branch_undelete,
            "tags": self.tags,
            "tag_create": self.tag_create,
            "tag_delete": self.tag_delete,
            "undelete": self.undelete,
            "fsck": self.fsck,
        }

    # -- state ---------------------------------------------------------------------------------------------------------

    async def status(self, args: Json) -> Json:
        """What is mounted, what is not published yet, and what is wrong."""
        engine = self._engine
        target = await parse_target(engine, args)
        rows = []
        for model in engine.models.values():
            if target.model is not None and model is not target.model:
                continue
            for branch in model.branches.values():
                if target.branch is None or branch.tree.branch_name == target.branch:
                    rows.append(await self._branch_status(model, branch))
        staging = engine.staging
        return {
            "store": engine.storage.url,
            "store_id": engine.store.id,
            "since_s": engine.since_s,
            "state": "ok" if engine.store_error is None else "store unreachable",
            "store_error": engine.store_error,
            "store_error_since_s": engine.store_error_since_s,
            "models": rows,
            "staging": {
                "used_bytes": 0 if staging is None else staging.used_bytes,
                "limit_bytes": engine.config.staging_bytes,
                "overlay_error": None if engine.overlay is None else engine.overlay.failed,
                "waiting_writers": 0 if staging is None else staging.waiting_writers,
            },
            "cache": {"used_bytes": engine.cache.used_bytes, "limit_bytes": engine.config.block_cache_bytes},
            "memory": {"used_bytes": engine.budget.used_bytes, "limit_bytes": engine.budget.limit_bytes},
        }

    async def _branch_status(self, model: OpenModel, branch: Branch) -> Json:
        tree, settler, progress = branch.tree, branch.settler, branch.committer.progress
        counts = count_changes(branch)
        state = model.data.repository.refs.branch_by_id(tree.branch_id)
        due = settler.due()
        upload = progress.upload
        return {
            "model": model.name,
            "branch": tree.branch_name,
            "version": 0 if state is None else state.version,
            "tip": None if state is None else state.tip,
            "deleted": tree.deleted,
            **counts,
            "next_version_in_s": None if due is None else max(0.0, round(due - time.monotonic(), 3)),
            "last_error": settler.last_error,
            "error_since_s": settler.error_since_s,
            "conflict_branch": settler.last_conflict,
            "commit": {
                "step": progress.step,
                "files_done": progress.files_done,
                "files_total": progress.files_total,
                "bytes_done": progress.bytes_done,
                "bytes_total": progress.bytes_total,
                "uploaded_bytes": 0 if upload is None else upload.uploaded_bytes,
            },
        }

    async def commit(self, args: Json) -> Json:
        """Makes a version of everything as it stands."""
        model, name = (await self._target(args)).require_branch()
        if self._engine.overlay is None:
            raise InvalidArgument(f"{model.name}/{name} is not mounted here: there is nothing to commit")
        message = str(args.get("message") or "").strip()
        if not message:
            raise InvalidArgument("a version made by hand needs a message: -m MESSAGE")
        branch = await model.branch(name)
        author = _author(args)
        if author is None:
            uid = args.get("uid")
            author = author_of(int(uid) if uid is not None else os.getuid(), self._engine.config.host)
        outcome = await branch.settler.commit_explicit(message, author)
        return {
            "model": model.name,
            "branch": outcome.branch,
            "version": outcome.version,
            "commit": outcome.commit,
            "unchanged": outcome.unchanged,
            "conflict": outcome.conflict,
            "left_out_files": outcome.left_out,
            "ignored_files": outcome.ignored,
        }

    async def _target(self, args: Json) -> Target:
        return await parse_target(self._engine, args)

    # -- history ---------------------------------------------------------------------------------------------------------

    async def log(self, args: Json) -> Json:
        """The versions of a branch, newest first."""
        target = await self._target(args)
        model, name = target.require_branch()
        repository = model.data.repository
        limit = int(args.get("limit") or _DEFAULT_LOG_LIMIT)
        versions = await repository.history(name, limit=None if target.revision else limit)
        if target.revision is not None:
            commit = await repository.resolve(target.revision, branch=name)
            at = next((i for i, info in enumerate(versions) if info.commit == commit), None)
            if at is None:
                raise NotFound(f"{target.revision} is no version of {model.name}/{name}")
            versions = versions[at : at + limit]
        tags: dict[str, list[str]] = {}
        for tag in repository.refs.tags:
            tags.setdefault(await repository.resolve(tag), []).append(tag)
        return {
            "model": model.name,
            "branch": name,
            "versions": [
                {
                    "version": info.version,
                    "commit": info.commit,
                    "time_ns": info.time_s * NS_PER_S,
                    "author": info.author.name,
                    "email": info.author.email,
                    "message": info.message,
                    "tags": tags.get(info.commit, []),
                }
                for info in versions
            ],
        }

    async def info(self, args: Json) -> Json:
        """What a path is: model, branch, version, commit, digest, state."""
        target = await self._target(args)
        if target.model is None:
            return {"kind": "store", "store": self._engine.storage.url, "models": await self._engine.model_names()}
        model = target.model
        if target.branch is None and target.revision is None:
            return {"kind": "model", "model": model.name, "model_id": model.data.id,
                    "branches": sorted(model.data.repository.refs.branches)}  # fmt: skip
        if target.revision is None and target.branch is not None and self._engine.overlay is not None:
            return await self._working_info(model, target)
        return await self._snapshot_info(model, target)

    async def _working_info(self, model: OpenModel, target: Target) -> Json:
        assert target.branch is not None
        branch = await model.branch(target.branch)
        tree = branch.tree
        node: Node = tree.root
        for name in filter(None, target.path.split(b"/")):
            node = await tree.namespace.child(node, name)
        state = model.data.repository.refs.branch_by_id(tree.branch_id)
        is_ignored = bool(target.path) and tree.is_ignored(target.path, is_dir=node.is_directory)
        word = "ignored" if is_ignored else "changed" if node.changed else "clean"
        found = self._common(model, target, tree.base_commit, 0 if state is None else state.version)
        clean = node.staged is None
        return {**found, "state": word, "size_bytes": node.size_bytes, "mode": node.mode, "open_for_writing": node.writers,
                **_content_info(node.content if clean else None, node.base_tree if not node.changed else None)}  # fmt: skip

    async def _snapshot_info(self, model: OpenModel, target: Target) -> Json:
        repository = model.data.repository
        commit = await repository.resolve(target.revision or target.branch or "", branch=target.branch)
        version = None if target.branch is None else await repository.version_of(target.branch, commit)
        found = self._common(model, target, commit, version)
        if not target.path:
            tree = (await repository.commit_info(commit)).tree
            return {**found, "state": "snapshot", "size_bytes": 0, **_content_info(None, tree)}
        entry = await repository.entry_at(commit, target.path)
        if entry is None:
            raise NotFound(f"{os.fsdecode(target.path)} is not in {model.name}@{commit[:10]}")
        return {**found, "state": "snapshot", "size_bytes": _size(entry), "mode": entry.attributes.mode,
                **_content_info(entry.content, entry.tree)}  # fmt: skip

    def _common(self, model: OpenModel, target: Target, commit: str | None, version: int | None) -> Json:
        return {
            "model": model.name,
            "branch": target.branch,
            "version": version,
            "commit": commit,
            "path": os.fsdecode(target.path),
        }

    # -- branches and tags -------------------------------------------------------------------------------------------------

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
        state = await repository.create_branch(_name(args), commit)
        return {"model": model.name, "branch": state.name, "tip": state.tip, "version": state.version}

    async def branch_delete(self, args: Json) -> Json:
        """Deletes a branch; its versions are kept and `branch_undelete` brings it back."""
        model = (await self._target(args)).require_model()
        name = _name(args)
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
        state = await model.data.repository.undelete_branch(_name(args))
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
        author = _author(args) or author_of(os.getuid(), self._engine.config.host)
        await repository.create_tag(_name(args), commit, message=message, author=author if message else None)
        return {"model": model.name, "tag": _name(args), "commit": commit}

    async def tag_delete(self, args: Json) -> Json:
        """Removes a tag."""
        model = (await self._target(args)).require_model()
        await model.data.repository.delete_tag(_name(args))
        return {"model": model.name, "tag": _name(args), "deleted": True}

    async def undelete(self, args: Json) -> Json:
        """Brings a removed model back."""
        name = str(args.get("model") or args.get("mount_path") or "").strip("/")
        if not name or "/" in name:
            raise InvalidArgument("name the removed model: MOUNTPOINT/MODEL, or MODEL with --store")
        states = await self._engine.undelete_model(name)
        return {"model": name, "branches": [{"branch": state.name, "version": state.version} for state in states]}

    async def fsck(self, args: Json) -> Json:
        """Checks the store without changing it."""
        return await check_store(self._engine, data=bool(args.get("data")))


def _name(args: Json) -> str:
    name = str(args.get("name") or "")
    if not name:
        raise InvalidArgument("a name is missing")
    return name


def _author(args: Json) -> Author | None:
    author = args.get("author")
    if not author:
        return None
    name, _, email = str(author).partition("<")
    return Author(name.strip(), email.rstrip("> ").strip())


def _size(entry: TreeEntry) -> int:
    return 0 if entry.content is None else entry.content.size_bytes


def _content_info(content: Content | None, tree: str | None) -> Json:
    if isinstance(content, LargeContent):
        return {"kind": "file", "digest": f"sha256:{content.oid}", "stored_as": "chunks"}
    if isinstance(content, BlobContent):
        return {"kind": "file", "digest": f"git:{content.oid}", "stored_as": "git blob"}
    if tree is not None:
        return {"kind": "directory", "digest": f"git:{tree}"}
    return {"kind": "unpublished", "digest": None}
