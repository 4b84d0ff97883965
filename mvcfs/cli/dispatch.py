"""Sends a command to the engine that shall run it: the daemon of the mount that a path is in, or one made here.

Both take the same commands with the same arguments and give the same results, so the files of the commands don't know
which it was. An engine made here has a folder of its own for the time of the command: the one of the mounts holds their
overlays, which belong to one process at a time. What an engine needs is imported only then: a
command to a daemon starts sooner without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mvcfs.cli.localstate import runtime_dir
from mvcfs.cli.options import StoreOptions
from mvcfs.cli.place import Place
from mvcfs.cli.stores import absolute_url
from mvcfs.errors import NotPermitted
from mvcfs.fuse.control_client import call as call_daemon
from mvcfs.fuse.mounts import Mount
from mvcfs.fuse.runtime import find_socket

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
    from mvcfs.cli.direct import call_direct

    return call_direct(absolute_url(str(place.store)), command, args, stores, on_progress)
