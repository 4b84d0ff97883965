"""Leases: who is there, judged by the store's times; and turns, so that no host loses every race."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from mvcfs.errors import CorruptData, MvcfsError
from mvcfs.types import NS_PER_S
from mvcfs.versions.log.leases import (
    GOOD_FOR_S,
    OVERLAY,
    PUBLISH,
    Lease,
    LeaseFolder,
    MountLease,
    Pin,
    encode_lease,
    parse_lease_file,
)
from mvcfs.versions.log.refs import new_id
from mvcfs.versions.log.turns import HONOURED_S, Turns
from tests.versions.simulated import Clock, SimulatedStorage, World, commit_files, make_model, open_host

FOLDER = "models/llama/leases/"
COMMIT = "1" * 40


def mount(world: World, host: str, holder: str | None = None) -> tuple[MountLease, SimulatedStorage]:
    storage = SimulatedStorage(world)
    folder = LeaseFolder(storage, lambda: "models/llama")
    return MountLease(folder, holder or new_id(), host, "ada", Clock()), storage


def files(world: World) -> list[str]:
    return [path for path in world.files if path.startswith(FOLDER)]


def age(world: World, names: list[str], seconds: float) -> None:
    """Makes files so much older than anything that comes."""
    for name in names:
        world.mtimes[name] -= int(seconds * NS_PER_S)


def test_a_lease_reads_as_it_was_written() -> None:
    lease = Lease(
        new_id(),
        "host",
        "ada",
        OVERLAY,
        7,
        300.0,
        (Pin("0" * 32, "main", COMMIT), Pin("1" * 32, "new", None)),
        (COMMIT,),
    )
    assert parse_lease_file(encode_lease(lease), "here") == lease
    with pytest.raises(CorruptData):
        parse_lease_file(b'{"holder": 1}', "here")


async def test_renewing_leaves_one_file_that_the_others_see() -> None:
    world = World()
    await make_model(world)
    (a, _), (b, _) = mount(world, "a"), mount(world, "b")
    for _ in range(3):
        await a.renew(OVERLAY, [Pin("0" * 32, "main", COMMIT)], [])
    assert len(files(world)) == 1
    [(found, _)] = await b.others()
    assert found.lease.host == "a"
    assert found.lease.branches[0].commit == COMMIT
    assert await a.others() == []
    await a.release()
    assert files(world) == []
    assert await b.others() == []


async def test_a_dead_mount_is_no_one_and_its_lease_is_cleaned_up() -> None:
    world = World()
    await make_model(world)
    (a, _), (b, _) = mount(world, "a"), mount(world, "b")
    await a.renew(OVERLAY, [], [])
    age(world, files(world), GOOD_FOR_S + 1)
    await b.renew(OVERLAY, [], [])
    assert await b.others() == []
    assert len(files(world)) == 1
    await a.renew(OVERLAY, [], [])
    assert [file.lease.host for file, _ in await b.others()] == ["a"]


async def test_a_killed_mount_that_comes_back_takes_its_place() -> None:
    world = World()
    await make_model(world)
    holder = new_id()
    await mount(world, "a", holder)[0].renew(OVERLAY, [], [])
    await mount(world, "a", holder)[0].renew(OVERLAY, [], [])
    assert len(files(world)) == 1


async def test_a_store_that_fails_leaves_nothing_behind_for_long() -> None:
    world = World()
    await make_model(world)
    lease, storage = mount(world, "a")
    for fault in ("transient", "unknown", "lost"):
        storage.plan = lambda operation, _path, fault=fault: fault if operation == "write_file" else None
        with pytest.raises(MvcfsError):
            await lease.renew(OVERLAY, [], [])
    storage.plan = None
    await lease.renew(OVERLAY, [], [])
    assert len(files(world)) == 1


async def test_a_model_of_an_older_mvcfs_gets_the_folder_and_a_renamed_one_does_not() -> None:
    world = World()
    await make_model(world)
    world.dirs.remove(FOLDER.rstrip("/"))
    lease, _ = mount(world, "a")
    await lease.renew(OVERLAY, [], [])
    assert len(files(world)) == 1
    world.move("models/llama", "models/other")
    with pytest.raises(MvcfsError):
        await lease.renew(OVERLAY, [], [])
    assert "models/llama" not in world.dirs


def test_no_host_starves(tmp_path: Path) -> None:
    """One host is far away from the store, three others publish all the time: it gets its turn."""

    async def play() -> None:
        world = World()
        await make_model(world)
        slow, storage = await open_host(world, tmp_path, "slow")

        async def far(_operation: str, _path: str) -> None:
            await trio.sleep(0.03)

        storage.hook = far
        published: list[str] = []
        more = trio.Event()

        async def busy(name: str) -> None:
            repository, near = await open_host(world, tmp_path, name)

            async def close(_operation: str, _path: str) -> None:
                await trio.sleep(0.001)

            near.hook = close
            while True:
                await commit_files(repository, {b"%s%d" % (name.encode(), len(published)): b"x"})
                published.append(name)
                more.set()

        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(busy, name)
            with trio.fail_after(60):
                await commit_files(slow, {b"mine": b"x"})
            # The lease was given back.
            more = trio.Event()
            with trio.fail_after(HONOURED_S / 2):
                await more.wait()
            nursery.cancel_scope.cancel()
        assert not files(world)

    trio.run(play)


def test_a_dead_hosts_turn_holds_nobody_up_for_long(tmp_path: Path) -> None:
    async def play() -> None:
        world = World()
        await make_model(world)
        repository, storage = await open_host(world, tmp_path, "a")
        folder = LeaseFolder(storage, lambda: "models/llama")
        await folder.write(Lease(new_id(), "dead", "ada", PUBLISH, 0, HONOURED_S), new_id())
        start = trio.current_time()
        for number in range(3):
            await commit_files(repository, {b"%d" % number: b"x"})
        assert HONOURED_S <= trio.current_time() - start < HONOURED_S + 2

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


def test_of_two_turns_the_older_goes_first() -> None:
    async def play() -> None:
        world = World()
        await make_model(world)
        turns = [
            Turns(LeaseFolder(SimulatedStorage(world), lambda: "models/llama"), new_id(), host, "ada") for host in "ab"
        ]
        for each in turns:
            await each.lost(6, 0)
        await turns[0].wait()
        with trio.move_on_after(1) as patience:
            await turns[1].wait()
        assert patience.cancelled_caught
        await turns[0].give_back()
        await turns[1].wait()
        await turns[1].give_back()
        assert not files(world)

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))
