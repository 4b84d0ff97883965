"""A check of a damaged model says what is damaged, and never stops at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvcfs.types import Author
from mvcfs.versions.check import Problem, Severity
from mvcfs.versions.log.publish import CHECKPOINT_EVERY
from mvcfs.versions.log.reflog import record_name
from mvcfs.versions.repository import ModelRepository
from tests.versions.simulated import World, commit_files, make_model, open_host

LOG = "models/llama/log/"


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World()
    await make_model(world)
    return world


async def filled(world: World, tmp_path: Path) -> ModelRepository:
    host, _ = await open_host(world, tmp_path)
    for number in range(4):
        await commit_files(host, {b"f%d" % number: b"%d" % number * 65_000})
    await host.create_tag("v1", host.refs.branch("main").tip)
    return host


def damage(problems: list[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity is Severity.DAMAGE]


async def test_a_sound_model_has_no_problems(world: World, tmp_path: Path) -> None:
    host = await filled(world, tmp_path)
    assert await host.fsck() == []


def flip(world: World, path: str) -> None:
    data = bytearray(world.files[path])
    data[len(data) // 2] ^= 1
    world.files[path] = bytes(data)


@pytest.mark.parametrize(
    ("hurt", "what"),
    [
        (lambda w: w.files.pop(LOG + record_name(2)), record_name(2)),
        (lambda w: flip(w, LOG + record_name(2)), "record 2"),
        (lambda w: w.files.pop(w.names("models/llama/git/")[0]), "models/llama/git/"),
        (lambda w: w.delete("models/llama/packs", True), "models/llama/packs"),
        (lambda w: w.files.update({w.names("models/llama/git/")[1]: b"x"}), "models/llama/git/"),
    ],
)
async def test_damage_is_found_and_named(
    world: World, tmp_path: Path, hurt: Callable[[World], object], what: str
) -> None:
    host = await filled(world, tmp_path)
    hurt(world)
    found = damage(await host.fsck())
    assert found
    assert any(what in problem.what or what in problem.message for problem in found)


async def test_missing_objects_name_the_versions_they_hit(world: World, tmp_path: Path) -> None:
    host = await filled(world, tmp_path)
    tip = host.refs.branch("main").tip
    for path in (tmp_path / "a" / "git" / "objects" / "pack").iterdir():
        path.unlink()
    host._model.objects.rescan()
    host._model.objects.discard(host._model.objects.memory_objects() - {tip})
    found = damage(await host.fsck())
    assert any(problem.versions == ("main@4", "v1") for problem in found)


async def test_leftovers_are_notes(world: World, tmp_path: Path) -> None:
    host = await filled(world, tmp_path)
    world.put(LOG + "tmp-" + "0" * 32, b"{}")
    world.put("models/llama/packs/" + "0" * 32, b"orphan")
    found = await host.fsck()
    assert [problem.severity for problem in found] == [Severity.NOTE, Severity.NOTE]


async def test_a_checkpoint_that_lies_is_damage(world: World, tmp_path: Path) -> None:
    host = await filled(world, tmp_path)
    for number in range(CHECKPOINT_EVERY):
        await host.set_alias("a", host.refs.branch("main").tip, who=Author("x", "x@example.com"), why=str(number))
    assert await host.fsck() == []
    (path,) = [name for name in world.names(LOG) if "checkpoint" in name]
    world.files[path] = world.files[path].replace(b'"version":4', b'"version":3')
    assert any(path == problem.what for problem in damage(await host.fsck()))
    world.files[path] = b"junk"
    assert any(path == problem.what for problem in damage(await host.fsck()))


async def test_a_trimmed_log_is_sound(world: World, tmp_path: Path) -> None:
    host = await filled(world, tmp_path)
    for number in range(CHECKPOINT_EVERY + 3):
        await host.set_alias("a", host.refs.branch("main").tip, who=Author("x", "x@example.com"), why=str(number))
    for number in range(1, 40):
        del world.files[LOG + record_name(number)]
    assert damage(await host.fsck()) == []
