"""The file system of a mount with `-o shared`: calls return once other mounts see what they did, and look before they answer.

Each operation is that of `FileSystem`, with a look at the log before it or a publish after it. close (`flush`), mkdir, rename,
unlink and whatever else changes names or attributes wait for the publish; writes don't. Every lookup in a working tree
looks at the log, since the kernel keeps no names of it: so an open sees what was closed elsewhere before.
Threading: trio thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mvcfs.errors import NotFound
from mvcfs.types import Caller
from mvcfs.vfs.attr import Attr, Opened, SetAttr
from mvcfs.vfs.filesystem import FileSystem
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.shared_changes import Change

if TYPE_CHECKING:
    from mvcfs.vfs.inode import Inode


class SharedFileSystem(FileSystem):
    """All operations of a store that is mounted with `-o shared`."""

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _look(self, directory: Inode) -> None:
        if isinstance(directory, Node) and directory.tree.sharing is not None:
            await directory.tree.sharing.fresh()

    async def lookup(self, parent: int, name: bytes, caller: Caller) -> Attr:
        """See `FileSystem.lookup`."""
        directory = self.table.get(parent)
        await self._look(directory)
        try:
            return await super().lookup(parent, name, caller)
        except NotFound:
            if isinstance(directory, Node):
                raise
        await directory.look_again()
        return await super().lookup(parent, name, caller)

    async def opendir(self, ino: int, caller: Caller) -> int:
        """See `FileSystem.opendir`."""
        directory = self.table.get(ino)
        await self._look(directory)
        await directory.look_again()
        return await super().opendir(ino, caller)

    # -- changing ----------------------------------------------------------------------------------------------------

    async def _publish(self, place: Inode, change: Change) -> None:
        if isinstance(place, Node) and place.tree.sharing is not None:
            await place.tree.sharing.publish(change)

    async def _made(self, parent: int, name: bytes, attr: Attr) -> Attr:
        """Waits until a new name is seen; one that another host made first is none of ours."""
        directory, node = self.table.get(parent), self.table.get(attr.ino)
        if isinstance(directory, Node) and isinstance(node, Node) and node.is_versioned:
            try:
                await self._publish(directory, Change(made=(directory, name, node)))
            except BaseException:
                self.table.forget(attr.ino, 1)
                raise
        return attr

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attr:
        """See `FileSystem.mkdir`."""
        return await self._made(parent, name, await super().mkdir(parent, name, mode, caller))

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attr:
        """See `FileSystem.mknod`."""
        return await self._made(parent, name, await super().mknod(parent, name, mode, rdev, caller))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attr:
        """See `FileSystem.symlink`."""
        return await self._made(parent, name, await super().symlink(parent, name, target, caller))

    async def link(self, ino: int, new_parent: int, new_name: bytes, caller: Caller) -> Attr:
        """See `FileSystem.link`."""
        return await self._made(new_parent, new_name, await super().link(ino, new_parent, new_name, caller))

    async def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """See `FileSystem.unlink`."""
        directory = self.table.get(parent)
        await super().unlink(parent, name, caller)
        if isinstance(directory, Node):
            await self._publish(directory, Change(taken=(directory, name)))

    async def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """See `FileSystem.rmdir`."""
        directory = self.table.get(parent)
        await super().rmdir(parent, name, caller)
        if isinstance(directory, Node):
            await self._publish(directory, Change(taken=(directory, name)))

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> None:
        """See `FileSystem.rename`."""
        source, target = self.table.get(parent), self.table.get(new_parent)
        if not (isinstance(source, Node) and isinstance(target, Node)):
            await super().rename(parent, name, new_parent, new_name, flags, caller)
            return
        node = await source.child(name)
        await super().rename(parent, name, new_parent, new_name, flags, caller)
        if target.tree is not source.tree:
            await self._publish(target, Change(node=node))
        await self._publish(source, Change(node=node, taken=(source, name), moved_to=(target, new_name)))

    async def setattr(self, ino: int, change: SetAttr, fh: int | None, caller: Caller) -> Attr:
        """See `FileSystem.setattr`; of a file that is being written the close publishes it."""
        attr = await super().setattr(ino, change, fh, caller)
        await self._changed_attributes(ino)
        return attr

    async def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None:
        """See `FileSystem.setxattr`."""
        await super().setxattr(ino, name, value, caller)
        await self._changed_attributes(ino)

    async def removexattr(self, ino: int, name: bytes, caller: Caller) -> None:
        """See `FileSystem.removexattr`."""
        await super().removexattr(ino, name, caller)
        await self._changed_attributes(ino)

    async def _changed_attributes(self, ino: int) -> None:
        inode = self.table.get(ino)
        if isinstance(inode, Node) and inode.changed and not inode.writers:
            await self._publish(inode, Change())

    # -- files -------------------------------------------------------------------------------------------------------

    async def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Opened, Attr]:
        """See `FileSystem.create`; with O_EXCL the name is seen, and ours, when it returns."""
        opened, attr = await super().create(parent, name, mode, flags, caller)
        directory, node = self.table.get(parent), self.table.get(attr.ino)
        if flags & os.O_EXCL and isinstance(directory, Node) and isinstance(node, Node):
            try:
                await self._publish(directory, Change(node=node, made=(directory, name, node)))
            except BaseException:
                await super().release(opened.fh)
                self.table.forget(attr.ino, 1)
                raise
        return opened, attr

    async def flush(self, fh: int) -> None:
        """See `FileSystem.flush`; returns once an open elsewhere sees what was written."""
        await super().flush(fh)
        handle = self._file(fh)
        node = handle.inode
        if handle.wrote and isinstance(node, Node) and node.changed and node.parents:
            node.tree.data.note_written(node, handle.caller)
            await self._publish(node, Change(node=node))

    async def release(self, fh: int) -> None:
        """See `FileSystem.release`; what a mapping wrote after the close is published soon."""
        handle = self._file(fh)
        await super().release(fh)
        node = handle.inode
        if handle.wrote and isinstance(node, Node) and node.changed and node.parents:
            sharing = node.tree.sharing
            if sharing is not None:
                sharing.publish_soon()
