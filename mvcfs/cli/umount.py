"""`mvcfs umount`: commits and uploads what is left, unmounts, waits until the daemon is gone."""

from __future__ import annotations

import os
import select
from typing import Annotated, Any

import typer

from mvcfs.cli import exits
from mvcfs.cli.dispatch import call
from mvcfs.cli.exits import WorkLeft
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, duration
from mvcfs.cli.output import Progress, print_error, print_json, print_line
from mvcfs.cli.place import Place
from mvcfs.cli.units import format_size
from mvcfs.errors import MvcfsError, NotFound
from mvcfs.fuse.mounts import Mount, MountState, detach, mount_at, real_mountpoint, state_of

HELP = """Commit and upload what is left, then unmount.

Waits until no program has a file open in the mount. Work that is not in the store within the drain
timeout stays in this host's overlay for the next mount; then the exit code is 6.

\b
Examples:
  mvcfs umount /models
  mvcfs umount /models --drain-timeout 1h
"""

_GOODBYE_S = 10.0
_SILENT = StoreOptions()


def umount(
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="Where the store is mounted.")],
    output: OutputOptions,
    common: CommonOptions,
    drain_timeout: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="TIME", help="Commit and upload for at most so long.", show_default="the mount's"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Don't wait for open files or uploads: what is not in the store waits.")
    ] = False,
) -> None:
    """Takes the mount off and prints what it left."""
    mount = mount_at(real_mountpoint(mountpoint))
    if mount is None:
        raise NotFound(f"{mountpoint} is no mvcfs mount")
    state = state_of(mount.mountpoint)
    alive = state is MountState.ALIVE
    report = _end(mount, output, drain_timeout, force) if alive else _take_off(mount, state)
    clean = bool(report.get("complete"))
    if output.json:
        left = {key: report.get(key) for key in ("left_files", "left_bytes", "reason")}
        left["ignored_files"] = report.get("ignored_files")
        print_json({"mountpoint": mount.mountpoint, "clean": clean, "left": left})
    elif clean:
        print_line(f"{mount.mountpoint} is unmounted; everything is in the store")
        if report.get("ignored_files"):
            print_line(f"{report['ignored_files']} ignored files stay in the overlay, on this host only")
    if not clean:
        _say_what_is_left(mount, report)
        raise typer.Exit(exits.WORK_LEFT)


def _end(mount: Mount, output: OutputOptions, drain_timeout: float | None, force: bool) -> dict[str, Any]:
    place = Place("", mount=mount)
    pid = call(place, "ping", {}, _SILENT).get("pid")
    ignored = sum(row.get("ignored_files") or 0 for row in call(place, "status", {}, _SILENT).get("models") or ())
    watched = _watch(pid)
    args: dict[str, Any] = {"hurry": force}
    if drain_timeout is not None:
        args["drain_timeout_s"] = drain_timeout
    try:
        with Progress("umount", quiet=output.json) as progress:
            report = call(place, "unmount", args, _SILENT, on_progress=progress.update)
        if watched is not None and not select.select([watched], [], [], _GOODBYE_S)[0]:
            print_error(f"the daemon (process {pid}) is still on its way out")
    except KeyboardInterrupt:
        raise WorkLeft(f"interrupted; the daemon of {mount.mountpoint} goes on unmounting in the background") from None
    finally:
        if watched is not None:
            os.close(watched)
    left = mount_at(mount.mountpoint)
    if left is not None and left.mount_id == mount.mount_id:
        # The daemon takes its mount off, but may not have been able to; then this says why.
        detach(mount.mountpoint)
    return {**report, "ignored_files": ignored}


def _watch(pid: Any) -> int | None:
    """Gives a descriptor that becomes readable when the process ends; None where it can't be watched."""
    try:
        return os.pidfd_open(pid)
    except (OSError, TypeError):
        return None


def _take_off(mount: Mount, state: MountState) -> dict[str, Any]:
    if state is MountState.HUNG:
        raise MvcfsError(
            f"the mount on {mount.mountpoint} doesn't answer; end its daemon first (its log says why it hangs), "
            f"then: mvcfs umount {mount.mountpoint}"
        )
    detach(mount.mountpoint)
    return {"complete": False, "reason": "its daemon was gone already"}


def _say_what_is_left(mount: Mount, report: dict[str, Any]) -> None:
    files, size = report.get("left_files"), report.get("left_bytes")
    what = f"{files} files ({format_size(size or 0)})" if files else "what is not in the store"
    reason = f" ({report['reason']})" if report.get("reason") else ""
    print_error(f"{mount.mountpoint} is unmounted, but {what} wait in the overlay for the next mount{reason}")
