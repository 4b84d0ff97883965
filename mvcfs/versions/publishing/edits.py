"""Versions that are an edit of their branch's tip, made of Git objects alone: merges, restored paths, versions undone.

An edit is a function of the tip. It is made anew on each tip that a publish meets, so after a lost race what others have
published meanwhile is in it as if it had been there from the start. No content is moved: trees name what is stored.

Threading: `EditPlan` on the trio thread, edits in threads of the given limit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Protocol

import trio

from mvcfs.errors import NotFound
from mvcfs.types import NS_PER_S, Author, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.log.publish import Draft
from mvcfs.versions.log.records import BranchMove
from mvcfs.versions.log.refs import BranchState
from mvcfs.versions.log.state import LogState
from mvcfs.versions.publishing.commits import RecordObjects, inline, write_commit
from mvcfs.versions.publishing.git_files import GitFiles
from mvcfs.versions.publishing.ref_plans import protected_error
from mvcfs.versions.trees.edit import TreeEdit


@dataclass(frozen=True, slots=True)
class PathConflict:
    """A path on which the two sides of an edit don't agree.

    Attributes:
        path: From the root; where one side renamed it, its new path.
        kind: `changed`, `added`, `deleted-ours`, `deleted-theirs` (the other side changed it), `kinds` (a file on one
            side, a directory on the other), `renamed` (two new names).
        ours: What the branch has there, None if it is gone.
        theirs: What the other side has there, None if it is gone.
        theirs_path: Of `renamed` only: the other side's path.
        choice: `ours`, `theirs` or `both`, None if nobody chose.
    """

    path: bytes
    kind: str
    ours: TreeEntry | None
    theirs: TreeEntry | None
    theirs_path: bytes | None = None
    choice: str | None = None


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit makes of a tip.

    Attributes:
        tree: The tree that the new version is to have.
        merges: A commit that becomes its second parent.
        conflicts: What both sides changed, with choices.
        is_contained: What was to be merged is in the branch already: there is to be no new version.
    """

    tree: str
    merges: str | None = None
    conflicts: tuple[PathConflict, ...] = ()
    is_contained: bool = False


class Edit(Protocol):
    """A function of a branch's tip; for a thread."""

    def apply(self, objects: GitObjects, tip: str | None) -> Edited:
        """What becomes of a tip, None for an empty branch.

        Raises:
            NotFound, InvalidArgument: It can't be made of this tip.
            CorruptData: An object is damaged.
        """
        ...


@dataclass(frozen=True, slots=True)
class EditRequest:
    """A version to be made by an edit.

    Attributes:
        branch: Id of the branch.
        edit: What is to be done to its tip.
        author: Who wants it.
        message: Commit message with trailers.
        override_protection: Publish even if the branch is protected.
        dry_run: Only tell what would come of it.
    """

    branch: str
    edit: Edit
    author: Author
    message: str
    override_protection: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class EditOutcome:
    """What became of an `EditRequest`.

    Attributes:
        branch: The branch's name.
        commit: Its tip now, None if it has none.
        version: That one's number.
        published: Whether that is a new version.
        is_contained: The branch had it all before.
        conflicts: What both sides changed; if any has no choice, nothing was published.
    """

    branch: str
    commit: str | None
    version: int
    published: bool
    is_contained: bool = False
    conflicts: tuple[PathConflict, ...] = field(default=())

    @property
    def unresolved(self) -> list[PathConflict]:
        """The conflicts that nobody chose a side of."""
        return [conflict for conflict in self.conflicts if conflict.choice is None]


class EditPlan:
    """One edit on its way to become a version.

    Attributes:
        record_objects: Where its Git objects are.
    """

    def __init__(
        self,
        request: EditRequest,
        objects: GitObjects,
        files: GitFiles,
        now_ns: int,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.record_objects = RecordObjects(objects, files, limiter)
        self._request = request
        self._objects = objects
        self._now_ns = now_ns
        self._limiter = limiter

    async def draft(self, state: LogState) -> tuple[Draft | None, EditOutcome]:
        """What to publish after this state, and what the caller is told once it is; None: nothing to publish.

        Raises:
            NotFound: The branch was deleted, or an object is missing.
            ReadOnly: The branch is protected, and the request doesn't override that.
            InvalidArgument: The edit can't be made of this tip.
            CorruptData: An object is damaged.
            Transient: The store failed.
        """
        request = self._request
        branch = state.refs.branch_by_id(request.branch)
        if branch is None or branch.deleted:
            raise NotFound("the branch was deleted meanwhile: nothing was changed")
        if branch.protected and not request.override_protection:
            raise protected_error(branch.name)
        apply = functools.partial(request.edit.apply, self._objects, branch.tip)
        edited = await trio.to_thread.run_sync(apply, limiter=self._limiter)
        same = EditOutcome(
            branch.name, branch.tip, branch.version, False, edited.is_contained, conflicts=edited.conflicts
        )
        if same.unresolved or edited.is_contained or request.dry_run:
            return None, same
        if edited.merges is None and edited.tree == tree_at(self._objects, branch.tip)[0]:
            return None, same
        parents = tuple([parent for parent in (branch.tip, edited.merges) if parent is not None])
        commit = write_commit(self._objects, edited.tree, parents, request.author, request.message, self._now_ns)
        outcome = EditOutcome(branch.name, commit, branch.version + 1, True, conflicts=edited.conflicts)
        return await self._draft(state, branch, commit), outcome

    async def _draft(self, state: LogState, branch: BranchState, commit: str) -> Draft:
        objects = inline(self._objects, await self.record_objects.inline_oids(state, [commit]))
        return Draft(
            kind="commit",
            refs=(BranchMove(branch.id, branch.name, commit, branch.version + 1),),
            objects=objects,
            packed=self.record_objects.packed_up_to,
            git=tuple(self.record_objects.uploaded),
            commit=commit,
            branch=branch.id,
        )


def tree_at(objects: GitObjects, commit: str | None) -> tuple[str | None, int]:
    """A commit's tree, and the time in ns that what plain Git committed in it has."""
    if commit is None:
        return None, 0
    raw = objects.read_commit(commit)
    return raw.tree, raw.committer.time_s * NS_PER_S


@dataclass(frozen=True, slots=True)
class RestoreEdit:
    """A path is given back what it had in another version; a directory is then what it was, no more and no less.

    Attributes:
        commit: The version's commit.
        path: The path, empty for the whole branch.
        shown: The version, for messages.
    """

    commit: str
    path: bytes
    shown: str

    def apply(self, objects: GitObjects, tip: str | None) -> Edited:
        """See `Edit.apply`."""
        source, time_ns = tree_at(objects, self.commit)
        assert source is not None
        if not self.path:
            return Edited(source)
        before = TreeEdit(objects, source, default_mtime_ns=time_ns)
        entry = before.entry(self.path)
        if entry is None:
            raise NotFound(f"{self.path.decode('utf-8', 'surrogateescape')} is not in {self.shown}: nothing to restore")
        tree, tip_time_ns = tree_at(objects, tip)
        edit = TreeEdit(objects, tree, default_mtime_ns=tip_time_ns)
        edit.put(self.path, entry, like=before)
        return Edited(edit.write())
