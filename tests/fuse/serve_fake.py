"""Mounts the fake file system; run as a program by the tests: `python -m tests.fuse.serve_fake JSON`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import trio

from mvcfs.errors import MvcfsError, NotFound
from mvcfs.fuse.invalidator import Invalidator
from mvcfs.fuse.preflight import FuseHost
from mvcfs.fuse.session import MountOptions, run_mount
from tests.fuse.fake_filesystem import FakeMount

FUSE = FuseHost()


def main() -> int:
    args = json.loads(sys.argv[1])
    base = Path(args["base"])
    if "uid" in args:
        # Only now: an ordinary user may not be able to read the interpreter's own files.
        os.setgroups([])
        os.setgid(args["uid"])
        os.setuid(args["uid"])

    async def make(nursery: trio.Nursery, invalidator: Invalidator) -> FakeMount:
        # A mount that hangs hangs its test beyond any timeout; without its daemon every call fails.
        signal.alarm(90)
        if args.get("fail") == "error":
            raise NotFound("no mvcfs store at file:///nowhere")
        if args.get("fail") == "die":
            os._exit(9)
        if args.get("fail") == "bug":
            raise ZeroDivisionError("oh")
        if args.get("crash_after_s"):
            nursery.start_soon(crash, args["crash_after_s"])
        return FakeMount(base / "drained", drain_s=args.get("drain_s", 0.0))

    async def crash(after_s: float) -> None:
        await trio.sleep(after_s)
        raise ZeroDivisionError("a service broke")

    options = MountOptions(
        mountpoint=Path(args["mountpoint"]),
        source="file:///a store, with a comma",
        runtime_dir=base / "run",
        log_file=base / "log" / "mount.log",
        foreground=args.get("foreground", False),
        kernel_options=frozenset(args.get("kernel_options", [])),
        xattr=args.get("xattr", False),
        writeback=args.get("writeback", False),
        left_status=6,
        host=FuseHost(
            device=Path(args.get("device", FUSE.device)),
            conf=Path(args.get("conf", FUSE.conf)),
        ),
    )
    try:
        report = run_mount(make, options)
    except MvcfsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 3
    if report is not None and not report.complete:
        return 6
    return 0


if __name__ == "__main__":
    sys.exit(main())
