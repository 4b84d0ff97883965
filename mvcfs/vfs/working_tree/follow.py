"""Taking a working tree's names along to another commit: the part of `mvcfs.vfs.working_tree.adopt` that others' changes need.

A clean name becomes what the new tree says: an inode whose content changed is replaced by a new one, so that open handles
keep what they opened; a directory that is gone takes all below it along, so that nothing is made any more in a place that no
version shows. A changed name stays what it is here; a changed directory that stands where its base stood moves on to
the new base, with its attributes merged field by field, so that its next version takes nothing back.

Nothing here waits: trees that are needed were read before. Threading: trio thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mvcfs.types import Attributes, TreeEntry
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.worktree import WorkingTree

Entries = dict[bytes, TreeEntry]


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What the kernel keeps and is out of date: a name that stands for another inode now, or (None) an inode's attributes.

    Attributes:
        ino: The directory, or the inode.
        name: The name in it; None for the attributes.
    """

    ino: int
    name: bytes | None


class Follower:
    """One step of a working tree to another commit's trees.

    Attributes:
        invalid: What the kernel must forget afterwards.
        dropped: Inode numbers whose rows go.
        carried: Inode numbers of changed nodes whose attributes are merged already.
    """

    def __init__(self, tree: WorkingTree, trees: dict[str, Entries]) -> None:
        """Takes the trees read so far, by id."""
        self._tree = tree
        self._trees = trees
        self._placed: set[int] = set()
        self.invalid: list[Invalidation] = []
        self.dropped: list[int] = []
        self.carried: set[int] = set()

    def entries(self, oid: str | None) -> Entries | None:
        """A tree's entries; None if it was not read."""
        return {} if oid is None else self._trees.get(oid)

    def missing(self, node: Node, oid: str | None, wanted: list[str]) -> None:
        """Adds the trees that `follow` needs and that are not read."""
        if node.base is None and not node.loaded and not node.delta:
            return
        entries = self.entries(oid)
        if entries is None:
            assert oid is not None
            wanted.append(oid)
            return
        for name, child in [*node.loaded.items(), *node.delta.items()]:
            entry = entries.get(name)
            if child is None or not child.is_directory or entry is None or entry.tree is None:
                continue
            if child.base_tree != entry.tree:
                self.missing(child, entry.tree, wanted)

    def find_placed(self) -> set[int]:
        """Finds the changed directories that stand where their base stood: those that follow. Their bases are loaded.

        One that is new here and stands where the base has nothing counts as one whose base is empty: where another host
        made the same directory, the two are one.
        """
        placed = {self._tree.root.ino}
        for node in self._tree.changed_nodes():
            if not node.is_directory or node.base is None:
                continue
            for name, child in node.delta.items():
                if child is None or not child.is_directory:
                    continue
                entry = node.base.get(name)
                if child.base_tree == (None if entry is None else entry.tree) and (entry is None or entry.tree):
                    placed.add(child.ino)
        self._placed = placed
        return placed

    # -- the step -----------------------------------------------------------------------------------------------------

    def follow(self, node: Node, oid: str | None) -> None:
        """Moves a directory's names to what a tree says."""
        entries = self.entries(oid)
        if entries is None:
            # Nobody has looked into it.
            node.base_tree, node.base = oid, None
            self._tree.save(node)
            return
        known = node.base or {}
        for name, child in list(node.loaded.items()):
            self._follow_clean(node, name, child, entries.get(name))
        for name, changed in list(node.delta.items()):
            self._follow_changed(node, name, changed, known.get(name), entries.get(name))
        if node.base_tree != oid or node.base is not entries:
            node.base_tree, node.base = oid, entries
            self._tree.save(node)

    def _follow_changed(
        self, node: Node, name: bytes, child: Node | None, before: TreeEntry | None, entry: TreeEntry | None
    ) -> None:
        if child is None:
            if entry is None:
                del node.delta[name]
                self._tree.overlay.drop_entry(node.ino, name)
            return
        if not child.is_directory or child.ino not in self._placed or (entry is not None and entry.tree is None):
            return
        if entry is None:
            if before is not None:
                self.follow(child, None)
                self.drop_if_empty(node, name, child)
            return
        if child.ino not in self.carried:
            self.carry(child, None if before is None else before.attributes, entry.attributes)
        if child.base_tree != entry.tree:
            self.follow(child, entry.tree)

    def drop_if_empty(self, node: Node, name: bytes, child: Node) -> None:
        """A directory that is gone elsewhere goes here too, unless it holds what no version takes."""
        if child.delta or node.delta.get(name) is not child:
            return
        del node.delta[name]
        self._tree.overlay.drop_entry(node.ino, name)
        self.dropped.append(child.ino)
        child.changed = False
        node.loaded[name] = child
        self._detach(node, name, child)

    def carry(self, node: Node, before: Attributes | None, there: Attributes) -> None:
        """Merges what another version says of a changed node's attributes with what was changed here since `before`."""
        self.carried.add(node.ino)
        here = node.as_attributes()
        merged = merged_attributes(before, here, there)
        if merged == here:
            return
        node.mode, node.uid, node.gid, node.user_xattrs = merged.mode, merged.uid, merged.gid, merged.xattrs
        node.mtime_ns = merged.mtime_ns
        node.ctime_ns = max(node.ctime_ns, merged.mtime_ns)
        self._tree.save(node)
        self.invalid.append(Invalidation(node.ino, None))

    def _follow_clean(self, node: Node, name: bytes, child: Node, entry: TreeEntry | None) -> None:
        if entry is not None and child.is_directory and entry.tree is not None:
            if child.base_tree != entry.tree or child.as_attributes() != entry.attributes:
                child.apply_attributes(entry.attributes)
                self.invalid.append(Invalidation(child.ino, None))
            if child.base_tree != entry.tree:
                self.follow(child, entry.tree)
            return
        if entry is not None and child.matches(entry):
            return
        same_content = entry is not None and child.content == entry.content and not child.is_directory
        if entry is not None and same_content and child.link is None and entry.attributes.link is None:
            child.apply_attributes(entry.attributes)
            self.invalid += (Invalidation(node.ino, name), Invalidation(child.ino, None))
            return
        self._detach(node, name, child)

    def _detach(self, directory: Node, name: bytes, child: Node) -> None:
        """Takes a clean name away, and with a directory's last one all names below it."""
        del directory.loaded[name]
        child.parents = [place for place in child.parents if place != (directory, name)]
        self.invalid.append(Invalidation(directory.ino, name))
        if child.parents:
            return
        child.nlink = 0
        child.replaced = True
        if child.link is not None and self._tree.links.get(child.link) is child:
            del self._tree.links[child.link]
        if child.is_directory:
            child.base_tree, child.base = None, {}
            for below, grandchild in list(child.loaded.items()):
                self._detach(child, below, grandchild)


def merged_attributes(before: Attributes | None, here: Attributes, there: Attributes) -> Attributes:
    """Attributes of one node that two sides changed, as a merge of versions has them: `there` wins; of two times the newer."""

    def picked(field: str) -> Any:
        unchanged = before is not None and getattr(there, field) == getattr(before, field)
        return getattr(here if unchanged else there, field)

    times = {here.mtime_ns, there.mtime_ns}
    if before is not None and len(times) > 1:
        times.discard(before.mtime_ns)
    return replace(
        here, mode=picked("mode"), uid=picked("uid"), gid=picked("gid"), xattrs=picked("xattrs"), mtime_ns=max(times)
    )
