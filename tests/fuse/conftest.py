from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mvcfs.fuse.control_client import call
from mvcfs.fuse.mounts import detach, mount_at
from mvcfs.fuse.runtime import socket_path

REPOSITORY = Path(__file__).parents[2]


def wait_for(what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}")
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Fake:
    """A place for mounts of the fake file system, and what a test does with them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.base.mkdir(exist_ok=True)
        self.path = base / "mnt"
        self.path.mkdir()
        self.drained = base / "drained"
        self.pids: list[int] = []

    def argv(self, **args: Any) -> list[str]:
        given = {"base": str(self.base), "mountpoint": str(self.path), **args}
        return [sys.executable, "-m", "tests.fuse.serve_fake", json.dumps(given)]

    def run(self, **args: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(**args), cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )

    def mount(self, **args: Any) -> Path:
        done = self.run(**args)
        assert done.returncode == 0, done.stderr + self.log()
        self.pids.append(self.call("ping")["pid"])
        return self.path

    @property
    def pid(self) -> int:
        return self.pids[-1]

    @property
    def socket(self) -> Path:
        return socket_path(self.base / "run", str(self.path))

    def call(self, command: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return call(self.socket, command, args, **more)

    def log(self) -> str:
        path = self.base / "log" / "mount.log"
        return path.read_text() if path.exists() else ""

    def wait_gone(self) -> None:
        wait_for(lambda: gone(self.pid))

    def close(self) -> None:
        for pid in self.pids:
            if not gone(pid):
                os.kill(pid, 9)
        while mount_at(str(self.path)) is not None:
            detach(str(self.path))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach: not under pytest's own, which every run of pytest closes again,
    and of a short name, since sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="mvcfs-test-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def fake(open_folder: Path) -> Iterator[Fake]:
    place = Fake(open_folder / "f")
    try:
        yield place
    finally:
        place.close()


@pytest.fixture
def open_fake(fake: Fake) -> Fake:
    """The same, said where other users use it."""
    return fake
