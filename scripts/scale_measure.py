"""The command line of `scripts/scale`: builds a store, mounts it with a fresh cache, and prints what each thing took."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import trio
from scale_store import (
    MODEL,
    add_versions,
    count_files,
    file_at,
    fill_terabyte,
    fill_tree,
    opened,
)

from mvcfs.storage.address import open_storage

T = TypeVar("T")

MVCFS = str(Path(sys.executable).parent / "mvcfs")
GIGABYTE = 10**9


def report(what: str, value: str) -> None:
    print(f"{what:<58} {value}", flush=True)


def timed(what: str, call: Callable[[], T]) -> T:
    start = time.monotonic()
    result = call()
    report(what, f"{time.monotonic() - start:8.3f} s")
    return result


def mvcfs(*words: str | Path) -> str:
    done = subprocess.run(
        [MVCFS, *map(str, words)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(f"mvcfs {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


class Mounted:
    """A daemon, with the most anonymous memory that it had."""

    def __init__(self, store: str, point: Path, cache: Path) -> None:
        self.point = point
        self.peak_kib = 0
        words = [MVCFS, "mount", "--foreground", store, str(point), "--cache-dir", str(cache), "--settle", "1h"]
        log = cache.with_suffix(".log").open("a")
        self._daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while not os.path.ismount(point):
            if self._daemon.poll() is not None:
                raise SystemExit(f"the mount ended: see {log.name}")
            time.sleep(0.005)
        os.listdir(point)
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self._look_once()

    def _look_once(self) -> None:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._daemon.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak_kib = max(self.peak_kib, int(line.split()[1]))

    def unmount(self) -> None:
        self._look_once()
        self._over.set()
        self._watch.join()
        mvcfs("umount", self.point)
        self._daemon.wait(60)


@contextlib.contextmanager
def mounted(store: str, folder: Path, what: str) -> Iterator[Path]:
    """Mounts the store at `folder/mnt`; the cache stays between calls."""
    point = folder / "mnt"
    point.mkdir(exist_ok=True)
    mount = timed(f"mount, {what}", lambda: Mounted(store, point, folder / "cache"))
    try:
        yield point
    finally:
        mount.unmount()
        report(f"peak of the daemon's anonymous memory, {what}", f"{mount.peak_kib / 1024:8.1f} MiB")


async def build_versions(store: str, versions: int, files: int) -> None:
    storage = await open_storage(store)
    start = time.monotonic()

    def told(version: int) -> None:
        if version % 500 == 0:
            print(f"  {version} versions after {time.monotonic() - start:.0f} s", flush=True)

    async with opened(storage, make=True) as engine:
        await engine.create_model(MODEL)
        model = await engine.model(MODEL)
        await fill_tree(model, files)
        await add_versions(model, versions - 1, files, told=told)
        counts = await count_files(storage)
    report("files of the model besides data packs", f"{counts.total() - counts['packs']:8} {dict(counts)}")


def measure_versions(store: str, folder: Path, versions: int, files: int) -> None:
    timed("mvcfs --help: what a command takes to start", lambda: mvcfs("--help"))
    with mounted(store, folder, "cold") as point:
        timed("ls of the branch, cold: opens the model", lambda: os.listdir(point / MODEL / "main"))
        history = point / MODEL / ".history/branches/main"
        listed = sorted(timed("ls .history/branches/main, cold: walks history", lambda: os.listdir(history)))
        assert len(listed) == versions, len(listed)
        half = listed[versions // 2].split("_")[1].rstrip("Z")
    with mounted(store, folder, "warm") as point:
        model = point / MODEL
        timed("ls of the branch, warm", lambda: os.listdir(model / "main"))
        timed("lookup by time: main@TIME", lambda: os.stat(model / f"main@{half}"))
        timed("lookup by number: main@1", lambda: os.stat(model / "main@1"))
        timed("ls .history/branches/main", lambda: os.listdir(model / ".history/branches/main"))
        timed("mvcfs log -n 20", lambda: mvcfs("log", "-n", "20", model / "main"))
        timed(
            "mvcfs diff of two versions next to each other",
            lambda: mvcfs("diff", model / f"main@{versions - 1}", model / "main"),
        )
        timed("mvcfs diff of the first and the last", lambda: mvcfs("diff", model / "main@1", model / "main"))
        path = Path(*map(os.fsdecode, file_at(files // 2)))
        timed("mvcfs log of a file: walks history", lambda: mvcfs("log", model / "main" / path))
        timed("mvcfs log --graph -n 20", lambda: mvcfs("log", "--graph", "-n", "20", model / "main"))
        timed("cat of a file of version 1", (model / "main@1" / path).read_bytes)
        timed("write of one file", lambda: (model / "main" / path).write_text("changed\n"))
        timed("mvcfs commit of it", lambda: mvcfs("commit", model / "main", "-m", "One file"))
    with mounted(store, folder, "all files") as point:
        timed("stat of every file of the last version", lambda: walk(point / MODEL / f"main@{versions}"))
    with mounted(store, folder, "all versions") as point:
        history = point / MODEL / ".history/branches/main"
        timed("stat of every version", lambda: [os.stat(history / name) for name in os.listdir(history)])


def walk(top: Path) -> int:
    count = 0
    for entry in os.scandir(top):
        entry.stat()
        count += walk(Path(entry.path)) if entry.is_dir() else 1
    return count


async def build_terabyte(store: str, total_bytes: int) -> tuple[int, bytes]:
    storage = await open_storage(store)
    async with opened(storage, make=True) as engine:
        await engine.create_model(MODEL)
        model = await engine.model(MODEL)
        real = await fill_terabyte(model, total_bytes)
        manifests = sum(entry.size_bytes for entry in await storage.list_dir(f"models/{MODEL}/manifests"))
    report("bytes of the manifests", f"{manifests / 2**20:8.1f} MiB")
    return real


def measure_terabyte(store: str, folder: Path, offset: int, data: bytes) -> None:
    with mounted(store, folder, "cold") as point:
        model = point / MODEL
        timed("ls of the branch, cold: opens the model", lambda: os.listdir(model / "main"))
        timed("mvcfs branch exp --from main@1", lambda: mvcfs("branch", model, "exp", "--from", "main@1"))
        timed("ls -l of the new branch", lambda: walk(model / "exp"))
        timed("ls -l of a snapshot", lambda: walk(model / "main@1"))
        timed(
            "open and read 1 MiB within 100 GB: fetches the manifest",
            lambda: read(model / "main@1/shard-00.bin", offset, data),
        )
    with mounted(store, folder, "warm") as point:
        model = point / MODEL
        timed("ls of the branch, warm", lambda: os.listdir(model / "main"))
        timed("open and read 1 MiB within 100 GB", lambda: read(model / "main@1/shard-00.bin", offset, data))
        timed("again, elsewhere in it", lambda: read(model / "exp/shard-00.bin", offset + 2**21, data[2**21 :]))
        timed("mvcfs restore of the directory", lambda: mvcfs("restore", model / "exp", "--from", "main@1"))


def read(path: Path, offset: int, data: bytes) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        found = file.read(2**20)
    assert found == data[: len(found)], "other bytes than were stored"
    assert found


def main(arguments: list[str], about: str) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/scale", description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["versions", "terabyte"])
    parser.add_argument("--store", help="an empty folder or address for the store (default: a temporary folder)")
    parser.add_argument("--built", action="store_true", help="the store was built by an earlier run: only measure")
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=1000, help="of the model, in GB")
    chosen = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="mvcfs-scale-") as name:
        folder = Path(name)
        store = chosen.store or str(folder / "store")
        if chosen.what == "versions":
            if not chosen.built:
                trio.run(build_versions, store, chosen.versions, chosen.files)
            measure_versions(store, folder, chosen.versions, chosen.files)
        else:
            measure_terabyte(store, folder, *trio.run(build_terabyte, store, chosen.bytes * GIGABYTE))
    return 0
