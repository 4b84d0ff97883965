from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mvcfs.errors import AlreadyExists, InvalidName, NotFound, ReadOnly, UnknownOutcome
from mvcfs.types import DirChange, StoredFile
from mvcfs.versions.log.publish import CommitRequest
from mvcfs.versions.store import Store
from tests.versions.simulated import (
    AUTHOR,
    ROOT,
    Clock,
    World,
    commit_files,
    content_of,
    file,
    make_model,
    open_host,
)


@pytest.fixture
async def world() -> World:
    world = World()
    await make_model(world)
    return world


async def test_a_version_is_seen_by_another_host(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path, "a")
    b, _ = await open_host(world, tmp_path, "b")
    published = await commit_files(a, {b"x": b"one"})
    assert (published.version, published.branch, published.merged, published.unchanged) == (1, "main", False, False)
    assert a.refs.branch("main").tip == published.commit
    assert await b.refresh()
    assert not await b.refresh()
    assert b.refs == a.refs
    assert await content_of(b, published.commit) == {b"x": b"one"}


async def test_small_versions_need_one_file_each(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    before = set(world.files)
    await commit_files(a, {b"x": b"one"})
    assert len(set(world.files) - before) == 1
    before = set(world.files)
    await commit_files(a, {b"y": b"z" * 60_000, b"w": b"v" * 60_000})
    assert len(set(world.files) - before) == 3
    assert not a.state.inline or len(a.state.inline) == 1


async def test_inline_objects_end_in_packs(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    for number in range(40):
        await commit_files(a, {b"f%d" % number: b"%d" % number * 10_000})
    assert a.state.inline_bytes <= 256 * 1024
    assert a.refs.git
    fresh, _ = await open_host(world, tmp_path, "fresh")
    tip = fresh.refs.branch("main").tip
    assert len(await content_of(fresh, tip)) == 40
    assert [p for p in await fresh.fsck() if p.severity.value == "damage"] == []


async def test_two_hosts_meet_in_a_merge(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path, "a")
    b, _ = await open_host(world, tmp_path, "b")
    first = await commit_files(a, {b"x": b"one"})
    await b.refresh()
    await commit_files(a, {b"a": b"from a"})
    published = await commit_files(b, {b"b": b"from b"}, base=first.commit)
    assert published.merged
    assert published.version == 3
    assert await content_of(b, published.commit) == {b"x": b"one", b"a": b"from a", b"b": b"from b"}
    info = await b.commit_info(published.commit)
    assert info.parents == (await b.version_commit("main", 2),)


async def test_a_conflict_goes_to_its_own_branch(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path, "a")
    b, _ = await open_host(world, tmp_path, "b")
    first = await commit_files(a, {b"x": b"one"})
    await b.refresh()
    second = await commit_files(a, {b"x": b"from a"})
    published = await commit_files(b, {b"x": b"from b", b"y": b"more"}, base=first.commit)
    assert published.conflict
    assert published.branch == "main-conflict-x"
    assert published.version == 1
    assert await content_of(b, published.commit) == {b"x": b"from b", b"y": b"more"}
    assert await content_of(b, published.joined) == {b"x": b"from a", b"y": b"more"}
    main = b.refs.branch("main")
    assert (main.tip, main.version) == (published.joined, 3)
    assert (await b.commit_info(published.joined)).parents == (second.commit,)
    again = await commit_files(b, {b"x": b"from b again"}, base=first.commit)
    assert (again.branch, again.version) == ("main-conflict-x", 2)


async def test_publishing_to_a_branch_deleted_elsewhere_is_a_conflict(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path, "a")
    b, _ = await open_host(world, tmp_path, "b")
    first = await commit_files(a, {b"x": b"one"})
    await b.refresh()
    await a.delete_branch("main")
    published = await commit_files(b, {b"y": b"two"}, base=first.commit)
    assert published.conflict
    assert published.branch == "main-conflict-x"
    assert await content_of(b, published.commit) == {b"x": b"one", b"y": b"two"}


async def test_an_unchanged_tree_is_no_version(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    await commit_files(a, {b"x": b"one"})
    published = await commit_files(a, {b"x": b"one"})
    assert published.unchanged
    assert published.version == 1


async def test_branches(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path, "a")
    one = await commit_files(a, {b"x": b"one"})
    exp = await a.create_branch("feature/x", one.commit)
    assert exp.version == 1
    with pytest.raises(AlreadyExists, match="directory of the other"):
        await a.create_branch("feature", None)
    with pytest.raises(AlreadyExists):
        await a.create_branch("main", None)
    with pytest.raises(InvalidName):
        await a.create_branch("a@b", None)
    await a.rename_branch("feature/x", "feature")
    assert a.refs.branch("feature").id == exp.id
    two = await commit_files(a, {b"x": b"two"}, branch="feature")
    assert two.version == 2
    await a.delete_branch("feature")
    with pytest.raises(NotFound, match="there is main"):
        a.refs.branch("feature")
    other = await a.create_branch("feature", None)
    with pytest.raises(AlreadyExists):
        await a.undelete_branch("feature")
    await a.delete_branch("feature")
    assert (await a.undelete_branch("feature")).id == other.id
    b, _ = await open_host(world, tmp_path, "b")
    assert b.refs == a.refs


async def test_only_what_overrides_it_publishes_to_a_protected_branch(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path, "a")
    b, _ = await open_host(world, tmp_path, "b")
    first = await commit_files(a, {b"x": b"one"})
    assert (await a.protect_branch("main", True)).protected
    records = a.refs.number
    assert (await a.protect_branch("main", True)).protected
    assert a.refs.number == records
    for refused in (
        lambda: commit_files(b, {b"x": b"two"}, base=None),
        lambda: b.delete_branch("main"),
        lambda: b.rename_branch("main", "other"),
    ):
        with pytest.raises(ReadOnly, match="protected"):
            await refused()
    assert b.refs.branch("main").tip == first.commit
    two = await commit_files(b, {b"x": b"two"}, override_protection=True)
    assert (two.version, two.branch, two.conflict) == (2, "main", False)
    await a.refresh()
    assert a.refs.branch("main").protected
    assert not (await a.protect_branch("main", False)).protected
    assert (await commit_files(a, {b"x": b"three"})).version == 3


async def test_undelete_brings_back_what_was_emptied(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    await commit_files(a, {b"x": b"one", b"y": b"two"})
    await commit_files(a, {b"x": None, b"y": None})
    await a.delete_branch("main")
    branch = await a.undelete_branch("main")
    assert branch.version == 3
    assert await content_of(a, branch.tip) == {b"x": b"one", b"y": b"two"}


async def test_tags_and_aliases(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    one = await commit_files(a, {b"x": b"one"})
    await a.create_tag("v1.0", one.commit)
    await a.create_tag("v1.1", one.commit, message="Good one", author=AUTHOR)
    await a.set_alias("champion", one.commit, who=AUTHOR, why="better")
    assert await a.resolve("v1.0") == await a.resolve("v1.1") == await a.resolve("champion") == one.commit
    assert a.refs.alias_notes["champion"].why == "better"
    with pytest.raises(AlreadyExists):
        await a.create_tag("v1.0", one.commit)
    with pytest.raises(InvalidName):
        await a.create_tag("42", one.commit)
    await a.delete_tag("v1.0")
    await a.delete_alias("champion", who=AUTHOR)
    with pytest.raises(NotFound):
        await a.resolve("v1.0")
    with pytest.raises(NotFound):
        await a.delete_tag("v1.0")


async def test_revisions(world: World, tmp_path: Path) -> None:
    clock = Clock()
    a, _ = await open_host(world, tmp_path, clock=clock)
    commits = []
    for number in range(5):
        commits.append((await commit_files(a, {b"x": b"%d" % number})).commit)
        clock.forward(60)
    assert await a.resolve("main") == commits[4]
    assert await a.resolve("3", branch="main") == commits[2]
    assert await a.resolve("@3", branch="main") == commits[2]
    assert await a.resolve("main@1") == commits[0]
    assert await a.resolve("main~2") == commits[2]
    assert await a.resolve("main@4~1~1") == commits[1]
    assert await a.resolve(commits[3]) == commits[3]
    assert await a.resolve(commits[3][:12]) == commits[3]
    assert await a.resolve("main@" + commits[3][:12]) == commits[3]
    # 1_700_000_000 is 22:13:20
    assert await a.resolve("main@2023-11-14T2214") == commits[0]
    assert await a.resolve("main@2023-11-14T22:15:20Z") == commits[2]
    assert await a.resolve("main@2023-11-15") == commits[4]
    with pytest.raises(NotFound, match="versions 1 to 5"):
        await a.resolve("main@6")
    with pytest.raises(NotFound, match="at or before 2023-11-14T00:00:00Z"):
        await a.resolve("main@2023-11-14")
    with pytest.raises(NotFound, match="go back"):
        await a.resolve("main~5")
    with pytest.raises(NotFound, match="there is main"):
        await a.resolve("dev@1")
    with pytest.raises(InvalidName, match="BRANCH@42"):
        await a.resolve("what?")
    with pytest.raises(InvalidName, match="which branch"):
        await a.resolve("42")
    await a.create_branch("exp", commits[2])
    assert await a.resolve("exp@1") == commits[2]
    assert await a.resolve("exp@" + commits[0][:20]) == commits[0]
    with pytest.raises(NotFound, match="no version"):
        await a.resolve("exp@" + commits[4][:20])


async def test_history(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    for number in range(4):
        await commit_files(a, {b"x": b"%d" % number}, message=f"Change {number}\n\nMvcfs-Host: a\nMvcfs-Job: 7")
    versions = await a.history("main")
    assert [(v.version, v.subject) for v in versions] == [(4 - n, f"Change {3 - n}") for n in range(4)]
    assert len(await a.history("main", limit=2)) == 2
    assert await a.version_of("main", versions[2].commit) == 2
    assert (await a.commit_info(versions[0].commit)).trailers == (("Mvcfs-Host", "a"), ("Mvcfs-Job", "7"))
    entry = await a.entry_at(versions[1].commit, b"x")
    assert await a.read_content(entry.content) == b"2"
    assert await a.entry_at(versions[1].commit, b"x/y") is None


async def test_real_git_agrees(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    for number in range(6):
        await commit_files(a, {b"f%d" % number: b"%d" % number * 20_000})
    await a.create_tag("v1", a.refs.branch("main").tip, message="One")
    await a.create_branch("other/x", a.refs.branch("main").tip)
    await a.delete_branch("other/x")
    target = tmp_path / "out.git"
    export = a.git_export(target)
    await export.open()
    await export.write_objects()
    await export.write_refs()
    export.close()

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(target), *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert git("fsck", "--strict", "--full").strip().replace("notice: No default references", "") == ""
    assert len(git("log", "--format=%H", "main").split()) == 6
    assert "refs/mvcfs/deleted/" in git("for-each-ref")
    assert "f5" in git("ls-tree", "main")


async def test_a_renamed_model_is_followed(world: World, tmp_path: Path) -> None:
    a, storage = await open_host(world, tmp_path)
    await commit_files(a, {b"x": b"one"})
    store = await Store.open(storage)
    await store.rename_model("llama", "alpaca")
    with pytest.raises(NotFound, match="renamed or removed"):
        await a.refresh()
    assert await store.find_by_id(a.id) == "alpaca"
    a.renamed("alpaca")
    assert not await a.refresh()
    assert (await commit_files(a, {b"x": b"two"})).version == 2


async def test_no_record_lands_in_another_model_of_the_same_name(world: World, tmp_path: Path) -> None:
    a, storage = await open_host(world, tmp_path)
    store = await Store.open(storage)
    await store.remove_model("llama")
    await make_model(world)
    before = dict(world.files)
    with pytest.raises(NotFound, match="renamed or removed"):
        await commit_files(a, {b"x": b"one"})
    assert world.files == before


async def test_files_that_went_elsewhere_are_noticed(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    tree = await a.build_tree(DirChange(ROOT))
    request = CommitRequest(
        a.refs.branch("main").id, None, tree, AUTHOR, "m", "c", manifests=(StoredFile("manifests/a.arrow", 3),)
    )
    with pytest.raises(NotFound):
        await a.publish_commit(request)


async def test_damaged_local_packs_are_fetched_again(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    published = await commit_files(a, {b"x": bytes(60_000), b"y": b"1" * 60_000})
    assert a.refs.git
    for path in (tmp_path / "a" / "git" / "objects" / "pack").glob("*.pack"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        path.unlink()
        path.write_bytes(data)
    again, _ = await open_host(world, tmp_path, "a")
    assert (await content_of(again, published.commit))[b"y"] == b"1" * 60_000


async def test_builds_that_came_to_nothing_are_let_go(world: World, tmp_path: Path) -> None:
    a, _ = await open_host(world, tmp_path)
    await commit_files(a, {b"x": b"one"})
    before = a.unpublished_bytes
    tree = (await a.commit_info(a.refs.branch("main").tip)).tree
    await a.build_tree(DirChange(ROOT, tree, {b"y": file(b"y" * 50_000)}))
    assert a.unpublished_bytes > before + 50_000
    a.discard_builds()
    assert a.unpublished_bytes <= before
    assert (await commit_files(a, {b"z": b"two"})).version == 2


async def test_publish_waits_for_an_unresolved_attempt(world: World, tmp_path: Path, autojump_clock: object) -> None:
    a, storage = await open_host(world, tmp_path)
    seen: list[object] = []

    def plan(operation: str, path: str) -> str | None:
        return "lost" if operation == "rename" else "transient" if seen else None

    storage.plan = plan
    with pytest.raises(UnknownOutcome):
        await commit_files(a, {b"x": b"one"}, on_attempt=seen.append)
    storage.plan = None
    (attempt,) = seen
    with pytest.raises(UnknownOutcome, match="resolve"):
        await commit_files(a, {b"x": b"one"})
    assert await a.resolve_attempt(attempt)
    assert a.refs.branch("main").version == 1
    assert (await commit_files(a, {b"x": b"one"})).unchanged
