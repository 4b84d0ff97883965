"""Making a version of a working tree: freeze, upload, build the tree, publish, settle.

One commit of a branch at a time. What fails leaves the working tree as it was: the plan's frozen layers are released and
the changes are in the next attempt. A publish whose outcome is not known is written to the overlay before it is tried,
so that a restart looks for it first.

Threading: trio thread; hashing, uploading and Git run in threads inside `content` and `versions`.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import trio

from mvcfs.content.config import ContentConfig
from mvcfs.content.tasks import plain_nursery
from mvcfs.content.upload import Upload
from mvcfs.types import Author, DirChange, FileChange
from mvcfs.versions.git.pointer import is_pointer
from mvcfs.versions.log.publish import Attempt, CommitRequest, Published
from mvcfs.versions.merging.rename_notes import write_notes
from mvcfs.versions.publishing.ref_plans import plan_create_branch, protected_error
from mvcfs.vfs.working_tree.adopt import adopt
from mvcfs.vfs.working_tree.follow import Invalidation
from mvcfs.vfs.working_tree.freeze import Plan, PlannedDir, PlannedFile, freeze
from mvcfs.vfs.working_tree.lfs_files import find_lfs_files
from mvcfs.vfs.working_tree.messages import Writer, author_of, describe_changes, trailers, with_trailers
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.renamed import renamed_directories
from mvcfs.vfs.working_tree.worktree import WorkingTree

log = logging.getLogger(__name__)

# Large files hashed at once: two keep the hashing threads and the store busy, more only cost memory.
_CONCURRENT_FILES = 2


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """What became of a commit.

    Attributes:
        commit: The commit that the branch shows now, None if it never had one.
        version: Its version number, 0 for none.
        branch: The branch that holds what was committed: the conflict branch after a conflict.
        unchanged: Nothing differed, so there is no new version.
        conflict: The changes went to a conflict branch.
        left_out: Changed files that the version left out.
        ignored: Ignored files met.
        lost: Paths that another host made, or took away, first; see `mvcfs.versions.publishing.work`.
    """

    commit: str | None
    version: int
    branch: str
    unchanged: bool = False
    conflict: bool = False
    left_out: int = 0
    ignored: int = 0
    lost: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a commit made by hand goes.

    Attributes:
        new_branch: A branch to be made for it, from what its own branch stood on; that one then shows its tip again.
        override_protection: To its own branch even if that is protected.
    """

    new_branch: str | None = None
    override_protection: bool = False


OWN_BRANCH = Destination()


@dataclass(slots=True)
class CommitProgress:
    """What a running commit is doing, for status.

    Attributes:
        step: `idle`, `hashing`, `publishing`.
        files_total: Files of the plan.
        files_done: Files hashed and uploaded.
        bytes_total: Bytes of the plan.
        bytes_done: Bytes hashed.
        upload: The running upload.
    """

    step: str = "idle"
    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    upload: Upload | None = None


@dataclass(slots=True)
class Committer:
    """Makes versions of one working tree."""

    tree: WorkingTree
    host: str
    user_id: int
    config: ContentConfig
    on_invalid: Callable[[list[Invalidation]], None]
    lock: trio.Lock = field(default_factory=trio.Lock)
    progress: CommitProgress = field(default_factory=CommitProgress)

    async def commit(
        self,
        *,
        hold_back: Callable[[Node, bytes], bool],
        message: str | None = None,
        author: Author | None = None,
        writer: Writer | None = None,
        destination: Destination = OWN_BRANCH,
    ) -> CommitOutcome:
        """Makes one version of what `hold_back` lets through.

        Args:
            hold_back: Whether a changed file is left out.
            message: The user's message; None lets the version say what changed.
            author: Who; None stands for the last writer.
            writer: The process that wrote last.
            destination: Where it goes.

        Returns:
            What became of it. The version is durable in the store.

        Raises:
            ReadOnly: The branch is protected, and the destination doesn't override that.
            AlreadyExists: The branch to be made for it is there.
            StorageError: The store failed; nothing is lost, the changes are still in the overlay.
            CorruptData: A base that the changes stand on can't be read.
        """
        async with self.lock:
            # The names of the root say what the message calls new; they are read before the tree is frozen.
            await self.tree.load(self.tree.root)
            await settle_attempt(self.tree)
            plan = freeze(self.tree, hold_back=hold_back)
            try:
                outcome = await self._commit(plan, message, author, writer, destination)
            finally:
                self.progress = CommitProgress()
                plan.release()
        return outcome

    async def _commit(
        self, plan: Plan, message: str | None, author: Author | None, writer: Writer | None, destination: Destination
    ) -> CommitOutcome:
        tree = self.tree
        root = tree.root
        if not root.changed or (message is None and plan.only_times()):
            return self._unchanged(plan)
        self._check_destination(destination)
        known = {name: root.has_base(name) for name in plan.root.entries}
        subject = message if message is not None else describe_changes(plan.root, known)
        upload = tree.model.content.upload()
        uncertain = False

        async def note(attempt: Attempt | None) -> None:
            # From here on the log may name what was uploaded, whatever becomes of this call: then it stays in the store.
            nonlocal uncertain
            uncertain = True
            if attempt is not None:
                await self._note_attempt(attempt, oid)

        oid = ""
        try:
            self._start_progress(plan, upload)
            await self._store_files(plan, upload)
            manifests, packs = await upload.finish()
            self.progress.step = "publishing"
            oid = await tree.model.repository.build_tree(_to_change(plan.root))
            await self._learn_contents(plan, oid)
            uid = self.user_id if writer is None else writer.uid
            stored_bytes = sum(file.size_bytes for file in (*manifests, *packs))
            renames = renamed_directories(plan)
            request = CommitRequest(
                branch=tree.branch_id,
                base=plan.base_commit,
                tree=oid,
                author=author or author_of(uid, self.host),
                message=with_trailers(subject, trailers(writer, self.host, stored_bytes) + write_notes(renames)),
                manifests=manifests,
                packs=packs,
                conflict_branch=destination.new_branch or f"{tree.branch_name}-conflict-{self.host}",
                on_attempt=note,
                merge_base=plan.merge_base,
                override_protection=destination.override_protection,
                renames=renames,
                aside=destination.new_branch is not None,
            )
            published = await tree.model.repository.publish_commit(self._request(request))
        except BaseException:
            if not uncertain:
                await upload.abort()
            raise
        with trio.CancelScope(shield=True):
            outcome = await self._settle(plan, published, oid)
        return outcome  # noqa: RET504 - a CancelScope may swallow, so the return stands outside

    def _check_destination(self, destination: Destination) -> None:
        """Refuses at once what the publish would refuse, before anything is uploaded."""
        refs = self.tree.model.repository.refs
        if destination.new_branch is not None:
            plan_create_branch(refs, self.tree.branch_id, destination.new_branch, None)
            return
        state = refs.branch_by_id(self.tree.branch_id)
        if state is not None and state.protected and not destination.override_protection:
            raise protected_error(state.name)

    def _request(self, request: CommitRequest) -> CommitRequest:
        """The request as it is made of the repository."""
        return request

    def _unchanged(self, plan: Plan) -> CommitOutcome:
        state = self.tree.model.repository.refs.branch_by_id(self.tree.branch_id)
        version = 0 if state is None else state.version
        return CommitOutcome(
            self.tree.base_commit, version, self.tree.branch_name, True, False, plan.left_out, plan.ignored
        )

    def _start_progress(self, plan: Plan, upload: Upload) -> None:
        files = {id(file): file for file in plan.root.files()}.values()
        self.progress = CommitProgress(
            "hashing", len(files), 0, sum(file.size_bytes for file in files if file.frozen is not None), 0, upload
        )

    async def _store_files(self, plan: Plan, upload: Upload) -> None:
        """Gives every frozen file of the plan its stored content; small ones stay bytes for Git."""
        waiting = iter({id(file): file for file in plan.root.files() if file.frozen is not None}.values())
        as_large = await find_lfs_files(self.tree, plan.root)

        async def work() -> None:
            for file in waiting:
                await self._store_file(file, upload, as_large=id(file) in as_large)
                self.progress.files_done += 1

        async with plain_nursery() as nursery:
            for _ in range(_CONCURRENT_FILES):
                nursery.start_soon(work)

    async def _store_file(self, file: PlannedFile, upload: Upload, *, as_large: bool) -> None:
        frozen = file.frozen
        assert frozen is not None
        # To git-lfs an empty file is one that needs no pointer.
        if frozen.size_bytes < self.config.small_file_bytes and not (as_large and frozen.size_bytes):
            data = bytes(await frozen.read(0, frozen.size_bytes))
            self.progress.bytes_done += len(data)
            if not is_pointer(data):
                file.data = data
                return
            file.content = await upload.add(frozen)
            return

        def count(done_bytes: int) -> None:
            self.progress.bytes_done += done_bytes

        file.content = await upload.add(frozen, count)

    async def _note_attempt(self, attempt: Attempt, own_tree: str) -> None:
        # Durable before the rename: after power loss a restart must know which record to look for. It stays until the
        # working tree stands on what was published, in the transaction that moves it there, or until it is settled.
        repository = self.tree.model.repository
        note: dict[str, Any] = {"attempt": asdict(attempt)}
        if attempt.commit and (await repository.commit_info(attempt.commit)).tree != own_tree:
            # Others' changes are in it as well. What is changed here next counts from our own part, whose trees no
            # version holds: they are kept beside.
            beside = await repository.objects_beside(own_tree, attempt.commit)
            note["merge_base"] = {
                "tree": own_tree,
                "objects": [[kind, b64encode(data).decode()] for kind, data in beside],
            }
        self.tree.overlay.set_attempt(self.tree.branch_id, json.dumps(note))
        await self.tree.overlay.sync()

    async def _settle(self, plan: Plan, published: Published, own_tree: str) -> CommitOutcome:
        tree = self.tree
        repository = tree.model.repository
        tree.model.set_live()
        if published.aside or published.conflict:
            if published.conflict:
                log.error(
                    "%s/%s: another host changed the same files; what was written here is on the branch %s now",
                    tree.model.name, tree.branch_name, published.branch,
                )  # fmt: skip
            state = repository.refs.branch_by_id(tree.branch_id)
            tip = None if state is None else state.tip
            root_tree = None if tip is None else (await repository.commit_info(tip)).tree
            adopted = await adopt(tree, tip, root_tree, plan, give_up=True)
        else:
            # Where the tree can't move there, its next changes are those since its own part of the version.
            tree.merge_base = own_tree
            adopted = await adopt(tree, published.commit, published.tree, plan)
        tree.collision = adopted.collision
        self.on_invalid(adopted.invalid)
        await tree.staging.reap()
        return CommitOutcome(
            published.commit, published.version, published.branch, published.unchanged, published.conflict,
            plan.left_out, plan.ignored, published.lost,
        )  # fmt: skip

    async def _learn_contents(self, plan: Plan, root_tree: str | None) -> None:
        """Fills in the Git contents of small files from the tree that was made of the plan."""
        stack: list[tuple[PlannedDir, str | None]] = [(plan.root, root_tree)]
        while stack:
            planned, oid = stack.pop()
            if oid is None:
                continue
            entries = await self.tree.model.entries(oid)
            for name, below in planned.entries.items():
                entry = entries.get(name)
                if entry is None:
                    continue
                if isinstance(below, PlannedDir):
                    stack.append((below, entry.tree))
                elif below is not None and below.content is None:
                    below.content = entry.content


async def settle_attempt(tree: WorkingTree) -> None:
    """Finds out whether an earlier publish of this branch, whose outcome nobody knew, has happened.

    If it has, the working tree stands on the version that it made: what changed since is then a change of that version, and
    what was removed since is missing in the next one. The rows stay as they are, for directories know the trees that
    they are based on. A version that holds another host's changes as well is left to the next commit, which merges it:
    what changed here since then counts from our own part of that version.
    """
    row = tree.overlay.branch(tree.branch_id)
    if row is None or row.attempt is None:
        return
    note = json.loads(row.attempt)
    attempt, merge_base = Attempt(**note["attempt"]), row.merge_base
    happened = await tree.model.repository.resolve_attempt(attempt)
    log.info(
        "%s/%s: an earlier publish %s",
        tree.model.name,
        tree.branch_name,
        "has happened" if happened else "has not happened and is given up",
    )
    base = row.base_commit
    if happened and attempt.branch == tree.branch_id and attempt.commit:
        parents = (await tree.model.repository.commit_info(attempt.commit)).parents
        if list(parents) == ([] if base is None else [base]):
            base, merge_base = attempt.commit, None
        elif "merge_base" in note:
            merge_base = json.dumps(note["merge_base"])
    tree.base_commit = base
    take_merge_base(tree, merge_base)
    tree.overlay.put_branch(replace(row, base_commit=base, attempt=None, merge_base=merge_base))


def take_merge_base(tree: WorkingTree, kept: str | None) -> None:
    """Takes up the tree that changes count from, as an overlay row kept it; None: that of the base commit."""
    if kept is None:
        tree.merge_base = None
        return
    found = json.loads(kept)
    tree.model.repository.keep_objects((kind, b64decode(data)) for kind, data in found["objects"])
    tree.merge_base = found["tree"]


def _to_change(planned: PlannedDir) -> DirChange:
    changes: dict[bytes, FileChange | DirChange | None] = {}
    for name, entry in planned.entries.items():
        if entry is None:
            changes[name] = None
        elif isinstance(entry, PlannedDir):
            changes[name] = _to_change(entry)
        else:
            changes[name] = FileChange(entry.attributes, entry.stored())
    return DirChange(planned.attributes, planned.base_tree, changes)
