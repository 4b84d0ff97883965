"""The `user.mvcfs.*` attributes: what `mvcfs info` says, for programs that read xattrs. Threading: trio thread."""

from __future__ import annotations

from mvcfs.types import BlobContent, Content, LargeContent
from mvcfs.vfs.inode import Inode
from mvcfs.vfs.snapshot import SnapshotDir, SnapshotFile
from mvcfs.vfs.working_tree.node import Node

_PREFIX = "user.mvcfs."


class ShownAttributes:
    """Shows what mvcfs knows of an inode."""

    async def shown_xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """The attributes by name; none for what stands above the branches."""
        values: dict[str, str] = {}
        if isinstance(inode, Node):
            tree = inode.tree
            values = {
                "model": tree.model.name,
                "branch": tree.branch_name,
                "state": "changed" if inode.changed else "clean",
                "commit": tree.base_commit or "",
                "digest": "" if inode.staged is not None else digest(inode.content),
            }
        elif isinstance(inode, SnapshotFile):
            values = {"model": inode.data.name, "state": "snapshot", "digest": digest(inode.content)}
        elif isinstance(inode, SnapshotDir):
            values = {"model": inode.data.name, "state": "snapshot", "commit": inode.commit}
        return {(_PREFIX + key).encode(): value.encode() for key, value in values.items() if value}


def digest(content: Content | None) -> str:
    """The digest that names a stored content, nothing for one that has none yet."""
    if isinstance(content, LargeContent):
        return f"sha256:{content.oid}" if content.oid else ""
    if isinstance(content, BlobContent):
        return f"git:{content.oid}"
    return ""
