"""One model as the layers above see it: its refs, its directories and files, its history, and publishing.

Reading goes to local Git packs and memory; `refresh` brings in what others published. Refs move only once all that they
name is here, so whatever `refs` shows can be read.

Threading: all methods on the trio thread. Small objects are read there and then; directories of more than a few
hundred names, merges, walks and packing go to threads of this model's own limit. `local_dir` belongs to one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import trio

from mvcfs.errors import CorruptData, NotFound
from mvcfs.storage.protocol import Storage
from mvcfs.types import NS_PER_S, Attributes, BlobContent, DirChange, LargeContent, StoredFile, TreeEntry
from mvcfs.versions.check import Problem, check_model
from mvcfs.versions.git import gitattributes
from mvcfs.versions.git.walks import large_contents, memory_closure
from mvcfs.versions.history.revisions import Resolver
from mvcfs.versions.history.version_walk import LookingBack
from mvcfs.versions.history.versions import CommitInfo, History, VersionInfo
from mvcfs.versions.log.publish import Attempt, CommitRequest, OnAttempt, Published, Publisher
from mvcfs.versions.log.state import LogState
from mvcfs.versions.merging.rename_notes import renamed_since
from mvcfs.versions.plain_git.export import GitExport
from mvcfs.versions.plain_git.git_import import publish_import
from mvcfs.versions.plain_git.git_source import Stage
from mvcfs.versions.plain_git.import_plan import ChosenRefs, ImportPlan
from mvcfs.versions.publishing.commits import CommitPlan
from mvcfs.versions.publishing.edits import EditOutcome, EditPlan, EditRequest
from mvcfs.versions.publishing.ref_editing import RefEditing
from mvcfs.versions.publishing.synced import SyncedModel
from mvcfs.versions.publishing.upkeep import Upkeep
from mvcfs.versions.publishing.work import WorkPlan, WorkRequest
from mvcfs.versions.publishing.work_editing import WorkEditing
from mvcfs.versions.trees.builder import build_tree
from mvcfs.versions.trees.comparing import Comparing
from mvcfs.versions.trees.reader import TreeReader, root_attributes

T = TypeVar("T")

_SMALL_TREE_BYTES = 16 * 1024


class ModelRepository(RefEditing):
    """A model, open for reading and publishing.

    Attributes:
        upkeep: Keeps the model light; to be run now and then by whoever publishes.
        work: What shared mounts have in progress.
    """

    def __init__(
        self, storage: Storage, name: str, local_dir: Path, publisher: Publisher, *, parent: str = "models"
    ) -> None:
        """Use `open`."""
        self._storage = storage
        self._name = name
        self._parent = parent
        model = SyncedModel(storage, lambda: self.path, local_dir, publisher)
        super().__init__(model, History(model.objects), publisher)
        self.upkeep = Upkeep(storage, model, publisher.clock)
        self._trees = TreeReader(self._objects)
        self._resolver = Resolver(self._objects, self._history)
        self.comparing = Comparing(self._objects, self._read_in_thread)
        self.looking_back = LookingBack(self._objects, self._read_in_thread, self.comparing)
        self.work = WorkEditing(model, publisher, self._limiter, self._publish_plan, self._read_in_thread)

    @classmethod
    async def open(
        cls, storage: Storage, name: str, *, local_dir: Path, publisher: Publisher, parent: str = "models"
    ) -> ModelRepository:
        """Opens a model: reads its log and fetches its Git packs into `local_dir`.

        Args:
            storage: The store.
            name: The model's name, which is that of its folder.
            local_dir: Local folder of this model and process.
            publisher: In whose name records are published.
            parent: The folder of the store that the model's is in.

        Raises:
            NotFound: There is no such model.
            CorruptData: Its log or one of its Git packs is damaged.
            UnsupportedFormat: A newer mvcfs wrote it.
        """
        repository = cls(storage, name, local_dir, publisher, parent=parent)
        await repository._model.open()
        return repository

    # --- what there is

    @property
    def id(self) -> str:
        """The model's id, which stays when it is renamed."""
        return self._model.state.model

    @property
    def name(self) -> str:
        """The model's name now."""
        return self._name

    @property
    def path(self) -> str:
        """Its folder in the store."""
        return f"{self._parent}/{self._name}"

    def renamed(self, new_name: str) -> None:
        """Follows a rename that happened in the store."""
        self._name = new_name

    @property
    def state(self) -> LogState:
        """All that the log says, leases and condemned files included."""
        return self._model.state

    async def refresh(self) -> bool:
        """Takes in what others have published; True if `refs` changed.

        Raises:
            NotFound: The model was renamed or removed.
            CorruptData: The log or a Git pack is damaged.
            Transient: The store failed.
        """
        return await self._model.refresh()

    # --- reading

    async def _read(self, call: Callable[[], T], *, small: bool) -> T:
        """Reads objects, in a thread unless it is quick; damage is mended from the store once."""
        for repaired in (False, True):
            try:
                return call() if small else await trio.to_thread.run_sync(call, limiter=self._limiter)
            except (CorruptData, NotFound):
                if repaired or not await self._model.files.repair(self.refs.git):
                    raise
        raise AssertionError("two rounds end in a result or an error")

    async def _read_in_thread(self, call: Callable[[], T]) -> T:
        return await self._read(call, small=False)

    async def list_tree(self, tree: str, *, default_mtime_ns: int = 0) -> tuple[TreeEntry, ...]:
        """A directory of a version: true names, attributes joined.

        Args:
            tree: Its Git id.
            default_mtime_ns: Time of what no attributes speak of; the commit's.

        Raises:
            CorruptData: An object is missing or damaged.
        """
        small = await self._read(functools.partial(self._is_small, tree), small=True)
        list_it = functools.partial(self._trees.list, tree, default_mtime_ns=default_mtime_ns)
        return await self._read(list_it, small=small)

    def _is_small(self, tree: str) -> bool:
        try:
            return self._objects.header(tree)[1] <= _SMALL_TREE_BYTES
        except NotFound:
            return True

    async def root_attributes(self, tree: str) -> Attributes | None:
        """The attributes of a version's root directory, None if its tree doesn't say. CorruptData."""
        small = await self._read(functools.partial(self._is_small, tree), small=True)
        return await self._read(functools.partial(root_attributes, self._objects, tree), small=small)

    async def read_content(self, content: BlobContent) -> bytes:
        """The bytes of a small file or a symlink's target.

        Raises:
            CorruptData: The blob is missing or damaged.
        """

        def read() -> bytes:
            try:
                data = self._objects.read_kind(content.oid, "blob")
            except NotFound as error:
                raise CorruptData(str(error)) from error
            return gitattributes.split(data).user if content.stripped else data

        return await self._read(read, small=content.size_bytes <= 1 << 20)

    async def commit_info(self, commit: str) -> CommitInfo:
        """A commit. NotFound, CorruptData."""
        raw = await self._read(functools.partial(self._objects.read_commit, commit), small=True)
        return CommitInfo.of(commit, raw)

    async def entry_at(self, commit: str, path: bytes) -> TreeEntry | None:
        """What a version has at a path, names joined by slashes; None if there is nothing.

        The root itself (an empty path) is an entry with an empty name.

        Raises:
            NotFound: There is no such commit.
            CorruptData: An object is missing or damaged.
        """
        info = await self.commit_info(commit)
        mtime_ns = info.committer_time_s * NS_PER_S
        attributes = await self.root_attributes(info.tree) or Attributes(0o040755, 0, 0, mtime_ns)
        entry: TreeEntry | None = TreeEntry(b"", attributes, None, info.tree)
        for name in [name for name in path.split(b"/") if name]:
            if entry is None or entry.tree is None:
                return None
            entries = await self.list_tree(entry.tree, default_mtime_ns=mtime_ns)
            entry = next((found for found in entries if found.name == name), None)
        return entry

    # --- history

    async def resolve(self, text: str, *, branch: str | None = None) -> str:
        """The commit of a revision, see `mvcfs.versions.history.revisions`; bare numbers and times count in `branch`.

        Raises:
            InvalidName: The text is no revision.
            NotFound: It names nothing; the message says what there is.
            Conflict: Several commits fit.
        """
        return await self._resolver.resolve(self.refs, text, branch)

    async def history(self, branch: str, *, limit: int | None = None) -> list[VersionInfo]:
        """A branch's versions, newest first. NotFound."""
        return await self._history.versions(self.refs.branch(branch), limit)

    async def version_marks(self, branch: str) -> list[tuple[int, str, int]]:
        """Number, commit and time (seconds since 1970) of a branch's versions, oldest first; for listings. NotFound."""
        return await self._history.marks(self.refs.branch(branch))

    async def version_mark(self, branch: str, version: int) -> tuple[str, int]:
        """Commit and time (seconds since 1970) of a version. NotFound, which says what versions there are."""
        return await self._history.mark_of(self.refs.branch(branch), version)

    async def version_commit(self, branch: str, version: int) -> str:
        """The commit of a version. NotFound, which says what versions there are."""
        return await self._history.commit_of(self.refs.branch(branch), version)

    async def version_of(self, branch: str, commit: str) -> int | None:
        """Which version of the branch a commit is; None if it is none. NotFound for the branch."""
        return await self._history.version_of(self.refs.branch(branch), commit)

    async def renamed_since(self, base: str | None, tip: str) -> Mapping[bytes, bytes]:
        """Directories that the versions after a commit are known to have renamed: new paths by old ones. CorruptData."""
        return await self._read(functools.partial(renamed_since, self._objects, base, tip), small=False)

    async def commits_matching(self, prefix: str) -> str:
        """The one commit of this model whose id starts so. NotFound, Conflict if there are several."""
        refs = self.refs
        return await self._history.commit_with_prefix(prefix.lower(), refs.version_tips(), refs.alias_logs.values())

    # --- publishing

    async def build_tree(self, change: DirChange) -> str:
        """Writes the trees of a changed root directory into memory; returns the root's id, for `publish_commit`.

        Raises:
            NotFound, CorruptData: An object of the base is missing or damaged.
            ValueError: The change can't be stored: see `tree_builder.build_tree`.
        """
        return await self._read(functools.partial(build_tree, self._objects, change), small=False)

    async def objects_beside(self, tree: str, commit: str) -> list[tuple[str, bytes]]:
        """The (type, bytes) of objects that only memory holds, that a tree leads to and a commit does not."""

        def find() -> list[tuple[str, bytes]]:
            beside = memory_closure(self._objects, [tree]) - memory_closure(self._objects, [commit])
            return [self._objects.read(oid) for oid in sorted(beside)]

        return await trio.to_thread.run_sync(find, limiter=self._limiter)

    def keep_objects(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Takes objects that `objects_beside` gave, maybe to an earlier process, into memory again."""
        for kind, data in objects:
            self._objects.write(kind, data)

    @property
    def unpublished_bytes(self) -> int:
        """Memory that objects take which no Git pack holds."""
        return self._objects.memory_bytes

    def discard_builds(self) -> None:
        """Lets go of what `build_tree` made and no publish took up. Nobody may hold a built tree, or be publishing."""
        inline_oids = {entry.oid for entry in self.state.inline}
        self._objects.discard(self._objects.memory_objects() - inline_oids)

    async def publish_commit(self, request: CommitRequest) -> Published:
        """Makes a version of a tree, joined with what others have published since its base.

        On return it is durable in the store. An error other than UnknownOutcome, and NotFound after `on_attempt` was
        told of an attempt, means that nothing was published. After those two, `resolve_attempt` finds out.

        Raises:
            NotFound: The model was renamed or removed.
            ReadOnly: The branch is protected, and the request doesn't override that.
            Transient: The store failed.
            UnknownOutcome: It can't be told whether the version was published.
            CorruptData: Objects that the merge needs are damaged.
        """
        plan: CommitPlan
        if isinstance(request, WorkRequest):
            plan = WorkPlan(request, self._objects, self._model.files, self._publisher.clock(), self._limiter)
        else:
            plan = CommitPlan(request, self._objects, self._model.files, self._publisher.clock(), self._limiter)
        return await self._publish_plan(plan, request.on_attempt, caller_resolves=True)

    async def _publish_plan(
        self, plan: CommitPlan, on_attempt: OnAttempt | None, *, caller_resolves: bool
    ) -> Published:
        try:
            await plan.check_files(self._storage, self.path)
            published = await self._model.publish(plan.draft, on_attempt, caller_resolves=caller_resolves)
        finally:
            self._model.files.abandon(plan.record_objects.uploaded)
        await trio.to_thread.run_sync(self._objects.forget, plan.record_objects.packed, limiter=self._limiter)
        return published

    async def publish_edit(self, request: EditRequest) -> EditOutcome:
        """Makes a version that is an edit of its branch's tip: a merge, a restored path, a version undone.

        On return it is durable in the store. What conflicts and has no choice is told in the outcome, and nothing is
        published then.

        Raises:
            NotFound: The branch, the model, or what the edit names isn't there.
            InvalidArgument: The edit can't be made of this branch.
            ReadOnly: The branch is protected, and the request doesn't override that.
            Transient: The store failed.
            UnknownOutcome: It can't be told whether the version was published.
            CorruptData: Objects that it needs are damaged.
        """
        plan = EditPlan(request, self._objects, self._model.files, self._publisher.clock(), self._limiter)
        try:
            outcome = await self._model.publish(plan.draft)
        finally:
            self._model.files.abandon(plan.record_objects.uploaded)
        await trio.to_thread.run_sync(self._objects.forget, plan.record_objects.packed, limiter=self._limiter)
        return outcome

    async def resolve_attempt(self, attempt: Attempt) -> bool:
        """Finds out whether an attempt of this or an earlier process came true; if not, it never will.

        Raises:
            NotFound: The model was renamed or removed: ask where it is now.
            UnknownOutcome: The store doesn't answer.
        """
        outcome = await self._model.resolve(attempt)
        if outcome is not None:
            return outcome
        # Too long ago for the log to know; the commit tells as long as any ref leads to it.
        try:
            return bool(attempt.commit and await self.commits_matching(attempt.commit))
        except NotFound:
            return False

    # --- whole-model work

    async def large_contents(self) -> set[LargeContent]:
        """Every large file that any ref leads to, deleted branches included. CorruptData."""
        find = functools.partial(large_contents, self._objects, self.refs.tips())
        return await self._read(find, small=False)

    async def fsck(self) -> list[Problem]:
        """Everything that is wrong with the model's log, files and Git objects; large files' data is not looked at."""
        return await check_model(self._storage, self._model.log, self._objects, self.state, self._limiter)

    async def publish_import(
        self,
        stage: Stage,
        chosen: ChosenRefs,
        manifests: tuple[StoredFile, ...],
        packs: tuple[StoredFile, ...],
        on_upload: Callable[[int], None],
    ) -> ImportPlan:
        """Brings refs of another repository in, with their objects, in one record.

        Args:
            stage: Their objects, checked, on the disk of this model's local folder.
            chosen: The refs.
            manifests: Manifests of their large files beside the live ones.
            packs: Packs that those need beside the live ones.
            on_upload: Told the bytes of each Git pack that was put into the store.

        Raises:
            Conflict: A branch or tag that is there can't become the other repository's; nothing was published.
            ReadOnly: A branch that would move is protected.
            NotFound, Transient, UnknownOutcome, PermissionDenied: As a publish.
        """
        return await publish_import(self._model, stage, chosen, manifests, packs, on_upload, self._publisher.user)

    def git_export(self, directory: Path, branches: Collection[str] = ()) -> GitExport:
        """An export to a bare Git repository, of these branches only or of all there is."""
        return GitExport(self._model, directory, branches)
