"""Jobs whose processes, each on a mount of its own, meet in one directory (`-o shared`)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.shared_rank import RANKS_SCRIPT, ROUNDS, shard
from tests.mount.harness import Mount, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(280)]
HERE = Path(__file__).parent


def run_all(commands: Sequence[Sequence[str]], folder: Path, timeout: float) -> None:
    """Runs programs side by side; what a failed one printed is shown."""
    logs = [folder / f"rank{number}.log" for number in range(len(commands))]
    programs = []
    for command, log in zip(commands, logs, strict=True):
        with log.open("w") as output:
            programs.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output))
    try:
        codes = [program.wait(timeout) for program in programs]
    finally:
        for program in programs:
            program.kill()
    assert not any(codes), "\n".join(log.read_text()[-3000:] for log in logs)


def shared_mounts(store: str, mounts: Callable[..., Mount], count: int) -> list[Mount]:
    made = [mounts(store, "-o", "shared").start() for _ in range(count)]
    (made[0].point / "m").mkdir()
    return made


def job(what: str, made: list[Mount], ranks: int, folder: Path) -> None:
    places = [made[rank % len(made)].point / "m/main" for rank in range(ranks)]
    commands = [
        (sys.executable, RANKS_SCRIPT, what, str(rank), str(ranks), str(place)) for rank, place in enumerate(places)
    ]
    run_all(commands, folder, 200)


def test_a_barrier_passes_through_the_file_system(any_store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    made = shared_mounts(any_store, mounts, 3)
    job("barrier", made, 5, tmp_path)
    for mount in made:
        mount.umount()
    assert made[0].fsck()["problems"] == []


def test_a_directory_is_a_lock(any_store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    made = shared_mounts(any_store, mounts, 2)
    job("lock", made, 3, tmp_path)
    for mount in made:
        assert (mount.point / "m/main/counter").read_text() == str(3 * ROUNDS)


def test_the_files_of_a_distributed_checkpoint(any_store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    made = shared_mounts(any_store, mounts, 3)
    job("dcp", made, 6, tmp_path)
    names = [".metadata", *[f"__{rank}_0.distcp" for rank in range(6)]]

    def step() -> Path | None:
        versions = made[1].versions()
        found = made[2].snapshot(versions[0]["version"]) / "step-5" if versions else None
        return found if found is not None and found.exists() and sorted(os.listdir(found)) == names else None

    whole = wait_until("a version holds the checkpoint", step)
    for rank in range(6):
        assert (whole / f"__{rank}_0.distcp").read_bytes() == shard(rank)
    assert sorted(os.listdir(made[0].point / "m")) == ["main"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="gives each process the same path by a mount namespace of its own")
def test_orbax_saves_and_restores(any_store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    """Two JAX processes on two mounts save three checkpoints with Orbax, keep two, and each restores the other's half."""
    made = shared_mounts(any_store, mounts, 2)
    place = tmp_path / "models"
    place.mkdir()
    port = str(free_port())
    script = 'mount --bind "$1" "$2" && exec "$3" "$4" "$5" "$6" "$2/m/main/run"'
    commands = [
        ("unshare", "-m", "sh", "-c", script, "sh", str(made[rank].point), str(place), sys.executable,
         str(HERE / "orbax_rank.py"), str(rank), port)
        for rank in range(2)
    ]  # fmt: skip
    run_all(commands, tmp_path, 240)
    wait_until("a version holds the last checkpoint", lambda: "3" in newest(made[0]))
    wait_until("the other mount shows it", lambda: newest(made[1]) >= {"2", "3"})
    for mount in made:
        mount.umount()
    assert made[0].fsck()["problems"] == []


def newest(mount: Mount) -> set[str]:
    """The steps that the newest version holds whole."""
    versions = mount.versions()
    run = mount.snapshot(versions[0]["version"]) / "run" if versions else None
    if run is None or not run.exists():
        return set()
    return {step.name for step in run.iterdir() if (step / "_CHECKPOINT_METADATA").exists()}
