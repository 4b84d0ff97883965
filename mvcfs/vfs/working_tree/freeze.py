"""The instant of a commit: what of a working tree enters a version, frozen so that later writes don't.

`freeze` walks the changed nodes without waiting and returns an immutable plan: per directory the names that differ from its
base tree, per file a frozen view of its bytes. Hashing and uploading then take as long as they take; a write meanwhile
goes to a new staging layer and into the next version.

What an automatic version leaves out: ignored names; files open for writing or not yet quiet (the version keeps what it had
under that name); a directory that a rename brought while a file below it is open. While something that a rename brought is left out,
removals wait too, so that no version lacks a file under its old name and its new one.

Threading: trio thread only.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from mvcfs.content.staging import FrozenFile
from mvcfs.types import Attributes, Content
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.worktree import WorkingTree


@dataclass(slots=True)
class PlannedFile:
    """A file or symlink of a plan.

    Attributes:
        node: The node it was taken from.
        generation: The node's generation at that instant.
        attributes: Its attributes then.
        frozen: Its staged bytes then; None when they are stored already.
        content: Stored content; set once `frozen` is uploaded.
        target: Target of a symlink that is not stored yet.
        data: Bytes of a small file that is not stored yet, once they are read.
    """

    node: Node
    generation: int
    attributes: Attributes
    frozen: FrozenFile | None = None
    content: Content | None = None
    target: bytes | None = None
    data: bytes | None = None

    def stored(self) -> bytes | Content:
        """What a commit is given: bytes that it makes a blob of, or stored content."""
        for found in (self.target, self.data, self.content):
            if found is not None:
                return found
        return b""

    @property
    def size_bytes(self) -> int:
        """Length of the content."""
        if self.frozen is not None:
            return self.frozen.size_bytes
        if self.target is not None:
            return len(self.target)
        return self.content.size_bytes if self.content is not None else 0


@dataclass(slots=True)
class PlannedDir:
    """A directory of a plan.

    Attributes:
        node: The node it was taken from.
        generation: The node's generation at that instant.
        attributes: Its attributes then.
        base_tree: The tree that names not in `entries` come from.
        entries: The names that differ; None removes a name.
        is_new: Whether the directory stands under a name where its base was not.
    """

    node: Node
    generation: int
    attributes: Attributes
    base_tree: str | None
    entries: dict[bytes, PlannedFile | PlannedDir | None] = field(default_factory=dict)
    is_new: bool = False

    def files(self) -> Iterator[PlannedFile]:
        """All files of the plan, depth first."""
        for entry in self.entries.values():
            if isinstance(entry, PlannedFile):
                yield entry
            elif entry is not None:
                yield from entry.files()

    def is_empty(self) -> bool:
        """Whether nothing below this directory differs (its own attributes aside)."""
        return not self.entries


@dataclass(slots=True)
class Plan:
    """All of one commit.

    Attributes:
        root: The branch's root directory.
        base_commit: The commit the plan's unchanged names come from.
        merge_base: The tree that the changes were made on, where it isn't that commit's.
        names: How many names of each node the plan holds, by inode number.
        left_out: Changed files that the version leaves out, ignored ones not counted.
        ignored: Ignored files met.
    """

    root: PlannedDir
    base_commit: str | None
    merge_base: str | None = None
    names: Counter[int] = field(default_factory=Counter)
    left_out: int = 0
    ignored: int = 0

    def only_times(self) -> bool:
        """Whether nothing differs but times of directories, which come from files that no version holds."""
        return _only_times(self.root, self.root.node.tree.root_attributes)

    def release(self) -> None:
        """Lets go of frozen bytes of a plan that will not be settled."""
        for file in self.root.files():
            if file.frozen is not None:
                file.frozen.release()
                file.frozen = None


def _only_times(planned: PlannedDir, base: Attributes | None) -> bool:
    if base is None:
        # A branch without a version, or a directory that is new: it is worth a version if anything is in it.
        return planned.node is planned.node.tree.root and not planned.entries
    if replace(planned.attributes, mtime_ns=0) != replace(base, mtime_ns=0):
        return False
    known = planned.node.base or {}
    for name, entry in planned.entries.items():
        if not isinstance(entry, PlannedDir) or name not in known or known[name].tree != entry.base_tree:
            return False
        if not _only_times(entry, known[name].attributes):
            return False
    return True


def freeze(tree: WorkingTree, *, hold_back: Callable[[Node, bytes], bool]) -> Plan:
    """Takes a working tree as it stands.

    Args:
        tree: The working tree.
        hold_back: Whether a changed file (with its path) is left out; an explicit commit holds nothing back.

    Returns:
        The plan. Whoever gets it settles or releases it.
    """
    return _Freezer(tree, hold_back).run()


def holds_nothing_versioned(tree: WorkingTree) -> bool:
    """Whether all that is changed is files that no version takes, and the times of their directories."""
    if not tree.root.changed:
        return True
    plan = freeze(tree, hold_back=lambda _node, _path: False)
    try:
        return plan.only_times()
    finally:
        plan.release()


def is_unversioned(tree: WorkingTree, node: Node, path: bytes) -> bool:
    """Whether no version takes a changed node: so an ignored one, and a directory that no version has and that holds only such."""
    if not node.is_versioned or tree.is_left_out(path, is_dir=node.is_directory):
        return True
    if not node.is_directory or node.base_tree is not None or not node.delta:
        return False
    return all(
        child is not None and is_unversioned(tree, child, path + b"/" + name) for name, child in node.delta.items()
    )


class _Freezer:
    def __init__(self, tree: WorkingTree, hold_back: Callable[[Node, bytes], bool]) -> None:
        self._tree = tree
        self._hold_back = hold_back
        self._taken: dict[int, PlannedFile] = {}
        self._removals_wait = False

    def run(self) -> Plan:
        root = self._tree.root
        # What a shared tree publishes is seen as it stands: nothing waits for what else a rename brought.
        self._removals_wait = self._tree.sharing is None and self._arrival_held_back(root, b"")
        plan = Plan(self._planned(root), self._tree.base_commit, self._tree.merge_base)
        self._fill(plan, plan.root, b"")
        return plan

    def _planned(self, node: Node) -> PlannedDir:
        return PlannedDir(node, node.generation, node.as_attributes(), node.base_tree)

    def _arrival_held_back(self, directory: Node, prefix: bytes) -> bool:
        """Whether something that a rename brought here is left out, other than by being ignored."""
        for name, child in directory.delta.items():
            path = prefix + name
            if child is None or not child.is_versioned or self._tree.is_left_out(path, is_dir=child.is_directory):
                continue
            if child.is_directory:
                if child.arrived and self._any_held_back(child, path + b"/"):
                    return True
                if self._arrival_held_back(child, path + b"/"):
                    return True
            elif child.arrived and self._hold_back(child, path):
                return True
        return False

    def _any_held_back(self, directory: Node, prefix: bytes) -> bool:
        for name, child in directory.delta.items():
            if child is None or not child.is_versioned:
                continue
            path = prefix + name
            if self._tree.is_left_out(path, is_dir=child.is_directory):
                continue
            if child.is_directory:
                if self._any_held_back(child, path + b"/"):
                    return True
            elif self._hold_back(child, path):
                return True
        return False

    def _fill(self, plan: Plan, planned: PlannedDir, prefix: bytes) -> None:
        directory = planned.node
        for name, child in directory.delta.items():
            path = prefix + name
            if child is None:
                if not self._removals_wait:
                    planned.entries[name] = None
            elif self._tree.is_left_out(path, is_dir=child.is_directory) or not child.is_versioned:
                plan.ignored += 1
                self._ignored_replaces(planned, name)
            elif child.is_directory:
                self._add_directory(plan, planned, name, child, path)
            else:
                self._add_file(plan, planned, name, child, path)

    def _ignored_replaces(self, planned: PlannedDir, name: bytes) -> None:
        """A versioned file whose name an unversioned one took over is gone from the next version."""
        if planned.node.has_base(name) and not self._removals_wait:
            planned.entries[name] = None

    def _add_directory(self, plan: Plan, planned: PlannedDir, name: bytes, child: Node, path: bytes) -> None:
        if self._tree.sharing is None and child.arrived and self._any_held_back(child, path + b"/"):
            plan.left_out += 1
            return
        below = self._planned(child)
        below.is_new = planned.base_tree is None or not planned.node.has_base(name)
        self._fill(plan, below, path + b"/")
        if below.is_new and is_unversioned(self._tree, child, path):
            # That it is there is no change either: another host may have removed it, with all that versions take.
            return
        planned.entries[name] = below
        plan.names[child.ino] += 1

    def _add_file(self, plan: Plan, planned: PlannedDir, name: bytes, child: Node, path: bytes) -> None:
        if self._hold_back(child, path):
            plan.left_out += 1
            return
        taken = self._taken.get(child.ino)
        if taken is None:
            taken = PlannedFile(child, child.generation, child.as_attributes(), content=child.content)
            if child.staged is not None:
                taken.frozen = child.staged.freeze()
                taken.content = None
            if stat.S_ISLNK(child.mode):
                taken.target = child.target
            self._taken[child.ino] = taken
        planned.entries[name] = taken
        plan.names[child.ino] += 1
