"""Changing what a model's branches, tags and aliases say: one record each.

`RefEditing` is the part of an open model that does it; `ModelRepository` is the whole. Each wish is planned on the refs as
they are when its record is made, so after a lost race it is refused or done anew. Threading: trio thread.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import trio

from mvcfs.types import NS_PER_S, Author, TreeEntry
from mvcfs.versions.git.format import RawTag, Signature
from mvcfs.versions.history.versions import History
from mvcfs.versions.log.alias_log import AliasMove, write_move
from mvcfs.versions.log.publish import Draft, Publisher
from mvcfs.versions.log.records import AliasChange, BranchMove, RefChange
from mvcfs.versions.log.refs import BranchState, Refs, new_id
from mvcfs.versions.log.state import LogState
from mvcfs.versions.publishing.commits import RecordObjects, inline, write_commit
from mvcfs.versions.publishing.ref_plans import (
    plan_create_branch,
    plan_create_tag,
    plan_delete_alias,
    plan_delete_branch,
    plan_delete_tag,
    plan_protect_branch,
    plan_rename_branch,
    plan_set_alias,
    plan_show_branch,
)
from mvcfs.versions.publishing.ref_reading import RefReading
from mvcfs.versions.publishing.synced import SyncedModel

Change = TypeVar("Change", bound=RefChange)
T = TypeVar("T")

_BULK_THREADS = 4


class RefEditing(RefReading):
    """A model whose refs can be changed."""

    def __init__(self, model: SyncedModel, history: History, publisher: Publisher) -> None:
        super().__init__(model, history)
        self._publisher = publisher
        self._limiter = trio.CapacityLimiter(_BULK_THREADS)

    @abstractmethod
    async def list_tree(self, tree: str, *, default_mtime_ns: int = 0) -> tuple[TreeEntry, ...]:
        """A directory of a version."""

    async def create_branch(self, name: str, commit: str | None) -> BranchState:
        """Makes a branch at a commit, or empty. InvalidName, AlreadyExists."""
        branch_id = new_id()
        move = await self._change_refs("branch", lambda refs: plan_create_branch(refs, branch_id, name, commit))
        return BranchState(branch_id, move.name, move.tip, move.version)

    async def delete_branch(self, name: str) -> None:
        """Hides a branch; `undelete_branch` shows it again. NotFound, ReadOnly."""
        await self._change_refs("branch", lambda refs: plan_delete_branch(refs, name))

    async def rename_branch(self, old: str, new: str) -> None:
        """Gives a branch another name. NotFound, InvalidName, AlreadyExists, ReadOnly."""
        await self._change_refs("branch", lambda refs: plan_rename_branch(refs, old, new))

    async def protect_branch(self, name: str, protected: bool) -> BranchState:
        """Lets only merges and commits that override it publish to a branch, or anybody again. NotFound."""

        async def draft(state: LogState) -> tuple[Draft | None, BranchState]:
            branch = state.refs.branch(name)
            if branch.protected == protected:
                return None, branch
            return Draft("branch", (plan_protect_branch(state.refs, name, protected),)), branch

        before = await self._model.publish(draft)
        return replace(before, protected=protected)

    async def undelete_branch(self, name: str) -> BranchState:
        """Shows the branch of this name that was deleted last; if it was emptied before, as it was before that.

        Raises:
            NotFound: No such branch was deleted.
            AlreadyExists: There is one of that name now.
        """
        author = Author(self._publisher.user, f"{self._publisher.user}@{self._publisher.host}")

        async def plan(state: LogState) -> tuple[BranchMove, tuple[str, ...], BranchMove]:
            branch = plan_show_branch(state.refs, name)
            full = await self._last_full_version(branch)
            if branch.tip is None or full is None or full == branch.tip:
                move = BranchMove(branch.id, branch.name, branch.tip, branch.version)
                return move, (), move
            tree = self._objects.read_commit(full).tree
            message = f"Bring back {name} as it was before it was emptied"
            commit = write_commit(self._objects, tree, (branch.tip,), author, message, self._publisher.clock())
            move = BranchMove(branch.id, branch.name, commit, branch.version + 1)
            return move, (commit,), move

        move = await self._append("branch", plan)
        return BranchState(move.branch, move.name, move.tip, move.version)

    async def _last_full_version(self, branch: BranchState) -> str | None:
        """The newest version of a branch that holds anything; None if there never was one."""
        for version in range(branch.version, 0, -1):
            commit = await self._history.commit_of(branch, version)
            if await self.list_tree(self._objects.read_commit(commit).tree):
                return commit
        return None

    async def create_tag(
        self, name: str, commit: str, *, message: str | None = None, author: Author | None = None
    ) -> None:
        """Makes a tag, annotated if there is a message. InvalidName, AlreadyExists, NotFound for the commit."""
        self._objects.read_commit(commit)
        target = commit
        made: tuple[str, ...] = ()
        if message is not None:
            who = author or Author(self._publisher.user, f"{self._publisher.user}@{self._publisher.host}")
            tagger = Signature(who.name, who.email, self._publisher.clock() // NS_PER_S)
            target = self._objects.write_tag(RawTag(commit, "commit", name, tagger, message))
            made = (target,)
        await self._change_refs("tag", lambda refs: plan_create_tag(refs, name, target), made)

    async def delete_tag(self, name: str) -> None:
        """Removes a tag. NotFound."""
        await self._change_refs("tag", lambda refs: plan_delete_tag(refs, name))

    async def set_alias(self, name: str, commit: str, *, who: Author, why: str, branch: str | None = None) -> AliasMove:
        """Makes or moves an alias, and keeps the move in its log.

        Args:
            name: The alias.
            commit: What it shall name.
            who: Who moves it.
            why: Why.
            branch: The branch that the commit is to be called a version of, if it is one of several's.

        Returns:
            The move, as its log keeps it.

        Raises:
            InvalidName, AlreadyExists: It can't be called so, or a branch or tag is.
            NotFound: There is no such commit.
        """
        self._objects.read_commit(commit)
        move = await self._move_alias(lambda refs: plan_set_alias(refs, name, commit, _shown(who), why), who, branch)
        assert move is not None
        return move

    async def delete_alias(self, name: str, *, who: Author, why: str = "") -> AliasMove | None:
        """Removes an alias, which its log says as well; the log stays. NotFound."""
        return await self._move_alias(lambda refs: plan_delete_alias(refs, name, _shown(who), why), who)

    async def _move_alias(
        self, change_on: Callable[[Refs], AliasChange], who: Author, branch: str | None = None
    ) -> AliasMove | None:
        async def plan(state: LogState) -> tuple[AliasChange, tuple[str, ...], AliasMove | None]:
            change = change_on(state.refs)
            previous, target, place = state.refs.alias_logs.get(change.alias), change.target, None
            if target is None and previous is None:
                # Whoever made this alias kept no log.
                return change, (), None
            if target is not None:
                version = await self._history.place_of(state.refs, target, branch)
                place = None if version is None else (version.branch, version.version)
            now_ns = self._publisher.clock()
            move = write_move(self._objects, change.alias, target, previous, who, change.why, now_ns, place)
            return replace(change, log=move.oid), (move.oid,), move

        return await self._append("alias", plan)

    async def _change_refs(self, kind: str, change_on: Callable[[Refs], Change], made: tuple[str, ...] = ()) -> Change:
        async def plan(state: LogState) -> tuple[Change, tuple[str, ...], Change]:
            change = change_on(state.refs)
            return change, made, change

        return await self._append(kind, plan)

    async def _append(
        self, kind: str, plan: Callable[[LogState], Awaitable[tuple[RefChange, tuple[str, ...], T]]]
    ) -> T:
        """Publishes a change of refs.

        Args:
            kind: What the record calls it.
            plan: Comes to the change, the objects that were made for it, and what is given back; called anew for each try.
        """
        place = RecordObjects(self._objects, self._model.files, self._limiter)

        async def draft(state: LogState) -> tuple[Draft, T]:
            change, made, result = await plan(state)
            objects = inline(self._objects, await place.inline_oids(state, made) if made else ())
            git = tuple(place.uploaded)
            return Draft(kind, (change,), objects, packed=place.packed_up_to, git=git), result

        try:
            result = await self._model.publish(draft)
        finally:
            self._model.files.abandon(place.uploaded)
        await trio.to_thread.run_sync(self._objects.forget, place.packed, limiter=self._limiter)
        return result


def _shown(who: Author) -> str:
    return f"{who.name} <{who.email}>"
