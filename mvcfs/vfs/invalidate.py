"""How the file system tells the kernel that what it keeps is out of date."""

from __future__ import annotations

from typing import Protocol


class Invalidator(Protocol):
    """The kernel's caches, as far as they can be told. What tells them returns at once and never fails."""

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """A name of a directory stands for another inode now, or for none."""
        ...

    def invalidate_inode(self, ino: int, attr_only: bool) -> None:
        """The attributes of an inode changed, and unless `attr_only` its pages too."""
        ...

    async def settled(self) -> None:
        """Waits until the kernel was told all. Never inside a request of the kernel's."""
        ...
