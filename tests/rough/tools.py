"""What the rough tests share: what a failed command must look like, and commands of other users."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.mount.harness import Mount, mvcfs, run

NOBODY = 65534
OTHER = 65533


def refused(code: int, *says: str, done: subprocess.CompletedProcess[str]) -> str:
    """Checks that a command failed as it should: its exit code, one line on stderr that holds `says`.

    Nothing else may be said but progress.
    """
    shown = f"{done.args} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == code, shown
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("mvcfs: commit: ", "mvcfs: umount: "))]
    assert len(lines) == 1, shown
    assert lines[0].startswith("mvcfs: "), shown
    assert done.stdout == "", shown
    for text in says:
        assert text in lines[0], shown
    return lines[0]


def fails(code: int, *says: str, words: list[str | Path], **more: Any) -> str:
    """Runs `mvcfs` and checks that it is refused."""
    return refused(code, *says, done=mvcfs(*words, check=False, **more))


class Took:
    """How long a block took."""

    def __enter__(self) -> Took:
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._since


# The interpreter need not be where other users reach it: all is loaded before the process becomes another user's.
_AS_USER = """
import encodings.ascii, encodings.idna, encodings.latin_1, importlib, os, pkgutil, sys, zoneinfo
import mvcfs
for module in pkgutil.walk_packages(mvcfs.__path__, "mvcfs."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from mvcfs.cli.app import run
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
os.chdir("/")
sys.exit(run(sys.argv[1:]))
"""


class User:
    """An ordinary user, whose commands run in processes that are theirs alone."""

    def __init__(self, uid: int, home: Path) -> None:
        self.uid = uid
        self.home = home
        self.points: list[Path] = []
        for folder in (home, home / "mnt", home / "run"):
            folder.mkdir(mode=0o700)
            os.chown(folder, uid, uid)

    def _as_them(self) -> dict[str, Any]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MVCFS_"))}
        variables = kept | {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run")}
        return {"user": self.uid, "group": self.uid, "extra_groups": [], "env": variables, "cwd": "/"}

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(*words, check=check, **self._as_them())

    def mvcfs(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = (sys.executable, "-c", _AS_USER, str(self.uid), *words)
        return run(*words, check=check, env=self._as_them()["env"])

    def close(self) -> None:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            point = line.split()[1]
            if point.startswith(f"{self.home}/"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon_of(point), signal.SIGKILL)
                run("umount", "-l", point, check=False)


def daemon_of(point: str | Path) -> int:
    """The process that serves a mount point; ProcessLookupError when none does."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(point) in words and b"mount" in words:
                    return int(entry.name)
    raise ProcessLookupError(f"no daemon serves {point}")


def mounted(point: Path) -> bool:
    return f" {point} " in Path("/proc/self/mounts").read_text()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port of this host that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.settimeout(0.1)
        taken: list[socket.socket] = []
        over = threading.Event()

        def take() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()
            for each in taken:
                each.close()


def refusing_port() -> int:
    """A port of this host where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def branch_status(mount: Mount, branch: str = "m/main") -> dict[str, Any]:
    """What `mvcfs status` says of one branch; empty when it says nothing."""
    found = [row for row in mount.status()["models"] if f"{row['model']}/{row['branch']}" == branch]
    return found[0] if found else {}


def drop_page_cache(path: Path) -> None:
    """Takes a file's pages out of the kernel's cache, so that the next read asks the daemon."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
