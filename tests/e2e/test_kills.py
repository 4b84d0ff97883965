"""The daemon dies by kill -9 while it writes, uploads and publishes: nothing that a system call returned for is lost.

A writer (tests/e2e/writer.py) notes each system call; after each kill the mount comes back and is held against the notes.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mvcfs.cli.localstate import runtime_dir
from mvcfs.errors import MvcfsError
from mvcfs.fuse.control_client import call
from mvcfs.fuse.runtime import socket_path
from tests.e2e import writer
from tests.e2e.tools import differences
from tests.mount.harness import Mount, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.long, pytest.mark.timeout(900)]

KILLS = 20


@dataclass
class File:
    data: bytes
    mode: int


@dataclass
class Expected:
    """What the notes say the folder holds."""

    files: dict[str, File] = field(default_factory=dict)
    generation: int | None = None

    @classmethod
    def found(cls, folder: Path) -> Expected:
        """What is there."""
        inodes: dict[int, File] = {}
        files = {}
        for entry in sorted((folder / "scratch").iterdir()):
            status = entry.stat()
            if status.st_ino not in inodes:
                data = entry.read_bytes()
                assert len(data) == status.st_size
                inodes[status.st_ino] = File(data, status.st_mode & 0o7777)
            files[entry.name] = inodes[status.st_ino]
        return cls(files, generation_of(folder / "current"))

    def shape(self) -> object:
        """Something to compare: contents, modes and which names are one file."""
        groups: dict[int, list[str]] = {}
        for name, file in self.files.items():
            groups.setdefault(id(file), []).append(name)
        found = {(*sorted(names),): (self.files[names[0]].data, self.files[names[0]].mode) for names in groups.values()}
        return found, self.generation

    def apply(self, note: dict[str, Any], *, prefix: int | None = None) -> None:
        """Does what a note says; of a write its first `prefix` bytes."""
        name = note.get("name", "")
        match note["op"]:
            case "open":
                self.files.setdefault(name, File(b"", 0o644))
            case "write":
                length = note["length"] if prefix is None else prefix
                old, offset = self.files[name].data, note["offset"]
                if length:
                    data = writer.content(note["seed"], note["length"])[:length]
                    self.files[name].data = old[:offset].ljust(offset, b"\0") + data + old[offset + length :]
            case "cut":
                self.files[name].data = self.files[name].data[: note["length"]].ljust(note["length"], b"\0")
            case "mode":
                self.files[name].mode = note["mode"]
            case "unlink":
                del self.files[name]
            case "link":
                self.files[note["target"]] = self.files[name]
            case "rename":
                if self.files.get(note["target"]) is not self.files[name]:
                    self.files[note["target"]] = self.files.pop(name)
            case "generation":
                self.generation = note["number"]
            case other:
                raise AssertionError(other)


def generation_of(directory: Path) -> int | None:
    """The number that all files of a set say. They must agree, and be whole."""
    if not directory.exists():
        return None
    contents = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert sorted(contents) == [f"part-{index}" for index in range(writer.GENERATION_FILES)]
    numbers = {data.split(b"\n")[0] for data in contents.values()}
    assert len(numbers) == 1, f"{directory} is of several generations: {numbers}"
    assert [len(contents[name]) for name in sorted(contents)] == [70_000] + [100] * (writer.GENERATION_FILES - 1)
    return int(numbers.pop())


@dataclass
class Tally:
    """What a run of kills saw."""

    kills: int = 0
    tries: int = 0
    calls: int = 0
    published: int = 0


class Torture:
    """One store, one mount that is killed again and again."""

    def __init__(self, mount: Mount, folder: Path, seed: int, big: int) -> None:
        self.mount = mount
        self.main = mount.point / "m" / "main"
        self.folder = folder
        self.random = random.Random(seed)
        self.seed = seed
        self.big = big
        self.round = 0
        self.checked = 0
        self.tally = Tally()
        self.longest_s: dict[str, float] = {}
        self.expected = Expected()
        self.pid = 0
        self.start()
        self.main.parent.mkdir()
        (self.main / "scratch").mkdir()
        for number in range(3):
            (self.main / f"bulk-{number}").write_bytes(random.Random(number).randbytes(2_000_000))

    def start(self) -> None:
        self.mount.start("--settle", "1h", "--max-settle", "1h")
        self.pid = self.mount.pid()

    def call(self, command: str, **args: Any) -> dict[str, Any]:
        """Asks the daemon without starting a program."""
        socket = socket_path(runtime_dir(), os.path.realpath(self.mount.point.parent) + "/" + self.mount.point.name)
        return call(socket, command, {"mount_path": "m/main", **args})

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        wait_until("the daemon is gone", lambda: not Path(f"/proc/{self.pid}").exists())

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A writer at work, which must end because the mount is gone."""
        self.round += 1
        notes = self.folder / f"notes-{self.round}"
        seed = self.seed * 1000 + self.round
        words = [sys.executable, writer.__file__, str(self.main), str(notes), str(seed), str(self.big)]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        try:
            wait_until("the writer writes", lambda: notes.exists() and notes.stat().st_size > 100)
            yield notes
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        finally:
            process.kill()
            process.wait()

    def check(self, notes: Path | None) -> None:
        """Holds what is there against the notes, and looks at the versions that are new."""
        found = Expected.found(self.main)
        self.replay(notes, found)
        assert [path.name for path in self.main.glob("*") if path.name.startswith("tmp-") and not path.is_dir()] == []
        for stale in self.main.glob("tmp-checkpoint-*"):
            shutil.rmtree(stale)
        self.expected = found
        tip = self.call("log", limit=1)["versions"]
        newest = tip[0]["version"] if tip else 0
        for version in range(self.checked + 1, newest + 1):
            snapshot = self.mount.snapshot(version)
            generation_of(snapshot / "current")
            assert not [name for name in os.listdir(snapshot) if name.startswith("tmp-")]
        self.checked = newest

    def replay(self, notes: Path | None, found: Expected) -> None:
        open_call: dict[str, Any] | None = None
        lines = notes.read_text().splitlines() if notes is not None else []
        for line in lines:
            note = json.loads(line)
            if not note.get("done"):
                open_call = note
                continue
            assert open_call is not None
            self.expected.apply(open_call)
            self.tally.calls += 1
            open_call = None
        allowed = [self.expected]
        if open_call is not None:
            allowed += self.outcomes(open_call, found)
        shape = found.shape()
        if not any(one.shape() == shape for one in allowed):
            raise AssertionError(self.describe(found, open_call))

    def outcomes(self, note: dict[str, Any], found: Expected) -> Iterator[Expected]:
        """What the call that the kill met may have left: nothing, all, of a write a beginning."""
        prefixes: set[int | None] = {None}
        if note["op"] == "write" and note["name"] in found.files:
            data, there = writer.content(note["seed"], note["length"]), found.files[note["name"]].data[note["offset"] :]
            same = next((i for i, (a, b) in enumerate(zip(data, there, strict=False)) if a != b), len(there))
            prefixes |= {min(same, note["length"]), min(len(there), note["length"])}
        for prefix in prefixes:
            outcome = copy.deepcopy(self.expected)
            outcome.apply(note, prefix=prefix)
            yield outcome

    def describe(self, found: Expected, open_call: dict[str, Any] | None) -> str:
        lines = [f"round {self.round}; the last call: {open_call}"]
        lines.append(f"generation {found.generation} found, {self.expected.generation} expected")
        for name in sorted(found.files.keys() | self.expected.files.keys()):
            one, other = found.files.get(name), self.expected.files.get(name)
            if one is None or other is None or one != other:
                lines.append(f"{name}: {_shown(one)} found, {_shown(other)} expected")
        return "\n".join(lines)

    # -- the three kinds of instants -----------------------------------------------------------------------------------

    def kill_while_writing(self) -> None:
        with self.writing() as notes:
            time.sleep(self.random.uniform(0, 0.6))
            self.kill()
        self.start()
        self.check(notes)
        self.tally.kills += 1

    def kill_in_commit(self, step: str, longest_s: float, *, busy: bool) -> None:
        """Kills within a step of a commit, with a writer at work or in quiet."""
        notes = None
        self.change_bulk()
        if busy:
            with self.writing() as notes:
                time.sleep(self.random.uniform(0, 0.2))
                outcome = self.commit_and_kill(step, longest_s)
        else:
            outcome = self.commit_and_kill(step, longest_s)
        before = self.checked
        self.start()
        if outcome is not None:
            assert self.call("log", limit=1)["versions"][0]["version"] == outcome["version"]
        else:
            self.tally.kills += 1
        self.check(notes)
        published = self.checked > before
        self.tally.published += outcome is None and published
        made = self.call("commit", message="again")
        if not busy:
            assert made["version"] == before + 1, "one content, one version"
            assert made["unchanged"] is published
        assert made["conflict"] is False
        self.checked = made["version"]
        assert differences(self.main, self.mount.snapshot(made["version"])) == ""

    def change_bulk(self) -> None:
        path = self.main / f"bulk-{self.random.randrange(3)}"
        with path.open("r+b") as file:
            file.seek(self.random.randrange(1_000_000))
            file.write(self.random.randbytes(self.random.randrange(1, 1_500_000)))
        (self.main / f"small-{self.random.randrange(5)}").write_text(str(self.random.random()))

    def commit_and_kill(self, step: str, longest_s: float) -> dict[str, Any] | None:
        """Starts a commit, kills the daemon when it is at a step. Gives the commit's outcome if it came first."""
        outcomes: list[dict[str, Any]] = []

        def commit() -> None:
            with suppress(MvcfsError):
                outcomes.append(self.call("commit", message=f"round {self.round}"))

        thread = threading.Thread(target=commit)
        thread.start()
        records = self.records()
        while thread.is_alive() and not (self.records() > records if step == "published" else self.reached(step)):
            pass
        # How long a step lasts depends on the machine: after a commit that was faster the kill comes sooner.
        longest_s = min(longest_s, self.longest_s.get(step, longest_s))
        time.sleep(self.random.uniform(0, longest_s))
        self.kill()
        thread.join()
        self.longest_s[step] = longest_s * (0.6 if outcomes else 1.2)
        return outcomes[0] if outcomes else None

    def records(self) -> int:
        """How many records the log has, looked at in the local store itself."""
        store = self.mount.store
        return 0 if "://" in store else sum(1 for name in os.listdir(f"{store}/models/m/log") if name.isdigit())

    def reached(self, step: str) -> bool:
        (row,) = self.call("status")["models"]
        return bool(row["commit"]["step"] == step)

    def finish(self, fresh: Mount) -> None:
        """The end: all is committed, the store is sound, and another host reads the same."""
        made = self.call("commit", message="the end")
        assert os.listdir(self.main.parent) == ["main"], "no conflict with ourselves"
        assert self.mount.umount().returncode == 0
        assert self.mount.fsck()["problems"] == []
        fresh.start()
        assert Expected.found(fresh.point / "m/main").shape() == self.expected.shape()
        for version in range(1, made["version"] + 1):
            generation_of(fresh.snapshot(version) / "current")
        print(f"{self.tally}, {made['version']} versions")


def _shown(file: File | None) -> str:
    return "nothing" if file is None else f"{len(file.data)} bytes {file.data[:8].hex()} mode {file.mode:o}"


Make = Callable[..., Mount]


@pytest.fixture
def torture(tmp_path: Path, mounts: Make) -> Callable[[str, int, int], Torture]:
    def make(store: str, seed: int, big: int) -> Torture:
        return Torture(mounts(store), tmp_path, seed, big)

    return make


def many(torture: Torture, kills: int, kill: Callable[[], None]) -> None:
    """Kills until so many have met what they were meant for."""
    goal = torture.tally.kills + kills
    while torture.tally.kills < goal:
        torture.tally.tries += 1
        assert torture.tally.tries < 4 * goal + 20, torture.tally
        kill()


def test_writing(store: str, mounts: Make, torture: Callable[[str, int, int], Torture]) -> None:
    one = torture(store, 1, 400_000)
    many(one, KILLS, one.kill_while_writing)
    one.finish(mounts(store))


@pytest.mark.parametrize("busy", [False, True])
def test_uploading(store: str, mounts: Make, torture: Callable[[str, int, int], Torture], busy: bool) -> None:
    one = torture(store, 2 + busy, 150_000)
    many(one, KILLS // 2, lambda: one.kill_in_commit("hashing", 0.1, busy=busy))
    one.finish(mounts(store))


@pytest.mark.parametrize("busy", [False, True])
def test_publishing(store: str, mounts: Make, torture: Callable[[str, int, int], Torture], busy: bool) -> None:
    one = torture(store, 4 + busy, 150_000)
    many(one, KILLS // 2, lambda: one.kill_in_commit("publishing", 0.05, busy=busy))
    one.finish(mounts(store))


@pytest.mark.parametrize("busy", [False, True])
def test_just_published(store: str, mounts: Make, torture: Callable[[str, int, int], Torture], busy: bool) -> None:
    one = torture(store, 7 + busy, 150_000)
    many(one, KILLS // 4, lambda: one.kill_in_commit("published", 0.01, busy=busy))
    assert one.tally.published == one.tally.kills
    one.finish(mounts(store))


@pytest.mark.hdfs
def test_on_hdfs(hdfs_store: str, mounts: Make, torture: Callable[[str, int, int], Torture]) -> None:
    one = torture(hdfs_store, 6, 150_000)
    one.kill_while_writing()
    many(one, 1, lambda: one.kill_in_commit("hashing", 0.5, busy=True))
    many(one, 1, lambda: one.kill_in_commit("hashing", 0.5, busy=False))
    many(one, 1, lambda: one.kill_in_commit("publishing", 0.3, busy=True))
    many(one, 1, lambda: one.kill_in_commit("publishing", 0.3, busy=False))
    one.finish(mounts(hdfs_store))
