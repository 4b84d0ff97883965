"""The life of a mount: checks, background, mounting, serving, letting go.

How it ends. The first SIGTERM, SIGINT or `unmount` takes the mount off its mount point at once, so nobody new comes in,
and goes on serving until the last file is closed: only then are all pages that programs wrote through mappings here.
An `umount` from outside is the same but for who did it. Then what is changed is committed and uploaded, within the
drain timeout; what is left waits in the overlay. A second signal hurries: no more waiting, and still nothing leaves the
overlay. If the process crashes the mount point answers ENOTCONN until the next `mvcfs mount`.

Everything runs on the trio thread but calls that may block on the mount itself, which are in threads.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from mvcfs.errors import InvalidArgument, MvcfsError, NotPermitted
from mvcfs.fuse.control import ControlServer
from mvcfs.fuse.daemon import log_to_stderr, start_daemon
from mvcfs.fuse.errnos import leaves, must_pass
from mvcfs.fuse.invalidator import Invalidator
from mvcfs.fuse.mounts import detach, mount_at
from mvcfs.fuse.operations import MAX_TASKS, MountOperations, XattrOperations
from mvcfs.fuse.preflight import FuseHost, check_fuse, check_mountpoint
from mvcfs.fuse.runtime import make_runtime_dir, socket_path
from mvcfs.fuse.served import Command, DrainReport, MountedFileSystem

_log = logging.getLogger(__name__)

READ_AHEAD_KIB = 4096
"""Read-ahead of the mount: requests grow from 128 KiB to 1 MiB, sequential reads to twice the speed."""

_ANSWER_TIMEOUT_S = 60.0
_M_ARENA_MAX = -8  # malloc.h
_GOODBYE_S = 5.0

MakeFileSystem = Callable[[trio.Nursery, Invalidator], Awaitable[MountedFileSystem]]
"""Opens the store. Called once, in the process that serves; the nursery lives as long as the mount."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How a store is mounted.

    Attributes:
        mountpoint: An empty directory.
        source: The store's URL as /proc/mounts shows it.
        runtime_dir: Folder of the control socket.
        log_file: Where a mount in the background logs.
        foreground: Stay in this process and log to standard error.
        kernel_options: As `options.parse_options` gives them.
        xattr: Serve extended attributes.
        writeback: Let the kernel hold small writes back.
        drain_timeout_s: How long committing and uploading may take at the end.
        left_status: Exit status of the background process if work is left in the overlay.
        log_level: Least level that is logged.
        host: Where this machine's FUSE is.
    """

    mountpoint: Path
    source: str
    runtime_dir: Path
    log_file: Path
    foreground: bool = False
    kernel_options: frozenset[str] = frozenset()
    xattr: bool = False
    writeback: bool = False
    drain_timeout_s: float = 300.0
    left_status: int = 1
    log_level: int = logging.INFO
    host: FuseHost = field(default_factory=FuseHost)


def run_mount(make: MakeFileSystem, options: MountOptions) -> DrainReport | None:
    """Mounts a store and, in the foreground, serves it until it is unmounted.

    Nothing that starts threads or opens a client of a store may have run in this process, unless in the foreground;
    relative paths no longer mean the same inside `make`, since the background process leaves the current directory.

    Args:
        make: Opens the store.
        options: How it is mounted.

    Returns:
        None if a background process serves the mount and has answered; in the foreground, what the end left behind.

    Raises:
        MvcfsError: The store couldn't be mounted, with the reason.
    """
    allow_other = os.geteuid() == 0 or "allow_other" in options.kernel_options
    check_fuse(options.host, allow_other=allow_other, uid=os.geteuid())
    mountpoint = check_mountpoint(options.mountpoint, uid=os.geteuid())
    make_runtime_dir(options.runtime_dir)
    socket_path(options.runtime_dir, mountpoint)
    if options.foreground:
        log_to_stderr(options.log_level)
        return _serve(make, options, mountpoint, lambda: None)

    def background(ready: Callable[[], None]) -> int:
        return 0 if _serve(make, options, mountpoint, ready).complete else options.left_status

    start_daemon(background, options.log_file, options.log_level)
    return None


def _share_malloc_arenas() -> None:
    """Lets all threads allocate from two arenas of glibc's, before there are threads.

    By default it makes eight a processor, each of which keeps the free memory of the largest buffers it ever held: the
    daemon then holds up to twice its budget.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def _serve(make: MakeFileSystem, options: MountOptions, mountpoint: str, ready: Callable[[], None]) -> DrainReport:
    _share_malloc_arenas()
    try:
        return trio.run(_serve_in_nursery, make, options, mountpoint, ready)
    except BaseExceptionGroup as group:
        found = list(leaves(group))
        if len(found) == 1:
            raise found[0] from None
        raise


async def _serve_in_nursery(
    make: MakeFileSystem, options: MountOptions, mountpoint: str, ready: Callable[[], None]
) -> DrainReport:
    invalidator = Invalidator()
    async with trio.open_nursery() as nursery:
        mounted = await make(nursery, invalidator)
        try:
            report = await Session(mounted, invalidator, options, mountpoint, ready).run()
        finally:
            with trio.CancelScope(shield=True):
                await mounted.aclose()
        nursery.cancel_scope.cancel()
    return report


class Session:
    """One mount, from mounting to the last word.

    Args:
        mounted: What is shown.
        invalidator: Started and stopped here, since it speaks to the session that is made here.
        options: How it is mounted.
        mountpoint: Real path of the mount point.
        ready: Called once the mount has answered.
    """

    def __init__(
        self,
        mounted: MountedFileSystem,
        invalidator: Invalidator,
        options: MountOptions,
        mountpoint: str,
        ready: Callable[[], None],
    ) -> None:
        self._mounted = mounted
        self._invalidator = invalidator
        self._options = options
        self._mountpoint = mountpoint
        self._ready = ready
        self._phase = "starting"
        self._ending = False
        self._detached = False
        self._drain_timeout_s = options.drain_timeout_s
        self._serving = trio.CancelScope()
        self._draining = trio.CancelScope()
        self._report = DrainReport()
        self._finished = trio.Event()

    async def run(self) -> DrainReport:
        """Mounts, serves, drains, and returns what is left."""
        self._mount()
        unmount = True
        try:
            self._invalidator.start()
            async with trio.open_nursery() as services:
                server = ControlServer(
                    socket_path(self._options.runtime_dir, self._mountpoint), self._commands(), self.progress
                )
                await services.start(server.serve)
                await services.start(self._watch_signals, services)
                services.start_soon(self._announce)
                await self._serve_kernel()
                unmount = not self._detached
                self._report = await self._drain()
                self._finished.set()
                await server.finish(_GOODBYE_S)
                services.cancel_scope.cancel()
        except BaseException:
            # Once it has served, a mount that fails stays where it is and answers ENOTCONN.
            unmount = self._phase == "starting"
            raise
        finally:
            self._close(unmount)
        return self._report

    def progress(self) -> Mapping[str, Any]:
        """Returns what the mount is doing: `phase` is starting, serving, closing (until the last close) or draining."""
        return {"phase": self._phase, **self._mounted.progress()}

    # Mounting

    def _mount(self) -> None:
        options = self._options
        kind = XattrOperations if options.xattr else MountOperations
        operations = kind(self._mounted.filesystem, writeback=options.writeback)
        wanted = {"default_permissions", "subtype=mvcfs", f"fsname={_escaped(options.source)}", *options.kernel_options}
        if os.geteuid() == 0:
            wanted.add("allow_other")
        if self._mounted.read_only:
            wanted.add("ro")
        with _captured_stderr() as said:
            try:
                pyfuse3.init(operations, self._mountpoint, wanted)
            except RuntimeError as error:
                reason = said() or str(error)
                raise NotPermitted(f"can't mount on {self._mountpoint}: {reason}") from None
            remarks = said()
        if remarks:
            _log.info("Mounting said: %s", remarks)

    async def _announce(self) -> None:
        """Asks the mount something that only we can answer; then it is up."""
        with trio.move_on_after(_ANSWER_TIMEOUT_S) as patience:
            try:
                await trio.to_thread.run_sync(os.statvfs, self._mountpoint, abandon_on_cancel=True)
            except OSError as error:
                raise MvcfsError(f"{self._mountpoint} is mounted, but fails: {error.strerror}") from None
        if patience.cancelled_caught:
            raise MvcfsError(f"{self._mountpoint} is mounted, but hasn't answered for {_ANSWER_TIMEOUT_S:g} s")
        self._set_read_ahead()
        if self._phase == "starting":
            self._phase = "serving"
        _log.info("%s is mounted on %s", self._options.source, self._mountpoint)
        self._ready()

    def _set_read_ahead(self) -> None:
        mount = mount_at(self._mountpoint)
        if os.geteuid() != 0 or mount is None:
            return
        try:
            Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
        except OSError as error:
            _log.info("Read-ahead stays as it is: %s", error)

    # Serving

    async def _serve_kernel(self) -> None:
        """Serves until the kernel lets go of the mount, or until there is hurry."""
        with self._serving:
            await pyfuse3.main(max_tasks=MAX_TASKS)
            self._detached = self._detached or mount_at(self._mountpoint) is None
            _log.info("%s is unmounted", self._mountpoint)

    async def _watch_signals(
        self, services: trio.Nursery, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        watched = [signal.SIGTERM, signal.SIGINT]
        if self._options.foreground:
            watched.append(signal.SIGHUP)
        with trio.open_signal_receiver(*watched) as signals:
            task_status.started()
            async for number in signals:
                _log.info("Got %s", signal.Signals(number).name)
                if self._ending:
                    self._hurry()
                else:
                    services.start_soon(self._begin_end)

    async def _begin_end(self) -> None:
        """Takes the mount off, once; serving goes on until the last close."""
        if self._ending:
            return
        self._ending = True
        if self._phase == "draining":
            return
        self._phase = "closing"
        try:
            await trio.to_thread.run_sync(detach, self._mountpoint, abandon_on_cancel=True)
            self._detached = True
        except MvcfsError as error:
            if mount_at(self._mountpoint) is None:
                self._detached = True
                return
            _log.error("%s; ending without it: pages not yet written back are lost", error)
            self._serving.cancel()

    def _hurry(self) -> None:
        _log.warning("In a hurry: what is not in the store stays in the overlay")
        self._serving.cancel()
        self._draining.cancel()

    # Leaving

    async def _drain(self) -> DrainReport:
        self._phase = "draining"
        report = await self._drained_unless_hurried() or await self._counted()
        if report.complete:
            _log.info("Everything is in the store")
        else:
            reason = f": {report.reason}" if report.reason else ""
            _log.warning(
                "%d files (%d bytes) wait in the overlay for the next mount%s",
                report.left_files,
                report.left_bytes,
                reason,
            )
        return report

    async def _drained_unless_hurried(self) -> DrainReport | None:
        with self._draining:
            return await self._drained(self._drain_timeout_s)
        return None

    async def _counted(self) -> DrainReport:
        with trio.CancelScope(shield=True):
            return await self._drained(0.0)
        return DrainReport(reason="not counted")

    async def _drained(self, timeout_s: float) -> DrainReport:
        try:
            return await self._mounted.drain(timeout_s)
        except BaseException as error:  # a panic of a Rust extension is a BaseException
            if must_pass(error):
                raise
            _log.error("Draining failed", exc_info=error)
            return DrainReport(reason=f"draining failed: {error}")

    def _close(self, unmount: bool) -> None:
        if self._invalidator.stop():
            pyfuse3.close(unmount=unmount)
        else:
            _log.warning("The kernel holds on to an invalidation; leaving the rest to the end of the process")

    # Commands

    def _commands(self) -> Mapping[str, Command]:
        return {**self._mounted.commands, "ping": self._ping, "unmount": self._unmount}

    async def _ping(self, args: dict[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "mountpoint": self._mountpoint,
            "source": self._options.source,
            "phase": self._phase,
        }

    async def _unmount(self, args: dict[str, Any]) -> dict[str, Any]:
        """Begins the end and waits for it. `drain_timeout_s` overrides the mount's; `hurry` is a second signal."""
        timeout_s = args.get("drain_timeout_s")
        if timeout_s is not None:
            if not isinstance(timeout_s, int | float) or not math.isfinite(timeout_s) or timeout_s < 0:
                raise InvalidArgument(f"drain_timeout_s must be seconds, not {timeout_s!r}")
            self._drain_timeout_s = float(timeout_s)
        await self._begin_end()
        if args.get("hurry"):
            self._hurry()
        await self._finished.wait()
        return self._report.as_json()


def _escaped(source: str) -> str:
    """Returns a URL as libfuse takes it inside `-o`: commas and backslashes would end it."""
    return source.replace("\\", "\\\\").replace(",", "\\,").encode("ascii", "backslashreplace").decode()


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Takes what libfuse and fusermount3 print, which is the only place where they say why."""
    with tempfile.TemporaryFile() as captured:
        saved = os.dup(2)
        os.dup2(captured.fileno(), 2)

        def said() -> str:
            captured.seek(0)
            return " ".join(captured.read().decode(errors="replace").split())

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
