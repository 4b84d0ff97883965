"""What a version's record says: the commit on the tip as it is, joined with what others published, and its objects.

A `CommitPlan` lives through one publish. Each time a race is lost it plans anew on the new state; what it has put into the
store stays there and is named again, so nothing is uploaded twice.

Where the objects go: a small version (few, small objects) travels in its record whole. Anything larger goes into a Git
pack, which takes along all objects that only records hold so far, so that these don't add up and the log can be
trimmed; only the commit, and trees that a later merge made, are inline then.
Trio thread; walks and merges are in threads of their own limit.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence

import trio

from mvcfs.errors import AlreadyExists, CorruptData, InvalidName
from mvcfs.storage.protocol import Storage
from mvcfs.types import NS_PER_S, Author, StoredFile
from mvcfs.versions.gather import gather
from mvcfs.versions.git.format import RawCommit, Signature
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.walks import is_first_parent_ancestor, memory_closure
from mvcfs.versions.log.publish import CommitRequest, Draft, Published
from mvcfs.versions.log.records import BranchMove, RefChange
from mvcfs.versions.log.refs import BranchState, Refs, new_id
from mvcfs.versions.log.state import LogState
from mvcfs.versions.merging.merge import MergeResult, merge_trees
from mvcfs.versions.merging.rename_alignment import Known
from mvcfs.versions.merging.rename_notes import renamed_since
from mvcfs.versions.publishing.git_files import GitFiles
from mvcfs.versions.publishing.ref_plans import plan_create_branch, protected_error
from mvcfs.versions.trees.edit import TreeEdit

INLINE_BYTES = 64 * 1024
"""A version whose new objects are no larger than this travels in its record whole."""

INLINE_LIMIT_BYTES = 256 * 1024
"""More than this is not held by records only: the version that would exceed it makes a pack of all."""


def write_commit(
    objects: GitObjects, tree: str, parents: tuple[str, ...], author: Author, message: str, now_ns: int
) -> str:
    """Makes a commit that is not older than its first parent."""
    time_s = now_ns // NS_PER_S
    if parents:
        time_s = max(time_s, objects.read_commit(parents[0]).committer.time_s)
    signature = Signature(author.name, author.email, time_s)
    return objects.write_commit(RawCommit(tree, parents, signature, signature, message))


def inline(objects: GitObjects, oids: Iterable[str]) -> tuple[tuple[str, bytes, str], ...]:
    """Objects as a `Draft` takes them."""
    return tuple([(*objects.read(oid), oid) for oid in oids])


class RecordObjects:
    """Where the Git objects of a version on its way go: into its record, or into a pack that is put into the store.

    Attributes:
        uploaded: Git packs that were put into the store for it.
        packed: Objects in them.
        packed_up_to: The record up to which all objects that only records held are in them; None: no pack was needed.
    """

    def __init__(self, objects: GitObjects, files: GitFiles, limiter: trio.CapacityLimiter) -> None:
        self.uploaded: list[StoredFile] = []
        self.packed: set[str] = set()
        self.packed_up_to: int | None = None
        self._objects = objects
        self._files = files
        self._limiter = limiter

    async def inline_oids(self, state: LogState, commits: Sequence[str]) -> Collection[str]:
        """The objects that go into the record; what the commits need else is in the store when this returns."""
        held = {entry.oid for entry in state.inline}
        closure = functools.partial(memory_closure, self._objects, commits)
        fresh = await trio.to_thread.run_sync(closure, limiter=self._limiter) - held - self.packed
        size_bytes = sum(self._objects.header(oid)[1] for oid in fresh)
        bound = INLINE_LIMIT_BYTES if self.uploaded else INLINE_BYTES
        if size_bytes <= bound and state.inline_bytes + size_bytes <= INLINE_LIMIT_BYTES:
            return fresh
        into_pack = (fresh | held).difference(commits) - self.packed
        if into_pack:
            self.uploaded.append(await self._files.upload(into_pack))
            self.packed |= into_pack
            self.packed_up_to = state.number
        return commits


class CommitPlan:
    """One version on its way.

    Attributes:
        record_objects: Where its Git objects are.
    """

    def __init__(
        self,
        request: CommitRequest,
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

    async def check_files(self, storage: Storage, model_path: str) -> None:
        """Makes sure that the files which the record will name are in the model, whole.

        Raises:
            NotFound: One isn't: the model was renamed or removed while they were written.
            CorruptData: One has another length.
        """

        async def check(file: StoredFile) -> None:
            path = f"{model_path}/{file.name}"
            entry = await storage.stat(path)
            if entry.size_bytes != file.size_bytes:
                raise CorruptData(f"{path}: has {entry.size_bytes} bytes, {file.size_bytes} were written")

        await gather([functools.partial(check, file) for file in (*self._request.manifests, *self._request.packs)])

    async def draft(self, state: LogState) -> tuple[Draft | None, Published]:
        """What to publish after this state, and what the caller is told once it is; None: nothing to publish.

        Raises:
            ReadOnly: The branch is protected, and the request doesn't override that.
            AlreadyExists: The branch to be made for it is there.
            NotFound: The model was renamed or removed, or an object is missing.
            CorruptData: An object is damaged.
            Transient: The store failed.
        """
        branch = state.refs.branch_by_id(self._request.branch)
        if self._request.aside:
            return await self._aside(state)
        if branch is None or branch.deleted:
            return await self._conflict(state, None)
        if branch.protected and not self._request.override_protection:
            raise protected_error(branch.name)
        tree, merged = self._request.tree, False
        if branch.tip is not None:
            tip_tree = self._objects.read_commit(branch.tip).tree
            if branch.tip != self._request.base:
                joined, conflicts = await self._merge(branch.tip, tip_tree)
                if conflicts:
                    rest = None if joined == tip_tree else (branch, self._write(joined, branch.tip))
                    return await self._conflict(state, rest)
                merged, tree = joined != tree, joined
            if tree == tip_tree:
                return None, Published(branch.tip, tree, branch.version, branch.name, merged, unchanged=True)
        commit = self._write(tree, branch.tip)
        published = Published(commit, tree, branch.version + 1, branch.name, merged)
        return await self._draft(state, [(branch, commit)]), published

    def _write(self, tree: str, *parents: str | None) -> str:
        found = tuple(parent for parent in parents if parent is not None)
        return write_commit(self._objects, tree, found, self._request.author, self._request.message, self._now_ns)

    async def _merge(self, tip: str, theirs: str) -> tuple[str, bool]:
        """The tree with both sides' changes, theirs where they touch the same path, and whether they do."""
        request = self._request
        base = request.merge_base
        if base is None and request.base is not None:
            base = self._objects.read_commit(request.base).tree

        def merge() -> MergeResult:
            noted = renamed_since(self._objects, request.base, tip)
            if request.merge_base is not None:
                # Among these are our own renames, which what was made here since has nothing to do with.
                before = TreeEdit(self._objects, request.merge_base)
                noted = {old: new for old, new in noted.items() if before.is_directory(old)}
            return merge_trees(self._objects, base, request.tree, theirs, known=Known(request.renames, noted))

        result = await trio.to_thread.run_sync(merge, limiter=self._limiter)
        return result.tree or theirs, bool(result.conflicts)

    async def _aside(self, state: LogState) -> tuple[Draft, Published]:
        """Our whole tree on a new branch, which starts with what the changes were made on."""
        request = self._request
        move = plan_create_branch(state.refs, new_id(), request.conflict_branch, None)
        commit = self._write(request.tree, request.base)
        draft = await self._draft(state, [(BranchState(move.branch, move.name, None, 0), commit)])
        return draft, Published(commit, request.tree, 1, move.name, aside=True)

    async def _conflict(self, state: LogState, rest: tuple[BranchState, str] | None) -> tuple[Draft | None, Published]:
        """Our whole tree on the conflict branch, and `rest`, what could be joined, on the branch itself."""
        target = _conflict_target(state.refs, self._request.conflict_branch)
        base, tree = self._request.base, self._request.tree
        joined = None if rest is None else rest[1]
        if target.tip is not None and self._objects.read_commit(target.tip).tree == tree:
            commit, version, moves = target.tip, target.version, []
        else:
            second = None
            if target.tip is not None and base is not None and not await self._is_behind(base, target.tip):
                second = base
            commit = self._write(tree, target.tip or base, second)
            version, moves = target.version + 1, [(target, commit)]
        published = Published(
            commit, tree, version, target.name, conflict=True, unchanged=not moves and rest is None, joined=joined
        )
        if rest is not None:
            moves = [*moves, rest]
        return await self._draft(state, moves) if moves else None, published

    async def _is_behind(self, commit: str, tip: str) -> bool:
        look = functools.partial(is_first_parent_ancestor, self._objects, commit, tip)
        return await trio.to_thread.run_sync(look, limiter=self._limiter)

    async def _draft(self, state: LogState, moves: Sequence[tuple[BranchState, str]]) -> Draft:
        """The record that moves these branches to these commits."""
        refs = tuple([BranchMove(branch.id, branch.name, commit, branch.version + 1) for branch, commit in moves])
        return await self._record(state, "commit", refs, [commit for _, commit in moves], moves[0][0].id)

    async def _record(
        self, state: LogState, kind: str, refs: tuple[RefChange, ...], commits: Sequence[str], branch: str
    ) -> Draft:
        """The record that makes these ref changes, with all that the commits need."""
        request = self._request
        objects = inline(self._objects, await self.record_objects.inline_oids(state, commits))
        return Draft(
            kind=kind,
            refs=refs,
            objects=objects,
            packed=self.record_objects.packed_up_to,
            git=tuple(self.record_objects.uploaded),
            manifests=request.manifests,
            packs=request.packs,
            commit=commits[0],
            branch=branch,
        )


def _conflict_target(refs: Refs, name: str) -> BranchState:
    """The branch that conflicts go to: there already, or one to be made; another name if this one can't be."""
    for number in range(1, 1000):
        candidate = name if number == 1 else f"{name}-{number}"
        branch = refs.branches.get(candidate)
        if branch is not None and not branch.protected:
            return branch
        try:
            move = plan_create_branch(refs, new_id(), candidate, None)
        except AlreadyExists:
            continue
        return BranchState(move.branch, move.name, None, 0)
    raise InvalidName(f"no free name for a conflict branch like {name!r}")
