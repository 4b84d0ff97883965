"""Joins the engine to the mount that shows it: the one place that knows both.

Threading: trio thread of the daemon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import trio

from mvcfs.cli.options import StoreOptions
from mvcfs.cli.stores import open_store
from mvcfs.config import EngineConfig
from mvcfs.errors import MvcfsError
from mvcfs.fuse.invalidator import Invalidator
from mvcfs.fuse.served import Command, DrainReport, ServedFileSystem
from mvcfs.fuse.session import MakeFileSystem
from mvcfs.vfs.engine import Engine


class MountedEngine:
    """An engine as a mount takes it: see `mvcfs.fuse.served.MountedFileSystem`."""

    def __init__(self, engine: Engine) -> None:
        """Shows `engine`, which was opened with its overlay."""
        self._engine = engine
        self._filesystem = engine.filesystem()

    @property
    def filesystem(self) -> ServedFileSystem:
        """What the kernel sees."""
        return self._filesystem

    @property
    def commands(self) -> Mapping[str, Command]:
        """What the control socket serves."""
        return self._engine.commands

    def progress(self) -> Mapping[str, Any]:
        """How far uploads are."""
        return self._engine.progress()

    async def drain(self, timeout_s: float) -> DrainReport:
        """Commits and uploads for at most `timeout_s`, then counts what is left."""
        reason = ""
        if timeout_s > 0:
            with trio.move_on_after(timeout_s if math.isfinite(timeout_s) else math.inf) as patience:
                try:
                    await self._engine.drain()
                except MvcfsError as error:
                    reason = str(error)
            if patience.cancelled_caught:
                reason = f"the drain timeout of {timeout_s:g} s is over"
        left = await self._engine.left()
        return DrainReport(left.files, left.bytes, reason if left.files else "")

    async def aclose(self) -> None:
        """Lets go of everything."""
        await self._engine.aclose()


def open_mounted(url: str, stores: StoreOptions, config: EngineConfig) -> MakeFileSystem:
    """What opens the store once the daemon has forked.

    Args:
        url: The store's absolute address.
        stores: How it is reached.
        config: Of the engine.
    """

    async def make(nursery: trio.Nursery, invalidator: Invalidator) -> MountedEngine:
        storage = await open_store(url, stores)
        engine = await Engine.open(storage, config, nursery, mounted=True, invalidator=invalidator)
        return MountedEngine(engine)

    return make
