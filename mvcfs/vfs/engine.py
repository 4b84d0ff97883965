"""A store in use with what shows it: the file system of a mount, and the commands.

The daemon has one engine; a command on a store that is not mounted makes one without an overlay. Both answer the same
commands. Threading: trio thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from mvcfs.vfs.commands import Command, command_table
from mvcfs.vfs.filesystem import FileSystem
from mvcfs.vfs.inode import InodeTable
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.shared_filesystem import SharedFileSystem
from mvcfs.vfs.shown import ShownAttributes
from mvcfs.vfs.toplevel import RootDir


class Engine(StoreService):
    """A store in use, to be shown. Made by `open`."""

    @property
    def commands(self) -> Mapping[str, Command]:
        """The commands by name."""
        return command_table(self)

    def filesystem(self) -> FileSystem:
        """The file system that a mount shows; one a mount."""
        shown = ShownAttributes() if self.config.xattr else None
        make = SharedFileSystem if self.config.shared else FileSystem
        return make(RootDir(self), InodeTable(self.allocate_ino), self, shown)
