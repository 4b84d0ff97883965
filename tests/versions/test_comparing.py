"""Comparisons of random trees against what comparing every path would find."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.types import Attributes, DirChange, FileChange, LargeContent
from mvcfs.versions.repository import ModelRepository
from mvcfs.versions.trees import comparing

from .simulated import ROOT, World, make_model, open_host

DIR = Attributes(0o040755, 1000, 1000, 7)
Node = dict | tuple  # a directory by name, or (content, mode) of a file

NAMES = st.sampled_from([b"a", b"b", b"a.b", b".gitattributes", b".git", b"caf\xe9"])
FILES = st.tuples(
    st.sampled_from([b"", b"one", b"two", b"1\n2\n3\n4\n", b"1\n2\n3\n5\n", LargeContent("ab" * 32, 1 << 20), LargeContent("cd" * 32, 1 << 21)]),
    st.sampled_from([0o100644, 0o100755]),
)  # fmt: skip
TREES = st.recursive(FILES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)
ROOTS = st.dictionaries(NAMES, TREES, max_size=4)


def as_change(node: Node, attributes: Attributes = DIR) -> DirChange | FileChange:
    if isinstance(node, dict):
        return DirChange(attributes, None, {name: as_change(below) for name, below in node.items()})
    return FileChange(Attributes(node[1], 1000, 1000, 5), node[0])


def flat(node: Node, path: bytes = b"") -> dict[bytes, object]:
    """Files by path, and directories that are empty."""
    if not isinstance(node, dict):
        return {path: node}
    if not node and path:
        return {path: "empty"}
    found: dict[bytes, object] = {}
    for name, below in node.items():
        found |= flat(below, path + b"/" + name if path else name)
    return found


async def tree_of(repository: ModelRepository, node: dict) -> str:
    return await repository.build_tree(as_change(node, ROOT))  # type: ignore[arg-type]


def in_repository(test) -> None:
    async def main() -> None:
        world = World()
        await make_model(world)
        with tempfile.TemporaryDirectory() as folder:
            repository, _ = await open_host(world, Path(folder))
            await test(repository)

    trio.run(main)


@settings(max_examples=150, deadline=None)
@given(ROOTS, ROOTS)
def test_changes_are_those_of_every_path(before: dict, after: dict) -> None:
    async def test(repository: ModelRepository) -> None:
        trees = [await tree_of(repository, node) for node in (before, after)]
        found = await repository.comparing.changes(*trees)
        was, now = flat(before), flat(after)
        assert [change.path for change in found.listed] == sorted(change.path for change in found.listed)
        plain = [change for change in found.listed if change.old_path is None]
        renamed = [change for change in found.listed if change.old_path is not None]
        moved_away = {p for p in was for c in renamed if p == c.old_path or p.startswith(c.old_path + b"/")}
        moved_here = {p for p in now for c in renamed if p == c.path or p.startswith(c.path + b"/")}
        # What was renamed stood at one path only and stands at another only; everything else is found at its path.
        for change in renamed:
            if change.before.tree is None and change.similarity == 100:
                assert was[change.old_path][0] == now[change.path][0]
            if change.before.tree is not None:
                below = {p[len(change.old_path) :]: v for p, v in was.items() if p.startswith(change.old_path + b"/")}
                assert below == {p[len(change.path) :]: v for p, v in now.items() if p.startswith(change.path + b"/")}
        files = lambda state: {p: v for p, v in state.items() if v != "empty"}  # noqa: E731
        removed = {c.path for c in plain if c.after is None and c.before.tree is None}
        added = {c.path for c in plain if c.before is None and c.after.tree is None}
        changed = {c.path for c in plain if c.before is not None and c.after is not None and c.after.tree is None}
        assert removed == files(was).keys() - files(now).keys() - moved_away
        assert added == files(now).keys() - files(was).keys() - moved_here
        assert changed == {p for p in files(was).keys() & files(now).keys() if was[p] != now[p]}

    in_repository(test)


@settings(max_examples=50, deadline=None)
@given(ROOTS)
def test_a_version_differs_from_itself_in_nothing_and_from_none_in_everything(node: dict) -> None:
    async def test(repository: ModelRepository) -> None:
        tree = await tree_of(repository, node)
        assert (await repository.comparing.changes(tree, tree)).listed == []
        added = (await repository.comparing.changes(None, tree)).listed
        assert {change.path for change in added} == flat(node).keys()
        removed = (await repository.comparing.changes(tree, None)).listed
        assert {change.path for change in removed} == flat(node).keys()

    in_repository(test)


def test_a_renamed_directory_is_one_change() -> None:
    async def test(repository: ModelRepository) -> None:
        shards = {b"%d.bin" % i: (b"shard %d" % i, 0o100644) for i in range(50)}
        trees = [await tree_of(repository, {name: shards, b"k": (b"k", 0o100644)}) for name in (b"tmp", b"checkpoint")]
        (change,) = (await repository.comparing.changes(*trees)).listed
        assert (change.old_path, change.path) == (b"tmp", b"checkpoint")

    in_repository(test)


def test_what_is_equal_is_not_read() -> None:
    async def test(repository: ModelRepository) -> None:
        same = {b"%d" % i: {b"f": (b"%d" % i, 0o100644)} for i in range(30)}
        trees = [await tree_of(repository, same | {b"x": {b"f": (data, 0o100644)}}) for data in (b"1", b"2")]
        read: list[str] = []
        objects = repository._objects
        original = objects.read
        objects.read = lambda oid: read.append(oid) or original(oid)  # type: ignore[method-assign]
        (change,) = (await repository.comparing.changes(*trees)).listed
        assert change.path == b"x/f"
        assert len(read) <= 12  # two directories, each read whole in both versions

    in_repository(test)


def test_changes_past_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MAX_LISTED", 10)

    async def test(repository: ModelRepository) -> None:
        files = {b"d%d" % d: {b"%d" % i: (b"12345", 0o100644) for i in range(5)} for d in range(5)}
        tree = await tree_of(repository, files)
        found = await repository.comparing.changes(None, tree)
        assert len(found.listed) == 10
        assert found.not_listed == 15
        assert found.not_listed_added_bytes == 15 * 5

    in_repository(test)
