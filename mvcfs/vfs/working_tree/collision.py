"""Finding what must not be moved over: a path that is changed here, and is another one in the commit than in the base.

Such a path has to meet the other host's change in a merge, so the working tree stays where it is until its next version
is merged from there. Where the tree moves after its own publish, what that version took is no collision, unless it was
changed since and the merge moved it or put others' lines into it. Threading: trio thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from mvcfs.types import TreeEntry
from mvcfs.vfs.working_tree.follow import Entries
from mvcfs.vfs.working_tree.freeze import PlannedDir, PlannedFile, is_unversioned
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.worktree import WorkingTree


@dataclass(frozen=True, slots=True)
class CollisionSearch:
    """One look at a working tree whose changed directories' bases are loaded.

    Attributes:
        tree: The working tree.
        entries: Gives a tree's entries.
        placed: Inode numbers of changed directories that stand where their base stood.
        give_up: What the plan holds is given up here anyway.
        renamed: Paths of directories that the commit has under other names: what was made under such a name here belongs
            there, and a merge puts it there.
    """

    tree: WorkingTree
    entries: Callable[[str | None], Entries | None]
    placed: set[int]
    give_up: bool
    renamed: Collection[bytes] = ()

    def find(self, node: Node, planned: PlannedDir | None, oid: str | None, prefix: bytes = b"") -> bytes | None:
        """The first collision below a directory, None if there is none. Times alone make no difference.

        Args:
            node: A changed directory.
            planned: What the plan has of it, None for nothing.
            oid: The tree that stands in its place.
            prefix: Its path with a slash behind.
        """
        entries, known = self.entries(oid) or {}, node.base or {}
        taken = {} if planned is None else planned.entries
        for name, child in node.delta.items():
            entry, below, path = entries.get(name), taken.get(name), prefix + name
            if below is not None:
                found = self._differs_from_planned(child, below, entry, path)
                if found is not None:
                    return found
            if entry is None and below is None and path in self.renamed and self._is_versioned_directory(child, path):
                return path
            if child is not None and child.is_directory and (entry is None or entry.tree is not None):
                same = below if isinstance(below, PlannedDir) and below.node is child else None
                if same is not None or child.ino in self.placed:
                    found = self._below(child, same, known.get(name), entry, path)
                    if found is not None:
                        return found
                    continue
            if name not in taken and not self._stays_here(child, path) and _differ(known.get(name), entry, child):
                return path
        return None

    def _is_versioned_directory(self, child: Node | None, path: bytes) -> bool:
        return child is not None and child.is_directory and not self._stays_here(child, path)

    def _below(
        self, child: Node, planned: PlannedDir | None, before: TreeEntry | None, entry: TreeEntry | None, path: bytes
    ) -> bytes | None:
        if entry is not None:
            if child.base_tree == entry.tree:
                return None
            return self.find(child, planned, entry.tree, path + b"/")
        if before is None or planned is not None or self._stays_alone(child, path):
            return None
        return path

    def _differs_from_planned(
        self, child: Node | None, below: PlannedFile | PlannedDir, entry: TreeEntry | None, path: bytes
    ) -> bytes | None:
        """Something of the plan that has changed since, or is still being written, and is another one in the commit.

        That is so where others' lines were merged into it, or where they moved it or the directory that it is in: what is
        written here now goes there as well, with the next version.
        """
        if isinstance(below, PlannedFile):
            written = child is not None and child.writers > 0 and not self.give_up
            overtaken = written or child is not below.node or child.generation != below.generation
            return path if overtaken and (entry is None or entry.content != below.content) else None
        if child is not below.node or child.generation != below.generation:
            return path if entry is None else None
        if entry is not None and entry.tree is not None:
            return None
        for name, inner in child.delta.items():
            planned, inner_path = below.entries.get(name), path + b"/" + name
            if planned is None:
                if name not in below.entries and not self._stays_here(inner, inner_path):
                    return inner_path
                continue
            found = self._differs_from_planned(inner, planned, None, inner_path)
            if found is not None:
                return found
        return None

    def _stays_here(self, child: Node | None, path: bytes) -> bool:
        """Whether no version takes a changed node."""
        return child is not None and is_unversioned(self.tree, child, path)

    def _stays_alone(self, directory: Node, path: bytes) -> bool:
        """Whether all that is changed below a directory is names that no version takes, and removals."""
        for name, child in directory.delta.items():
            below = path + b"/" + name
            if child is None or self._stays_here(child, below):
                continue
            if not child.is_directory or child.ino not in self.placed or not self._stays_alone(child, below):
                return False
        return True


def _differ(before: TreeEntry | None, now: TreeEntry | None, here: Node | None) -> bool:
    """Whether an entry changed, its time aside; not if it is gone here and there."""
    if before is None or now is None:
        return before is not now and not (now is None and here is None)
    return replace(before, attributes=replace(before.attributes, mtime_ns=0)) != replace(
        now, attributes=replace(now.attributes, mtime_ns=0)
    )
