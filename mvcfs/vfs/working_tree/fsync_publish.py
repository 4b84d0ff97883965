"""`-o fsync=publish`: fsync returns when what it is about is in a published version.

Several calls at once are one version: whoever comes while one is being made waits for the next. A version made so takes the
files that were fsynced as they stand, open ones too, of a fsynced directory its closed files, and of everything else what an
automatic version would take. What a rename brought goes into it whole, for a version has none of it or all.

Threading: trio thread.
"""

from __future__ import annotations

import logging

import trio

from mvcfs.errors import MvcfsError, StorageError
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.settle import HoldBack, Settler
from mvcfs.vfs.working_tree.worktree import WorkingTree

log = logging.getLogger(__name__)


class FsyncPublisher:
    """Publishes what is fsynced in one working tree."""

    def __init__(self, tree: WorkingTree, settler: Settler) -> None:
        self._tree = tree
        self._settler = settler
        self._lock = trio.Lock()
        self._waiting: dict[int, Node] = {}
        self._round = 0
        self._failures: dict[int, MvcfsError] = {}

    async def publish(self, node: Node) -> None:
        """Returns when a version holds a file as it stands, or a directory's names.

        Nothing is waited for where there is nothing to publish: a file without a name, an ignored one, one that is
        published already.

        Raises:
            MvcfsError: No version could be made; everything is still in the overlay.
        """
        if not node.changed or not (node.parents or node is self._tree.root):
            return
        if self._tree.is_ignored(self._tree.path_of(node), is_dir=node.is_directory):
            return
        self._waiting[node.ino] = node
        mine = self._round
        async with self._lock:
            if self._round == mine:
                await self._publish_all()
            failure = self._failures.get(mine)
        if failure is not None:
            raise StorageError(f"fsync of {node.describe()}: no version could be made: {failure}") from failure

    async def _publish_all(self) -> None:
        """One round: a version of all that waits now. Who comes from here on is of the next."""
        nodes, self._waiting = self._waiting, {}
        self._round += 1
        self._failures = {}
        try:
            await self._settler.commit_some(lambda hold_back: _taking(nodes, hold_back))
        except MvcfsError as error:
            self._failures[self._round - 1] = error
            log.warning("%s: fsync: %s", self._tree.describe(self._tree.root), error)


def _taking(nodes: dict[int, Node], hold_back: HoldBack) -> HoldBack:
    """What a version of these nodes holds back."""
    whole: set[int] = set()
    for node in nodes.values():
        above = node
        while above.parents:
            if above.arrived:
                whole.add(above.ino)
            above = above.parents[0][0]

    def decide(node: Node, path: bytes) -> bool:
        if node.ino in nodes:
            return False
        if node.parents and node.parents[0][0].ino in nodes and node.writers == 0:
            return False
        above = node
        while whole and above.parents:
            above = above.parents[0][0]
            if above.ino in whole:
                return False
        return hold_back(node, path)

    return decide
