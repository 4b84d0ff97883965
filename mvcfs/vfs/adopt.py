"""Moving a working tree to another commit: after its own publish, or when another host published.

What a plan put into the published version becomes clean, unless it was overtaken by a write since; clean nodes follow the
new tree (an inode whose content changed elsewhere is replaced by a new one, so open handles keep what they opened); what is
changed here stays. All trees that are needed are read first; then everything moves in one step without waiting, and in
one overlay transaction, so that a hard kill finds the tree at the old commit or at the new one.

Threading: trio thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mvcfs.content.staging import FrozenFile
from mvcfs.types import Content, TreeEntry
from mvcfs.vfs.freeze import Plan, PlannedDir, PlannedFile, holds_nothing_versioned
from mvcfs.vfs.node import Node
from mvcfs.vfs.worktree import WorkingTree

_Entries = dict[bytes, TreeEntry]


@dataclass(frozen=True, slots=True)
class Invalidation:
    """A name whose inode is another one now, for the kernel's caches."""

    parent: int
    name: bytes


async def adopt(
    tree: WorkingTree, commit: str | None, root_tree: str | None, plan: Plan | None, *, give_up: bool = False
) -> list[Invalidation]:
    """Moves a working tree to a commit, unless that would hide that both changed the same.

    What was changed here beside the plan (held back, or since) and elsewhere too has to meet in a merge, so the tree stays
    where it is then: the next version is merged from there. What of the plan is not in the commit was moved or removed by
    others, and goes from here.

    Args:
        tree: The working tree.
        commit: The commit to stand on.
        root_tree: Its tree.
        plan: What of this working tree is in the commit; its frozen data is settled.
        give_up: The plan is stored elsewhere (on a conflict branch): what it holds is given up here for what the commit has.

    Returns:
        The names that stand for other inodes now.
    """
    trees: dict[str, _Entries] = {}
    while True:
        await _load_bases(tree)
        mover = _Mover(tree, trees, give_up=give_up)
        missing = mover.missing(root_tree, plan)
        if not missing and plan is None and not holds_nothing_versioned(tree):
            return []
        if not missing and plan is not None and mover.differs_beside(plan, root_tree):
            mover.settle_files(plan)
            return []
        if not missing:
            return mover.move(commit, root_tree, plan)
        for oid in missing:
            trees[oid] = await tree.model.entries(oid)


async def _load_bases(tree: WorkingTree) -> None:
    """Loads the base of every changed directory, so that one that stands in its place can be told."""
    for node in list(tree.changed_nodes()):
        if node.is_directory:
            await tree.load(node)


class _Mover:
    def __init__(self, tree: WorkingTree, trees: dict[str, _Entries], *, give_up: bool) -> None:
        self._tree = tree
        self._give_up = give_up
        self._placed: set[int] = set()
        self._trees = trees
        self._invalid: list[Invalidation] = []
        self._drop: list[int] = []

    # -- what has to be read -----------------------------------------------------------------------------------------

    def missing(self, root_tree: str | None, plan: Plan | None) -> list[str]:
        """Trees that are needed and not read yet."""
        wanted: list[str] = []
        if plan is not None:
            self._missing_planned(plan.root, root_tree, wanted)
        self._missing_placed(self._tree.root, root_tree, wanted)
        return list(dict.fromkeys(wanted))

    def _entries(self, oid: str | None) -> _Entries | None:
        return {} if oid is None else self._trees.get(oid)

    def _missing_planned(self, planned: PlannedDir, oid: str | None, wanted: list[str]) -> None:
        entries = self._entries(oid)
        if entries is None:
            assert oid is not None
            wanted.append(oid)
            return
        for name, below in planned.entries.items():
            if isinstance(below, PlannedDir):
                entry = entries.get(name)
                if entry is not None and entry.tree is not None:
                    self._missing_planned(below, entry.tree, wanted)

    def _missing_placed(self, node: Node, oid: str | None, wanted: list[str]) -> None:
        if node.base is None and not node.loaded and not node.delta:
            return
        entries = self._entries(oid)
        if entries is None:
            assert oid is not None
            wanted.append(oid)
            return
        for name, child in [*node.loaded.items(), *node.delta.items()]:
            entry = entries.get(name)
            if child is None or not child.is_directory or entry is None or entry.tree is None:
                continue
            if child.base_tree != entry.tree:
                self._missing_placed(child, entry.tree, wanted)

    # -- what must not be moved over -----------------------------------------------------------------------------------

    def differs_beside(self, plan: Plan, root_tree: str | None) -> bool:
        """Whether a name that is changed here, but not in the plan, is another one in the commit than in the base."""
        self._placed = self._find_placed()
        return self._differs_in(plan.root.node, plan.root, root_tree, b"")

    def _differs_in(self, node: Node, planned: PlannedDir | None, oid: str | None, prefix: bytes) -> bool:
        entries, known = self._entries(oid) or {}, node.base or {}
        taken = {} if planned is None else planned.entries
        for name, child in node.delta.items():
            entry, below, path = entries.get(name), taken.get(name), prefix + name
            if below is not None and self._differs_from_planned(child, below, entry, path):
                return True
            if child is not None and child.is_directory and entry is not None and entry.tree is not None:
                same = below if isinstance(below, PlannedDir) and below.node is child else None
                if same is not None or child.ino in self._placed:
                    if child.base_tree != entry.tree and self._differs_in(child, same, entry.tree, path + b"/"):
                        return True
                    continue
            if name not in taken and not self._stays_here(child, path) and _differ(known.get(name), entry, child):
                return True
        return False

    def _differs_from_planned(
        self, child: Node | None, below: PlannedFile | PlannedDir, entry: TreeEntry | None, path: bytes
    ) -> bool:
        """Whether something of the plan that has changed since, or is still being written, is another one in the commit.

        That is so where others' lines were merged into it, or where they moved it or the directory that it is in: what is
        written here now goes there as well, with the next version.
        """
        if isinstance(below, PlannedFile):
            written = child is not None and child.writers > 0 and not self._give_up
            overtaken = written or child is not below.node or child.generation != below.generation
            return overtaken and (entry is None or entry.content != below.content)
        if child is not below.node or child.generation != below.generation:
            return entry is None
        if entry is not None and entry.tree is not None:
            return False
        for name, inner in child.delta.items():
            planned, inner_path = below.entries.get(name), path + b"/" + name
            if planned is None:
                if name not in below.entries and not self._stays_here(inner, inner_path):
                    return True
            elif self._differs_from_planned(inner, planned, None, inner_path):
                return True
        return False

    def _stays_here(self, child: Node | None, path: bytes) -> bool:
        """Whether no version takes a changed node."""
        if child is None:
            return False
        return not child.is_versioned or self._tree.is_ignored(path, is_dir=child.is_directory)

    def settle_files(self, plan: Plan) -> None:
        """Puts stored content under the plan's files and leaves everything else as it is."""
        with self._tree.overlay.transaction():
            for file in plan.root.files():
                self._settle_file(plan, file)

    # -- the step -----------------------------------------------------------------------------------------------------

    def move(self, commit: str | None, root_tree: str | None, plan: Plan | None) -> list[Invalidation]:
        """Does it, without waiting."""
        tree = self._tree
        with tree.overlay.transaction():
            self._placed = self._find_placed()
            if plan is not None:
                self._settle_dir(plan, plan.root, root_tree)
            self._follow(tree.root, root_tree)
            tree.base_commit, tree.merge_base = commit, None
            if plan is not None:
                tree.root_attributes = plan.root.attributes
            if plan is not None and not tree.root.delta and tree.root.generation == plan.root.generation:
                tree.root.changed = False
            tree.overlay.drop_nodes(self._drop)
            if tree.root.changed:
                row = tree.row()
                tree.overlay.put_branch(
                    replace(row, attempt=None if plan is not None else row.attempt, merge_base=None)
                )
                tree.save(tree.root)
            else:
                tree.overlay.drop_branch(tree.branch_id)
        return self._invalid

    def _find_placed(self) -> set[int]:
        """Inode numbers of changed directories that stand where their base stood."""
        placed = {self._tree.root.ino}
        for node in self._tree.changed_nodes():
            if not node.is_directory or node.base is None:
                continue
            for name, child in node.delta.items():
                entry = node.base.get(name)
                if child is not None and child.is_directory and entry is not None and entry.tree == child.base_tree:
                    placed.add(child.ino)
        return placed

    def _settle_dir(self, plan: Plan, planned: PlannedDir, oid: str | None) -> None:
        node = planned.node
        entries = self._entries(oid)
        if entries is None:
            return
        for name, below in planned.entries.items():
            entry = entries.get(name)
            if below is not None and entry is not None:
                self._keep_removed(node, name)
            if below is None:
                # What others added to a directory that was removed here is still there, and shows.
                if name in node.delta and node.delta[name] is None:
                    del node.delta[name]
                    self._tree.overlay.drop_entry(node.ino, name)
                    if entry is not None:
                        self._invalid.append(Invalidation(node.ino, name))
            elif isinstance(below, PlannedFile):
                self._settle_file(plan, below)
                self._make_clean(plan, node, name, below.node, below.generation, entry)
            else:
                self._settle_dir(plan, below, entry.tree if entry is not None else None)
                if not below.node.delta:
                    self._make_clean(plan, node, name, below.node, below.generation, entry)
        self._follow(node, oid)

    def _keep_removed(self, node: Node, name: bytes) -> None:
        """A name that was new in the plan and is gone since needs a row now that the base has it."""
        if name not in node.delta and node.changed and not self._give_up:
            node.delta[name] = None
            self._tree.overlay.put_entry(node.ino, name, None)

    def _settle_file(self, plan: Plan, planned: PlannedFile) -> None:
        """Puts the stored content under what was written since, once a file."""
        node, frozen = planned.node, planned.frozen
        content = planned.content
        if content is None or (frozen is None and node.content == content):
            return
        if frozen is not None:
            planned.frozen = None
            self._settle_staged(node, frozen, content)
        node.content = content
        node.target = None
        self._tree.save(node)
        if frozen is not None:
            frozen.release()

    def _settle_staged(self, node: Node, frozen: FrozenFile, content: Content) -> None:
        staged = node.staged
        if staged is None:
            return
        if not staged.unchanged_since(frozen):
            staged.settle(frozen, self._tree.model.source(content))
            return
        staged.destroy()
        node.staged = None

    def _make_clean(
        self, plan: Plan, directory: Node, name: bytes, child: Node, generation: int, entry: TreeEntry | None
    ) -> None:
        """Makes a settled child clean where nothing overtook it and all its names are in the version."""
        if directory.delta.get(name) is not child:
            return
        if child.changed:
            if child.generation != generation or plan.names[child.ino] < len(child.parents) or child.staged is not None:
                return
            if entry is not None and not self._give_up and entry.tree is None and child.is_directory:
                return
            child.changed = False
            child.arrived = False
            self._drop.append(child.ino)
        del directory.delta[name]
        directory.loaded[name] = child
        self._tree.overlay.drop_entry(directory.ino, name)
        if child.link is not None:
            child.tree.links[child.link] = child

    def _follow(self, node: Node, oid: str | None) -> None:
        """Moves a directory's clean names to what a tree says."""
        entries = self._entries(oid)
        if entries is None:
            return
        for name, child in list(node.loaded.items()):
            self._follow_clean(node, name, child, entries.get(name))
        for name, changed in node.delta.items():
            entry = entries.get(name)
            if changed is None or entry is None or entry.tree is None or changed.ino not in self._placed:
                continue
            if changed.base_tree != entry.tree:
                self._follow(changed, entry.tree)
        if node.base_tree != oid or node.base is not entries:
            node.base_tree, node.base = oid, entries
            self._tree.save(node)

    def _follow_clean(self, node: Node, name: bytes, child: Node, entry: TreeEntry | None) -> None:
        if entry is not None and child.is_directory and entry.tree is not None:
            child.apply_attributes(entry.attributes)
            if child.base_tree != entry.tree:
                if child.base is not None or child.loaded:
                    self._follow(child, entry.tree)
                else:
                    child.base_tree = entry.tree
            return
        if entry is not None and child.matches(entry):
            return
        if (
            entry is not None
            and child.content == entry.content
            and child.link is None
            and entry.attributes.link is None
        ):
            child.apply_attributes(entry.attributes)
            self._invalid.append(Invalidation(node.ino, name))
            return
        del node.loaded[name]
        child.parents = [place for place in child.parents if place != (node, name)]
        if not child.parents:
            child.nlink = 0
            child.replaced = True
            if child.link is not None and self._tree.links.get(child.link) is child:
                del self._tree.links[child.link]
        self._invalid.append(Invalidation(node.ino, name))


def _differ(before: TreeEntry | None, now: TreeEntry | None, here: Node | None) -> bool:
    """Whether an entry changed, its time aside; not if it is gone here and there."""
    if before is None or now is None:
        return before is not now and not (now is None and here is None)
    return replace(before, attributes=replace(before.attributes, mtime_ns=0)) != replace(
        now, attributes=replace(now.attributes, mtime_ns=0)
    )
