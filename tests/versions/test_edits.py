"""Merges, restored paths and versions undone, on simulated hosts that race each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvcfs.errors import InvalidArgument, NotFound, ReadOnly
from mvcfs.types import Attributes, BlobContent, DirChange, FileChange, LargeContent, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.log.publish import CommitRequest
from mvcfs.versions.publishing.edits import Edit, EditOutcome, EditRequest, RestoreEdit
from mvcfs.versions.publishing.merge_edits import Choices, MergeEdit, RevertEdit, beside
from mvcfs.versions.repository import ModelRepository
from mvcfs.versions.trees.edit import TreeEdit
from tests.versions.simulated import AUTHOR, ROOT, World, commit_files, make_model, open_host

Flat = dict[str, "bytes | LargeContent"]


def large(number: int) -> LargeContent:
    return LargeContent(f"{number:064x}", number << 20)


async def commit(repository: ModelRepository, files: Flat, branch: str = "main") -> str:
    """A version with exactly these files, by path."""

    def change(files: Flat) -> DirChange:
        changes: dict[bytes, FileChange | DirChange | None] = {}
        folders: dict[str, Flat] = {}
        for path, what in files.items():
            head, slash, tail = path.partition("/")
            if slash:
                folders.setdefault(head, {})[tail] = what
            else:
                changes[path.encode()] = FileChange(Attributes(0o100644, 0, 0, 5), what)
        return DirChange(ROOT, None, changes | {name.encode(): change(below) for name, below in folders.items()})

    state = repository.refs.branch(branch)
    tree = await repository.build_tree(change(files))
    request = CommitRequest(state.id, state.tip, tree, AUTHOR, "x", "conflict")
    return (await repository.publish_commit(request)).commit


async def files_of(repository: ModelRepository, commit: str | None) -> Flat:
    found: Flat = {}

    async def look(tree: str, prefix: str) -> None:
        for entry in await repository.list_tree(tree):
            path = prefix + entry.name.decode()
            if entry.tree is not None:
                await look(entry.tree, path + "/")
            elif isinstance(entry.content, LargeContent):
                found[path] = entry.content
            else:
                assert entry.content is not None
                found[path] = await repository.read_content(entry.content)

    if commit is not None:
        await look((await repository.commit_info(commit)).tree, "")
    return found


async def publish(repository: ModelRepository, edit: Edit, branch: str = "main", **more: bool) -> EditOutcome:
    state = repository.refs.branch(branch)
    return await repository.publish_edit(EditRequest(state.id, edit, AUTHOR, "Edit", **more))


async def apart(repository: ModelRepository, base: Flat, main: Flat, dev: Flat) -> str:
    """Makes a branch dev beside main; returns its tip."""
    start = await commit(repository, base)
    await repository.create_branch("dev", start)
    await commit(repository, main)
    return await commit(repository, dev, "dev")


async def test_a_merge_has_the_tip_as_first_parent(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    dev = await apart(a, {"f": b"1"}, {"f": b"1", "m": b"m"}, {"f": b"2", "c/l": large(1)})
    tip = a.refs.branch("main").tip
    outcome = await publish(a, MergeEdit(dev, Choices()))
    assert (outcome.published, outcome.version, outcome.conflicts) == (True, 3, ())
    info = await a.commit_info(str(outcome.commit))
    assert info.parents == (tip, dev)
    assert await files_of(a, outcome.commit) == {"f": b"2", "m": b"m", "c/l": large(1)}
    again = await publish(a, MergeEdit(dev, Choices()))
    assert (again.published, again.is_contained, again.version) == (False, True, 3)
    b, _ = await open_host(world, tmp_path, "b")
    assert b.refs.branch("main").tip == outcome.commit


async def test_a_fast_forward_gets_a_merge_commit(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    start = await commit(a, {"f": b"1"})
    await a.create_branch("dev", start)
    dev = await commit(a, {"f": b"2"}, "dev")
    outcome = await publish(a, MergeEdit(dev, Choices()))
    assert (await a.commit_info(str(outcome.commit))).parents == (start, dev)
    assert outcome.version == 2


async def test_an_empty_branch_takes_all(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    tip = await commit(a, {"f": b"1"})
    await a.create_branch("dev", None)
    outcome = await publish(a, MergeEdit(tip, Choices()), "dev")
    assert (outcome.version, await files_of(a, outcome.commit)) == (1, {"f": b"1"})


BASE: Flat = {"model.bin": large(1), "gone": b"1", "kept": b"1", "old": large(7)}
MAIN: Flat = {"model.bin": large(2), "gone": b"2", "main": large(7), "new.txt": b"main"}
DEV: Flat = {"model.bin": large(3), "kept": b"2", "dev": large(7), "new.txt": b"dev"}
KINDS = {
    b"model.bin": "changed", b"gone": "deleted-theirs", b"kept": "deleted-ours", b"main": "renamed", b"new.txt": "added",
}  # fmt: skip


async def test_conflicts_change_nothing_until_a_side_is_chosen(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    dev = await apart(a, BASE, MAIN, DEV)
    records = world.names("models/llama/log")
    outcome = await publish(a, MergeEdit(dev, Choices()))
    assert not outcome.published
    assert {conflict.path: conflict.kind for conflict in outcome.conflicts} == KINDS
    assert {conflict.path: conflict.theirs_path for conflict in outcome.conflicts}[b"main"] == b"dev"
    sides = {c.path: (c.ours and c.ours.content, c.theirs and c.theirs.content) for c in outcome.conflicts}
    assert sides[b"model.bin"] == (large(2), large(3))
    assert sides[b"gone"][1] is None
    assert sides[b"kept"][0] is None
    partly = Choices(None, {b"model.bin": "ours", b"gone": "ours"})
    assert [c.path for c in (await publish(a, MergeEdit(dev, partly))).unresolved] == [b"kept", b"main", b"new.txt"]
    assert world.names("models/llama/log") == records


CHOSEN: dict[str, Flat] = {
    "ours": MAIN,
    "theirs": DEV,
    "both": {
        "model.bin": large(2), "model.dev.bin": large(3), "gone": b"2", "kept": b"2", "main": large(7), "dev": large(7),
        "new.txt": b"main", "new.dev.txt": b"dev",
    },
}  # fmt: skip


@pytest.mark.parametrize("side", CHOSEN.keys())
async def test_a_side_is_taken(tmp_path: Path, side: str) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    dev = await apart(a, BASE, MAIN, DEV)
    dry = await publish(a, MergeEdit(dev, Choices(side, label="dev")), dry_run=True)
    assert (dry.published, dry.unresolved) == (False, [])
    outcome = await publish(a, MergeEdit(dev, Choices(side, label="dev")))
    assert outcome.published
    assert await files_of(a, outcome.commit) == CHOSEN[side]


async def test_each_path_may_have_its_own_side(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    dev = await apart(a, BASE, MAIN, DEV)
    outcome = await publish(a, MergeEdit(dev, Choices("ours", {b"model.bin": "theirs", b"dev": "theirs"})))
    assert await files_of(a, outcome.commit) == {
        "model.bin": large(3),
        "gone": b"2",
        "dev": large(7),
        "new.txt": b"main",
    }


async def test_a_choice_where_there_is_no_conflict_is_refused(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    dev = await apart(a, BASE, MAIN, DEV)
    with pytest.raises(InvalidArgument, match=r"no conflict at model\.bim"):
        await publish(a, MergeEdit(dev, Choices("ours", {b"model.bim": "theirs"})))


async def test_a_merge_that_loses_the_race_is_planned_anew(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, storage = await open_host(world, tmp_path)
    dev = await apart(a, {"f": b"1"}, {"f": b"1", "m": b"m"}, {"f": b"1", "l": large(1)})
    b, _ = await open_host(world, tmp_path, "b")
    raced = []

    async def race(operation: str, path: str) -> None:
        if operation == "rename" and not raced:
            raced.append(await commit_files(b, {b"between": b"b"}))

    storage.hook = race
    outcome = await publish(a, MergeEdit(dev, Choices()))
    assert await files_of(a, outcome.commit) == {"f": b"1", "m": b"m", "l": large(1), "between": b"b"}
    assert outcome.version == 4
    assert (await a.commit_info(str(outcome.commit))).parents == (raced[0].commit, dev)


async def test_a_conflict_that_comes_up_in_the_race_changes_nothing(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, storage = await open_host(world, tmp_path)
    dev = await apart(a, {"f": b"1"}, {"f": b"1", "m": b"m"}, {"f": b"2"})
    b, _ = await open_host(world, tmp_path, "b")

    async def race(operation: str, path: str) -> None:
        if operation == "rename":
            storage.hook = None
            await commit_files(b, {b"f": b"3"})

    storage.hook = race
    outcome = await publish(a, MergeEdit(dev, Choices()))
    assert [(conflict.path, conflict.kind) for conflict in outcome.unresolved] == [(b"f", "changed")]
    assert (outcome.published, outcome.version) == (False, 3)
    assert a.refs.branch("main").version == 3


async def test_only_what_overrides_it_changes_a_protected_branch(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    dev = await apart(a, {"f": b"1"}, {"f": b"1", "m": b"m"}, {"f": b"2"})
    await a.protect_branch("main", True)
    with pytest.raises(ReadOnly):
        await publish(a, MergeEdit(dev, Choices()))
    assert (await publish(a, MergeEdit(dev, Choices()), override_protection=True)).published


async def test_restoring(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    first = await commit(a, {"f": b"1", "d/x": large(1), "d/y": b"y", "e/z/q": b"q"})
    await commit(a, {"f": b"2", "d/x": large(2), "d/n": b"n"})
    assert await files_of(a, (await publish(a, RestoreEdit(first, b"d/x", "main@1"))).commit) == {
        "f": b"2", "d/x": large(1), "d/n": b"n",
    }  # fmt: skip
    assert await files_of(a, (await publish(a, RestoreEdit(first, b"d", "main@1"))).commit) == {
        "f": b"2", "d/x": large(1), "d/y": b"y",
    }  # fmt: skip
    assert not (await publish(a, RestoreEdit(first, b"d", "main@1"))).published
    outcome = await publish(a, RestoreEdit(first, b"e/z/q", "main@1"))
    assert (await files_of(a, outcome.commit))["e/z/q"] == b"q"
    with pytest.raises(NotFound, match=r"d/n is not in main@1"):
        await publish(a, RestoreEdit(first, b"d/n", "main@1"))
    outcome = await publish(a, RestoreEdit(first, b"", "main@1"))
    assert await files_of(a, outcome.commit) == await files_of(a, first)
    assert outcome.version == 6


async def test_reverting(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    await commit(a, {"f": b"1", "l": large(1)})
    second = await commit(a, {"f": b"1", "l": large(2), "bad": b"bad"})
    await commit(a, {"f": b"3", "l": large(2), "bad": b"bad", "more": b"m"})
    outcome = await publish(a, RevertEdit(second, "main@2", Choices()))
    assert await files_of(a, outcome.commit) == {"f": b"3", "l": large(1), "more": b"m"}
    assert len((await a.commit_info(str(outcome.commit))).parents) == 1
    assert not (await publish(a, RevertEdit(second, "main@2", Choices()))).published
    third = await commit(a, {"f": b"3", "l": large(5)})
    assert third
    outcome = await publish(a, RevertEdit(second, "main@2", Choices()))
    assert [(c.path, c.kind) for c in outcome.unresolved] == [(b"l", "changed")]
    outcome = await publish(a, RevertEdit(second, "main@2", Choices("theirs")))
    assert await files_of(a, outcome.commit) == {"f": b"3", "l": large(1)}


async def test_the_first_version_undone_leaves_what_came_after(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    first = await commit(a, {"f": b"1"})
    await commit(a, {"f": b"1", "g": b"2"})
    outcome = await publish(a, RevertEdit(first, "main@1", Choices()))
    assert await files_of(a, outcome.commit) == {"g": b"2"}


async def test_what_is_not_in_the_branch_is_not_undone(tmp_path: Path) -> None:
    world = World()
    await make_model(world)
    a, _ = await open_host(world, tmp_path)
    dev = await apart(a, {"f": b"1"}, {"f": b"1", "m": b"m"}, {"f": b"2"})
    with pytest.raises(InvalidArgument, match="not in this branch"):
        await publish(a, RevertEdit(dev, "dev", Choices()))


def test_names_beside(tmp_path: Path) -> None:
    objects = GitObjects(tmp_path / "git")
    edit = TreeEdit(objects, None)
    names = [b"a.bin", b"b", b".hidden", b"c.tar.gz", b"d.e/f.x", b"a.l-x.bin"]
    entry = TreeEntry(b"", Attributes(0o100644, 0, 0, 5), BlobContent(objects.write("blob", b"1"), 1))
    for name in names:
        edit.put(name, entry)
    assert [beside(edit, name, "l/x") for name in names[:5]] == [
        b"a.l-x-2.bin", b"b.l-x", b".hidden.l-x", b"c.tar.l-x.gz", b"d.e/f.l-x.x",
    ]  # fmt: skip
    assert beside(edit, b"d.e", "l") == b"d.e.l"
    edit.remove(b"d.e/f.x")
    assert edit.names(b"d.e") == []
