"""What becomes of a publish when the store or the host fails at any moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from mvcfs.errors import MvcfsError, NotFound, Transient, UnknownOutcome
from mvcfs.types import Author
from mvcfs.versions.log.publish import CHECKPOINT_EVERY, Attempt
from mvcfs.versions.log.reflog import Fate, checkpoint_name, record_name
from mvcfs.versions.repository import ModelRepository
from tests.versions.simulated import (
    CHANGING,
    Crash,
    SimulatedStorage,
    World,
    commit_files,
    content_of,
    make_model,
    open_host,
)

LOG = "models/llama/log/"


@pytest.fixture
async def world() -> World:
    world = World()
    await make_model(world)
    return world


class Notes:
    """What a caller of publish keeps on its disk."""

    def __init__(self) -> None:
        self.attempt: Attempt | None = None
        self.told: list[Attempt | None] = []

    def __call__(self, attempt: Attempt | None) -> None:
        self.attempt = attempt
        self.told.append(attempt)


def fail_at(storage: SimulatedStorage, index: int, fault: str) -> None:
    """The storage call number `index` from here on goes wrong."""
    left = index

    def plan(operation: str, path: str) -> str | None:
        nonlocal left
        left -= 1
        return fault if left == -1 else None

    storage.plan = plan


def race_lost_to(other: ModelRepository, storage: SimulatedStorage) -> Callable[[str, str], Awaitable[None]]:
    """Another host publishes just before the first rename."""

    async def hook(operation: str, path: str) -> None:
        if operation == "rename":
            storage.hook = None
            await commit_files(other, {b"y": b"two"})

    return hook


CONTENT = {b"big": b"x" * 60_000 + b"y", b"bigger": b"z" * 65_000}


@pytest.mark.parametrize("fault", ["crash", "crash-after", "lost", "unknown", "late", "transient"])
@pytest.mark.parametrize("race", ["none", "before", "during"])
async def test_a_failure_at_any_step_publishes_once(
    tmp_path: Path, fault: str, race: str, autojump_clock: object
) -> None:
    for index in range(200):
        world = World()
        await make_model(world)
        local = tmp_path / f"{index}"
        other, _ = await open_host(world, local, "other")
        first = await commit_files(other, {b"x": b"one"})
        host, storage = await open_host(world, local, "a")
        if race == "before":
            await commit_files(other, {b"y": b"two"})
        elif race == "during":
            storage.hook = race_lost_to(other, storage)
        fail_at(storage, index, fault)
        calls_before = len(storage.calls)
        notes = Notes()
        failed = None
        try:
            await commit_files(host, CONTENT, base=first.commit, on_attempt=notes)
        except (Crash, MvcfsError) as error:
            failed = error
        if index >= len(storage.calls) - calls_before:
            assert failed is None
            return
        # The host starts again: what is noted is resolved, then what isn't published is published.
        raced = other.refs.branch("main").version == 2
        host, storage = await open_host(world, local, "a")
        published = notes.attempt is not None and await host.resolve_attempt(notes.attempt)
        if failed is None:
            assert notes.attempt is None
            published = True
        numbered = [path for path in world.names(LOG) if "tmp-" not in path]
        world.run_late()
        assert [path for path in world.names(LOG) if "tmp-" not in path] == numbered
        if not published:
            await host.refresh()
            await commit_files(host, CONTENT, base=first.commit)
        await other.refresh()
        main = other.refs.branch("main")
        assert main.version == 2 + raced
        expected = {b"x": b"one", **CONTENT} | ({b"y": b"two"} if raced else {})
        assert await content_of(other, main.tip) == expected
        problems = [problem for problem in await other.fsck() if problem.severity.value == "damage"]
        assert problems == []
    raise AssertionError("a publish takes no 200 calls")


async def test_success_is_told_to_the_caller(world: World, tmp_path: Path) -> None:
    host, storage = await open_host(world, tmp_path)
    notes = Notes()
    seen: list[bool] = []

    async def hook(operation: str, path: str) -> None:
        if operation == "rename":
            seen.append(notes.attempt is not None)

    storage.hook = hook
    await commit_files(host, {b"x": b"one"}, on_attempt=notes)
    assert seen == [True]
    assert len(notes.told) == 2
    assert notes.attempt is None
    assert notes.told[0].temporary == f"tmp-{notes.told[0].txn}"
    assert notes.told[0].commit == host.refs.branch("main").tip


async def test_cancelling_once_the_rename_is_on_its_way_changes_nothing(world: World, tmp_path: Path) -> None:
    host, storage = await open_host(world, tmp_path)
    notes = Notes()
    with trio.CancelScope() as scope:

        async def hook(operation: str, path: str) -> None:
            if operation == "rename":
                scope.cancel()

        storage.hook = hook
        await commit_files(host, {b"x": b"one"}, on_attempt=notes)
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert notes.attempt is None
    assert host.refs.branch("main").version == 1


async def test_many_hosts_at_once_lose_nothing(world: World, tmp_path: Path) -> None:
    hosts = [(await open_host(world, tmp_path, f"h{n}"))[0] for n in range(5)]

    async def work(number: int) -> None:
        for step in range(4):
            await commit_files(hosts[number], {b"%d-%d" % (number, step): b"data"})

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(work, number)
    for host in hosts:
        await host.refresh()
        assert host.refs.branch("main").version == 20
    assert len(await content_of(hosts[0], hosts[0].refs.branch("main").tip)) == 20
    assert [p for p in await hosts[0].fsck() if p.severity.value == "damage"] == []
    assert not [name for name in world.names(LOG) if "tmp-" in name]


async def test_a_rename_that_happens_while_it_is_given_up_counts(world: World, tmp_path: Path) -> None:
    host, storage = await open_host(world, tmp_path)

    async def hook(operation: str, path: str) -> None:
        if operation == "delete":
            world.run_late()

    storage.hook = hook
    storage.plan = lambda operation, path: "late" if operation == "rename" else None
    notes = Notes()
    published = await commit_files(host, {b"x": b"one"}, on_attempt=notes)
    assert (published.version, published.unchanged) == (1, False)
    assert len(notes.told) == 2
    assert not [name for name in world.names(LOG) if "tmp-" in name]


async def make_long(world: World, tmp_path: Path, count: int = CHECKPOINT_EVERY + 4) -> None:
    host, _ = await open_host(world, tmp_path, "long")
    for number in range(count):
        await host.set_alias("a", await first_commit(host), who=Author("x", "x@example.com"), why=str(number))


async def first_commit(host: object) -> str:
    main = host.refs.branch("main")  # type: ignore[attr-defined]
    return main.tip or (await commit_files(host, {b"x": b"one"})).commit  # type: ignore[arg-type]


def trim(world: World, below: int) -> None:
    for number in range(1, below):
        world.files.pop(LOG + record_name(number), None)


async def test_a_checkpoint_is_written_and_enough_to_open(world: World, tmp_path: Path) -> None:
    await make_long(world, tmp_path)
    assert LOG + checkpoint_name(CHECKPOINT_EVERY) in world.files
    long, _ = await open_host(world, tmp_path, "x")
    trim(world, CHECKPOINT_EVERY)
    trimmed, _ = await open_host(world, tmp_path, "y")
    assert trimmed.refs == long.refs
    assert trimmed.state == long.state
    assert (await commit_files(trimmed, {b"n": b"new"})).version == 2
    assert [p for p in await trimmed.fsck() if p.severity.value == "damage"] == []


async def test_readers_that_slept_through_a_trim_go_on_from_the_checkpoint(world: World, tmp_path: Path) -> None:
    sleeper, _ = await open_host(world, tmp_path, "sleeper")
    await make_long(world, tmp_path)
    trim(world, CHECKPOINT_EVERY)
    assert await sleeper.refresh()
    awake, _ = await open_host(world, tmp_path, "awake")
    assert sleeper.refs == awake.refs


async def test_a_writer_that_slept_through_a_trim_leaves_no_ghost(world: World, tmp_path: Path) -> None:
    sleeper, storage = await open_host(world, tmp_path, "sleeper")
    reader, _ = await open_host(world, tmp_path, "reader")

    async def hook(operation: str, path: str) -> None:
        if operation == "rename":
            storage.hook = None
            await make_long(world, tmp_path)
            trim(world, CHECKPOINT_EVERY)

    storage.hook = hook
    notes = Notes()
    published = await commit_files(sleeper, {b"s": b"late"}, on_attempt=notes)
    assert published.version == 2
    assert LOG + record_name(1) not in world.files
    await reader.refresh()
    assert await content_of(reader, reader.refs.branch("main").tip) == {b"x": b"one", b"s": b"late"}


async def test_a_ghost_of_a_crashed_writer_is_never_believed(world: World, tmp_path: Path) -> None:
    sleeper, storage = await open_host(world, tmp_path, "sleeper")
    reader, _ = await open_host(world, tmp_path, "reader")

    async def hook(operation: str, path: str) -> None:
        if operation == "rename":
            storage.hook = None
            await make_long(world, tmp_path)
            trim(world, CHECKPOINT_EVERY)
            storage.plan = lambda operation, path: "crash-after"

    storage.hook = hook
    notes = Notes()
    with pytest.raises(Crash):
        await commit_files(sleeper, {b"s": b"late"}, on_attempt=notes)
    assert LOG + record_name(1) in world.files
    await reader.refresh()
    assert await content_of(reader, reader.refs.branch("main").tip) == {b"x": b"one"}
    again, _ = await open_host(world, tmp_path, "sleeper")
    assert not await again.resolve_attempt(notes.attempt)
    assert LOG + record_name(1) not in world.files


async def test_an_attempt_is_resolved_after_its_record_was_trimmed(world: World, tmp_path: Path) -> None:
    host, storage = await open_host(world, tmp_path, "a")
    notes = Notes()
    storage.plan = lambda operation, path: "crash-after" if operation == "rename" else None
    with pytest.raises(Crash):
        await commit_files(host, {b"x": b"one"}, on_attempt=notes)
    await make_long(world, tmp_path)
    trim(world, CHECKPOINT_EVERY)
    again, _ = await open_host(world, tmp_path, "a")
    assert await again.resolve_attempt(notes.attempt)
    log = again._model.log
    assert await log.fate(1, notes.attempt.txn) is Fate.TAKEN_IN
    assert await log.fate(1, "0" * 32) is Fate.VOID


async def test_a_model_renamed_after_a_lost_answer_is_resolved_there(
    world: World, tmp_path: Path, autojump_clock: object
) -> None:
    host, storage = await open_host(world, tmp_path, "a")

    async def hook(operation: str, path: str) -> None:
        if operation == "read_file" and storage.calls[-2][0] == "rename":
            world.move("models/llama", "models/alpaca")

    storage.hook = hook
    storage.plan = lambda operation, path: "lost" if operation == "rename" else None
    notes = Notes()
    with pytest.raises(NotFound, match="renamed or removed"):
        await commit_files(host, {b"x": b"one"}, on_attempt=notes)
    assert notes.attempt is not None
    storage.hook = storage.plan = None
    host.renamed("alpaca")
    assert await host.resolve_attempt(notes.attempt)
    assert host.refs.branch("main").version == 1


async def test_a_store_that_is_away_gives_up_and_publishes_nothing(
    world: World, tmp_path: Path, autojump_clock: object
) -> None:
    host, storage = await open_host(world, tmp_path, "a")
    storage.plan = lambda operation, path: "unknown" if operation in CHANGING else "transient"
    notes = Notes()
    with pytest.raises((Transient, UnknownOutcome)):
        await commit_files(host, {b"x": b"one"}, on_attempt=notes)
    assert notes.told == []
    storage.plan = None
    assert (await commit_files(host, {b"x": b"one"})).version == 1


async def test_a_failing_checkpoint_does_not_fail_the_publish(world: World, tmp_path: Path) -> None:
    host, storage = await open_host(world, tmp_path, "a")
    storage.plan = lambda operation, path: "transient" if "checkpoint-" in path else None
    commit = (await commit_files(host, {b"x": b"one"})).commit
    for number in range(CHECKPOINT_EVERY + 2):
        await host.set_alias("a", commit, who=Author("x", "x@example.com"), why=str(number))
    assert not [name for name in world.names(LOG) if "checkpoint" in name]
    storage.plan = None
    await host.set_alias("a", commit, who=Author("x", "x@example.com"), why="last")
    assert [name for name in world.names(LOG) if "checkpoint" in name]
