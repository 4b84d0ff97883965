"""A real mount of a real store for tests: runs the `mvcfs` command, waits for versions, kills and cleans up."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mvcfs.cli.app import run as run_command_line

MVCFS = str(Path(sys.executable).parent / "mvcfs")
_WAIT_S = 60.0


class CommandFailed(AssertionError):
    def __init__(self, result: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{result.args} -> {result.returncode}\n{result.stdout}\n{result.stderr}")
        self.result = result


def run(*words: str | Path, check: bool = True, timeout: float = 120, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program and returns what it printed; a failure shows all of it."""
    more.setdefault("stdin", subprocess.DEVNULL)
    result = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=timeout, check=False, **more
    )
    if check and result.returncode:
        raise CommandFailed(result)
    return result


def mvcfs(
    *words: str | Path, check: bool = True, timeout: float = 120, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Runs the `mvcfs` command."""
    return run(MVCFS, *words, check=check, timeout=timeout, **more)


def command(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command of `mvcfs` in this process, which costs milliseconds: for many of them. Not in threads."""
    arguments = [str(word) for word in words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command_line(arguments)
    result = subprocess.CompletedProcess([MVCFS, *arguments], code, out.getvalue(), err.getvalue())
    if check and code:
        raise CommandFailed(result)
    return result


def wait_until(what: str, condition: Any, timeout: float = _WAIT_S) -> Any:
    """Polls until `condition()` is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain until {what}")
        time.sleep(0.05)


class Mount:
    """A store mounted in a subprocess of its own."""

    def __init__(self, store: str, folder: Path, *options: str, name: str = "mnt") -> None:
        self.store = store
        self.point = folder / name
        self.cache = folder / f"{name}-cache"
        self.options = options
        self.point.mkdir(exist_ok=True)

    def start(self, *more: str) -> Mount:
        mvcfs(
            "mount", self.store, self.point, "--cache-dir", self.cache, "--settle", "0.4", "--max-settle", "20",
            "--refresh", "0.2", *self.options, *more, timeout=90,
        )  # fmt: skip
        return self

    def pid(self) -> int:
        """The daemon's process, found by the mount point in its command line."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if os.fsencode(self.point) in words and b"mount" in words:
                        return int(entry.name)
        raise AssertionError(f"no daemon serves {self.point}")

    def kill(self) -> None:
        """Ends the daemon as a power cut would end the process, and waits until it is gone."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wait_until("the daemon is gone", lambda: not Path(f"/proc/{pid}").exists())

    def restart(self) -> Mount:
        """Kills the daemon and mounts again."""
        self.kill()
        return self.start()

    def umount(self, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return mvcfs("umount", self.point, *more, check=check, timeout=180)

    def close(self) -> None:
        """Takes the mount away whatever state it is in."""
        with contextlib.suppress(AssertionError, OSError):
            os.kill(self.pid(), signal.SIGKILL)
        for _ in range(5):
            if subprocess.run(["umount", "-l", str(self.point)], capture_output=True, check=False).returncode:
                break

    def log_text(self) -> str:
        return "".join(path.read_text() for path in sorted(self.cache.rglob("*.log")))

    # -- what is in it -------------------------------------------------------------------------------------------------

    def versions(self, branch: str = "m/main") -> list[dict[str, Any]]:
        """The versions of a branch, newest first."""
        return list(json.loads(mvcfs("log", self.point / branch, "--json").stdout)["versions"])

    def status(self) -> dict[str, Any]:
        found = json.loads(mvcfs("status", self.point, "--json").stdout)
        if "mounts" in found:
            found = found["mounts"][0]
        return dict(found)

    def settled(self, count: int, branch: str = "m/main") -> list[dict[str, Any]]:
        """Waits until a branch has exactly `count` versions and nothing unpublished."""

        def done() -> list[dict[str, Any]] | None:
            found = self.versions(branch)
            assert len(found) <= count, f"{len(found)} versions: {[v['message'] for v in found]}"
            pending = [
                m for m in self.status()["models"] if f"{m['model']}/{m['branch']}" == branch and m["changed_files"]
            ]
            return found if len(found) == count and not pending else None

        return list(wait_until(f"{branch} has {count} versions", done))

    def commit(self, branch: str = "m/main", message: str = "by hand") -> dict[str, Any]:
        return dict(json.loads(mvcfs("commit", self.point / branch, "-m", message, "--json").stdout))

    def snapshot(self, version: int, branch: str = "m/main") -> Path:
        model, name = branch.split("/", 1)
        return self.point / model / f"{name}@{version}"

    def fsck(self) -> dict[str, Any]:
        return dict(json.loads(mvcfs("fsck", self.store, "--data", "--json", timeout=300).stdout))
