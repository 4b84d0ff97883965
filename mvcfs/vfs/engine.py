"""A store in use with what shows it: the file system of a mount, and the commands.

The daemon has one engine; a command on a store that is not mounted makes one without an overlay. Both answer the same
commands. Threading: trio thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from mvcfs.vfs.commands import Command, command_table
from mvcfs.vfs.filesystem import FileSystem
from mvcfs.vfs.inode import ROOT_INO, Inode
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.shared_filesystem import SharedFileSystem
from mvcfs.vfs.shown import ShownAttributes
from mvcfs.vfs.toplevel import LevelDir, RootDir


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
        return make(self._root(), self, shown)

    def _root(self) -> Inode:
        part = self.part
        if part.snapshot is not None:
            return part.snapshot
        if part.branch is not None:
            return part.branch.tree.root
        return RootDir(self) if part.model is None else LevelDir(self, part.model, "", ROOT_INO)
