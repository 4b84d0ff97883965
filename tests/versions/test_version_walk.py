"""Walks back over random histories against looking at every version."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.errors import CorruptData
from mvcfs.types import Author, LargeContent
from mvcfs.versions.history.version_walk import Found, Wanted
from mvcfs.versions.log.publish import CommitRequest
from mvcfs.versions.repository import ModelRepository

from .simulated import ROOT, Clock, World, commit_files, make_model, open_host
from .test_comparing import ROOTS, as_change, flat

PATHS = [b"a", b"a/b", b"b", b"b/a/b", b".git", b"a/.gitattributes"]


def in_repository(test, clock: Clock | None = None) -> None:
    async def main() -> None:
        world = World()
        await make_model(world)
        with tempfile.TemporaryDirectory() as folder:
            repository, _ = await open_host(world, Path(folder), clock=clock)
            await test(repository)

    trio.run(main)


async def publish(repository: ModelRepository, node: dict, author: str = "Ada", branch: str = "main") -> str:
    state = repository.refs.branch(branch)
    tree = await repository.build_tree(as_change(node, ROOT))
    request = CommitRequest(state.id, state.tip, tree, Author(author, f"{author}@x"), "Change", "conflict")
    return (await repository.publish_commit(request)).commit


async def walked(repository: ModelRepository, wanted: Wanted, count: int = 1000, branch: str = "main") -> list[Found]:
    state = repository.refs.branch(branch)
    return await repository.looking_back.walk(state.tip, state.version, wanted).take(count)


def at(node: dict, path: bytes) -> object:
    """What a version has at a path: the content and x bit of a file, all files and empty directories below a directory."""
    found: object = node
    for name in path.split(b"/"):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return ("directory", flat(found)) if isinstance(found, dict) else found


@settings(max_examples=60, deadline=None)
@given(st.lists(ROOTS, min_size=1, max_size=6), st.sampled_from(PATHS))
def test_a_path_is_found_where_it_changed(nodes: list[dict], path: bytes) -> None:
    async def test(repository: ModelRepository) -> None:
        published: list[dict] = []
        for node in nodes:
            if not published or flat(node) != flat(published[-1]):
                await publish(repository, node)
                published.append(node)
        expected = []
        for version in range(len(published), 0, -1):
            now = at(published[version - 1], path)
            before = at(published[version - 2], path) if version > 1 else None
            if now != before:
                expected.append((version, "removed" if now is None else "added" if before is None else "changed"))
        found = await walked(repository, Wanted(path))
        # Up to the version where it came from another name, it is found exactly where it changed.
        own = [each for each in found if each.path == path]
        renamed = next((i for i, each in enumerate(own) if each.change == "renamed"), None)
        shown = [(each.version, "added" if each.change == "renamed" else each.change) for each in own]
        if renamed is None:
            assert shown == expected
        else:
            assert shown[: renamed + 1] == expected[: renamed + 1]
            assert at(published[own[renamed].version - 2], own[renamed].old_path) is not None

    in_repository(test)


def shard(number: int) -> tuple[bytes, int]:
    return b"content of shard %d\n" % number * 3, 0o100644


def test_a_file_is_followed_over_renames_of_itself_and_of_its_directory() -> None:
    async def test(repository: ModelRepository) -> None:
        other = {b"other": shard(9)}
        await publish(repository, other | {b"first": shard(1)})
        await publish(repository, other | {b"tmp": {b"s": shard(1), b"t": shard(2)}})
        await publish(repository, {b"other": shard(8), b"tmp": {b"s": shard(1), b"t": shard(2)}})
        await publish(repository, other | {b"ck": {b"s": shard(1), b"t": shard(2)}})
        await publish(repository, other | {b"ck": {b"s": (shard(1)[0] + b"more\n", 0o100644), b"t": shard(2)}})
        found = await walked(repository, Wanted(b"ck/s"))
        assert [(each.version, each.path, each.change, each.old_path) for each in found] == [
            (5, b"ck/s", "changed", None),
            (4, b"ck/s", "renamed", b"tmp/s"),
            (2, b"tmp/s", "renamed", b"first"),
            (1, b"first", "added", None),
        ]
        assert [each.version for each in await walked(repository, Wanted(b"ck/s"), 2)] == [5, 4]
        found = await walked(repository, Wanted(b"ck"))
        assert [(each.version, each.path, each.change) for each in found] == [
            (5, b"ck", "changed"), (4, b"ck", "renamed"), (2, b"tmp", "added"),
        ]  # fmt: skip

    in_repository(test)


def test_a_file_that_was_edited_and_renamed_in_one_version_is_followed() -> None:
    async def test(repository: ModelRepository) -> None:
        lines = b"".join(b"line %d\n" % i for i in range(20))
        await publish(repository, {b"old.py": (lines, 0o100644)})
        await publish(repository, {b"new.py": (lines + b"one more\n", 0o100644)})
        assert [each.old_path for each in await walked(repository, Wanted(b"new.py"))] == [b"old.py", None]

    in_repository(test)


def test_a_new_checkpoint_is_not_the_one_that_was_removed() -> None:
    async def test(repository: ModelRepository) -> None:
        same = {b"%d.json" % number: shard(number) for number in range(5)}
        await publish(repository, {b"checkpoint-1": same | {b"model": (LargeContent("ab" * 32, 1 << 30), 0o100644)}})
        await publish(repository, {b"checkpoint-2": same | {b"model": (LargeContent("cd" * 32, 1 << 30), 0o100644)}})
        found = await walked(repository, Wanted(b"checkpoint-2"))
        assert [(each.version, each.change) for each in found] == [(2, "added")]
        found = await walked(repository, Wanted(b"checkpoint-2/3.json"))
        assert [(each.version, each.old_path) for each in found] == [(2, b"checkpoint-1/3.json"), (1, None)]

    in_repository(test)


def test_a_path_is_followed_past_the_beginning_of_its_branch() -> None:
    async def test(repository: ModelRepository) -> None:
        for number in range(3):
            await publish(repository, {b"f": shard(number)})
        await repository.create_branch("exp", await repository.resolve("main@3"))
        await publish(repository, {b"f": shard(7)}, branch="exp")
        found = await walked(repository, Wanted(b"f"), branch="exp")
        assert [each.version for each in found] == [2, 1, None, None]
        assert [each.version for each in await walked(repository, Wanted(), branch="exp")] == [2, 1]

    in_repository(test)


def test_authors_and_times() -> None:
    clock = Clock()

    async def test(repository: ModelRepository) -> None:
        times = []
        for number in range(6):
            clock.forward(100)
            times.append(clock.now_ns // 1_000_000_000)
            await publish(repository, {b"f": shard(number)}, ["Ada", "Grace"][number % 2])
        versions = lambda found: [each.version for each in found]  # noqa: E731
        assert versions(await walked(repository, Wanted(author="gRACe@x"))) == [6, 4, 2]
        assert versions(await walked(repository, Wanted(author="ada <"), 2)) == [5, 3]
        assert versions(await walked(repository, Wanted(since_s=times[3]))) == [6, 5, 4]
        assert versions(await walked(repository, Wanted(until_s=times[1]))) == [2, 1]
        assert versions(await walked(repository, Wanted(since_s=times[1], until_s=times[3], author="Grace"))) == [4, 2]
        assert versions(await walked(repository, Wanted(b"f", since_s=times[4]))) == [6, 5]

    in_repository(test, clock)


def count_reads(repository: ModelRepository) -> list[str]:
    read: list[str] = []
    original = repository._objects.read
    repository._objects.read = lambda oid: read.append(oid) or original(oid)  # type: ignore[method-assign]
    return read


def test_the_newest_of_many_versions_cost_no_more_than_they() -> None:
    async def test(repository: ModelRepository) -> None:
        for number in range(80):
            await commit_files(repository, {b"f": b"%d" % number})
        read = count_reads(repository)
        assert len(await walked(repository, Wanted(), 20)) == 20
        assert len(read) <= 20
        read.clear()
        assert len(await walked(repository, Wanted(b"f"), 20)) == 20
        assert len(read) <= 100

    in_repository(test)


def test_only_trees_that_differ_are_descended_into() -> None:
    async def test(repository: ModelRepository) -> None:
        deep = {b"a": {b"b": {b"c": {b"f": shard(0)}}}}
        for number in range(40):
            await publish(repository, deep | {b"x": shard(number)})
        read = count_reads(repository)
        assert [each.version for each in await walked(repository, Wanted(b"a/b/c/f"))] == [1]
        assert len(read) <= 3 * 40 + 10

    in_repository(test)


def test_a_missing_commit_is_damage() -> None:
    async def test(repository: ModelRepository) -> None:
        tip = await publish(repository, {b"f": shard(1)})
        await publish(repository, {b"f": shard(2)})
        repository._objects._memory.pop(tip)
        with pytest.raises(CorruptData, match="incomplete"):
            await walked(repository, Wanted())

    in_repository(test)
