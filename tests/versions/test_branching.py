"""What branches, tags and names of refs cost, and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvcfs.errors import NotFound
from mvcfs.types import NS_PER_S, Attributes, DirChange, FileChange, LargeContent
from mvcfs.versions.log.publish import CommitRequest
from mvcfs.versions.repository import ModelRepository
from tests.versions.simulated import AUTHOR, ROOT, Clock, World, commit_files, make_model, open_host

FILES = 2000
FILE_BYTES = (1 << 40) // FILES


async def terabyte(repository: ModelRepository) -> str:
    """A version of a terabyte, of which the store has the pointers."""
    attributes = Attributes(0o100644, 0, 0, 1)
    changes = {
        b"shard-%05d" % number: FileChange(attributes, LargeContent(f"{number:064x}", FILE_BYTES))
        for number in range(FILES)
    }
    tree = await repository.build_tree(DirChange(ROOT, None, changes))
    main = repository.refs.branch("main")
    published = await repository.publish_commit(CommitRequest(main.id, None, tree, AUTHOR, "Large", "conflict"))
    return published.commit


async def cost_of_branching(world: World, folder: Path, *, large: bool) -> tuple[list[str], int]:
    """The calls of the store that a branch takes, and the bytes it leaves there."""
    await make_model(world)
    repository, storage = await open_host(world, folder)
    # What comes after record 0 is looked for in another way than after any other: neither branch is the second record.
    commit = await terabyte(repository) if large else None
    await repository.create_branch("before", commit)
    storage.calls.clear()
    stored = sum(map(len, world.files.values()))
    await repository.create_branch("exp", commit)
    return [operation for operation, _ in storage.calls], sum(map(len, world.files.values())) - stored


async def test_a_branch_of_a_terabyte_costs_what_an_empty_one_does(tmp_path: Path) -> None:
    large, large_bytes = await cost_of_branching(World(), tmp_path / "large", large=True)
    empty, empty_bytes = await cost_of_branching(World(), tmp_path / "empty", large=False)
    assert large == empty
    assert large.count("write_file") == large.count("rename") == 1
    assert len(large) <= 12
    assert abs(large_bytes - empty_bytes) < 100


async def test_tags_say_what_they_know(tmp_path: Path) -> None:
    world, clock = World(), Clock()
    await make_model(world)
    a, _ = await open_host(world, tmp_path, clock=clock)
    one = await commit_files(a, {b"x": b"one"})
    clock.forward(60)
    await a.create_tag("light", one.commit)
    await a.create_tag("noted", one.commit, message="First\n\nbody", author=AUTHOR)
    light, noted = await a.tags()
    assert (light.name, light.commit, light.annotated, light.message) == ("light", one.commit, False, None)
    assert (noted.commit, noted.annotated, noted.tagger, noted.message) == (one.commit, True, AUTHOR, "First\n\nbody\n")
    assert noted.time_s == clock.now_ns // NS_PER_S


async def test_a_version_is_called_by_the_branch_at_hand_first(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    commits = [(await commit_files(a, {b"x": b"%d" % number})).commit for number in range(3)]
    await a.create_branch("alpha", commits[1])
    place = await a.place_of(commits[1])
    assert place is not None
    assert (place.branch, place.version) == ("main", 2)
    preferred = await a.place_of(commits[1], prefer="alpha")
    assert preferred is not None
    assert (preferred.branch, preferred.version) == ("alpha", 1)
    await a.delete_branch("main")
    assert await a.place_of(commits[2]) is None


async def test_branches_are_compared_with_the_default_one(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    one = await commit_files(a, {b"x": b"one"})
    for name in ("exp", "zeta"):
        await a.create_branch(name, one.commit)
    await a.create_branch("empty", None)
    for number in range(3):
        await commit_files(a, {b"y": b"%d" % number})
    await commit_files(a, {b"z": b"z"}, branch="exp")
    default = a.refs.default_branch()
    assert default is not None
    assert default.name == "main"
    found = await a.divergences(default.name)
    assert {name: (one.ahead, one.behind) for name, one in found.items()} == {
        "main": (0, 0), "exp": (1, 3), "zeta": (0, 3),
    }  # fmt: skip
    await a.delete_branch("main")
    default = a.refs.default_branch()
    assert default is not None
    assert default.name == "empty"
    assert await a.divergences("empty") == {}
    with pytest.raises(NotFound):
        await a.divergences("main")
