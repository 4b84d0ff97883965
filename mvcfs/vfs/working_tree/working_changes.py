"""What a working tree changes against a version: what `git status` and `git diff` tell of a checkout.

Only changed nodes are walked; clean directories are compared as trees, and only where the version isn't the one that the
working tree stands on. Ignored files and what no version can hold count as not there, as in the next version.

Written files have no digest before they are in a version: small ones are hashed here, a large one is shown with an empty
digest. One that was only opened for writing is what it was.

Threading: trio thread. Each directory is looked at in one step, but not all of them in the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import trio

from mvcfs.errors import NotADirectory, NotFound
from mvcfs.types import BlobContent, Content, LargeContent, TreeEntry
from mvcfs.versions.git.format import object_id
from mvcfs.versions.trees.changes import PathChange
from mvcfs.versions.trees.comparing import MAX_LISTED, Changes, Collected
from mvcfs.versions.trees.reader import EMPTY_TREE_OID
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.worktree import WorkingTree

_SMALL_BYTES = 64 * 1024
_TEXTS_BYTES = 4 << 20


@dataclass(slots=True)
class WorkingChanges:
    """Changes against a version.

    Attributes:
        changes: As of two versions.
        texts: Bytes of small files that are in no version, by the id that they would have; None past a bound.
        kept_bytes: Of large files that are in no version, by path: how many bytes are still those of the base.
    """

    changes: Changes = field(default_factory=Changes)
    texts: dict[str, bytes | None] = field(default_factory=dict)
    kept_bytes: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A changed directory, and the tree that the version has there."""

    path: bytes
    before: str | None
    node: Node


async def find_node(tree: WorkingTree, path: bytes) -> Node | None:
    """The node at a path, None where there is nothing that a version could hold."""
    node: Node = tree.root
    done = b""
    for name in filter(None, path.split(b"/")):
        done = done + b"/" + name if done else name
        try:
            node = await tree.namespace.child(node, name)
        except (NotFound, NotADirectory):
            return None
        if not node.is_versioned or tree.is_ignored(done, is_dir=node.is_directory):
            return None
    return node


async def compare_working(tree: WorkingTree, before: TreeEntry | None, path: bytes) -> WorkingChanges | None:
    """The changes from what a version has to what the working tree has at a path; None if neither has anything.

    Raises:
        CorruptData: A tree can't be read.
    """
    node = await find_node(tree, path)
    if before is None and node is None:
        return None
    walk = _Walk(tree)
    if path:
        await walk.take(path, before, node)
    else:
        walk.pairs.append(_Pair(path, None if before is None else before.tree, tree.root))
    return await walk.run()


class _Walk:
    def __init__(self, tree: WorkingTree) -> None:
        self._tree = tree
        self._comparing = tree.model.repository.comparing
        self._collected = Collected()
        self._result = WorkingChanges()
        self._texts_left = _TEXTS_BYTES
        self.pairs: list[_Pair] = []

    async def run(self) -> WorkingChanges:
        while self.pairs:
            pair = self.pairs.pop()
            if pair.node.changed:
                await self._directory(pair)
            else:
                await self._comparing.collect(self._collected, pair.before, pair.node.base_tree, path=pair.path)
        self._result.changes = await self._comparing.paired(self._collected)
        return self._result

    async def _directory(self, pair: _Pair) -> None:
        node = pair.node
        known = await self._tree.load(node)
        base_tree, delta = node.base_tree, dict(node.delta)
        before, base = ({}, {}) if pair.before == base_tree else await self._comparing.differing(pair.before, base_tree)
        attributes, holds_something = node.as_attributes(), False
        for name in before.keys() | base.keys() | delta.keys():
            path = pair.path + b"/" + name if pair.path else name
            # What was left out of the differing names is equal in both trees.
            was = before.get(name) if name in before or name in base else known.get(name)
            if name not in delta:
                holds_something = holds_something or name in base
                await self._clean(path, was, base.get(name))
                continue
            child = delta[name]
            if child is not None and (not child.is_versioned or self._tree.is_ignored(path, is_dir=child.is_directory)):
                child = None
            holds_something = holds_something or child is not None
            await self.take(path, was, child)
        if pair.before is None and pair.path and not holds_something:
            entry = TreeEntry(pair.path.rpartition(b"/")[2], attributes, None, EMPTY_TREE_OID)
            await self._add(pair.path, None, entry)

    async def _clean(self, path: bytes, before: TreeEntry | None, after: TreeEntry | None) -> None:
        """An entry that the working tree has as its base does."""
        if before is not None and after is not None and before.tree is not None and after.tree is not None:
            if before.attributes != after.attributes:
                await self._add(path, before, after)
            await self._comparing.collect(self._collected, before.tree, after.tree, path=path)
        else:
            await self._add(path, before, after)

    async def take(self, path: bytes, before: TreeEntry | None, node: Node | None) -> None:
        """What became of an entry; a changed directory is left for later."""
        # A directory may have very many new files, and other requests wait for this thread.
        await trio.lowlevel.checkpoint()
        if node is None or not node.is_directory:
            await self._add(path, before, None if node is None else await self._file(path, node, before))
            return
        tree = None if before is None else before.tree
        if before is not None and before.tree is None:
            await self._add(path, before, None)
        entry = TreeEntry(path.rpartition(b"/")[2], node.as_attributes(), None, node.base_tree)
        if tree is None and node.base_tree is not None and not node.delta:
            # Whole, as a rename may have brought it.
            await self._add(path, None, entry)
            return
        if before is not None and tree is not None and before.attributes != entry.attributes:
            await self._add(path, before, entry)
        self.pairs.append(_Pair(path, tree, node))

    async def _file(self, path: bytes, node: Node, before: TreeEntry | None) -> TreeEntry:
        return TreeEntry(path.rpartition(b"/")[2], node.as_attributes(), await self._content(path, node, before))

    async def _content(self, path: bytes, node: Node, before: TreeEntry | None) -> Content:
        staged = node.staged
        if staged is None and node.target is None:
            return node.content or BlobContent(object_id("blob", b""), 0)
        if staged is not None:
            kept, size = staged.base_bytes, staged.size_bytes
            if node.content is not None and kept == size == node.content.size_bytes:
                return node.content
            if size >= _SMALL_BYTES:
                if before is not None and before.content == node.content:
                    self._result.kept_bytes[path] = kept
                return LargeContent("", size)
            if before is None and self._collected.size >= MAX_LISTED:
                return LargeContent("", size)
        try:
            data = node.target if node.target is not None else await self._tree.data.read_small(node)
        except NotFound:
            # It was removed since its directory was looked at.
            return LargeContent("", 0)
        oid = object_id("blob", data)
        self._texts_left -= len(data)
        self._result.texts[oid] = data if self._texts_left >= 0 else None
        return BlobContent(oid, len(data))

    async def _add(self, path: bytes, before: TreeEntry | None, after: TreeEntry | None) -> None:
        if before is not None and after is not None:
            if (before.tree is None) != (after.tree is None):
                self._collected.add([PathChange(path, before, None), PathChange(path, None, after)])
                return
            after = await self._without_block(before, after)
        if before != after:
            self._collected.add([PathChange(path, before, after)])

    async def _without_block(self, before: TreeEntry, after: TreeEntry) -> TreeEntry:
        """The entry now, of a `.gitattributes` in which only our block differs with the content it had."""
        was, now = before.content, after.content
        if not isinstance(was, BlobContent) or not isinstance(now, BlobContent) or not (was.stripped or now.stripped):
            return after
        parts = [
            self._result.texts.get(content.oid) or await self._tree.model.read_blob(content) for content in (was, now)
        ]
        return replace(after, content=was) if parts[0] == parts[1] else after
