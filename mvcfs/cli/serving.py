"""Joins the engine to the mount that shows it: the one place that knows both.

Threading: trio thread of the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import trio

from mvcfs.cli.localstate import hadoop_conf_dir
from mvcfs.cli.options import StoreOptions
from mvcfs.cli.stores import open_store
from mvcfs.config import EngineConfig
from mvcfs.fuse.invalidator import Invalidator
from mvcfs.fuse.served import Command, DrainReport, ServedFileSystem
from mvcfs.fuse.session import MakeFileSystem
from mvcfs.vfs.changes import count_changes
from mvcfs.vfs.engine import Engine
from mvcfs.vfs.model import Branch

_RETRY_S = 2.0


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

    @property
    def read_only(self) -> bool:
        """Whether nothing in it can be changed."""
        return self._engine.config.read_only

    def progress(self) -> Mapping[str, Any]:
        """How far the running commits of all branches are, together."""
        running = [branch.committer.progress for branch in self._branches() if branch.committer.progress.step != "idle"]
        if not running:
            return {}
        return {
            "step": running[0].step,
            "done": sum(each.files_done for each in running),
            "total": sum(each.files_total for each in running),
            "done_bytes": sum(each.bytes_done for each in running),
            "total_bytes": sum(each.bytes_total for each in running),
        }

    async def drain(self, timeout_s: float) -> DrainReport:
        """Commits and uploads for at most `timeout_s`, trying again while the store fails; then counts what is left."""
        late = ""
        if timeout_s > 0:
            with trio.move_on_after(timeout_s) as patience:
                await self._engine.drain()
                while self._left().reason:
                    await trio.sleep(_RETRY_S)
                    await self._engine.drain()
            if patience.cancelled_caught:
                late = f"the drain timeout of {timeout_s:g} s is over"
        left = self._left()
        return replace(left, reason=left.reason or late) if left.left_files else left

    def _left(self) -> DrainReport:
        """What is in no version, ignored files left out: they never are in one."""
        files = size = 0
        reasons: list[str] = []
        for branch in self._branches():
            counts = count_changes(branch)
            files += counts["changed_files"]
            size += counts["changed_bytes"]
            if counts["changed"] and branch.settler.last_error:
                reasons.append(f"{branch.tree.branch_name}: {branch.settler.last_error}")
        return DrainReport(files, size, "; ".join(reasons))

    def _branches(self) -> Iterator[Branch]:
        return (branch for model in self._engine.models.by_name.values() for branch in model.branches.values())

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
    # Read while this is the user's process: a daemon stands in another directory.
    stores = replace(stores, hadoop_conf_dir=hadoop_conf_dir(stores))

    async def make(nursery: trio.Nursery, invalidator: Invalidator) -> MountedEngine:
        storage = await open_store(url, stores)
        engine = await Engine.open(storage, config, nursery, mounted=True, invalidator=invalidator)
        return MountedEngine(engine)

    return make
