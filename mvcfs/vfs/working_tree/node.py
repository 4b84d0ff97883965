"""A file or directory of a working tree, clean or changed.

A *clean* node is what the branch's base commit says; it was loaded when it was looked up and is dropped when nobody holds
it. A *changed* node differs, its row is in the overlay, and so are the rows of its directories up to the root.

Invariants:
* `changed` nodes stand in `delta` of each directory that names them, clean ones in `loaded`. A name is in at most one.
* `base` (when loaded) are the names of `base_tree`; the directory's names are those of base overlaid by delta.
* A changed directory that stands where its base stood has the `base_tree` that its parent's base says of that name.
* `arrived` says that a rename brought the node where it is since the last version that holds it.
* `replaced` says that another host's version gave the node's last name to another node, or took it away.
* `generation` grows with every change of the node itself, so that whoever froze it can see whether it was overtaken.

Threading: trio thread only.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvcfs.content.staging import StagedFile
from mvcfs.errors import InvalidArgument
from mvcfs.types import Attributes, Caller, Content, TreeEntry
from mvcfs.vfs.attr import Attr, SetAttr
from mvcfs.vfs.inode import Inode
from mvcfs.vfs.working_tree.overlay import NodeRow

if TYPE_CHECKING:
    from mvcfs.vfs.working_tree.worktree import WorkingTree


class Node(Inode):
    """One node. Its operations are those of its working tree; see `mvcfs.vfs.working_tree.worktree`."""

    __slots__ = (
        "arrived", "atime_ns", "base", "base_tree", "changed", "content", "ctime_ns", "delta", "generation", "gid", "link",
        "loaded", "mode", "mtime_ns", "nlink", "parents", "quiet_since", "rdev", "replaced", "saved_at", "saved_generation",
        "saved_state", "staged", "target", "tree", "uid", "user_xattrs", "writers",
    )  # fmt: skip

    def __init__(self, tree: WorkingTree, ino: int, mode: int, uid: int, gid: int) -> None:
        super().__init__(ino)
        self.tree = tree
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = 0
        self.nlink = 1
        self.link: str | None = None
        self.user_xattrs: tuple[tuple[bytes, bytes], ...] = ()
        self.parents: list[tuple[Node, bytes]] = []
        self.content: Content | None = None
        self.staged: StagedFile | None = None
        self.target: bytes | None = None
        self.changed = False
        self.generation = 0
        self.writers = 0
        self.arrived = False
        self.replaced = False
        self.quiet_since = 0.0
        self.saved_at = 0.0
        self.saved_state = -1
        self.saved_generation = -1
        self.base_tree: str | None = None
        self.base: dict[bytes, TreeEntry] | None = None
        self.delta: dict[bytes, Node | None] = {}
        self.loaded: dict[bytes, Node] = {}

    @classmethod
    def from_entry(cls, tree: WorkingTree, ino: int, entry: TreeEntry) -> Node:
        """A clean node of a base entry, not yet placed in its directory."""
        attributes = entry.attributes
        node = cls(tree, ino, attributes.mode, attributes.uid, attributes.gid)
        node.apply_attributes(attributes)
        node.content = entry.content
        node.base_tree = entry.tree
        return node

    def apply_attributes(self, attributes: Attributes) -> None:
        """Takes over what a version says of this node."""
        self.mode, self.uid, self.gid = attributes.mode, attributes.uid, attributes.gid
        self.mtime_ns = attributes.mtime_ns
        self.atime_ns = max(self.atime_ns, attributes.mtime_ns)
        self.ctime_ns = max(self.ctime_ns, attributes.mtime_ns)
        self.nlink, self.link, self.user_xattrs = attributes.nlink, attributes.link, attributes.xattrs

    def as_attributes(self) -> Attributes:
        """What a version holding this node says of it."""
        linked = self.nlink > 1 and not self.is_directory
        return Attributes(
            self.mode, self.uid, self.gid, self.mtime_ns, self.nlink if linked else 1, self.link if linked else None,
            self.user_xattrs,
        )  # fmt: skip

    def matches(self, entry: TreeEntry) -> bool:
        """Whether this clean node is still what a base entry says."""
        if stat.S_IFMT(self.mode) != stat.S_IFMT(entry.attributes.mode):
            return False
        return self.as_attributes() == entry.attributes and self.content == entry.content

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory (cheaper than `is_dir`)."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_versioned(self) -> bool:
        """Whether a version can hold its kind: not so sockets, fifos and devices."""
        return self.is_directory or self.is_regular or stat.S_ISLNK(self.mode)

    @property
    def size_bytes(self) -> int:
        """Length as `stat` shows it."""
        if self.staged is not None:
            return self.staged.size_bytes
        if self.target is not None:
            return len(self.target)
        if self.content is not None:
            return self.content.size_bytes
        return 0

    def attr(self) -> Attr:
        """See `Inode.attr`."""
        nlink = self.nlink
        if self.is_directory:
            nlink = 2 + self._subdirectories()
        timeout = self.tree.timeout_s
        return Attr(
            self.ino, self.mode, nlink, self.uid, self.gid, self.rdev, self.size_bytes,
            self.atime_ns, self.mtime_ns, self.ctime_ns, timeout, timeout,
        )  # fmt: skip

    def _subdirectories(self) -> int:
        base = self.base or {}
        count = sum(1 for child in self.delta.values() if child is not None and child.is_directory)
        if not self.delta:
            return count + sum(1 for entry in base.values() if entry.tree is not None)
        return count + sum(1 for name, entry in base.items() if entry.tree is not None and name not in self.delta)

    def entry_timeout_s(self) -> float | None:
        """See `Inode.entry_timeout_s`: a name of a shared tree may be another host's by now."""
        return None if self.tree.sharing is None else 0.0

    def describe(self) -> str:
        """See `Inode.describe`."""
        return self.tree.describe(self)

    def row(self, boot: str) -> NodeRow:
        """This node as the overlay keeps it."""
        return NodeRow(
            self.ino, self.tree.branch_id, self.mode, self.uid, self.gid, self.rdev, self.atime_ns, self.mtime_ns,
            self.ctime_ns, self.nlink, self.link, self.user_xattrs, self.target, self.content, self.base_tree,
            None if self.staged is None else self.staged.state(), boot,
        )  # fmt: skip

    @classmethod
    def from_row(cls, tree: WorkingTree, row: NodeRow) -> Node:
        """A changed node of an overlay row; staged data is attached by the caller."""
        node = cls(tree, row.ino, row.mode, row.uid, row.gid)
        node.rdev, node.nlink, node.link, node.user_xattrs = row.rdev, row.nlink, row.link, row.xattrs
        node.atime_ns, node.mtime_ns, node.ctime_ns = row.atime_ns, row.mtime_ns, row.ctime_ns
        node.target, node.content, node.base_tree = row.target, row.content, row.tree
        node.changed = True
        return node

    def has_base(self, name: bytes) -> bool:
        """Whether this directory's base knows a name (base must be loaded)."""
        return self.base is not None and name in self.base

    def forgotten(self) -> None:
        """See `Inode.forgotten`: a clean node that nobody holds leaves memory."""
        self.tree.node_forgotten(self)

    def is_idle(self) -> bool:
        """Whether nothing in memory depends on this node."""
        return not (self.changed or self.lookups or self.handles or self.delta or self.loaded)

    async def child(self, name: bytes) -> Node:
        """See `Inode.child`."""
        return await self.tree.namespace.child(self, name)

    async def names(self) -> Sequence[bytes]:
        """See `Inode.names`."""
        return await self.tree.namespace.names(self)

    async def child_of_listing(self, name: bytes) -> Node | None:
        """See `Inode.child_of_listing`."""
        return await self.tree.namespace.find(self, name)

    async def set_attr(self, change: SetAttr, caller: Caller) -> None:
        """See `Inode.set_attr`."""
        await self.tree.data.set_attr(self, change, caller)

    async def mkdir(self, name: bytes, mode: int, caller: Caller) -> Node:
        """See `Inode.mkdir`."""
        return await self.tree.namespace.make(self, name, stat.S_IFDIR | stat.S_IMODE(mode), caller)

    async def mknod(self, name: bytes, mode: int, rdev: int, caller: Caller) -> Node:
        """See `Inode.mknod`."""
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        return await self.tree.namespace.make(self, name, kind | stat.S_IMODE(mode), caller, rdev=rdev)

    async def symlink(self, name: bytes, target: bytes, caller: Caller) -> Node:
        """See `Inode.symlink`."""
        return await self.tree.namespace.make(self, name, stat.S_IFLNK | 0o777, caller, target=target)

    async def unlink(self, name: bytes, caller: Caller) -> None:
        """See `Inode.unlink`."""
        await self.tree.namespace.unlink(self, name, caller)

    async def rmdir(self, name: bytes, caller: Caller) -> None:
        """See `Inode.rmdir`."""
        await self.tree.namespace.rmdir(self, name, caller)

    async def readlink(self) -> bytes:
        """See `Inode.readlink`."""
        if not stat.S_ISLNK(self.mode):
            raise InvalidArgument(f"{self.describe()} is not a symbolic link")
        if self.target is not None:
            return self.target
        return await self.tree.data.read_small(self)

    def xattrs(self) -> Sequence[tuple[bytes, bytes]]:
        """See `Inode.xattrs`."""
        return self.user_xattrs

    async def set_xattr(self, name: bytes, value: bytes | None) -> None:
        """See `Inode.set_xattr`."""
        await self.tree.data.set_xattr(self, name, value)
