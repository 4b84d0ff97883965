"""Names in a working tree: lookup, create, remove, rename, link, with POSIX's rules.

Every operation first loads what it needs (it may wait), then checks and changes without waiting, in one overlay
transaction: so no other request sees it half done, and after `kill -9` it happened or it did not. Threading: trio thread.
"""

from __future__ import annotations

import logging
import secrets
import stat
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvcfs.errors import (
    AlreadyExists,
    CrossDevice,
    InvalidArgument,
    IsADirectory,
    LimitExceeded,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
)
from mvcfs.types import Caller
from mvcfs.vfs.working_tree.node import Node

if TYPE_CHECKING:
    from mvcfs.vfs.working_tree.worktree import WorkingTree

log = logging.getLogger(__name__)

NAME_MAX = 255
LINK_MAX = 65000
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


def check_name(name: bytes) -> None:
    """Refuses a name that a local disk would refuse for its length."""
    if len(name) > NAME_MAX:
        raise NameTooLong(f"a name of {len(name)} bytes is longer than {NAME_MAX}")


class Namespace:
    """The name operations of one working tree."""

    def __init__(self, tree: WorkingTree) -> None:
        self._tree = tree

    async def find(self, directory: Node, name: bytes) -> Node | None:
        """The node of a name, None if there is none."""
        if not directory.is_directory:
            raise NotADirectory(f"{directory.describe()} is not a directory")
        await self._tree.load(directory)
        return self._tree.loaded_child(directory, name)

    async def child(self, directory: Node, name: bytes) -> Node:
        """The node of a name; NotFound."""
        check_name(name)
        node = await self.find(directory, name)
        if node is None:
            raise NotFound(f"{name!r} is not in {directory.describe()}")
        return node

    async def names(self, directory: Node) -> Sequence[bytes]:
        """All names of a directory."""
        base = await self._tree.load(directory)
        delta = directory.delta
        if not delta:
            return list(base)
        names = [name for name in base if name not in delta]
        names.extend(name for name, node in delta.items() if node is not None)
        return names

    async def make(
        self, directory: Node, name: bytes, mode: int, caller: Caller, *, rdev: int = 0, target: bytes | None = None
    ) -> Node:
        """Makes a file of any kind; AlreadyExists."""
        tree = self._tree
        check_name(name)
        await tree.load(directory)
        self._check_writable_directory(directory)
        if tree.loaded_child(directory, name) is not None:
            raise AlreadyExists(f"{name!r} is in {directory.describe()} already")
        node = self._new_node(directory, mode, caller, rdev=rdev, target=target)
        with tree.overlay.transaction():
            node.parents.append((directory, name))
            tree.mark_changed(node)
            tree.touch(directory, node.ctime_ns)
        path = tree.path_of(node)
        if not node.is_versioned:
            log.warning("%s is no file, directory or symlink: it stays on this host and in no version", node.describe())
        elif not node.is_regular or node.writers == 0:
            self._note(path, node, caller)
        return node

    def _new_node(self, directory: Node, mode: int, caller: Caller, *, rdev: int, target: bytes | None) -> Node:
        tree = self._tree
        gid = caller.gid
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        node = Node(tree, tree.overlay.allocate_ino(), mode, caller.uid, gid)
        node.atime_ns = node.mtime_ns = node.ctime_ns = time.time_ns()
        node.rdev, node.target = rdev, target
        if node.is_directory:
            node.base = {}
        elif node.is_regular:
            node.staged = tree.staging.create()
        node.quiet_since = time.monotonic()
        return node

    def _check_writable_directory(self, directory: Node) -> None:
        self._tree.check_present()
        if directory is not self._tree.root and not directory.parents:
            raise NotFound("the directory was removed")

    def _note(self, path: bytes, node: Node, caller: Caller, *, removal: bool = False) -> None:
        tree = self._tree
        if tree.is_ignored(path, is_dir=node.is_directory):
            return
        tree.activity.wrote(caller)
        tree.activity.changed(path, is_dir=node.is_directory, removal=removal)

    async def unlink(self, directory: Node, name: bytes, caller: Caller) -> None:
        """Removes a name of a file."""
        node = await self.child(directory, name)
        if node.is_directory:
            raise IsADirectory(f"{node.describe()} is a directory")
        await self._tree.find_all_names(node)
        if self._tree.loaded_child(directory, name) is not node:
            return await self.unlink(directory, name, caller)
        self._tree.check_unprotected()
        path = self._tree.join(directory, name)
        with self._tree.overlay.transaction():
            self._drop_name(directory, name, node)
            self._tree.touch(directory, time.time_ns())
        self._note(path, node, caller, removal=True)
        return None

    def _drop_name(self, directory: Node, name: bytes, node: Node) -> None:
        """Takes one name from a node; the last one takes its row, and its data once it is closed."""
        tree = self._tree
        node.parents.remove((directory, name))
        if node.nlink > 1 and not node.is_directory:
            tree.mark_changed(node)
        tree.put_name(directory, name, None)
        node.ctime_ns = time.time_ns()
        node.generation += 1
        node.nlink = 0 if node.is_directory else max(0, node.nlink - 1)
        if node.parents:
            tree.save(node)
            return
        if node.changed:
            tree.overlay.drop_nodes([node.ino])
            node.changed = False
        if node.link is not None and tree.links.get(node.link) is node:
            del tree.links[node.link]
        if not node.lookups and not node.handles:
            node.forgotten()

    async def rmdir(self, directory: Node, name: bytes, caller: Caller) -> None:
        """Removes an empty directory."""
        node = await self.child(directory, name)
        if not node.is_directory:
            raise NotADirectory(f"{node.describe()} is not a directory")
        await self._tree.load(node)
        if self._tree.loaded_child(directory, name) is not node:
            return await self.rmdir(directory, name, caller)
        self._tree.check_unprotected()
        self._check_empty(node)
        path = self._tree.join(directory, name)
        with self._tree.overlay.transaction():
            self._drop_name(directory, name, node)
            self._tree.touch(directory, time.time_ns())
        self._note(path, node, caller, removal=True)
        return None

    def _check_empty(self, directory: Node) -> None:
        assert directory.base is not None
        delta = directory.delta
        if any(node is not None for node in delta.values()) or any(name not in delta for name in directory.base):
            raise NotEmpty(f"{directory.describe()} is not empty")

    async def link(self, node: Node, directory: Node, name: bytes, caller: Caller) -> Node:
        """Gives a file another name."""
        tree = self._tree
        check_name(name)
        if node.is_directory:
            raise NotPermitted(f"{node.describe()} is a directory: it can have one name only")
        if node.nlink >= LINK_MAX:
            raise LimitExceeded(f"{node.describe()} has {node.nlink} names already")
        await tree.load(directory)
        await tree.find_all_names(node)
        self._check_writable_directory(directory)
        if not node.parents:
            raise NotFound("the file has no name any more")
        if tree.loaded_child(directory, name) is not None:
            raise AlreadyExists(f"{name!r} is in {directory.describe()} already")
        if node.link is None:
            node.link = secrets.token_hex(8)
        tree.links[node.link] = node
        with tree.overlay.transaction():
            tree.mark_changed(node)
            node.nlink += 1
            node.ctime_ns = time.time_ns()
            node.parents.append((directory, name))
            tree.put_name(directory, name, node)
            tree.touch(directory, node.ctime_ns)
            tree.save(node)
        self._note(tree.join(directory, name), node, caller)
        return node

    async def rename(
        self, source_dir: Node, source: bytes, target_dir: Node, target: bytes, flags: int, caller: Caller
    ) -> Node | None:
        """Moves a name, also into another branch of the same model.

        Returns:
            The node that the target name stood for before, None if there was none.

        Raises:
            InvalidArgument: A directory would go into itself; unknown flags.
            CrossDevice: Between branches, for a file with several names.
        """
        check_name(target)
        node, old = await self._prepare_rename(source_dir, source, target_dir, target)
        self._check_rename(node, old, target_dir, flags)
        if node is old:
            return old
        source_tree, target_tree = source_dir.tree, target_dir.tree
        source_path = source_tree.join(source_dir, source)
        target_path = target_tree.join(target_dir, target)
        with self._tree.overlay.transaction():
            if flags & RENAME_EXCHANGE:
                assert old is not None
                self._exchange(source_dir, source, node, target_dir, target, old)
            else:
                if old is not None:
                    target_tree.namespace._drop_name(target_dir, target, old)
                self._move(source_dir, source, node, target_dir, target)
            now = time.time_ns()
            source_tree.touch(source_dir, now)
            target_tree.touch(target_dir, now)
        self._note_rename(source_tree, source_path, target_tree, target_path, node, caller)
        return old

    async def _prepare_rename(
        self, source_dir: Node, source: bytes, target_dir: Node, target: bytes
    ) -> tuple[Node, Node | None]:
        source_tree, target_tree = source_dir.tree, target_dir.tree
        while True:
            node = await source_tree.namespace.child(source_dir, source)
            old = await target_tree.namespace.find(target_dir, target)
            for tree, one in ((source_tree, node), (target_tree, old)):
                if one is not None:
                    await tree.find_all_names(one)
                    if one.is_directory:
                        await tree.load(one)
            if source_tree is not target_tree and node.is_directory and await source_tree.has_links(node):
                raise CrossDevice(f"{node.describe()} holds files with several names")
            if old is not None and node.is_regular and node.staged is not None:
                # A program that replaces a file by rename expects old or new after power loss, never an empty file.
                await source_tree.data.sync_data(node)
            if (
                source_tree.loaded_child(source_dir, source) is node
                and target_tree.loaded_child(target_dir, target) is old
            ):
                return node, old

    def _check_rename(self, node: Node, old: Node | None, target_dir: Node, flags: int) -> None:
        node.tree.check_unprotected()
        target_dir.tree.namespace._check_writable_directory(target_dir)
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise InvalidArgument(f"rename flags {flags:#x} are not known")
        if flags & RENAME_EXCHANGE and old is None:
            raise NotFound("the target of an exchange is not there")
        if flags & RENAME_NOREPLACE and old is not None:
            raise AlreadyExists("the target of the rename is there already")
        self._check_not_inside(node, target_dir)
        if node.tree is not target_dir.tree:
            if flags & RENAME_EXCHANGE:
                raise CrossDevice("names of two branches can't be exchanged")
            if not node.is_directory and node.nlink > 1:
                raise CrossDevice(f"{node.describe()} has several names in its branch")
        if old is None or flags & RENAME_EXCHANGE or old is node:
            return
        if old.is_directory and not node.is_directory:
            raise IsADirectory(f"{old.describe()} is a directory")
        if node.is_directory:
            if not old.is_directory:
                raise NotADirectory(f"{old.describe()} is not a directory")
            old.tree.namespace._check_empty(old)

    def _check_not_inside(self, node: Node, target_dir: Node) -> None:
        above: Node | None = target_dir
        while above is not None and node.is_directory:
            if above is node:
                raise InvalidArgument(f"{node.describe()} can't be moved into itself")
            above = above.parents[0][0] if above.parents else None

    def _move(self, source_dir: Node, source: bytes, node: Node, target_dir: Node, target: bytes) -> None:
        source_tree, target_tree = source_dir.tree, target_dir.tree
        source_tree.mark_changed(node)
        node.parents.remove((source_dir, source))
        source_tree.put_name(source_dir, source, None)
        if source_tree is not target_tree:
            self._rehome(node, target_tree)
        node.parents.append((target_dir, target))
        node.arrived = True
        node.ctime_ns = time.time_ns()
        target_tree.put_name(target_dir, target, node)
        target_tree.save(node)

    def _exchange(
        self, source_dir: Node, source: bytes, node: Node, target_dir: Node, target: bytes, old: Node
    ) -> None:
        tree = self._tree
        self._check_not_inside(old, source_dir)
        for one in (node, old):
            tree.mark_changed(one)
        node.parents.remove((source_dir, source))
        old.parents.remove((target_dir, target))
        node.parents.append((target_dir, target))
        old.parents.append((source_dir, source))
        node.ctime_ns = old.ctime_ns = time.time_ns()
        tree.put_name(target_dir, target, node)
        tree.put_name(source_dir, source, old)
        tree.save(node)
        tree.save(old)

    def _rehome(self, node: Node, tree: WorkingTree) -> None:
        """Hands a node and all that is in memory below it to another branch of the model."""
        stack = [node]
        while stack:
            one = stack.pop()
            if one.link is not None and one.tree.links.get(one.link) is one:
                del one.tree.links[one.link]
                tree.links[one.link] = one
            one.tree = tree
            if one.changed and one is not node:
                tree.overlay.put_node(one.row(tree.overlay.boot))
            stack.extend(child for child in one.delta.values() if child is not None)
            stack.extend(one.loaded.values())

    def _note_rename(
        self,
        source_tree: WorkingTree,
        source_path: bytes,
        target_tree: WorkingTree,
        target_path: bytes,
        node: Node,
        caller: Caller,
    ) -> None:
        is_dir = node.is_directory
        was_ignored = source_tree.is_ignored(source_path, is_dir=is_dir)
        if not was_ignored:
            source_tree.activity.wrote(caller)
            source_tree.activity.changed(source_path, is_dir=is_dir, removal=source_tree is not target_tree)
        if target_tree.is_ignored(target_path, is_dir=is_dir):
            return
        target_tree.activity.wrote(caller)
        target_tree.activity.changed(target_path, is_dir=is_dir)
        if was_ignored:
            target_tree.activity.finished(target_path)
