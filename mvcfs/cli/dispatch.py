"""Sends a command to the engine that shall run it: the daemon of the mount that a path is in, or one made here.

Both take the same commands with the same arguments and give the same results, so the files of the commands don't know
which it was. An engine made here has a folder of its own for the time of the command: the one of the mounts holds their
overlays, which belong to one process at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from mvcfs.cli.localstate import runtime_dir
from mvcfs.cli.options import StoreOptions
from mvcfs.cli.place import Place
from mvcfs.cli.stores import absolute_url, cache_dir, direct_engine
from mvcfs.errors import NotPermitted
from mvcfs.fuse.control_client import call as call_daemon
from mvcfs.fuse.mounts import Mount
from mvcfs.fuse.runtime import find_socket
from mvcfs.vfs.command_progress import CommandProgress, watched

_PROGRESS_INTERVAL_S = 0.5

Report = Callable[[Mapping[str, Any]], None]


def need_mount(place: Place, command: str) -> Mount:
    """Gives the place's mount, or refuses a command that only a mount can do."""
    if place.mount is None:
        raise NotPermitted(f"{command} takes a path in a mount; a store that isn't mounted has nothing to {command}")
    return place.mount


def call(
    place: Place,
    command: str,
    args: dict[str, Any],
    stores: StoreOptions,
    *,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Runs one command of the engine.

    Args:
        place: What it is about.
        command: Its name.
        args: Its arguments, JSON values.
        stores: How the store is reached where no mount is there.
        on_progress: Takes reports while it runs.

    Raises:
        MvcfsError: What the engine raised, or what stood in the way to it.
    """
    if place.mount is not None:
        socket = find_socket(place.mount, runtime_dir())
        return call_daemon(socket, command, args, on_progress=on_progress, server_uid=place.mount.user_id)
    return trio.run(_call_here, absolute_url(str(place.store)), command, args, stores, on_progress)


async def _call_here(
    url: str, command: str, args: dict[str, Any], stores: StoreOptions, on_progress: Report | None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"command-{os.getpid()}-", dir=cache_dir(stores)) as folder:
        async with direct_engine(url, stores, Path(folder)) as engine:
            with watched() as progress:
                async with trio.open_nursery() as nursery:
                    if on_progress is not None:
                        nursery.start_soon(_show, progress, on_progress)
                    result = await engine.commands[command](args)
                    nursery.cancel_scope.cancel()
            return dict(result)


async def _show(progress: CommandProgress, on_progress: Report) -> None:
    while True:
        await trio.sleep(_PROGRESS_INTERVAL_S)
        if report := progress.report():
            on_progress(report)
