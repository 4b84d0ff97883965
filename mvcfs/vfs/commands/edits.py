"""Commands that make a version by an edit of a branch's tip, moving no data. Threading: trio thread."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mvcfs.errors import Conflict, InvalidArgument, ReadOnly
from mvcfs.types import TreeEntry
from mvcfs.versions.publishing.edits import Edit, EditOutcome, EditRequest, PathConflict, RestoreEdit
from mvcfs.versions.publishing.merge_edits import BOTH, OURS, THEIRS, Choices, MergeEdit, RevertEdit
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.arguments import author_of_request, text_of
from mvcfs.vfs.commands.targets import Target, parse_target
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.working_tree.messages import trailers, with_trailers

_SHOWN_COMMIT = 10


class EditCommands:
    """`merge`, `restore` and `revert`.

    On a mounted branch what is in no version yet becomes one first, so that the edit is made of all that is there; then
    the working tree moves to the new tip before the command returns.
    """

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def merge(self, args: Json) -> Json:
        """Merges a revision into a branch."""
        target = await parse_target(self._engine, args)
        model, name = await self._ready(target)
        revision = text_of(args, "revision")
        commit = await model.data.repository.resolve(revision, branch=name)
        shown = commit[:_SHOWN_COMMIT] if commit.startswith(revision.lower()) else revision
        edit = MergeEdit(commit, _choices(args, target.path, shown))
        outcome = await self._publish(args, model, name, edit, f"Merge {shown} into {name}", override_protection=True)
        return self._result(model, outcome) | {"merged": commit, "contained": outcome.is_contained}

    async def restore(self, args: Json) -> Json:
        """Gives a path of a branch, or all of it, what it had in a revision."""
        target = await parse_target(self._engine, args)
        model, name = await self._ready(target)
        revision = text_of(args, "revision")
        commit = await model.data.repository.resolve(revision, branch=name)
        version = await model.data.repository.version_of(name, commit)
        shown = revision if version is None else f"{name}@{version}"
        what = os.fsdecode(target.path) or "all"
        edit = RestoreEdit(commit, target.path, f"{model.name}/{shown}")
        outcome = await self._publish(args, model, name, edit, f"Restore {_printable(what)} from {shown}")
        return self._result(model, outcome) | {"path": os.fsdecode(target.path), "from": commit}

    async def revert(self, args: Json) -> Json:
        """Undoes what a version changed, and nothing that came after."""
        target = await parse_target(self._engine, args)
        model, name = await self._ready(target)
        repository = model.data.repository
        revision = text_of(args, "revision")
        commit = await repository.resolve(revision, branch=name)
        version = await repository.version_of(name, commit)
        shown = revision if version is None else f"{name}@{version}"
        subject = (await repository.commit_info(commit)).subject
        edit = RevertEdit(commit, f"{model.name}/{shown}", _choices(args, target.path, f"before-{version or shown}"))
        outcome = await self._publish(args, model, name, edit, f"Revert {shown}: {subject}")
        return self._result(model, outcome) | {"reverted": commit}

    async def _ready(self, target: Target) -> tuple[OpenModel, str]:
        """Model and branch, with what others published taken in."""
        model, name = target.require_branch()
        if target.revision is not None:
            raise InvalidArgument(f"{target.revision} is a past version, which never changes: name a branch")
        if self._engine.overlay is not None and self._engine.config.read_only:
            raise ReadOnly("this mount is read-only")
        await model.refresh()
        return model, name

    async def _publish(
        self, args: Json, model: OpenModel, name: str, edit: Edit, subject: str, *, override_protection: bool = False
    ) -> EditOutcome:
        dry_run = bool(args.get("dry_run"))
        state = model.data.repository.refs.branch(name)
        if not dry_run:
            await self._commit_what_is_there(model, name)
        host = self._engine.config.host
        message = str(args.get("message") or "").strip() or subject
        request = EditRequest(
            branch=state.id,
            edit=edit,
            author=author_of_request(args, host),
            message=with_trailers(message, trailers(None, host)),
            override_protection=override_protection,
            dry_run=dry_run,
        )
        outcome = await model.data.repository.publish_edit(request)
        if outcome.published:
            refs = model.data.repository.refs
            model.data.content.set_live(refs.manifests, refs.packs)
            await self._engine.show_refs(model)
        return outcome

    async def _commit_what_is_there(self, model: OpenModel, name: str) -> None:
        """Makes a version of what the working tree of a branch has beside its tip, if that is anything.

        What a protected branch has waits in the overlay, as it does anyway.
        """
        if self._engine.overlay is None:
            return
        branch = await model.branch(name)
        if not branch.tree.root.changed or branch.tree.protected:
            return
        outcome = await branch.settler.commit_last()
        if outcome.conflict:
            raise Conflict(
                f"{model.name}/{name}: another host changed the same path; what was written here is on branch "
                f"{outcome.branch} now: look at that first, then try again"
            )

    def _result(self, model: OpenModel, outcome: EditOutcome) -> Json:
        return {
            "model": model.name,
            "branch": outcome.branch,
            "version": outcome.version,
            "commit": outcome.commit,
            "published": outcome.published,
            "unchanged": not outcome.published and not outcome.unresolved,
            "conflicts": [_conflict_row(conflict) for conflict in outcome.conflicts],
            "unresolved": len(outcome.unresolved),
        }


def _choices(args: Json, prefix: bytes, label: str) -> Choices:
    """What the arguments say of conflicts: `take` for all, `choices` for paths of the branch."""
    if prefix:
        raise InvalidArgument(f"{os.fsdecode(prefix)} is inside a branch: name the branch")
    default, given = args.get("take"), args.get("choices") or {}
    if not isinstance(given, Mapping):
        raise InvalidArgument("choices must be an object of paths and sides")
    for side in (default, *given.values()):
        if side not in (None, OURS, THEIRS, BOTH):
            raise InvalidArgument(f"{side!r} is no side: ours, theirs or both")
    by_path = {os.fsencode(str(path)).strip(b"/"): str(side) for path, side in given.items()}
    return Choices(default, by_path, label)


def _conflict_row(conflict: PathConflict) -> Json:
    return {
        "path": os.fsdecode(conflict.path),
        "theirs_path": None if conflict.theirs_path is None else os.fsdecode(conflict.theirs_path),
        "kind": conflict.kind,
        "ours": _side_row(conflict.ours),
        "theirs": _side_row(conflict.theirs),
        "choice": conflict.choice,
    }


def _side_row(entry: TreeEntry | None) -> Json | None:
    if entry is None:
        return None
    return {
        "kind": "directory" if entry.tree is not None else "link" if entry.attributes.is_symlink else "file",
        "size_bytes": 0 if entry.content is None else entry.content.size_bytes,
        "time_ns": entry.attributes.mtime_ns,
    }


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
