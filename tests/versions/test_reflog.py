"""The log as files: what a reader makes of damage, and what looking for news costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvcfs.errors import CorruptData, NotFound, Transient, UnsupportedFormat
from mvcfs.versions.log.publish import CHECKPOINT_EVERY
from mvcfs.versions.log.reflog import checkpoint_name, record_name
from tests.versions.simulated import AUTHOR, World, commit_files, make_model, open_host

LOG = "models/llama/log/"


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World()
    await make_model(world)
    host, _ = await open_host(world, tmp_path, "writer")
    for number in range(5):
        await commit_files(host, {b"x": b"%d" % number})
    return world


async def test_looking_for_news_costs_two_small_calls(world: World, tmp_path: Path) -> None:
    host, storage = await open_host(world, tmp_path)
    storage.calls.clear()
    assert not await host.refresh()
    assert [operation for operation, _ in storage.calls] == ["stat", "stat"]


async def test_a_missing_record_is_named(world: World, tmp_path: Path) -> None:
    del world.files[LOG + record_name(3)]
    with pytest.raises(CorruptData, match=f"{record_name(3)}: missing"):
        await open_host(world, tmp_path)


async def test_a_changed_record_is_named_by_its_successor(world: World, tmp_path: Path) -> None:
    path = LOG + record_name(3)
    world.files[path] = world.files[path].replace(b'"host":"writer"', b'"host":"forger"')
    with pytest.raises(CorruptData, match="record 4 doesn't follow record 3"):
        await open_host(world, tmp_path)


async def test_a_record_under_another_number_is_named(world: World, tmp_path: Path) -> None:
    world.files[LOG + record_name(3)] = world.files[LOG + record_name(2)]
    with pytest.raises(CorruptData, match=f"{record_name(3)}: holds record 2"):
        await open_host(world, tmp_path)


async def test_a_record_of_another_model_is_named(world: World, tmp_path: Path) -> None:
    path = LOG + record_name(5)
    value = json.loads(world.files[path]) | {"model": "f" * 32}
    world.files[path] = json.dumps(value).encode()
    with pytest.raises(CorruptData, match="record 5 belongs to model"):
        await open_host(world, tmp_path)


async def test_a_newer_record_is_refused(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    refs = host.refs
    world.put(LOG + record_name(6), b'{"format": 7}')
    with pytest.raises(UnsupportedFormat, match="format 7"):
        await host.refresh()
    assert host.refs == refs


async def test_other_files_in_the_log_are_ignored(world: World, tmp_path: Path) -> None:
    for name in ("tmp-abc", "README", "123", "checkpoint-5", "_COPYING_"):
        world.put(LOG + name, b"junk")
    host, _ = await open_host(world, tmp_path)
    assert host.refs.number == 5


async def test_a_damaged_checkpoint_is_no_harm_while_the_records_stand(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    world.put(LOG + checkpoint_name(4), b"{}")
    again, _ = await open_host(world, tmp_path, "b")
    assert again.refs == host.refs
    del world.files[LOG + record_name(1)]
    with pytest.raises(CorruptData, match=checkpoint_name(4)):
        await open_host(world, tmp_path, "c")


async def test_a_checkpoint_that_speaks_of_another_record_is_damage(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    for number in range(CHECKPOINT_EVERY):
        await host.set_alias("a", host.refs.branch("main").tip, who=AUTHOR, why=str(number))
    (path,) = [name for name in world.names(LOG) if "checkpoint" in name]
    world.files[path] = json.dumps(json.loads(world.files[path]) | {"record_sha256": "0" * 64}).encode()
    with pytest.raises(CorruptData, match="is not the record"):
        await open_host(world, tmp_path, "b")


async def test_a_refresh_that_fails_changes_nothing_and_is_made_good(world: World, tmp_path: Path) -> None:
    host, storage = await open_host(world, tmp_path)
    other, _ = await open_host(world, tmp_path, "b")
    published = await commit_files(other, {b"big": b"z" * 65_000, b"more": b"y" * 65_000})
    refs = host.refs
    storage.plan = lambda operation, path: "transient" if operation == "read_range" else None
    with pytest.raises(Transient):
        await host.refresh()
    assert host.refs is refs
    storage.plan = None
    assert await host.refresh()
    assert host.refs.branch("main").tip == published.commit


async def test_several_new_records_come_at_once(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    other, _ = await open_host(world, tmp_path, "b")
    for number in range(10):
        await commit_files(other, {b"y": b"%d" % number})
    assert await host.refresh()
    assert host.refs == other.refs


async def test_a_model_that_is_gone_says_so(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    world.move("models/llama", "models/other")
    with pytest.raises(NotFound, match="'llama' was renamed or removed"):
        await host.refresh()


async def test_another_model_under_the_same_name_is_noticed(world: World, tmp_path: Path) -> None:
    host, _ = await open_host(world, tmp_path)
    await host.refresh()
    world.move("models/llama", "models/old")
    await make_model(world)
    other, _ = await open_host(world, tmp_path, "b")
    for number in range(5):
        await commit_files(other, {b"q": b"%d" % number})
        with pytest.raises(NotFound, match="renamed or removed"):
            await host.refresh()
    await commit_files(other, {b"q": b"more"})
    with pytest.raises(NotFound, match="renamed or removed"):
        await host.refresh()
