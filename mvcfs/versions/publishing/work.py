"""Work in progress: what the shared mounts of a branch have acknowledged and no version holds yet.

A branch's *work* is a hidden commit that its shared mounts stand on instead of the tip. Its tree holds everything, names
that versions leave out as well. Each publish moves it to a commit with the work before as first parent; where others'
publishes came between, the trees are merged by path, and where both changed the same path the later publish stands, as
the later close does on one disk: what it replaced is in the work's history until the next version.

Two things must not be decided by who was later: making a name that has to be new, and taking one away that has to be
there still. A publish says which of its paths are so, and is told which of them it lost to another host: for those the
other's outcome stands.

A *cut* makes a version of the work: what versions leave out is left out, the rest goes on the tip. The work starts anew
from that version, or ends where it holds nothing else.

Threading: as `mvcfs.versions.publishing.commits`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import trio

from mvcfs.errors import NotFound
from mvcfs.types import Author, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.log.publish import CommitRequest, Draft, Published
from mvcfs.versions.log.records import BranchMove, WorkMove
from mvcfs.versions.log.refs import BranchState
from mvcfs.versions.log.state import LogState
from mvcfs.versions.merging.merge import RENAMED_BOTH, merge_trees
from mvcfs.versions.publishing.commits import CommitPlan
from mvcfs.versions.publishing.git_files import GitFiles
from mvcfs.versions.publishing.ref_plans import protected_error
from mvcfs.versions.trees.edit import TreeEdit
from mvcfs.versions.trees.versioned_part import Difference, versioned_part


@dataclass(frozen=True, slots=True)
class WorkRequest(CommitRequest):
    """Work to be published; `base` and `tree` are whole, with the names that versions leave out.

    Attributes:
        made: Paths that this publish makes and that must be new.
        moved: Paths that it takes away and that must be there still, with where they go (None: they are removed).
    """

    made: frozenset[bytes] = frozenset()
    moved: Mapping[bytes, bytes | None] | None = None


@dataclass(frozen=True, slots=True)
class CutRequest:
    """A version to be made of the work.

    Attributes:
        branch: Id of the branch.
        leaves_out: Whether versions leave out a path (and all below); the second argument says that it is a directory.
            Called in threads.
        subject: The message that says what changed, given what differs at the root. Called in threads.
        author: Who made the version; None: who published the work.
        explicit: Somebody asked for it: times of directories alone are worth it, too.
        trailers: Trailers of the message; None: those of the work.
        override_protection: Make it even if the branch is protected.
    """

    branch: str
    leaves_out: Callable[[bytes, bool], bool]
    subject: Callable[[tuple[Difference, ...]], str]
    author: Author | None = None
    explicit: bool = False
    trailers: str | None = None
    override_protection: bool = False


def _present(state: LogState, branch_id: str, *, override_protection: bool) -> BranchState:
    branch = state.refs.branch_by_id(branch_id)
    if branch is None or branch.deleted:
        raise NotFound("the branch was deleted elsewhere")
    if branch.protected and not override_protection:
        raise protected_error(branch.name)
    return branch


def tree_of(objects: GitObjects, commit: str | None) -> str | None:
    """A commit's tree, None for none."""
    return None if commit is None else objects.read_commit(commit).tree


def merge_ours(
    objects: GitObjects, base: str | None, ours: str, theirs: str | None, lost: frozenset[bytes] = frozenset()
) -> str:
    """Merges two trees; where both changed a path ours stands whole, but for those that are lost. For a thread."""
    result = merge_trees(objects, base, ours, theirs, by_lines=False)
    if not result.conflicts:
        return result.tree or ours
    merged, mine = TreeEdit(objects, result.tree), TreeEdit(objects, ours)
    for conflict in result.conflicts:
        if any(conflict.path == path or conflict.path.startswith(path + b"/") for path in lost):
            continue
        if conflict.kind == RENAMED_BOTH:
            # Two names for one thing: both stay.
            _put(merged, conflict.ours_path or b"", mine.entry(conflict.ours_path or b""))
        else:
            _put(merged, conflict.path, conflict.ours)
    return merged.write()


def _put(tree: TreeEdit, path: bytes, entry: TreeEntry | None) -> None:
    """Puts an entry (None: nothing) at a path, in the place of files that stand in its way."""
    if entry is None:
        tree.remove(path)
        return
    names = path.split(b"/")
    for length in range(1, len(names)):
        above = b"/".join(names[:length])
        if tree.has(above) and not tree.is_directory(above):
            tree.remove(above)
    tree.put(path, entry)


def find_lost(objects: GitObjects, request: WorkRequest, base: str | None, theirs: str | None) -> frozenset[bytes]:
    """The paths of a request that another host made, or took away, first. For a thread."""
    before, now = TreeEdit(objects, base), TreeEdit(objects, theirs)
    lost = {path for path in request.made if now.has(path) and not before.has(path)}
    for path in request.moved or ():
        if before.has(path) and (not now.has(path) or now.is_directory(path) != before.is_directory(path)):
            lost.add(path)
    return frozenset(lost)


class WorkPlan(CommitPlan):
    """One publish of work on its way."""

    def __init__(
        self, request: WorkRequest, objects: GitObjects, files: GitFiles, now_ns: int, limiter: trio.CapacityLimiter
    ) -> None:
        super().__init__(request, objects, files, now_ns, limiter)
        self._work = request

    async def draft(self, state: LogState) -> tuple[Draft | None, Published]:
        """See `CommitPlan.draft`; never a conflict.

        Raises:
            NotFound: The branch was deleted.
            ReadOnly: The branch is protected.
        """
        branch = _present(state, self._work.branch, override_protection=self._work.override_protection)
        look = functools.partial(self._joined, branch)
        tree, lost = await trio.to_thread.run_sync(look, limiter=self._limiter)
        newest = tree_of(self._objects, branch.newest)
        behind = branch.work is not None and branch.work_base != branch.tip
        published = Published(
            branch.newest or "", tree, branch.version, branch.name, tree != self._work.tree, unchanged=True, lost=lost,
            number=state.number,
        )  # fmt: skip
        if tree == newest and not behind:
            return None, published
        commit = self._write(tree, branch.newest, branch.tip if behind else None)
        refs = (WorkMove(branch.id, commit, branch.tip),)
        draft = await self._record(state, "work", refs, [commit], branch.id)
        return draft, replace(published, commit=commit, unchanged=False, number=state.number + 1)

    def _joined(self, branch: BranchState) -> tuple[str, frozenset[bytes]]:
        """The tree with all that others published, and what was lost to them."""
        objects, request = self._objects, self._work
        tree, lost = request.tree, frozenset[bytes]()
        if branch.newest is not None and branch.newest != request.base:
            base = request.merge_base or tree_of(objects, request.base)
            theirs = tree_of(objects, branch.newest)
            lost = find_lost(objects, request, base, theirs)
            tree = merge_ours(objects, base, self._without(lost, base), theirs, lost)
        if branch.work is not None and branch.work_base != branch.tip:
            tree = merge_ours(objects, tree_of(objects, branch.work_base), tree, tree_of(objects, branch.tip))
        return tree, lost

    def _without(self, lost: frozenset[bytes], base: str | None) -> str:
        """Our tree as if we had not taken away what another host took first."""
        moved = {path: target for path, target in (self._work.moved or {}).items() if path in lost}
        if not moved:
            return self._work.tree
        mine, before = TreeEdit(self._objects, self._work.tree), TreeEdit(self._objects, base)
        for path, target in moved.items():
            if target is not None:
                _put(mine, target, before.entry(target))
            _put(mine, path, before.entry(path))
        return mine.write()


class CutPlan(CommitPlan):
    """One cut on its way."""

    def __init__(
        self, request: CutRequest, objects: GitObjects, files: GitFiles, now_ns: int, limiter: trio.CapacityLimiter
    ) -> None:
        nobody = Author("", "")
        super().__init__(CommitRequest(request.branch, None, "", nobody, "", ""), objects, files, now_ns, limiter)
        self._cut = request

    async def draft(self, state: LogState) -> tuple[Draft | None, Published]:
        """The version of the work as it is, and None for the draft where it differs from the tip in nothing of a version.

        Raises:
            NotFound: The branch was deleted.
            ReadOnly: The branch is protected.
        """
        branch = _present(state, self._cut.branch, override_protection=self._cut.override_protection)
        tip = tree_of(self._objects, branch.tip)
        same = Published(branch.tip or "", tip or "", branch.version, branch.name, unchanged=True)
        if branch.work is None:
            return None, same
        part = await trio.to_thread.run_sync(functools.partial(self._part, branch), limiter=self._limiter)
        work, tree, differences, matters = part
        if tree == tip or not (matters or self._cut.explicit):
            return None, same
        commit = self._version(branch, tree, differences)
        commits = [commit]
        move = WorkMove(branch.id, None)
        if work != tree:
            commits.append(self._write(work, commit))
            move = WorkMove(branch.id, commits[1], commit)
        refs = (BranchMove(branch.id, branch.name, commit, branch.version + 1), move)
        draft = await self._record(state, "commit", refs, commits, branch.id)
        return draft, Published(commit, tree, branch.version + 1, branch.name)

    def _part(self, branch: BranchState) -> tuple[str, str, tuple[Difference, ...], bool]:
        """The work with the tip taken in, and its part that a version holds."""
        objects = self._objects
        work, tip = objects.read_commit(branch.work or "").tree, tree_of(objects, branch.tip)
        if branch.work_base != branch.tip:
            work = merge_ours(objects, tree_of(objects, branch.work_base), work, tip)
        part = versioned_part(objects, work, tip, self._cut.leaves_out)
        return work, part.tree, part.differences, part.matters

    def _version(self, branch: BranchState, tree: str, differences: tuple[Difference, ...]) -> str:
        last = self._objects.read_commit(branch.work or "")
        _, _, trailers = last.message.rstrip("\n").rpartition("\n\n")
        block = self._cut.trailers if self._cut.trailers is not None else f"{trailers}\n"
        message = f"{self._cut.subject(differences).rstrip()}\n\n{block}"
        author = self._cut.author or Author(last.author.name, last.author.email)
        self._request = replace(self._request, author=author, message=message)
        return self._write(tree, branch.tip)
