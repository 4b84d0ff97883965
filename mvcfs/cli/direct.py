"""Runs a command on a store that is not mounted: makes an engine for the time of the command."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from mvcfs.cli.dispatch import Report
from mvcfs.cli.options import StoreOptions
from mvcfs.cli.stores import cache_dir, open_store, user_name
from mvcfs.config import EngineConfig
from mvcfs.vfs.command_progress import CommandProgress, watched
from mvcfs.vfs.engine import Engine

PROGRESS_INTERVAL_S = 0.5


def call_direct(
    url: str, command: str, args: dict[str, Any], stores: StoreOptions, on_progress: Report | None
) -> dict[str, Any]:
    """Runs one command of an engine made for it. See `mvcfs.cli.dispatch.call`."""
    return trio.run(_call, url, command, args, stores, on_progress)


@asynccontextmanager
async def _engine(url: str, stores: StoreOptions, folder: Path) -> AsyncIterator[Engine]:
    """An engine without a working tree, for one command.

    Args:
        url: The store.
        stores: How it is reached.
        folder: Local state, nobody else's.
    """
    config = EngineConfig(folder, socket.gethostname(), user_name(), block_cache_bytes=0)
    async with trio.open_nursery() as nursery:
        engine = await Engine.open(await open_store(url, stores), config, nursery)
        try:
            yield engine
        finally:
            with trio.CancelScope(shield=True):
                await engine.aclose()
            nursery.cancel_scope.cancel()


async def _call(
    url: str, command: str, args: dict[str, Any], stores: StoreOptions, on_progress: Report | None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"command-{os.getpid()}-", dir=cache_dir(stores)) as folder:
        async with _engine(url, stores, Path(folder)) as engine:
            with watched() as progress:
                async with trio.open_nursery() as nursery:
                    if on_progress is not None:
                        nursery.start_soon(_show, progress, on_progress)
                    result = await engine.commands[command](args)
                    nursery.cancel_scope.cancel()
            return dict(result)


async def _show(progress: CommandProgress, on_progress: Report) -> None:
    while True:
        await trio.sleep(PROGRESS_INTERVAL_S)
        if report := progress.report():
            on_progress(report)
