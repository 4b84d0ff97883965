"""Commands on what is mounted: its state, what any path is, and versions made by hand. Threading: trio thread."""

from __future__ import annotations

import os
import time

from mvcfs.errors import InvalidArgument, NotFound, ReadOnly
from mvcfs.types import BlobContent, Content, LargeContent, TreeEntry
from mvcfs.vfs.changes import Json, count_changes
from mvcfs.vfs.commands.arguments import author_of_request
from mvcfs.vfs.commands.targets import Target, parse_target
from mvcfs.vfs.model import Branch, OpenModel
from mvcfs.vfs.presence import conflicts_of, others_of
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.working_tree.committer import Destination
from mvcfs.vfs.working_tree.node import Node


class StateCommands:
    """`status`, `info` and `commit`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def status(self, args: Json) -> Json:
        """What is mounted, what is not published yet, and what is wrong."""
        engine = self._engine
        target = await parse_target(engine, args)
        rows, others, conflicts = [], [], []
        for model in list(engine.models.by_name.values()):
            if target.model is not None and model is not target.model:
                continue
            others += await others_of(model)
            conflicts += conflicts_of(model)
            for branch in model.branches.values():
                if target.branch is None or branch.tree.branch_name == target.branch:
                    rows.append(await self._branch_status(model, branch))
        staging = engine.staging
        return {
            "store": engine.storage.url,
            "store_id": engine.store.id,
            "shows": self._shows(),
            "since_s": engine.since_s,
            "state": "ok" if engine.store_error is None else "store unreachable",
            "store_error": engine.store_error,
            "store_error_since_s": engine.store_error_since_s,
            "models": rows,
            "others": others,
            "conflicts": conflicts,
            "staging": {
                "used_bytes": 0 if staging is None else staging.used_bytes,
                "limit_bytes": engine.config.staging_bytes,
                "overlay_error": None if engine.overlay is None else engine.overlay.failed,
                "waiting_writers": 0 if staging is None else staging.waiting_writers,
            },
            "cache": {"used_bytes": engine.cache.used_bytes, "limit_bytes": engine.config.block_cache_bytes},
            "memory": {"used_bytes": engine.budget.used_bytes, "limit_bytes": engine.budget.limit_bytes},
        }

    def _shows(self) -> Json:
        """What the root of the mount is."""
        part, config = self._engine.part, self._engine.config
        tree = None if part.branch is None else part.branch.tree
        return {
            "model": None if part.model is None else part.model.name,
            "branch": None if tree is None else tree.branch_name,
            "revision": None if part.snapshot is None else part.revision,
            "commit": part.snapshot.commit if part.snapshot is not None else None if tree is None else tree.base_commit,
            "read_only": config.read_only,
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
            "protected": tree.protected,
            **counts,
            "next_version_in_s": None if due is None else max(0.0, round(due - time.monotonic(), 3)),
            "last_error": settler.last_error,
            "error_since_s": settler.error_since_s,
            "conflict_branch": settler.last_conflict,
            "waits_for": tree.collision,
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
        if self._engine.config.read_only:
            raise ReadOnly("mounted read-only: there is nothing to commit")
        model, name = (await parse_target(self._engine, args)).require_branch()
        if self._engine.overlay is None:
            raise InvalidArgument(f"{model.name}/{name} is not mounted here: there is nothing to commit")
        message = str(args.get("message") or "").strip()
        if not message:
            raise InvalidArgument("a version made by hand needs a message: -m MESSAGE")
        branch = await model.branch(name)
        new_branch = args.get("to_branch")
        if new_branch and args.get("override_protection"):
            raise InvalidArgument("a commit goes to a new branch or overrides its branch's protection, not both")
        destination = Destination(str(new_branch) if new_branch else None, bool(args.get("override_protection")))
        author = author_of_request(args, self._engine.config.host)
        outcome = await branch.settler.commit_explicit(message, author, destination)
        if new_branch:
            await self._engine.show_refs(model)
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

    async def info(self, args: Json) -> Json:
        """What a path is: model, branch, version, commit, digest, state."""
        target = await parse_target(self._engine, args)
        if target.model is None:
            return {"kind": "store", "store": self._engine.storage.url, "models": await self._engine.models.names()}
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
