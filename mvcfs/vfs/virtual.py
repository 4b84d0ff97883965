"""Directories that are in no version: they show what the store holds. Threading: trio thread."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mvcfs.config import EngineConfig
from mvcfs.errors import MvcfsError, NotFound
from mvcfs.vfs.attr import Attr
from mvcfs.vfs.inode import Inode
from mvcfs.vfs.snapshot import SnapshotPool
from mvcfs.vfs.working_tree.namespace import check_name


class Host(Protocol):
    """What these directories need of the store in use."""

    @property
    def config(self) -> EngineConfig:
        """Configuration."""
        ...

    @property
    def pool(self) -> SnapshotPool:
        """The files of all snapshots."""
        ...

    def allocate_ino(self) -> int:
        """A number that no inode had."""
        ...

    def warn_once(self, text: str) -> None:
        """Logs a warning that many calls would repeat."""
        ...


def decode_name(name: bytes) -> str:
    """A name of a model, branch or tag; NotFound for bytes that can't be one."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise NotFound(f"{name!r} is no name of a model, branch or tag") from None


def names_snapshot(name: str) -> bool:
    """Whether a name is written like a past version (`main@42`, `main~3`), which no branch may be."""
    return "@" in name or "~" in name


class VirtualDir(Inode):
    """A directory that is in no version: it shows what the store holds."""

    __slots__ = ("_made_ns", "_mode", "engine")

    def __init__(self, engine: Host, ino: int, mode: int = 0o755) -> None:
        super().__init__(ino)
        self.engine = engine
        self._mode = stat.S_IFDIR | mode
        self._made_ns = time.time_ns()

    def attr(self) -> Attr:
        """See `Inode.attr`."""
        timeout = self.engine.config.refresh_s
        made = self._made_ns
        return Attr(
            self.ino, self._mode, 2, os.getuid(), os.getgid(), 0, 0, made, made, made, timeout, timeout
        )  # fmt: skip

    def entry_timeout_s(self) -> float | None:
        """See `Inode.entry_timeout_s`: models and branches come and go on other hosts."""
        return self.engine.config.refresh_s

    async def child_of_listing(self, name: bytes) -> Inode | None:
        """See `Inode.child_of_listing`: one that can't be read hides none of its neighbours."""
        try:
            return await super().child_of_listing(name)
        except MvcfsError as error:
            self.engine.warn_once(f"{os.fsdecode(name)} in {self.describe()} can't be read: {error}")
            return UnreadableDir(self.engine, error)


class UnreadableDir(VirtualDir):
    """Stands in listings for a model or branch that can't be read; what is asked of it fails with the reason."""

    __slots__ = ("_error",)

    def __init__(self, engine: Host, error: MvcfsError) -> None:
        super().__init__(engine, engine.allocate_ino())
        self._error = error

    def describe(self) -> str:
        """See `Inode.describe`."""
        return f"what can't be read ({self._error})"

    async def child(self, name: bytes) -> Inode:
        """See `Inode.child`: fails."""
        raise self._again()

    async def names(self) -> Sequence[bytes]:
        """See `Inode.names`: fails."""
        raise self._again()

    def _again(self) -> MvcfsError:
        return type(self._error)(str(self._error))


class ListedDir(VirtualDir):
    """A directory of `.history`: listed names, each made when it is looked up."""

    __slots__ = ("_find", "_list", "_place")

    def __init__(
        self,
        engine: Host,
        place: str,
        names: Callable[[], Awaitable[Sequence[bytes]]],
        find: Callable[[bytes], Awaitable[Inode]],
    ) -> None:
        super().__init__(engine, engine.allocate_ino(), 0o555)
        self._place = place
        self._list = names
        self._find = find

    def describe(self) -> str:
        """See `Inode.describe`."""
        return self._place

    async def child(self, name: bytes) -> Inode:
        """See `Inode.child`."""
        check_name(name)
        return await self._find(name)

    async def names(self) -> Sequence[bytes]:
        """See `Inode.names`."""
        return await self._list()
