"""What one call has changed in a shared working tree, on its way to the other hosts; and giving it back where they were first.

A name that had to be new, or that had to be there still, may be lost to another host at two instants. Before the publish, when the
tree follows others' work: then the base has what it had not, or has no more what it had. In the publish, when others' came
between: `mvcfs.versions.publishing.work` tells. Either way the call fails as if it had come later, and what it did is taken back.

Threading: trio thread; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvcfs.errors import AlreadyExists, MvcfsError, NotFound, Transient
from mvcfs.vfs.working_tree.committer import OWN_BRANCH, CommitOutcome, Destination
from mvcfs.vfs.working_tree.follow import Invalidation
from mvcfs.vfs.working_tree.node import Node

if TYPE_CHECKING:
    from mvcfs.vfs.working_tree.worktree import WorkingTree

Place = tuple[Node, bytes]


@dataclass(slots=True)
class Change:
    """What a call has changed here and waits to be seen elsewhere.

    Attributes:
        node: A file that is published as it stands, though it may be open.
        made: A name that had to be new, with what it stands for.
        taken: A name that was removed or moved away.
        moved_to: Where it was moved.
        hold_back: Where it is given: what it lets through is published, too.
        destination: Whether it goes to the branch even if that is protected.
        had_base: Whether the base had `made`, or `taken`, when this was done.
        made_path: Where `made` is when it is published.
        taken_path: Where `taken` was then.
        outcome: What came of the publish.
        error: Why it failed.
    """

    node: Node | None = None
    made: tuple[Node, bytes, Node] | None = None
    taken: Place | None = None
    moved_to: Place | None = None
    hold_back: Callable[[Node, bytes], bool] | None = None
    destination: Destination = OWN_BRANCH
    had_base: bool = False
    made_path: bytes | None = None
    taken_path: bytes | None = None
    outcome: CommitOutcome | None = None
    error: MvcfsError | None = None

    def places(self) -> list[Node]:
        """The directories whose names it looks at."""
        found = [] if self.made is None else [self.made[0]]
        return found if self.taken is None else [*found, self.taken[0]]

    def note_base(self) -> None:
        """Keeps what the base says of the name, just after it was changed."""
        if self.made is not None:
            self.had_base = self.made[0].has_base(self.made[1])
        elif self.taken is not None:
            self.had_base = self.taken[0].has_base(self.taken[1])

    def look(self, tree: WorkingTree) -> list[Invalidation]:
        """Sees whether its name was lost, just after the tree has moved to another base; then gives back what it did.

        Returns:
            What the kernel must forget.
        """
        if self.error is None and self.made is not None:
            directory, name, node = self.made
            here = directory.delta.get(name) is node
            if node.replaced or (here and not self.had_base and directory.has_base(name)):
                self.error = AlreadyExists(f"another host made {tree.join(directory, name)!r} first")
                return give_back(tree, directory, name, node) if here else []
        if self.error is None and self.taken is not None:
            directory, name = self.taken
            if self.had_base and directory.base is not None and not directory.has_base(name):
                self.error = NotFound(f"another host took {tree.join(directory, name)!r} away first")
                return self._give_back_target()
        return []

    def find_paths(self, tree: WorkingTree) -> None:
        """Finds where its names are now, just before they are published.

        A name that was overtaken by another change here has nothing to lose.
        """
        if self.error is None and self.made is not None:
            directory, name, node = self.made
            if directory.delta.get(name) is node:
                self.made_path = tree.join(directory, name)
        if self.error is None and self.taken is not None:
            directory, name = self.taken
            if name in directory.delta and directory.delta[name] is None:
                self.taken_path = tree.join(directory, name)

    def _give_back_target(self) -> list[Invalidation]:
        if self.moved_to is None or self.node is None:
            return []
        directory, name = self.moved_to
        if directory.delta.get(name) is not self.node:
            return []
        return give_back(directory.tree, directory, name, self.node)

    def check(self) -> CommitOutcome:
        """What came of it.

        Raises:
            AlreadyExists: Another host made the name first.
            NotFound: Another host took the name away first.
            StorageError: It isn't published; it is still in the overlay.
        """
        if self.error is not None:
            raise type(self.error)(str(self.error)) from self.error
        if self.outcome is None:
            raise Transient("the publish was given up")
        if self.made_path is not None and self.made_path in self.outcome.lost:
            raise AlreadyExists(f"another host made {self.made_path!r} first")
        if self.taken_path is not None and self.taken_path in self.outcome.lost:
            raise NotFound(f"another host took {self.taken_path!r} away first")
        return self.outcome


def give_back(tree: WorkingTree, directory: Node, name: bytes, node: Node) -> list[Invalidation]:
    """Makes a changed name what the base says again. A directory that something was put into meanwhile stays, and unites."""
    if node.is_directory and node.delta:
        return []
    with tree.overlay.transaction():
        del directory.delta[name]
        tree.overlay.drop_entry(directory.ino, name)
        node.parents.remove((directory, name))
        node.generation += 1
        if node.parents:
            node.nlink = max(1, node.nlink - 1)
            tree.save(node)
        else:
            tree.overlay.drop_nodes([node.ino])
            node.changed = False
            _replaced(node)
    if not node.parents and not node.lookups and not node.handles:
        node.forgotten()
    return [Invalidation(directory.ino, name)]


def _replaced(node: Node) -> None:
    """Marks a node that has no name any more, and all that is in memory below it."""
    node.nlink, node.replaced = 0, True
    if node.link is not None and node.tree.links.get(node.link) is node:
        del node.tree.links[node.link]
    if node.is_directory:
        below, node.loaded, node.base_tree, node.base = node.loaded, {}, None, {}
        for name, child in below.items():
            child.parents = [place for place in child.parents if place != (node, name)]
            if not child.parents:
                _replaced(child)
