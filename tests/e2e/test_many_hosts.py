"""Six hosts write one checkpoint, and one path, at once, on real HDFS, while their daemons are killed.

Each host is a mount with a cache and a host name of its own. Nothing passes between them but the store.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mount.harness import MVCFS, Mount, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.hdfs, pytest.mark.long, pytest.mark.timeout(600)]

HOSTS = 6
SHARDS = 64
KILLS = 4
STEP = "step-100"
_GIVE_UP_S = 120.0


class Host(Mount):
    """A mount whose daemon has a host name of its own."""

    def __init__(self, store: str, folder: Path, name: str, *options: str) -> None:
        super().__init__(store, folder, *options, name=name)
        self.name = name
        self.main = self.point / "m" / "main"
        self.killed = 0
        self.away = False

    def start(self, *more: str) -> Host:
        words = [
            MVCFS, "mount", self.store, self.point, "--cache-dir", self.cache, "--settle", "0.4", "--max-settle", "5",
            "--refresh", "0.5", *self.options, *more,
        ]  # fmt: skip
        if os.geteuid() == 0:
            words = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name, *words]
        run(*words, timeout=120)
        return self

    def restart(self) -> Host:
        """See `Mount.restart`."""
        self.away = True
        super().restart()
        self.killed += 1
        self.away = False
        return self

    def doing(self, act: Callable[[], Any]) -> Any:
        """What a program does that tries again where its mount was away."""
        while True:
            before = self.killed
            try:
                return act()
            except OSError:
                if not self.away and self.killed == before:
                    raise
                time.sleep(0.1)


@pytest.fixture
def hosts(hdfs_store: str, tmp_path: Path) -> Iterator[Callable[..., list[Host]]]:
    """Mounts the store on six hosts."""
    made: list[Host] = []

    def make(*options: str) -> list[Host]:
        made.extend(Host(hdfs_store, tmp_path, f"host{number}", *options).start() for number in range(HOSTS))
        (made[0].point / "m").mkdir()
        for host in made:
            wait_until("the model shows", host.main.exists)
        return made

    yield make
    for host in made:
        host.close()


def shard(number: int) -> bytes:
    """Of 100 B to 2 MB: some in Git, some in packs."""
    size = [100, 60_000, 400_000, 2_000_000][number % 4]
    return random.Random(number).randbytes(size)


def name_of(number: int) -> str:
    return f"model-{number:05}-of-{SHARDS:05}.safetensors"


@contextmanager
def killing(hosts: list[Host], seed: int) -> Iterator[None]:
    """Kills random daemons at random instants while the block runs, and mounts each again at once."""
    chance = random.Random(seed)

    def kill() -> None:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 1.5))
            chance.choice(hosts).restart()

    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        yield
        killer.result()


def check_one_directory(hosts: list[Host]) -> None:
    """One directory with all shards on every host, byte for byte, and no other branch than main."""
    names = [name_of(number) for number in range(SHARDS)]

    def seen(host: Host) -> bool:
        return os.listdir(host.main) == [STEP] and sorted(os.listdir(host.main / STEP)) == names

    for host in hosts:
        wait_until(
            f"{host.name} shows one directory with all shards",
            lambda host=host: host.doing(lambda: seen(host)),
            timeout=_GIVE_UP_S,
        )
        for number, name in enumerate(names):
            assert (host.main / STEP / name).read_bytes() == shard(number), (host.name, name)
        assert os.listdir(host.point / "m") == ["main"]


def check_store(hosts: list[Host], tmp_path: Path) -> Host:
    """All unmount; a host that comes then reads a clean store."""
    for host in hosts:
        host.umount()
    late = Host(hosts[0].store, tmp_path, "late")
    assert late.fsck()["problems"] == []
    return late


def write(host: Host, folder: Path, number: int) -> None:
    def act() -> None:
        with open(folder / name_of(number), "wb") as file:
            file.write(shard(number))

    host.doing(act)
    time.sleep(0.5)  # as long as a training job computes; a host may be killed meanwhile


def everywhere(hosts: list[Host], act: Callable[[int, Host], None]) -> None:
    """Does something on all hosts at once."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        list(pool.map(act, range(len(hosts)), hosts))


def test_a_directory_that_one_renames_while_all_write(hosts: Callable[..., list[Host]], tmp_path: Path) -> None:
    """Versions are made of it meanwhile: most shards are published before it is renamed, some are open then, some come after."""
    made = hosts()
    temporary = f"{STEP}.part"
    meet = threading.Barrier(HOSTS)

    def most(rank: int, host: Host) -> None:
        host.doing(lambda: (host.main / temporary).mkdir(exist_ok=True))
        for number in range(rank, SHARDS - 2 * HOSTS, HOSTS):
            write(host, host.main / temporary, number)

    def last(rank: int, host: Host) -> None:
        wait_until("shards of all hosts show", lambda: len(os.listdir(host.main / temporary)) > SHARDS - 3 * HOSTS)
        directory = os.open(host.main / temporary, os.O_RDONLY)
        for number in range(SHARDS - 2 * HOSTS + rank, SHARDS, HOSTS):
            data = shard(number)
            file = os.open(name_of(number), os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory)
            os.write(file, data[: len(data) // 2])
            meet.wait()
            if rank == 0 and number < SHARDS - HOSTS:
                os.rename(host.main / temporary, host.main / STEP)
            os.write(file, data[len(data) // 2 :])
            os.close(file)
        os.close(directory)

    with killing(made, 1):
        everywhere(made, most)
    everywhere(made, last)
    check_one_directory(made)
    late = check_store(made, tmp_path).start()
    try:
        check_one_directory([late])
    finally:
        late.close()


def test_an_ignored_directory_that_each_renames(hosts: Callable[..., list[Host]], tmp_path: Path) -> None:
    """A temporary name that versions leave out: each host has its own, and the directories unite once they have the name."""
    made = hosts()
    temporary = f"tmp-checkpoint-{STEP}"

    def save(rank: int, host: Host) -> None:
        host.doing(lambda: (host.main / temporary).mkdir(exist_ok=True))
        for number in range(rank, SHARDS, HOSTS):
            write(host, host.main / temporary, number)

        def place() -> None:
            # Another host's directory may have the name already: then the files go there one by one.
            try:
                os.rename(host.main / temporary, host.main / STEP)
            except FileNotFoundError:
                # It was done when the daemon was killed, or the mount is away.
                if not (host.main / STEP / name_of(rank)).exists():
                    raise
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                for name in os.listdir(host.main / temporary):
                    os.rename(host.main / temporary / name, host.main / STEP / name)
                os.rmdir(host.main / temporary)

        host.doing(place)

    with killing(made, 2):
        everywhere(made, save)
    check_one_directory(made)
    check_store(made, tmp_path)


def test_a_shared_directory_that_one_renames(hosts: Callable[..., list[Host]], tmp_path: Path) -> None:
    """With `-o shared` a temporary directory is one for all, and one rename gives it its name."""
    made = hosts("-o", "shared")
    temporary = f"{STEP}.tmp"

    def save(rank: int, host: Host) -> None:
        host.doing(lambda: (host.main / temporary).mkdir(exist_ok=True))
        for number in range(rank, SHARDS, HOSTS):
            write(host, host.main / temporary, number)

    with killing(made, 3):
        everywhere(made, save)
    assert len(os.listdir(made[1].main / temporary)) == SHARDS
    os.rename(made[0].main / temporary, made[0].main / STEP)
    for host in made:
        assert os.listdir(host.main) == [STEP]
    check_one_directory(made)
    version = wait_until("there is a version", made[0].versions)[0]["version"]
    assert len(os.listdir(made[1].snapshot(version) / STEP)) == SHARDS
    check_store(made, tmp_path)


@pytest.mark.parametrize("size", [50, 1_500_000], ids=["in-git", "in-packs"])
def test_one_path_that_all_write(hosts: Callable[..., list[Host]], tmp_path: Path, size: int) -> None:
    """Every writer's bytes are found afterwards, on the branch or on a conflict branch."""
    made = hosts()
    contents = [random.Random(rank + size).randbytes(size) for rank in range(HOSTS)]

    def save(rank: int, host: Host) -> None:
        def act() -> None:
            with open(host.main / "model.bin", "wb") as file:
                file.write(contents[rank])

        host.doing(act)

    with killing(made, size):
        everywhere(made, save)
        time.sleep(3)
    late = check_store(made, tmp_path).start()
    try:
        found: dict[bytes, str] = {}
        for branch in sorted(os.listdir(late.point / "m")):
            for version in late.versions(f"m/{branch}"):
                place = late.snapshot(version["version"], f"m/{branch}") / "model.bin"
                if place.exists():
                    found.setdefault(place.read_bytes(), f"{branch}@{version['version']}")
        assert [rank for rank, data in enumerate(contents) if data not in found] == [], sorted(found.values())
        assert (late.main / "model.bin").read_bytes() in contents
    finally:
        late.close()
