"""Aliases: every move is kept as a commit, found again after trimming, and is no version."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mvcfs.errors import AlreadyExists, InvalidName, NotFound
from mvcfs.types import Author
from mvcfs.versions.log.checkpoint import encode_checkpoint, parse_checkpoint
from mvcfs.versions.log.publish import Draft
from mvcfs.versions.log.records import AliasChange
from mvcfs.versions.log.reflog import record_name
from mvcfs.versions.log.state import LogState
from mvcfs.versions.repository import ModelRepository
from tests.versions.simulated import AUTHOR, Clock, World, commit_files, make_model, open_host

LOG = "models/llama/log/"
BOB = Author("Bob", "bob@example.org")


@pytest.fixture
async def world() -> World:
    world = World()
    await make_model(world)
    return world


def said(moves: Any) -> list[tuple[str | None, str, str, int | None]]:
    return [(move.target, move.who.name, move.why, move.version) for move in moves]


async def moved(world: World, folder: Path) -> tuple[ModelRepository, list[str]]:
    """An alias that was moved twice, deleted and made again."""
    clock = Clock()
    a, _ = await open_host(world, folder, clock=clock)
    commits = []
    for number in range(3):
        commits.append((await commit_files(a, {b"x": b"%d" % number})).commit)
        clock.forward(60)
    await a.set_alias("champion", commits[0], who=AUTHOR, why="First")
    await a.set_alias("champion", commits[1], who=BOB, why="Better\n\nBy far: yes")
    await a.delete_alias("champion", who=AUTHOR, why="Wrong")
    await a.set_alias("champion", commits[2], who=BOB, why="Best")
    return a, commits


async def test_each_move_says_who_when_and_why(world: World, tmp_path: Path) -> None:
    a, commits = await moved(world, tmp_path)
    moves = await a.alias_moves("champion")
    assert said(moves) == [
        (commits[2], "Bob", "Best", 3),
        (None, "Ada", "Wrong", None),
        (commits[1], "Bob", "Better\n\nBy far: yes", 2),
        (commits[0], "Ada", "First", 1),
    ]
    assert {move.branch for move in moves} == {"main", None}
    assert [move.time_s for move in moves] == sorted((move.time_s for move in moves), reverse=True)
    assert said(await a.alias_moves("champion", limit=1)) == said(moves[:1])
    assert said(await a.aliases()) == said(moves[:1])
    assert await a.resolve("champion") == commits[2]
    with pytest.raises(NotFound, match="there is champion"):
        await a.alias_moves("best")


async def test_moves_outlive_their_records(world: World, tmp_path: Path) -> None:
    a, _ = await moved(world, tmp_path)
    await a.delete_alias("champion", who=BOB)
    moves = await a.alias_moves("champion")
    state = a.state
    assert parse_checkpoint(encode_checkpoint(state), "x").refs == state.refs
    await a._model._writer.write_checkpoint(state)
    for number in range(1, state.number):
        del world.files[LOG + record_name(number)]
    b, _ = await open_host(world, tmp_path, "b")
    assert await b.alias_moves("champion") == moves
    assert moves[0].why == "Remove champion"
    assert "champion" not in b.refs.aliases
    await b.set_alias("champion", b.refs.branch("main").tip, who=BOB, why="Again")
    assert said(await b.alias_moves("champion"))[1:] == said(moves)
    assert [problem for problem in await b.fsck() if problem.severity.value == "damage"] == []


async def test_moves_end_in_packs(world: World, tmp_path: Path) -> None:
    a, _ = await moved(world, tmp_path)
    moves = await a.alias_moves("champion")
    await commit_files(a, {b"big": bytes(200_000), b"y": b"z" * 60_000})
    assert a.refs.git
    fresh, _ = await open_host(world, tmp_path, "fresh")
    assert all(fresh._objects.in_packs(move.oid) for move in moves)
    assert await fresh.alias_moves("champion") == moves


async def test_many_moves_make_packs_of_themselves(world: World, tmp_path: Path) -> None:
    a, commits = await moved(world, tmp_path)
    for number in range(30):
        await a.set_alias("champion", commits[number % 3], who=BOB, why=f"{number} " + "because " * 1500)
        assert a.state.inline_bytes <= 256 * 1024
    assert a.refs.git
    fresh, _ = await open_host(world, tmp_path, "fresh")
    assert [move.why.split()[0] for move in await fresh.alias_moves("champion", limit=30)] == [
        str(number) for number in reversed(range(30))
    ]
    assert [problem for problem in await fresh.fsck() if problem.severity.value == "damage"] == []


async def test_an_alias_without_a_log_says_what_the_record_says(world: World, tmp_path: Path) -> None:
    """Another program may write records without logs."""
    a, commits = await moved(world, tmp_path)

    async def publish(change: AliasChange) -> None:
        async def draft(state: LogState) -> tuple[Draft, None]:
            return Draft("alias", (change,)), None

        await a._model.publish(draft)

    await publish(AliasChange("bare", commits[0], "Ada <ada@example.org>", "Why"))
    (move,) = await a.alias_moves("bare")
    assert (move.target, move.who, move.why) == (commits[0], AUTHOR, "Why")
    assert [move.alias for move in await a.aliases()] == ["bare", "champion"]
    await a.delete_alias("bare", who=BOB)
    assert "bare" not in a.refs.aliases
    with pytest.raises(NotFound, match="there is champion"):
        await a.alias_moves("bare")
    await publish(AliasChange("champion", commits[0], "x", "y"))
    assert len(await a.alias_moves("champion")) == 4


async def test_moves_are_no_versions(world: World, tmp_path: Path) -> None:
    a, _ = await moved(world, tmp_path)
    for move in await a.alias_moves("champion"):
        assert await a.commits_matching(move.oid) == move.oid
        assert await a.resolve(move.oid) == move.oid
        with pytest.raises(NotFound):
            await a.commits_matching(move.oid[:39])
    assert len(await a.history("main")) == 3


async def test_two_hosts_move_one_alias(world: World, tmp_path: Path) -> None:
    a, commits = await moved(world, tmp_path)
    b, _ = await open_host(world, tmp_path, "b")
    await a.set_alias("champion", commits[0], who=AUTHOR, why="a")
    await b.set_alias("champion", commits[1], who=BOB, why="b")
    await a.refresh()
    assert [move.why for move in await a.alias_moves("champion", limit=3)] == ["b", "a", "Best"]


async def test_the_branch_that_was_named_is_kept(world: World, tmp_path: Path) -> None:
    a, commits = await moved(world, tmp_path)
    await a.create_branch("exp", commits[1])
    by_default = await a.set_alias("one", commits[1], who=BOB, why="x")
    asked = await a.set_alias("two", commits[1], who=BOB, why="x", branch="exp")
    assert [(move.branch, move.version) for move in (by_default, asked)] == [("main", 2), ("exp", 1)]


async def test_names_that_are_refused(world: World, tmp_path: Path) -> None:
    a, commits = await moved(world, tmp_path)
    await a.create_tag("v1", commits[0])
    await a.set_alias("team/best", commits[0], who=BOB, why="x")
    await a.delete_alias("team/best", who=BOB)
    for name in ("main", "main/x", "v1", "v1/x", "team", "team/best/of"):
        with pytest.raises(AlreadyExists):
            await a.set_alias(name, commits[0], who=BOB, why="x")
    for name in ("a@1", "a~1", "42"):
        with pytest.raises(InvalidName):
            await a.set_alias(name, commits[0], who=BOB, why="x")
    with pytest.raises(NotFound, match="there is champion"):
        await a.delete_alias("team/best", who=BOB)
    with pytest.raises(AlreadyExists, match="there is an alias 'champion'"):
        await a.create_branch("champion/x", None)
    with pytest.raises(AlreadyExists, match="already an alias 'champion'"):
        await a.create_tag("champion", commits[0])


async def test_git_accepts_the_log(world: World, tmp_path: Path) -> None:
    a, commits = await moved(world, tmp_path)
    moves = await a.alias_moves("champion")
    git = tmp_path / "a" / "git"
    objects = a._objects
    objects.write_pack(objects.memory_objects(), objects.pack_dir, "pack-test")

    def run(*words: str) -> str:
        return subprocess.run(["git", "-C", str(git), *words], capture_output=True, text=True, check=True).stdout

    run("update-ref", "refs/mvcfs/alias-logs/champion", moves[0].oid)
    run("update-ref", "refs/heads/main", commits[2])
    run("fsck", "--strict", "--full")
    shown = run("log", "--first-parent", "-n", "4", "--format=%s|%an|%(trailers:key=Mvcfs-Version,valueonly,separator=)",
                "refs/mvcfs/alias-logs/champion")  # fmt: skip
    assert shown.splitlines() == ["Best|Bob|main@3", "Wrong|Ada|", "Better|Bob|main@2", "First|Ada|main@1"]
    assert run("rev-parse", f"{moves[0].oid}^{{tree}}") == run("rev-parse", f"{commits[2]}^{{tree}}")
