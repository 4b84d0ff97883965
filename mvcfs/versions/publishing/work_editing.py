"""What is done with a branch's work beside publishing it: taking versions in, making versions of it, seeing what changed.

`WorkEditing` is that part of an open model; publishing is `ModelRepository.publish_commit` of a `WorkRequest`.
Threading: trio thread; walks and merges run in threads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from mvcfs.types import Author
from mvcfs.versions.log.publish import OnAttempt, Published, Publisher
from mvcfs.versions.log.refs import BranchState
from mvcfs.versions.publishing.commits import CommitPlan
from mvcfs.versions.publishing.synced import SyncedModel
from mvcfs.versions.publishing.work import CutPlan, CutRequest, WorkPlan, WorkRequest
from mvcfs.versions.trees.versioned_part import changed_paths

_Unrest = tuple[bool, bool]


class PublishPlan(Protocol):
    """Publishes what a plan comes to."""

    async def __call__(self, plan: CommitPlan, on_attempt: OnAttempt | None, *, caller_resolves: bool) -> Published:
        """See `ModelRepository.publish_commit`."""
        ...


class WorkEditing:
    """The work of one model's branches."""

    def __init__(
        self,
        model: SyncedModel,
        publisher: Publisher,
        limiter: trio.CapacityLimiter,
        publish: PublishPlan,
        read: Callable[[Callable[[], _Unrest]], Awaitable[_Unrest]],
    ) -> None:
        """Takes what the model publishes and reads with."""
        self._model = model
        self._publisher = publisher
        self._limiter = limiter
        self._publish = publish
        self._read = read

    async def join(self, branch: BranchState, author: Author) -> Published:
        """Takes the tip's version into a branch's work, where a mount that isn't shared has published one.

        Raises:
            As `ModelRepository.publish_commit`.
        """
        tree = self._model.objects.read_commit(branch.newest or "").tree
        request = WorkRequest(branch.id, branch.newest, tree, author, "Take in a version\n", "")
        plan = WorkPlan(request, self._model.objects, self._model.files, self._publisher.clock(), self._limiter)
        return await self._publish(plan, None, caller_resolves=False)

    async def cut(self, request: CutRequest) -> Published:
        """Makes a version of a branch's work, if it differs from the tip.

        Raises:
            As `ModelRepository.publish_commit`.
        """
        plan = CutPlan(request, self._model.objects, self._model.files, self._publisher.clock(), self._limiter)
        return await self._publish(plan, None, caller_resolves=False)

    async def unrest_between(
        self,
        before: str | None,
        after: str | None,
        leaves_out: Callable[[bytes, bool], bool],
        calm: Callable[[bytes, bool], bool],
    ) -> _Unrest:
        """What changed between two trees: whether anything that is not calm, and whether anything that is. CorruptData.

        Args:
            before: The tree before.
            after: The tree after.
            leaves_out: Whether versions leave out a path. Called in a thread, as `calm` is.
            calm: Whether a path's change makes no version due.
        """

        def look() -> _Unrest:
            found = False
            for path, is_dir in changed_paths(self._model.objects, before, after, leaves_out):
                if not calm(path, is_dir):
                    return True, found
                found = True
            return False, found

        return await self._read(look)
