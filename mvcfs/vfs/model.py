"""An open model: its repository and content, and the working trees of the branches that were looked at.

Invariants: one working tree a branch id, as long as the mount lives; it is made when the branch is first looked up (or had
changes in the overlay at the mount), and costs nothing per file. Threading: trio thread.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import trio

from mvcfs.config import EngineConfig
from mvcfs.content.config import ContentConfig
from mvcfs.content.staging import Staging
from mvcfs.errors import MvcfsError, NotFound
from mvcfs.versions.log.refs import BranchState
from mvcfs.vfs.housekeeping import Housekeeping
from mvcfs.vfs.shown_names import ShownNames
from mvcfs.vfs.sources import ModelData
from mvcfs.vfs.working_tree.adopt import adopt
from mvcfs.vfs.working_tree.committer import Committer, settle_attempt, take_merge_base
from mvcfs.vfs.working_tree.follow import Invalidation
from mvcfs.vfs.working_tree.fsync_publish import FsyncPublisher
from mvcfs.vfs.working_tree.overlay import Overlay
from mvcfs.vfs.working_tree.replay import replay
from mvcfs.vfs.working_tree.settle import Settler
from mvcfs.vfs.working_tree.shared import Freshness, SharedCommitter
from mvcfs.vfs.working_tree.worktree import WorkingTree

log = logging.getLogger(__name__)

# At the end a publish that has begun may take as long as a few calls of the store take.
_LAST_PUBLISH_S = 120.0


@dataclass(slots=True)
class Branch:
    """A branch that is looked at: its working tree and what makes versions of it."""

    tree: WorkingTree
    committer: Committer
    settler: Settler
    scope: trio.CancelScope


@dataclass(frozen=True, slots=True)
class Services:
    """What all models of a mount share.

    Attributes:
        config: The engine's configuration.
        content: Sizes and bounds of content.
        overlay: The overlay, None where nothing is mounted.
        staging: The staging files, None where nothing is mounted.
        nursery: Where background tasks of the mount run.
        on_invalid: Told what the kernel has to forget.
        look: Reads what others published of a model, also where they renamed or removed it.
    """

    config: EngineConfig
    content: ContentConfig
    overlay: Overlay | None
    staging: Staging | None
    nursery: trio.Nursery
    on_invalid: Callable[[list[Invalidation]], None]
    look: Callable[[OpenModel], Awaitable[None]]


class OpenModel:
    """A model that somebody looked at.

    Attributes:
        data: Its stored content and trees.
        branches: The working trees that were looked at, by branch id.
        shown: The directories that show names of its refs.
    """

    def __init__(self, data: ModelData, services: Services) -> None:
        self.data = data
        self.branches: dict[str, Branch] = {}
        self.shown = ShownNames()
        self.shown.changes(data.repository.refs)
        self.freshness = Freshness(functools.partial(services.look, self))
        self._services = services
        self._opening = trio.Lock()
        self.housekeeping = Housekeeping(data)
        if services.overlay is not None and not services.config.read_only:
            self.housekeeping.start(services.nursery)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.data.name

    async def branch(self, name: str) -> Branch:
        """The working tree of a branch.

        Raises:
            NotFound: There is no such branch.
        """
        state = self.data.repository.refs.branches.get(name)
        if state is None:
            raise NotFound(f"the model {self.name} has no branch {name}")
        found = self.branches.get(state.id)
        if found is not None:
            found.tree.branch_name = state.name
            return found
        async with self._opening:
            if state.id in self.branches:
                return self.branches[state.id]
            branch = await self._open_branch(state)
            self.branches[state.id] = branch
            return branch

    async def _open_branch(self, state: BranchState) -> Branch:
        services = self._services
        overlay, staging = services.overlay, services.staging
        if overlay is None or staging is None:
            raise NotFound("nothing is mounted here")
        row = overlay.branch(state.id)
        base = state.newest if services.config.shared else state.tip
        if row is not None:
            base = row.base_commit
        root_tree = None if base is None else (await self.data.repository.commit_info(base)).tree
        settler = Settler(services.config.rules)
        tree = WorkingTree(
            self.data, overlay, staging, settler, branch_id=state.id, branch_name=state.name,
            base_commit=base, base_tree=root_tree, timeout_s=services.config.entry_timeout_s,
            read_only=services.config.read_only,
        )  # fmt: skip
        if root_tree is not None:
            attributes = await self.data.repository.root_attributes(root_tree)
            if attributes is not None:
                tree.root.apply_attributes(attributes)
                tree.root_attributes = attributes
        committer = self._committer(tree, settler)
        settler.attach(tree, committer)
        if services.config.fsync_publish:
            tree.on_fsync = FsyncPublisher(tree, settler).publish
        if row is not None:
            replay(tree, overlay, row.root)
            take_merge_base(tree, row.merge_base)
            await settle_attempt(tree)
            settler.note_replayed()
        settler.set_protected(state.protected)
        if tree.sharing is not None and state.work is not None:
            settler.changed_elsewhere(live=False, rules=True)
        scope = trio.CancelScope()
        branch = Branch(tree, committer, settler, scope)
        if not services.config.read_only:
            services.nursery.start_soon(self._run_settler, branch)
        return branch

    def _committer(self, tree: WorkingTree, settler: Settler) -> Committer:
        services = self._services
        if not services.config.shared:
            return Committer(tree, services.config.host, os.getuid(), services.content, services.on_invalid)
        committer = SharedCommitter(
            tree, services.config.host, os.getuid(), services.content, services.on_invalid,
            look=self.freshness.wait, settler=settler,
        )  # fmt: skip
        tree.sharing = committer
        return committer

    async def _run_settler(self, branch: Branch) -> None:
        with branch.scope:
            async with trio.open_nursery() as nursery:
                if isinstance(branch.committer, SharedCommitter):
                    run_shared = functools.partial(branch.committer.run, self._services.config.refresh_s)
                    nursery.start_soon(self._keep_running, branch, run_shared)
                await self._keep_running(branch, branch.settler.run)

    async def _keep_running(self, branch: Branch, task: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await task()
            except Exception:
                log.exception("making versions of %s/%s failed", self.name, branch.tree.branch_name)
                await trio.sleep(5)

    async def refresh(self) -> bool:
        """Reads what others published; working trees follow their branches.

        Returns:
            Whether anything changed.
        """
        changed = await self.data.repository.refresh()
        if changed:
            self.data.set_live()
        await self.follow()
        return changed

    async def follow(self) -> None:
        """Makes what is shown what the refs say: names, protection, and the tips as far as changes here allow."""
        refs = self.data.repository.refs
        self._services.on_invalid(self.shown.changes(refs))
        for branch in list(self.branches.values()):
            state = self.data.repository.refs.branch_by_id(branch.tree.branch_id)
            if state is None or state.deleted:
                branch.tree.deleted = not branch.tree.root.changed
                continue
            branch.tree.deleted = False
            branch.tree.branch_name = state.name
            branch.settler.set_protected(state.protected)
            if isinstance(branch.committer, SharedCommitter):
                await branch.committer.follow()
                continue
            if state.tip == branch.tree.base_commit or branch.committer.lock.locked():
                continue
            await self._follow(branch)

    async def _renamed_elsewhere(self, tree: WorkingTree, tip: str | None) -> Collection[bytes]:
        """Directories that other hosts renamed since a working tree's base; none where nothing is changed here."""
        if not tree.root.changed or tip is None:
            return ()
        return await self.data.repository.renamed_since(tree.base_commit, tip)

    async def _follow(self, branch: Branch) -> None:
        tree, repository = branch.tree, self.data.repository
        async with branch.committer.lock:
            await settle_attempt(tree)
            # The tip is looked up under the lock: it only ever goes on from where the tree stands.
            state = repository.refs.branch_by_id(tree.branch_id)
            if state is None or state.deleted or state.tip == tree.base_commit or tree.merge_base is not None:
                return
            root_tree = None if state.tip is None else (await repository.commit_info(state.tip)).tree
            renamed = await self._renamed_elsewhere(tree, state.tip)
            adopted = await adopt(tree, state.tip, root_tree, None, renamed=renamed)
        if adopted.collision is None:
            branch.settler.note_followed()
        elif tree.collision != adopted.collision:
            log.warning(
                "%s/%s: %s was changed here and on another host: new versions show here once ours is published",
                self.name, tree.branch_name, adopted.collision,
            )  # fmt: skip
        tree.collision = adopted.collision
        self._services.on_invalid(adopted.invalid)

    async def delete_branch(self, name: str) -> None:
        """Deletes a branch, whose changes the caller has looked at without a wait since: none can join them any more."""
        repository = self.data.repository
        state = repository.refs.branch(name)
        branch = self.branches.get(state.id)
        if branch is not None:
            branch.tree.closing = True
        try:
            await repository.delete_branch(name)
        except BaseException:
            if branch is not None:
                branch.tree.closing = False
            raise
        self._forget_branch(state.id)

    def _forget_branch(self, branch_id: str) -> None:
        """Ends a deleted branch: its task, its overlay."""
        branch = self.branches.pop(branch_id, None)
        if branch is None:
            return
        branch.scope.cancel()
        branch.tree.deleted = True
        for node in list(branch.tree.changed_nodes()):
            if node.staged is not None and not node.handles:
                node.staged.destroy()
                node.staged = None
            node.changed = False
        if self._services.overlay is not None:
            self._services.overlay.drop_branch(branch_id)

    async def drain(self) -> None:
        """One last version of every branch with changes, without waiting for quiet."""
        for branch in list(self.branches.values()):
            shared = branch.tree.sharing is not None and branch.settler.has_own_changes
            if (branch.tree.root.changed or shared) and not branch.tree.deleted:
                if branch.tree.protected:
                    log.warning(
                        "%s/%s is protected: its changes stay in the overlay", self.name, branch.tree.branch_name
                    )
                    continue
                try:
                    await branch.settler.commit_last()
                except MvcfsError as error:
                    log.warning("%s/%s: %s", self.name, branch.tree.branch_name, error)

    async def aclose(self) -> None:
        """Ends the tasks of all branches and lets go of content."""
        for branch in self.branches.values():
            branch.scope.cancel()
            # A publish that has begun goes on to its end; the overlay must be there to note its outcome.
            with trio.move_on_after(_LAST_PUBLISH_S):
                async with branch.committer.lock:
                    pass
        await self.housekeeping.aclose()
        await self.data.content.aclose()
