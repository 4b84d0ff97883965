"""A branch that several hosts work in at once (`-o shared`): what one host acknowledges, all see.

The working tree stands on the branch's *work* (`mvcfs.versions.publishing.work`) instead of its tip. Whatever has to be visible elsewhere
before its call returns waits here for a publish that covers it. One publish of a branch is under way at a time; those
who come meanwhile are covered together by the next one, so a busy branch publishes no more often than the store can take.

Whoever looks waits for a look at the log that began after he came; those who come while one is under way share the next.

What could not be published is still in the overlay: its call fails, and the next publish tries it again.

Invariants: a publish takes everything but files that are open and that no close has waited for; the tree follows the
work while files of a publish are still being uploaded, so nobody who looks waits for somebody else's upload.
Threading: trio thread.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields, replace

import trio

from mvcfs.errors import MvcfsError, NotFound, NotSupported, StorageError
from mvcfs.types import Author
from mvcfs.versions.log.publish import CommitRequest, Published
from mvcfs.versions.publishing.work import CutRequest, WorkRequest
from mvcfs.vfs.working_tree.adopt import adopt
from mvcfs.vfs.working_tree.committer import (
    OWN_BRANCH,
    CommitOutcome,
    CommitProgress,
    Committer,
    Destination,
    settle_attempt,
)
from mvcfs.vfs.working_tree.freeze import Plan, freeze
from mvcfs.vfs.working_tree.ignore import IGNORE_FILE, LIVE_FILE
from mvcfs.vfs.working_tree.messages import Writer, author_of, describe_differences, trailers
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.settle import Settler
from mvcfs.vfs.working_tree.shared_changes import Change

log = logging.getLogger(__name__)

_WORK_MESSAGE = "Work in progress"


class Freshness:
    """Looks at the store on behalf of many: one look serves all who came before it began."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self._lock = trio.Lock()
        self._begun = 0
        self._error: MvcfsError | None = None

    async def wait(self) -> None:
        """Returns after a look that began after this call; raises what it raised."""
        wanted = self._begun + 1
        async with self._lock:
            if self._begun >= wanted:
                if self._error is not None:
                    raise type(self._error)(str(self._error)) from self._error
                return
            self._begun += 1
            self._error = None
            try:
                await self._look()
            except MvcfsError as error:
                self._error = error
                raise


@dataclass(slots=True)
class SharedCommitter(Committer):
    """Publishes the work of one working tree and makes versions of it. It is the tree's `Sharing`.

    Attributes:
        look: Takes in what other hosts published, coalesced.
        settler: When the branch becomes a version; told of what other hosts changed.
        moving: Held while the tree moves to another commit.
        failed: The last publish failed.
    """

    look: Callable[[], Awaitable[None]] = field(kw_only=True)
    settler: Settler = field(kw_only=True)
    moving: trio.Lock = field(default_factory=trio.Lock)
    failed: bool = False
    _turn: trio.Lock = field(default_factory=trio.Lock)
    _waiting: list[Change] = field(default_factory=list)
    _batch: list[Change] = field(default_factory=list)
    _moves: list[tuple[str | None, str | None]] = field(default_factory=list)
    _wake: trio.Event = field(default_factory=trio.Event)
    _soon: bool = False

    # -- Sharing -----------------------------------------------------------------------------------------------------

    async def fresh(self) -> None:
        """See `Sharing.fresh`."""
        await self.look()

    async def publish(self, change: Change) -> CommitOutcome:
        """See `Sharing.publish`."""
        change.note_base()
        self._waiting.append(change)
        async with self._turn:
            if change.outcome is None and change.error is None:
                await self._publish_waiting()
        return change.check()

    def publish_soon(self) -> None:
        """See `Sharing.publish_soon`."""
        self._soon = True
        self._wake.set()

    async def run(self, every_s: float) -> None:
        """What nobody waits for: late writes of mappings, others' versions, when others' changes are due. For ever."""
        while True:
            with trio.move_on_after(every_s):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._note_moves()
                await self.catch_up()
            except MvcfsError as error:
                log.debug("%s/%s: %s", self.tree.model.name, self.tree.branch_name, error)

    async def _note_moves(self) -> None:
        """Tells the settler what other hosts changed."""
        moves, self._moves = self._moves, []
        rules = self.tree.rules
        found_rules = False

        def calm(path: bytes, is_dir: bool) -> bool:
            nonlocal found_rules
            found_rules = found_rules or path in (IGNORE_FILE, LIVE_FILE)
            return rules.is_live(path, is_dir=is_dir)

        for before, after in moves:
            unrest, live = await self.tree.model.repository.work.unrest_between(
                before, after, lambda path, is_dir: rules.is_ignored(path, is_dir=is_dir), calm
            )
            if unrest or live:
                self.settler.changed_elsewhere(live=not unrest, rules=found_rules)

    def _moved(self, before: str | None, after: str | None) -> None:
        if before != after:
            self._moves.append((before, after))
            self._wake.set()

    # -- publishing --------------------------------------------------------------------------------------------------

    async def _publish_waiting(self) -> None:
        batch: list[Change] = []
        try:
            async with self.lock:
                await self.tree.load(self.tree.root)
                await settle_attempt(self.tree)
                await self._load_places()
                batch, self._waiting = self._waiting, []
                outcome = await self._publish(batch)
        except MvcfsError as error:
            if not batch:
                batch, self._waiting = self._waiting, []
            if not self.failed:
                log.error(
                    "%s/%s: what was changed here is not visible on other hosts yet: %s",
                    self.tree.model.name, self.tree.branch_name, error,
                )  # fmt: skip
            self.failed = True
            for change in batch:
                # Nothing says that the file isn't there.
                change.error = StorageError(str(error)) if isinstance(error, NotFound) else error
            return
        self.failed = False
        for change in batch:
            change.outcome = outcome

    async def _publish(self, batch: list[Change]) -> CommitOutcome:
        wanted = {change.node.ino for change in batch if change.node is not None}
        rules = [change.hold_back for change in batch if change.hold_back is not None]

        def hold_back(node: Node, path: bytes) -> bool:
            return node.writers > 0 and node.ino not in wanted and all(rule(node, path) for rule in rules)

        destination = next(
            (change.destination for change in batch if change.destination.override_protection), OWN_BRANCH
        )
        for change in batch:
            self.on_invalid(change.look(self.tree))
            change.find_paths(self.tree)
        self._batch = batch
        plan = freeze(self.tree, hold_back=hold_back)
        try:
            return await self._commit(plan, _WORK_MESSAGE, None, self.settler.writer, destination)
        finally:
            self.progress = CommitProgress()
            plan.release()
            self._batch = []

    def _look_at_waiting(self) -> None:
        """What waits for a publish may have lost its name now that the tree has moved."""
        for change in self._waiting:
            self.on_invalid(change.look(self.tree))

    async def _load_places(self) -> None:
        """Loads the names of the directories that waiting changes are in: some may have been moved to another base."""
        while True:
            unread = [place for change in self._waiting for place in change.places() if place.base is None]
            if not unread:
                return
            for directory in unread:
                await self.tree.load(directory)

    def _request(self, request: CommitRequest) -> CommitRequest:
        """See `Committer._request`: the same as a request of work."""
        made = frozenset(change.made_path for change in self._batch if change.made_path is not None)
        moved: dict[bytes, bytes | None] = {}
        for change in self._batch:
            if change.taken_path is not None:
                target = change.moved_to
                same_tree = target is not None and target[0].tree is self.tree
                moved[change.taken_path] = self.tree.join(*target) if target is not None and same_tree else None
        values = {each.name: getattr(request, each.name) for each in fields(CommitRequest)}
        return WorkRequest(**values, made=made, moved=moved)

    async def _settle(self, plan: Plan, published: Published, own_tree: str) -> CommitOutcome:
        """See `Committer._settle`. Others may have published since, and the tree may have followed them: it never goes back."""
        repository = self.tree.model.repository
        async with self.moving:
            state = repository.refs.branch_by_id(self.tree.branch_id)
            if state is not None and state.newest is not None and repository.refs.number >= published.number:
                root_tree = (await repository.commit_info(state.newest)).tree
                published = replace(published, commit=state.newest, tree=root_tree)
            outcome = await super(SharedCommitter, self)._settle(plan, published, own_tree)
            self._look_at_waiting()
        self._moved(own_tree, published.tree)
        return outcome

    # -- following ---------------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Moves the tree to the newest work, or to the tip where there is none."""
        tree, repository = self.tree, self.tree.model.repository
        if not self.lock.locked():
            async with self.lock:
                await settle_attempt(tree)
        if tree.merge_base is not None:
            # What is changed here counts from a part of the work, not from all of it: the two have to be merged.
            await self.publish(Change())
            return
        async with self.moving:
            state = repository.refs.branch_by_id(tree.branch_id)
            if state is None or state.newest == tree.base_commit:
                return
            before = tree.root.base_tree
            root_tree = None if state.newest is None else (await repository.commit_info(state.newest)).tree
            adopted = await adopt(tree, state.newest, root_tree, None)
            self._look_at_waiting()
        self.on_invalid(adopted.invalid)
        self._moved(before, root_tree)

    async def catch_up(self) -> None:
        """Takes versions of mounts that aren't shared into the work, and publishes again what failed. Logs its failures."""
        repository = self.tree.model.repository
        state = repository.refs.branch_by_id(self.tree.branch_id)
        try:
            if self.failed or self._soon:
                self._soon = False
                await self.publish(Change())
            if state is not None and not state.deleted and state.work is not None and state.work_base != state.tip:
                await repository.work.join(state, author_of(self.user_id, self.host))
                await self.follow()
        except MvcfsError as error:
            log.debug("%s/%s: %s", self.tree.model.name, self.tree.branch_name, error)

    # -- versions ----------------------------------------------------------------------------------------------------

    async def commit(
        self,
        *,
        hold_back: Callable[[Node, bytes], bool],
        message: str | None = None,
        author: Author | None = None,
        writer: Writer | None = None,
        destination: Destination = OWN_BRANCH,
    ) -> CommitOutcome:
        """Publishes what `hold_back` lets through, then makes a version of all hosts' work. See `Committer.commit`.

        Raises:
            NotSupported: It shall go to a new branch: the work is not this host's alone.
        """
        if destination.new_branch is not None:
            raise NotSupported(
                "in a shared mount the changes are those of all hosts: commit them, and make a branch of the version"
            )
        published = await self.publish(Change(hold_back=hold_back, destination=destination))
        tree, repository = self.tree, self.tree.model.repository
        rules = tree.rules
        cut = await repository.work.cut(
            CutRequest(
                branch=tree.branch_id,
                leaves_out=lambda path, is_dir: rules.is_ignored(path, is_dir=is_dir),
                subject=describe_differences if message is None else lambda _: message,
                author=author,
                explicit=message is not None,
                trailers=None if message is None else trailers(writer, self.host),
                override_protection=destination.override_protection,
            )
        )
        await self.follow()
        return CommitOutcome(
            cut.commit or None, cut.version, cut.branch, cut.unchanged, False, published.left_out, published.ignored
        )
