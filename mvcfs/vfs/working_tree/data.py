"""The bytes and attributes of a working tree's files: read, write, truncate, fsync, chmod, utimens, xattrs.

A clean file's bytes come from the store; the first write gives it a staging file over them. A write's bytes are in the
staging file when the call returns; the row is saved when the file's layers change, and about once a second for the time
of modification, so a hard kill may set that time back by a second but loses no byte. Threading: trio thread.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mvcfs.content.staging import StagedFile
from mvcfs.errors import InvalidArgument, IsADirectory, LimitExceeded, NotFound, NotSupported
from mvcfs.types import Caller
from mvcfs.vfs.attr import SetAttr
from mvcfs.vfs.sources import ContentSource
from mvcfs.vfs.working_tree.node import Node

if TYPE_CHECKING:
    from mvcfs.vfs.working_tree.worktree import WorkingTree

# A running writer's time of modification reaches its row this often.
_SAVE_TIMES_S = 1.0
XATTR_NAME_MAX = 255
XATTR_VALUE_MAX = 65536
# All xattrs of a file are one field of a directory's attribute rows.
XATTR_TOTAL_MAX = 256 * 1024


class NodeData:
    """The data operations of one working tree."""

    def __init__(self, tree: WorkingTree) -> None:
        self._tree = tree

    async def read_small(self, node: Node) -> bytes:
        """All bytes of a node that is small (a symlink's target, a rule file)."""
        if node.staged is not None:
            return bytes(await node.staged.read(0, node.staged.size_bytes))
        if node.content is None:
            return b""
        return await self._tree.model.source(node.content).read(0, node.content.size_bytes)

    async def read(self, node: Node, offset: int, length: int, source: ContentSource | None) -> bytes | memoryview:
        """A range of a file, cut at its end.

        Args:
            node: The file.
            offset: First byte.
            length: Number of bytes.
            source: The handle's reader of the content that was stored when it was opened.
        """
        if node.staged is not None:
            return await node.staged.read(offset, length)
        if node.content is None:
            return b""
        if source is None or source.content != node.content:
            source = self._tree.model.source(node.content)
        return await source.read_view(offset, length)

    async def stage(self, node: Node) -> None:
        """Gives a regular file a staging file over its stored content."""
        tree = self._tree
        await tree.find_all_names(node)
        tree.check_writable(node)
        if node.staged is not None:
            return
        base = None
        if node.content is not None and node.content.size_bytes:
            base = tree.model.source(node.content)
        node.staged = tree.staging.create(base)
        if not node.parents:
            return
        with tree.overlay.transaction():
            tree.mark_changed(node)
            tree.save(node)

    async def write(self, node: Node, offset: int, data: bytes) -> None:
        """Writes `data` at `offset`; the file grows as needed."""
        await self._change(node, lambda staged: staged.write(offset, data))
        self._modified(node)

    async def _change(self, node: Node, change: Callable[[StagedFile], Awaitable[None]]) -> None:
        """Changes a file's staged bytes; again where a version took them away while the change waited."""
        while True:
            self._tree.check_unprotected()
            if node.staged is None:
                await self.stage(node)
            staged = node.staged
            assert staged is not None
            try:
                await change(staged)
            except NotFound:
                if node.staged is staged:
                    raise
            if node.staged is staged:
                return

    def _modified(self, node: Node) -> None:
        node.mtime_ns = node.ctime_ns = time.time_ns()
        node.generation += 1
        staged = node.staged
        if staged is None:
            return
        if staged.state_version != node.saved_state or time.monotonic() - node.saved_at > _SAVE_TIMES_S:
            self._tree.save(node)

    async def truncate(self, node: Node, size: int) -> None:
        """Cuts or extends a file; what was cut never comes back."""
        if node.is_directory:
            raise IsADirectory(f"{node.describe()} is a directory")
        if not node.is_regular:
            raise InvalidArgument(f"{node.describe()} has no length")
        await self._change(node, lambda staged: staged.truncate(size))
        self._modified(node)
        self._tree.save(node)

    async def set_attr(self, node: Node, change: SetAttr, caller: Caller) -> None:
        """Changes attributes; see `SetAttr`."""
        tree = self._tree
        if change.size is not None:
            await self.truncate(node, change.size)
        await tree.find_all_names(node)
        tree.check_writable(node)
        if change.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(change.mode)
        if change.uid is not None:
            node.uid = change.uid
        if change.gid is not None:
            node.gid = change.gid
        if change.atime_ns is not None:
            node.atime_ns = change.atime_ns
        if change.mtime_ns is not None:
            node.mtime_ns = change.mtime_ns
        node.ctime_ns = time.time_ns()
        if node.parents or node is tree.root:
            with tree.overlay.transaction():
                tree.mark_changed(node)
                tree.save(node)
        self.note_change(node, caller)

    def note_change(self, node: Node, caller: Caller) -> None:
        """Tells of a change of a node that is not being written."""
        tree = self._tree
        if node.writers or not (node.parents or node is tree.root):
            return
        path = tree.path_of(node)
        if node.changed and not tree.is_ignored(path, is_dir=node.is_directory):
            node.quiet_since = time.monotonic()
            tree.activity.wrote(caller)
            tree.activity.changed(path, is_dir=node.is_directory)

    def note_written(self, node: Node, caller: Caller) -> None:
        """Tells that a file's bytes are complete as far as their writer is concerned, be it open elsewhere."""
        tree, path = self._tree, self._tree.path_of(node)
        if not tree.is_ignored(path, is_dir=False):
            node.quiet_since = time.monotonic()
            tree.activity.wrote(caller)
            tree.activity.changed(path, is_dir=False)

    async def sync_data(self, node: Node) -> None:
        """Makes a file's bytes and the row that speaks of them durable, names not."""
        if node.staged is not None:
            await node.staged.fsync()
            self._tree.save(node)

    async def fsync(self, node: Node) -> None:
        """Makes a file, or a directory's names, durable on this host, and published where the mount promises that."""
        await self.sync_data(node)
        self._tree.save(node)
        await self._tree.overlay.sync()
        if self._tree.on_fsync is not None:
            await self._tree.on_fsync(node)

    async def set_xattr(self, node: Node, name: bytes, value: bytes | None) -> None:
        """Sets or removes a user extended attribute."""
        tree = self._tree
        await tree.find_all_names(node)
        tree.check_writable(node)
        if not name.startswith(b"user."):
            raise NotSupported(f"{name!r}: only user.* attributes are kept")
        kept = {key: old for key, old in node.user_xattrs if key != name}
        if value is not None:
            if len(name) > XATTR_NAME_MAX or len(value) > XATTR_VALUE_MAX:
                raise LimitExceeded(
                    f"the attribute {name!r} of {node.describe()} is longer than {XATTR_VALUE_MAX} bytes"
                )
            kept[name] = value
        if sum(len(key) + len(old) for key, old in kept.items()) > XATTR_TOTAL_MAX:
            raise LimitExceeded(f"the attributes of {node.describe()} are longer than {XATTR_TOTAL_MAX} bytes in all")
        node.user_xattrs = tuple(sorted(kept.items()))
        node.ctime_ns = time.time_ns()
        if node.parents or node is tree.root:
            with tree.overlay.transaction():
                tree.mark_changed(node)
                tree.save(node)
        self.note_change(node, Caller(node.uid, node.gid))
