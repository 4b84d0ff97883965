"""A model of many versions stays light: its Git packs are joined, its log is trimmed, and nobody misses what goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from mvcfs.errors import CorruptData, MvcfsError
from mvcfs.types import StoredFile
from mvcfs.versions.check import Severity
from mvcfs.versions.log import publish, trimming
from mvcfs.versions.publishing import commits, pack_joining, upkeep
from mvcfs.versions.publishing.pack_joining import FAN, Joinable, plan_join
from mvcfs.versions.repository import ModelRepository
from tests.versions.simulated import (
    Clock,
    Crash,
    World,
    commit_files,
    content_of,
    make_model,
    open_host,
)
from tests.versions.test_hosts import Host, ManyHosts

MODEL = "models/llama/"
SMALL = (
    (commits, "INLINE_BYTES", 0),
    (pack_joining, "FAN", 2),
    (publish, "CHECKPOINT_EVERY", 4),
    (trimming, "KEPT_RECORDS", 4),
    (trimming, "KEPT_WAITING", 0),
    (upkeep, "GRACE_S", 0),
)


@pytest.fixture
async def world() -> World:
    world = World()
    await make_model(world)
    return world


@pytest.fixture
def packs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version makes a Git pack."""
    monkeypatch.setattr(commits, "INLINE_BYTES", 0)


async def versions(host: ModelRepository, count: int, *, keep_up: bool = True) -> list[str]:
    made = []
    for _ in range(count):
        state = host.refs.branch("main")
        number = state.version + 1
        made.append((await commit_files(host, {b"f%d" % (number % 10): b"%d" % number})).commit)  # type: ignore[attr-defined]
        if keep_up:
            await host.upkeep.run()
    return made


def damage(problems: list[Any]) -> list[Any]:
    return [problem for problem in problems if problem.severity is Severity.DAMAGE]


# --- what is joined


def simulate(count: int, units: int) -> tuple[int, int]:
    """Publishes of equal size: most files at any time, and units written for each published."""
    files: list[Joinable] = []
    most = written = 0
    for number in range(count):
        files.append(Joinable(StoredFile(f"git/{number}.pack", units), units))
        while chosen := plan_join(files):
            names = {file.name for file in chosen}
            total = sum(entry.units for entry in files if entry.file.name in names)
            files = [entry for entry in files if entry.file.name not in names]
            files.append(Joinable(StoredFile(f"git/j{number}-{total}.pack", total), total))
            written += total
        most = max(most, len(files))
    return most, written // (count * units)


def test_files_and_work_grow_with_the_logarithm() -> None:
    assert simulate(1000, 4)[0] <= 4 * FAN
    most, work = simulate(20_000, 4)
    assert most <= 6 * FAN
    assert work <= 6


def test_large_files_are_left_alone() -> None:
    large = [Joinable(StoredFile(f"git/{number}.pack", 300 << 20), 10_000) for number in range(20)]
    assert plan_join(large) == []
    assert plan_join([]) == []
    many = [Joinable(StoredFile(f"git/{number}.pack", 1000), 5) for number in range(500)]
    assert len(plan_join(many)) == pack_joining.MOST


# --- a model of many versions


@pytest.mark.usefixtures("packs_at_once")
async def test_files_stay_few_and_every_version_readable(world: World, tmp_path: Path) -> None:
    clock = Clock()
    host, _ = await open_host(world, tmp_path, clock=clock)
    made: list[str] = []
    most = 0
    for _ in range(60):
        made += await versions(host, 5)
        clock.forward(1)
        most = max(most, len(world.files))
    kinds = {kind: len(world.names(MODEL + kind)) for kind in ("git", "log")}
    assert most <= 320, kinds
    fresh, _ = await open_host(world, tmp_path, "fresh")
    assert [info.commit for info in reversed(await fresh.history("main"))] == made
    for number in (1, 57, 200, 299, 300):
        content = await content_of(fresh, made[number - 1])
        assert content[b"f%d" % (number % 10)] == b"%d" % number
    assert damage(await fresh.fsck()) == []
    left = [problem.what for problem in await host.fsck() if "/git/" in problem.what]
    assert left == []
    assert len(host._objects.memory_objects()) < 50


@pytest.mark.usefixtures("packs_at_once")
async def test_the_log_keeps_its_beginning_and_its_end(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    await versions(host, 280)
    listing = await host._model.log.listing()
    newest = listing.checkpoints[-1]
    assert listing.records[0] == 0
    assert listing.records[1:] == tuple(range(newest - trimming.KEPT_RECORDS, host.refs.number + 1))
    assert listing.checkpoints[0] >= newest - trimming.KEPT_RECORDS
    assert await host._model.log.read_checkpoint(newest) is not None
    assert listing.temporary == ()


@pytest.mark.usefixtures("packs_at_once")
async def test_a_reader_that_slept_finds_everything(world: World, tmp_path: Path) -> None:
    reader, _ = await open_host(world, tmp_path, "reader")
    sleeper, _ = await open_host(world, tmp_path, "sleeper")
    host, _ = await open_host(world, tmp_path)
    first = await versions(host, 20)
    await reader.refresh()
    made = first + await versions(host, 250)
    assert await reader.refresh()
    assert [info.commit for info in reversed(await reader.history("main"))] == made
    # One that slept publishes on what it knew: nothing that was joined comes back.
    await commit_files(sleeper, {b"mine": b"1"}, base=None)
    state = (await open_host(world, tmp_path, "fresh"))[0].state
    live = {f"{MODEL}{file.name}" for file in state.refs.git}
    assert live <= set(world.names(MODEL + "git"))
    assert damage(await sleeper.fsck()) == []


@pytest.mark.usefixtures("packs_at_once")
async def test_a_pack_that_goes_while_it_is_fetched_is_found_where_it_went(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in SMALL[3:]:
        monkeypatch.setattr(module, name, value)
    host, _ = await open_host(world, tmp_path)
    made = await versions(host, FAN, keep_up=False)
    reader, storage = await open_host(world, tmp_path, "reader")
    made += await versions(host, FAN - 1, keep_up=False)
    joined = False

    async def join_first(operation: str, path: str) -> None:
        nonlocal joined
        if "/git/" in path and not joined:
            joined = True
            await host.upkeep.run()
            await versions(host, 1)
            await host.upkeep.run()

    storage.hook = join_first
    assert await reader.refresh()
    storage.hook = None
    assert joined
    assert len(reader.refs.git) < FAN
    assert [info.commit for info in reversed(await reader.history("main"))][: len(made)] == made


@pytest.mark.usefixtures("packs_at_once")
async def test_a_live_pack_that_is_gone_is_damage(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    await versions(host, 3)
    world.delete(world.names(MODEL + "git")[0], False)
    with pytest.raises(CorruptData, match="git/"):
        await open_host(world, tmp_path, "reader")
    assert [problem.what for problem in damage(await host.fsck())]


@pytest.mark.usefixtures("packs_at_once")
async def test_of_two_hosts_that_join_the_same_one_gives_way(world: World, tmp_path: Path) -> None:
    first, _ = await open_host(world, tmp_path, "a")
    await versions(first, FAN, keep_up=False)
    second, storage = await open_host(world, tmp_path, "b")
    done = False

    async def other_first(operation: str, path: str) -> None:
        nonlocal done
        if operation == "write_file" and "/log/tmp-" in path and not done:
            done = True
            await first.upkeep.run()

    storage.hook = other_first
    await second.upkeep.run()
    storage.hook = None
    assert done
    assert [file.name for file in second.refs.git] == [file.name for file in first.refs.git]
    assert len(second.refs.git) == 1
    # The pack that the other made is gone again; the inputs wait.
    assert len(world.names(MODEL + "git")) == 2 * (FAN + 1)
    assert damage(await second.fsck()) == []


@pytest.mark.usefixtures("packs_at_once")
@pytest.mark.parametrize("fault", ["transient", "unknown", "lost", "late", "crash", "crash-after"])
async def test_upkeep_that_fails_anywhere_loses_nothing(
    world: World, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in SMALL[1:]:
        monkeypatch.setattr(module, name, value)
    host, storage = await open_host(world, tmp_path)
    made = await versions(host, 4)
    for step in range(40):
        left = step

        def plan(operation: str, path: str) -> str | None:
            nonlocal left
            left -= 1
            return fault if left == -1 else None

        storage.plan = None
        if storage.dead:
            host, storage = await open_host(world, tmp_path)
        made += await versions(host, 1, keep_up=False)
        storage.plan = plan
        try:
            await host.upkeep.run()
        except Crash:
            assert storage.dead
        world.run_late()
    fresh, _ = await open_host(world, tmp_path, "fresh")
    assert [info.commit for info in reversed(await fresh.history("main"))] == made
    assert damage(await fresh.fsck()) == []


class ManyHostsJoining(ManyHosts):
    """The same hosts under the same faults, each joining and trimming after each of its versions."""

    def __init__(self) -> None:
        super().__init__()
        self.before = [(module, name, getattr(module, name)) for module, name, _ in SMALL]
        for module, name, value in SMALL:
            setattr(module, name, value)

    def teardown(self) -> None:
        super().teardown()
        for module, name, value in self.before:
            setattr(module, name, value)

    async def _publish(self, host: Host, plan: Any) -> None:
        await super()._publish(host, plan)
        try:
            await host.repository.upkeep.run()
        except (Crash, MvcfsError):
            assert host.storage.dead


ManyHostsJoining.TestCase.settings = settings(
    max_examples=20, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
)
TestManyHostsJoining = ManyHostsJoining.TestCase
