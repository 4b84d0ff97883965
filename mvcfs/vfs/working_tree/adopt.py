"""Moving a working tree to another commit: after its own publish, or when another host published.

What a plan put into the published version becomes clean, unless it was overtaken by a write since; clean nodes follow the
new tree, and what is changed here stays (`mvcfs.vfs.working_tree.follow`). All trees that are needed are read first; then everything
moves in one step without waiting, and in one overlay transaction, so that a hard kill finds the tree at the old commit or
at the new one.

Threading: trio thread only.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace

from mvcfs.content.staging import FrozenFile
from mvcfs.types import Attributes, Content, TreeEntry
from mvcfs.vfs.working_tree.collision import CollisionSearch
from mvcfs.vfs.working_tree.follow import Entries, Follower, Invalidation
from mvcfs.vfs.working_tree.freeze import Plan, PlannedDir, PlannedFile
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.worktree import WorkingTree


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a move.

    Attributes:
        invalid: What the kernel must forget.
        collision: A path that is changed here and was changed in the commit as well, so that the tree stayed; else None.
    """

    invalid: list[Invalidation]
    collision: str | None = None


async def adopt(
    tree: WorkingTree,
    commit: str | None,
    root_tree: str | None,
    plan: Plan | None,
    *,
    give_up: bool = False,
    renamed: Collection[bytes] = (),
) -> Adopted:
    """Moves a working tree to a commit, unless that would hide that both changed the same.

    What was changed here beside the plan (held back, or since) and elsewhere too has to meet in a merge, so the tree stays
    where it is then: the next version is merged from there. What of the plan is not in the commit was moved or removed by
    others, and goes from here.

    Args:
        tree: The working tree.
        commit: The commit to stand on.
        root_tree: Its tree.
        plan: What of this working tree is in the commit; its frozen data is settled. None: another host made it.
        give_up: The plan is stored elsewhere (on a conflict branch): what it holds is given up here for what the commit has.
        renamed: Paths of directories that have other names in the commit; what was made under these here stays for a merge.
    """
    attributes = None if root_tree is None else await tree.model.repository.root_attributes(root_tree)
    trees: dict[str, Entries] = {}
    while True:
        await _load_bases(tree)
        mover = _Mover(tree, Follower(tree, trees), give_up=give_up)
        missing = mover.missing(root_tree, plan)
        if not missing:
            collision = mover.collision(root_tree, plan, renamed)
            if collision is None:
                return Adopted(mover.move(commit, root_tree, attributes, plan))
            if plan is not None:
                mover.settle_files(plan)
            return Adopted([], os.fsdecode(collision))
        for oid in missing:
            trees[oid] = await tree.model.entries(oid, commit)


async def _load_bases(tree: WorkingTree) -> None:
    """Loads the base of every changed directory, so that one that stands in its place can be told."""
    for node in list(tree.changed_nodes()):
        if node.is_directory:
            await tree.load(node)


class _Mover:
    def __init__(self, tree: WorkingTree, follower: Follower, *, give_up: bool) -> None:
        self._tree = tree
        self._follower = follower
        self._give_up = give_up

    # -- what has to be read, and what must not be moved over ----------------------------------------------------------

    def missing(self, root_tree: str | None, plan: Plan | None) -> list[str]:
        """Trees that are needed and not read yet."""
        wanted: list[str] = []
        if plan is not None:
            self._missing_planned(plan.root, root_tree, wanted)
        self._follower.missing(self._tree.root, root_tree, wanted)
        return list(dict.fromkeys(wanted))

    def _missing_planned(self, planned: PlannedDir, oid: str | None, wanted: list[str]) -> None:
        entries = self._follower.entries(oid)
        if entries is None:
            assert oid is not None
            wanted.append(oid)
            return
        for name, below in planned.entries.items():
            if isinstance(below, PlannedDir):
                entry = entries.get(name)
                if entry is not None and entry.tree is not None:
                    self._missing_planned(below, entry.tree, wanted)

    def collision(self, root_tree: str | None, plan: Plan | None, renamed: Collection[bytes]) -> bytes | None:
        """A path that is changed here beside the plan, and is another one in the commit than in the base.

        In a shared tree the later close stands: what is changed here moves along and is published over the commit's.
        """
        placed = self._follower.find_placed()
        if self._tree.sharing is not None:
            return None
        search = CollisionSearch(self._tree, self._follower.entries, placed, self._give_up, renamed)
        return search.find(self._tree.root, None if plan is None else plan.root, root_tree)

    def settle_files(self, plan: Plan) -> None:
        """Puts stored content under the plan's files and leaves everything else as it is."""
        with self._tree.overlay.transaction():
            for file in plan.root.files():
                self._settle_file(file)

    # -- the step -----------------------------------------------------------------------------------------------------

    def move(
        self, commit: str | None, root_tree: str | None, attributes: Attributes | None, plan: Plan | None
    ) -> list[Invalidation]:
        """Does it, without waiting. `attributes` are the new root's, None where its tree doesn't say."""
        tree, follower = self._tree, self._follower
        with tree.overlay.transaction():
            if plan is not None:
                self._settle_dir(plan, plan.root, root_tree)
            follower.follow(tree.root, root_tree)
            tree.base_commit, tree.merge_base = commit, None
            if plan is not None and not tree.root.delta and tree.root.generation == plan.root.generation:
                tree.root.changed = False
            self._move_root(attributes, tree.root_attributes if plan is None else plan.root.attributes)
            tree.overlay.drop_nodes(follower.dropped)
            if tree.root.changed:
                row = tree.row()
                tree.overlay.put_branch(
                    replace(row, attempt=None if plan is not None else row.attempt, merge_base=None)
                )
                tree.save(tree.root)
            else:
                tree.overlay.drop_branch(tree.branch_id)
        return follower.invalid

    def _move_root(self, there: Attributes | None, before: Attributes | None) -> None:
        """Gives the root the attributes of the new commit, merged with what was changed of them here."""
        tree = self._tree
        if there is None:
            tree.root_attributes = before
            return
        if tree.root.changed:
            self._follower.carry(tree.root, before, there)
        elif tree.root.as_attributes() != there:
            tree.root.apply_attributes(there)
            self._follower.invalid.append(Invalidation(tree.root.ino, None))
        tree.root_attributes = there

    def _settle_dir(self, plan: Plan, planned: PlannedDir, oid: str | None) -> None:
        node = planned.node
        entries = self._follower.entries(oid)
        if entries is None:
            return
        for name, below in planned.entries.items():
            entry = entries.get(name)
            if below is not None and entry is not None and not below.node.replaced:
                self._keep_removed(node, name)
            if below is None:
                # What others added to a directory that was removed here is still there, and shows.
                if name in node.delta and node.delta[name] is None:
                    del node.delta[name]
                    self._tree.overlay.drop_entry(node.ino, name)
                    if entry is not None:
                        self._follower.invalid.append(Invalidation(node.ino, name))
                continue
            if isinstance(below, PlannedFile):
                self._settle_file(below)
                self._make_clean(plan, node, name, below.node, below.generation, entry)
            else:
                self._settle_dir(plan, below, entry.tree if entry is not None else None)
                if entry is None and not self._give_up:
                    self._follower.drop_if_empty(node, name, below.node)
                elif not below.node.delta:
                    self._make_clean(plan, node, name, below.node, below.generation, entry)
            self._carry_overtaken(node, name, below, entry)
        self._follower.follow(node, oid)

    def _carry_overtaken(
        self, node: Node, name: bytes, below: PlannedFile | PlannedDir, entry: TreeEntry | None
    ) -> None:
        """What was changed since the plan counts from the plan; others' attributes that the version has as well stay."""
        if entry is None or self._give_up or node.delta.get(name) is not below.node:
            return
        if (entry.tree is not None) == below.node.is_directory:
            self._follower.carry(below.node, below.attributes, entry.attributes)

    def _keep_removed(self, node: Node, name: bytes) -> None:
        """A name that was new in the plan and is gone since needs a row now that the base has it."""
        if name not in node.delta and node.changed and not self._give_up:
            node.delta[name] = None
            self._tree.overlay.put_entry(node.ino, name, None)

    def _settle_file(self, planned: PlannedFile) -> None:
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
        """Makes a settled child clean where nothing overtook it and all its names are in the version.

        Where the version doesn't have it the merge has decided so (it is gone elsewhere, or is stored on a conflict
        branch): what is clean then goes as others' changes say.
        """
        if directory.delta.get(name) is not child:
            return
        if child.changed:
            if child.generation != generation or plan.names[child.ino] < len(child.parents) or child.staged is not None:
                return
            if entry is not None and not self._give_up and entry.tree is None and child.is_directory:
                return
            child.changed = False
            child.arrived = False
            self._follower.dropped.append(child.ino)
        del directory.delta[name]
        directory.loaded[name] = child
        self._tree.overlay.drop_entry(directory.ino, name)
        if child.link is not None:
            child.tree.links[child.link] = child
