"""Deciding when the writes of a branch become a version.

A branch becomes a version when all its closed changed files have been quiet for a while, so that the shards of one
checkpoint are one version. One task a branch sleeps until that instant, commits, and on failure tries again with growing
pauses, saying so in the log once and in the status all the time.

Invariants: live and ignored files never start, delay or shorten a version; removals alone never force one before they are
quiet (so that `rm -rf` of a branch leaves no version of its half-way states). Threading: trio thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from mvcfs.config import VersionRules
from mvcfs.errors import MvcfsError, ReadOnly
from mvcfs.types import Author, Caller
from mvcfs.vfs.working_tree.committer import OWN_BRANCH, CommitOutcome, Committer, Destination
from mvcfs.vfs.working_tree.freeze import holds_nothing_versioned
from mvcfs.vfs.working_tree.ignore import IGNORE_FILE, LIVE_FILE, MAX_RULE_BYTES, IgnoreRules
from mvcfs.vfs.working_tree.messages import Writer, look_at_writer
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.worktree import WorkingTree

log = logging.getLogger(__name__)

HoldBack = Callable[[Node, bytes], bool]
"""Whether a version leaves out a changed file, with its path."""

_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 30.0
# Timers wake a little early or late; a file this much short of quiet is quiet.
_SLACK_S = 0.05
# How often a writing process is looked at again, so that a long run of small files costs no /proc reads.
_WRITER_LOOK_S = 5.0
# So much later than a host that changed a shared branch do the others make a version of it.
_OTHERS_FIRST_S = 3.0


@dataclass(slots=True)
class _Unrest:
    """Changes since the last version."""

    first: float | None = None
    last: float | None = None
    finished: bool = False
    live: bool = False
    here: bool = False


class Settler:
    """When one working tree becomes a version. It is the tree's `Activity`."""

    def __init__(self, rules: VersionRules) -> None:
        self._rules = rules
        self._unrest = _Unrest()
        self._wake = trio.Event()
        self._writer: Writer | None = None
        self._looked_at = (-1, 0.0)
        self._last_version = time.monotonic()
        self._reload_rules = True
        self._hurried = False
        self._left_unquiet = False
        self.last_error: str | None = None
        self.error_since_s: float | None = None
        self.last_conflict: str | None = None
        self.tree: WorkingTree | None = None
        self.committer: Committer | None = None

    def attach(self, tree: WorkingTree, committer: Committer) -> None:
        """Names the working tree; once, before anything happens in it."""
        self.tree = tree
        self.committer = committer

    # -- Activity ----------------------------------------------------------------------------------------------------

    def changed(self, path: bytes, *, is_dir: bool, removal: bool = False) -> None:
        """See `Activity.changed`."""
        assert self.tree is not None
        now = time.monotonic()
        self._unrest.here = True
        if path in (IGNORE_FILE, LIVE_FILE):
            self._reload_rules = True
        if self.tree.rules.is_live(path, is_dir=is_dir):
            self._unrest.live = True
        else:
            if not removal and self._unrest.first is None:
                self._unrest.first = now
            self._unrest.last = now
        self._wake.set()

    def changed_elsewhere(self, *, live: bool, rules: bool) -> None:
        """Another host changed a shared tree: only live files, or others, too; rule files, or not.

        The version is that host's to make. Only if it doesn't, since it is gone, is it ours.
        """
        when = time.monotonic() + _OTHERS_FIRST_S
        self._reload_rules = self._reload_rules or rules
        if live:
            self._unrest.live = True
        else:
            self._unrest.first = self._unrest.first or when
            self._unrest.last = when
        self._wake.set()

    @property
    def has_own_changes(self) -> bool:
        """Whether anything was changed here since the last version."""
        return self._unrest.here

    @property
    def writer(self) -> Writer | None:
        """The process that wrote last."""
        return self._writer

    def finished(self, path: bytes) -> None:
        """See `Activity.finished`."""
        self._unrest.finished = True
        self._wake.set()

    def wrote(self, caller: Caller) -> None:
        """See `Activity.wrote`."""
        now = time.monotonic()
        pid, when = self._looked_at
        if caller.pid == pid and now - when < _WRITER_LOOK_S and self._writer is not None:
            return
        if caller.pid <= 0 and self._writer is not None:
            return
        self._looked_at = (caller.pid, now)
        self._writer = look_at_writer(caller)

    # -- the instant ---------------------------------------------------------------------------------------------------

    def settle_s(self) -> float:
        """How long a file must have been quiet now."""
        rules = self._rules
        return min(rules.settle_s, rules.finished_settle_s) if self._unrest.finished else rules.settle_s

    def due(self) -> float | None:
        """The instant (trio and monotonic clock agree) of the next automatic version; None while there is nothing."""
        unrest = self._unrest
        if self.tree is not None and self.tree.protected:
            return None
        if self._hurried:
            return time.monotonic()
        due: float | None = None
        if unrest.last is not None:
            due = unrest.last + self.settle_s()
            if unrest.first is not None:
                due = min(due, unrest.first + self._rules.max_settle_s)
        if unrest.live:
            live_due = self._last_version + self._rules.live_interval_s
            due = live_due if due is None else min(due, live_due)
        return due

    def hurry(self) -> None:
        """Makes the next version at once, of all closed files."""
        self._hurried = True
        self._wake.set()

    def has_closed(self) -> bool:
        """Whether a version of the closed files would free staging files."""
        assert self.tree is not None
        return not self.tree.protected and any(
            node.staged is not None
            and not self._open_only(node, self.tree.path_of(node))
            and not self.tree.is_ignored(self.tree.path_of(node), is_dir=False)
            for node in self.tree.changed_nodes()
        )

    def set_protected(self, protected: bool) -> None:
        """Tells whether the branch takes changes; what a protected one has waits, and nothing joins it."""
        assert self.tree is not None
        if self.tree.protected == protected:
            return
        self.tree.protected = protected
        self._wake.set()
        if not protected:
            log.info("%s is not protected any more", self._name())
        elif holds_nothing_versioned(self.tree):
            log.info("%s is protected: writes fail, and only merges change it", self._name())
        else:
            log.warning(
                "%s is protected: what was written here before is in no version and stays in the overlay. Publish it with "
                "`mvcfs commit --override-protection`, or on a branch of its own with `mvcfs commit --to-branch NAME`",
                self._name(),
            )

    def note_replayed(self) -> None:
        """Tells that the overlay held changes at the mount: they are as old as can be."""
        now = time.monotonic()
        self._unrest.first = self._unrest.last = now
        self._wake.set()

    def note_followed(self) -> None:
        """Tells that the tree moved to another host's version, which may hold other rules."""
        self._reload_rules = True
        self._wake.set()

    def _holds_back(self, node: Node, path: bytes) -> bool:
        assert self.tree is not None
        if self.tree.rules.is_live(path):
            return False
        if node.writers > 0:
            return True
        if time.monotonic() - node.quiet_since >= self.settle_s() - _SLACK_S:
            return False
        # It is closed: no later event will speak of it.
        self._left_unquiet = True
        return True

    def _open_only(self, node: Node, path: bytes) -> bool:
        assert self.tree is not None
        return node.writers > 0 and not self.tree.rules.is_live(path)

    async def run(self) -> None:
        """Makes automatic versions for ever."""
        while True:
            await self._wait_until_due()
            await self._commit_until_done()

    async def _wait_until_due(self) -> None:
        while True:
            if self._reload_rules:
                await self._load_rules()
            due = self.due()
            self._wake = trio.Event()
            if due is not None and due <= time.monotonic():
                return
            with trio.move_on_after(_LAST_RETRY_S if due is None else max(0.0, due - time.monotonic())):
                await self._wake.wait()

    async def _commit_until_done(self) -> None:
        pause = _FIRST_RETRY_S
        while True:
            try:
                await self.commit_automatic()
            except ReadOnly:
                self.set_protected(True)
                return
            except MvcfsError as error:
                self._note_failure(error)
                await trio.sleep(pause)
                pause = min(_LAST_RETRY_S, pause * 2)
            else:
                return

    def _note_failure(self, error: MvcfsError) -> None:
        text = str(error)
        if text != self.last_error:
            log.warning("%s: no version could be made: %s; trying again", self._name(), text)
        self.last_error = text
        if self.error_since_s is None:
            self.error_since_s = time.time()

    def _name(self) -> str:
        assert self.tree is not None
        return f"{self.tree.model.name}/{self.tree.branch_name}"

    async def commit_automatic(self) -> CommitOutcome:
        """One automatic version of what is quiet now."""
        unrest, self._unrest = self._unrest, _Unrest()
        self._unrest.finished = unrest.finished
        hold_back = self._open_only if self._hurried else self._holds_back
        self._hurried = self._left_unquiet = False
        try:
            outcome = await self._commit(hold_back, None, None)
        except BaseException:
            self._restore(unrest)
            raise
        if self._unrest.last is None:
            self._unrest.finished = False
        if outcome.left_out and unrest.last is not None and self._left_unquiet:
            self._unrest.first = self._unrest.first or time.monotonic()
            self._unrest.last = self._unrest.last or time.monotonic()
        return outcome

    def _restore(self, unrest: _Unrest) -> None:
        now = self._unrest
        now.first = unrest.first if unrest.first is not None else now.first
        now.last = now.last if now.last is not None else unrest.last
        now.finished = now.finished or unrest.finished
        now.live = now.live or unrest.live
        now.here = now.here or unrest.here

    async def commit_explicit(
        self, message: str, author: Author | None, destination: Destination = OWN_BRANCH
    ) -> CommitOutcome:
        """Everything as it stands, open files included.

        Raises:
            ReadOnly: The branch is protected, and the destination doesn't override that.
            AlreadyExists: The branch to be made for it is there.
            StorageError: The store failed; nothing is lost.
        """
        return await self._commit(lambda _node, _path: False, message, author, destination)

    async def commit_closed(self) -> CommitOutcome:
        """All closed files, however short a time they have been quiet. Raises as `commit_explicit`."""
        return await self._commit(self._open_only, None, None)

    async def commit_some(self, choose: Callable[[HoldBack], HoldBack]) -> CommitOutcome:
        """What `choose` makes of the rule that automatic versions go by. Raises as `commit_explicit`."""
        return await self._commit(choose(self._holds_back), None, None)

    async def commit_last(self) -> CommitOutcome:
        """The version that an unmount makes: of all files, since nobody has one open any more.

        The kernel may have dropped the last close of a handle together with the mount, so handles are not asked.
        """
        return await self._commit(lambda _node, _path: False, None, None)

    async def _commit(
        self,
        hold_back: Callable[[Node, bytes], bool],
        message: str | None,
        author: Author | None,
        destination: Destination = OWN_BRANCH,
    ) -> CommitOutcome:
        assert self.committer is not None
        if self._reload_rules:
            await self._load_rules()
        outcome = await self.committer.commit(
            hold_back=hold_back,
            message=message,
            author=author,
            writer=self._writer,
            destination=destination,
        )
        self._last_version = time.monotonic()
        if outcome.conflict:
            self.last_conflict = outcome.branch
        if self.last_error is not None:
            log.info("%s: versions are made again", self._name())
        self.last_error = self.error_since_s = None
        if not outcome.unchanged:
            log.info("%s: version %d is %s", self._name(), outcome.version, (outcome.commit or "")[:10])
        return outcome

    async def _load_rules(self) -> None:
        """Reads `.mvcfsignore` and `.mvcfslive` of the branch's root."""
        assert self.tree is not None
        self._reload_rules = False
        tree = self.tree
        texts = []
        for name in (IGNORE_FILE, LIVE_FILE):
            node = await tree.namespace.find(tree.root, name)
            readable = node is not None and node.is_regular and node.size_bytes <= MAX_RULE_BYTES
            texts.append(await tree.data.read_small(node) if node is not None and readable else b"")
        try:
            tree.rules = IgnoreRules.parse(*texts)
        except ValueError as error:
            log.warning(
                "%s: the ignore rules are not understood (%s): the rules before stay in force", self._name(), error
            )
