"""What the end-to-end tests share: a real tree to copy, comparisons by other programs, and a look at a store's files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from mvcfs.storage.address import open_storage
from mvcfs.storage.protocol import Storage
from tests.mount.harness import run

_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com",
    # `git status` would write the index anew otherwise, which is a change.
    "GIT_OPTIONAL_LOCKS": "0",
}  # fmt: skip


def git(
    directory: Path, *words: str, check: bool = True, stdin: Any = subprocess.DEVNULL, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs Git in a directory, with nobody's settings but these variables."""
    environment = {**os.environ, **_GIT, **variables}
    return run(
        "git", "-C", directory, *words,
        check=check, timeout=240, errors="surrogateescape", env=environment, stdin=stdin,
    )  # fmt: skip


def build_checkout(tree: Path) -> Path:
    """Makes a Git checkout of Python's library and numpy, with all that a tree can hold besides plain files."""
    skip = shutil.ignore_patterns("site-packages", "__pycache__", "*.tmp", "lib-dynload", "config-*", "idlelib")
    shutil.copytree(sysconfig.get_path("stdlib"), tree / "python", ignore=skip, symlinks=True)
    shutil.copytree(Path(numpy.__file__).parent, tree / "numpy", ignore=skip, symlinks=True)
    for number, path in enumerate(sorted(tree.rglob("*.py"))):
        if number % 50 == 0:
            path.chmod((0o755, 0o640, 0o400, 0o4711, 0o666)[number // 50 % 5])
    (tree / "link").symlink_to("python/os.py")
    (tree / "dangling").symlink_to("/nowhere/at all")
    (tree / "directory-link").symlink_to("numpy")
    for name, mode in (("empty", 0o755), ("empty/deep", 0o700), ("sticky", 0o1777), ("setgid", 0o2755)):
        (tree / name).mkdir()
        (tree / name).chmod(mode)
    (tree / "large.bin").write_bytes(random.Random(1).randbytes(9_000_001))
    (tree / "zeros.bin").write_bytes(bytes(5_000_000))
    os.link(tree / "large.bin", tree / "sticky" / "same.bin")
    os.link(tree / "python" / "os.py", tree / "setgid" / "os-too.py")
    (tree / "naïve ünï\u4e16.txt").write_text("unicode")
    Path(os.fsdecode(os.fsencode(tree) + b"/latin-\xe9 \\ * ?\n.txt")).write_text("bytes")
    os.chown(tree / "zeros.bin", *((1234, 4321) if os.geteuid() == 0 else (-1, -1)))
    os.utime(tree / "zeros.bin", ns=(1_234_567_890_123_456_789, 1_234_567_890_987_654_321))
    git(tree, "init", "-q", "-b", "main")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "first")
    git(tree, "tag", "-a", "v1", "-m", "one")
    return tree


def differences(one: Path, other: Path) -> str:
    """What rsync would change to make two trees equal: bytes, modes, owners, times, links, names. Both directions."""
    words = ("rsync", "-aHn", "--checksum", "--delete", "--itemize-changes")
    return "".join(run(*words, f"{a}/", f"{b}/", timeout=280).stdout for a, b in ((one, other), (other, one)))


async def store_files(storage: Storage, below: str = "") -> dict[str, int]:
    """All files of a store and their sizes."""
    found: dict[str, int] = {}
    for entry in await storage.list_dir(below):
        path = f"{below}/{entry.name}".lstrip("/")
        if entry.is_dir:
            found |= await store_files(storage, path)
        else:
            found[path] = entry.size_bytes
    return found


async def list_store(url: str) -> dict[str, int]:
    """All files of the store at an address and their sizes."""
    storage = await open_storage(url)
    try:
        return await store_files(storage)
    finally:
        await storage.aclose()


async def copy_store(url: str, folder: Path) -> None:
    """Copies a store file by file into a local folder, empty directories included."""
    storage = await open_storage(url)

    async def copy(below: str) -> None:
        (folder / below).mkdir()
        for entry in await storage.list_dir(below):
            path = f"{below}/{entry.name}".lstrip("/")
            if entry.is_dir:
                await copy(path)
            else:
                (folder / path).write_bytes(await storage.read_file(path, max_bytes=1 << 30))

    try:
        await copy("")
    finally:
        await storage.aclose()


def pack_bytes(files: dict[str, int]) -> int:
    """How much of a store is packs of large files' chunks."""
    return sum(size for path, size in files.items() if path.split("/")[-2:-1] == ["packs"])


class Peak:
    """The most anonymous memory a process had, looked at ten times a second."""

    def __init__(self) -> None:
        self.anonymous_bytes = 0

    def look(self, pid: int) -> None:
        """Takes one reading."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                self.anonymous_bytes = max(self.anonymous_bytes, int(line.split()[1]) * 1024)


@contextmanager
def watched_memory(pid: int) -> Iterator[Peak]:
    """Watches a process's memory meanwhile."""
    peak, over = Peak(), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak.look(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
