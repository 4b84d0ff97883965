"""One branch as this mount sees it: the nodes of its working tree, and how changes of them become durable rows.

Why: a mount and a branch must cost nothing per file, so unchanged names come from the base commit's trees when they are
looked up, and only what differs is kept (in memory, and in the overlay so that `kill -9` loses nothing).

Invariants: see `mvcfs.vfs.working_tree.node`. Changes of the tree happen in functions without an await; whatever has to be loaded
is loaded before (`load`, `find_all_names`). So freezing the tree for a commit sees no half-done operation.

Threading: trio thread only.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from mvcfs.content.staging import Staging
from mvcfs.errors import NotADirectory, NotFound, ReadOnly, Stale
from mvcfs.types import Attributes, Caller, TreeEntry
from mvcfs.vfs.working_tree.ignore import IgnoreRules
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.overlay import BranchRow, Overlay

if TYPE_CHECKING:
    from mvcfs.vfs.sources import ModelData
    from mvcfs.vfs.working_tree.data import NodeData
    from mvcfs.vfs.working_tree.namespace import Namespace
    from mvcfs.vfs.working_tree.shared_changes import Change

log = logging.getLogger(__name__)


class Activity(Protocol):
    """Who is told what happens in a working tree, to decide when it becomes a version."""

    def changed(self, path: bytes, *, is_dir: bool, removal: bool = False) -> None:
        """A versioned name or attribute changed, or a changed file was closed."""
        ...

    def finished(self, path: bytes) -> None:
        """A rename took a name out of the ignored ones."""
        ...

    def wrote(self, caller: Caller) -> None:
        """Who changed something last."""
        ...


class Sharing(Protocol):
    """What makes a working tree one that several hosts work in at once; see `mvcfs.vfs.working_tree.shared`."""

    async def fresh(self) -> None:
        """Returns once the tree shows all that other hosts had published when this was called. StorageError."""
        ...

    async def publish(self, change: Change) -> object:
        """Returns once other hosts can see a change that was made here; AlreadyExists, NotFound, StorageError."""
        ...

    def publish_soon(self) -> None:
        """Publishes what is changed in a while; nobody waits for it."""
        ...


class WorkingTree:
    """A branch's working tree."""

    def __init__(
        self,
        data: ModelData,
        overlay: Overlay,
        staging: Staging,
        activity: Activity,
        *,
        branch_id: str,
        branch_name: str,
        base_commit: str | None,
        base_tree: str | None,
        timeout_s: float,
        read_only: bool = False,
    ) -> None:
        """Makes the working tree of a branch at a commit; `mvcfs.vfs.working_tree.replay` puts the overlay's changes back.

        Args:
            data: The model's stored content and trees.
            overlay: Where changed nodes are kept.
            staging: Where their bytes are kept.
            activity: Who is told of changes.
            branch_id: Id of the branch.
            branch_name: Its name, for messages.
            base_commit: Commit that clean nodes come from; None for a branch without one.
            base_tree: That commit's tree.
            timeout_s: How long the kernel may keep names and attributes.
            read_only: Whether it takes no changes.
        """
        from mvcfs.vfs.working_tree.data import NodeData
        from mvcfs.vfs.working_tree.namespace import Namespace

        self.model = data
        self.overlay = overlay
        self.staging = staging
        self.activity = activity
        self.branch_id = branch_id
        self.branch_name = branch_name
        self.base_commit = base_commit
        self.merge_base: str | None = None
        self.collision: str | None = None
        self.on_fsync: Callable[[Node], Awaitable[None]] | None = None
        self.timeout_s = timeout_s
        self.read_only = read_only
        self.rules = IgnoreRules.defaults()
        self.sharing: Sharing | None = None
        self.links: dict[str, Node] = {}
        self.deleted = False
        self.closing = False
        self.protected = False
        self.root_attributes: Attributes | None = None
        self.namespace: Namespace = Namespace(self)
        self.data: NodeData = NodeData(self)
        now = time.time_ns()
        self.root = Node(self, overlay.allocate_ino(), stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
        self.root.base_tree = base_tree
        self.root.atime_ns = self.root.mtime_ns = self.root.ctime_ns = now

    # -- where things are ------------------------------------------------------------------------------------------

    def path_of(self, node: Node) -> bytes:
        """A path of a node inside the branch; `b""` for the root or a node without a name."""
        parts: list[bytes] = []
        while node.parents:
            node, name = node.parents[0]
            parts.append(name)
        return b"/".join(reversed(parts))

    def join(self, directory: Node, name: bytes) -> bytes:
        """Path of a name in a directory."""
        path = self.path_of(directory)
        return path + b"/" + name if path else name

    def describe(self, node: Node) -> str:
        """Where a node is, for messages."""
        path = os.fsdecode(self.path_of(node))
        return f"{self.model.name}/{self.branch_name}" + (f"/{path}" if path else "")

    def is_ignored(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether a path stays out of versions."""
        return self.rules.is_ignored(path, is_dir=is_dir)

    def is_left_out(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether publishes of this tree leave a path out. Those of a shared one take everything."""
        return self.sharing is None and self.is_ignored(path, is_dir=is_dir)

    def changed_nodes(self) -> Iterable[Node]:
        """All changed nodes that have a name, directories before what is in them; a hard-linked file once a name."""
        if not self.root.changed:
            return
        stack = [self.root]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(child for child in node.delta.values() if child is not None)

    # -- loading ---------------------------------------------------------------------------------------------------

    async def load(self, directory: Node) -> dict[bytes, TreeEntry]:
        """Makes sure that a directory's base names are in memory; NotADirectory for what is none."""
        if not directory.is_directory:
            raise NotADirectory(f"{directory.describe()} is not a directory")
        if directory.base is None:
            tree = directory.base_tree
            entries = {} if tree is None else await self.model.entries(tree, self.base_commit)
            if directory.base is None and directory.base_tree == tree:
                directory.base = entries
            if directory.base is None:
                return await self.load(directory)
        return directory.base

    def loaded_child(self, directory: Node, name: bytes) -> Node | None:
        """The node of a name in a loaded directory, None if there is none. Makes clean nodes as they are asked for."""
        if name in directory.delta:
            return directory.delta[name]
        node = directory.loaded.get(name)
        if node is not None:
            return node
        assert directory.base is not None
        entry = directory.base.get(name)
        if entry is None:
            return None
        link = entry.attributes.link
        node = self.links.get(link) if link is not None else None
        if node is not None and node.content != entry.content:
            # After a merge the names of a group may differ in content: then they are files of their own.
            entry = replace(entry, attributes=replace(entry.attributes, link=None, nlink=1))
            node = None
        if node is None:
            node = Node.from_entry(self, self.overlay.allocate_ino(), entry)
            if node.link is not None:
                self.links[node.link] = node
        node.parents.append((directory, name))
        directory.loaded[name] = node
        return node

    async def find_all_names(self, node: Node) -> None:
        """Loads every name of a clean hard-linked file, so that a change of it shows under all of them."""
        if node.changed or node.is_directory or node.link is None or len(node.parents) >= node.nlink:
            return
        stack = [self.root]
        while stack and len(node.parents) < node.nlink:
            directory = stack.pop()
            base = await self.load(directory)
            for name, entry in list(base.items()):
                if name in directory.delta:
                    continue
                if entry.attributes.link == node.link or entry.tree is not None:
                    self.loaded_child(directory, name)
            stack.extend(child for child in directory.loaded.values() if child.is_directory)
            stack.extend(child for child in directory.delta.values() if child is not None and child.is_directory)

    async def has_links(self, directory: Node) -> bool:
        """Whether a file with several names is anywhere below a directory."""
        stack, stored = [directory], list[str]()
        while stack:
            node = stack.pop()
            if not node.is_directory:
                if node.nlink > 1:
                    return True
                continue
            stack.extend(child for child in (*node.delta.values(), *node.loaded.values()) if child is not None)
            if node.base_tree is not None:
                stored.append(node.base_tree)
        seen = set(stored)
        while stored:
            for entry in (await self.model.entries(stored.pop())).values():
                if entry.attributes.nlink > 1:
                    return True
                if entry.tree is not None and entry.tree not in seen:
                    seen.add(entry.tree)
                    stored.append(entry.tree)
        return False

    def node_forgotten(self, node: Node) -> None:
        """Drops clean nodes that nobody holds, upwards as far as that frees directories."""
        while node.is_idle() and node.parents:
            parents, node.parents = node.parents, []
            for parent, name in parents:
                if parent.loaded.get(name) is node:
                    del parent.loaded[name]
            if node.link is not None and self.links.get(node.link) is node:
                del self.links[node.link]
            node = parents[0][0]
        if not node.parents and not node.lookups and not node.handles and node is not self.root:
            self._orphan_gone(node)

    def _orphan_gone(self, node: Node) -> None:
        if node.staged is not None and node.nlink == 0:
            node.staged.destroy()
            node.staged = None

    # -- changing: no await below this line ------------------------------------------------------------------------

    def mark_changed(self, node: Node) -> None:
        """Makes a clean node and the directories above it changed, with their rows. Call inside a transaction."""
        node.generation += 1
        if node.changed:
            return
        node.changed = True
        if node is self.root:
            self.overlay.put_branch(self.row())
        for parent, name in node.parents:
            self.put_name(parent, name, node)
        self.save(node)

    def row(self) -> BranchRow:
        """The row of this working tree as it is now, with what the last one says of publishes."""
        last = self.overlay.branch(self.branch_id)
        attempt, merge_base = (None, None) if last is None else (last.attempt, last.merge_base)
        return BranchRow(self.branch_id, self.model.id, self.base_commit, self.root.ino, attempt, merge_base)

    def put_name(self, directory: Node, name: bytes, node: Node | None) -> None:
        """Makes a directory's name a changed node, or (None) gone where the base has it."""
        self.mark_changed(directory)
        directory.loaded.pop(name, None)
        if node is None and not directory.has_base(name):
            directory.delta.pop(name, None)
            self.overlay.drop_entry(directory.ino, name)
        else:
            directory.delta[name] = node
            self.overlay.put_entry(directory.ino, name, None if node is None else node.ino)

    def save(self, node: Node) -> None:
        """Writes a changed node's row as it is now; nothing for a clean or nameless one."""
        if node.changed and (node.parents or node is self.root):
            self.overlay.put_node(node.row(self.overlay.boot))
            node.saved_at = time.monotonic()
            node.saved_generation = node.generation
            node.saved_state = -1 if node.staged is None else node.staged.state_version

    def rewrite(self) -> None:
        """Writes all rows of this working tree anew."""
        row = self.row()
        self.overlay.drop_branch(self.branch_id)
        if not self.root.changed:
            return
        self.overlay.put_branch(row)
        for node in self.changed_nodes():
            self.save(node)
            for name, child in node.delta.items():
                self.overlay.put_entry(node.ino, name, None if child is None else child.ino)

    def save_if_newer(self, node: Node) -> None:
        """Writes a changed node's row unless the last one says the same."""
        staged = node.staged
        if node.saved_generation != node.generation or (
            staged is not None and staged.state_version != node.saved_state
        ):
            self.save(node)

    def touch(self, directory: Node, now_ns: int) -> None:
        """Sets a directory's times after a change of its names."""
        directory.mtime_ns = directory.ctime_ns = now_ns
        self.mark_changed(directory)
        self.save(directory)

    def check_unprotected(self) -> None:
        """Refuses changes of a protected branch, and all on a read-only mount, whatever the kernel let through."""
        if self.read_only:
            raise ReadOnly(f"{self.model.name}/{self.branch_name} is mounted read-only here")
        if self.protected:
            raise ReadOnly(f"the branch {self.model.name}/{self.branch_name} is protected: only merges change it")

    def check_present(self) -> None:
        """Refuses changes of a branch that is protected or was deleted."""
        self.check_unprotected()
        if self.deleted or self.closing:
            raise NotFound(f"the branch {self.model.name}/{self.branch_name} was deleted")

    def check_writable(self, node: Node) -> None:
        """Refuses changes of a node that no version would ever show."""
        self.check_present()
        if node.replaced:
            raise Stale("another host replaced or removed the file: open it again")
