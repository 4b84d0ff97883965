"""Imports of Git repositories: the same commits, readable and writable as if they had been made here."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings

from mvcfs.errors import (
    AlreadyExists,
    Conflict,
    CorruptData,
    InvalidArgument,
    InvalidName,
    LimitExceeded,
    MvcfsError,
    NotFound,
    NotSupported,
)
from mvcfs.storage.faults import Fault, FaultyStorage
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.wrapper import Call
from mvcfs.versions.plain_git import git_source
from mvcfs.versions.store import Store
from tests.e2e.tools import git
from tests.vfs.git_sources import (
    History,
    Step,
    commit_files,
    histories,
    lfs_repository,
    make,
    objects_of,
    refs_of,
    working_repository,
)
from tests.vfs.test_filesystem_model import ROOT, opened
from tests.vfs.test_git_export import export, files_of, lfs_settings
from tests.vfs.test_review_hosts import Host


@asynccontextmanager
async def empty_store(folder: Path, storage: Any = None) -> AsyncIterator[Host]:
    store = folder / "store"
    await Store.init(LocalStorage(store))
    async with opened(store, folder / "cache", storage) as engine:
        yield Host(engine)


async def bring(host: Host, source: Path, model: str = "m", **more: Any) -> dict[str, Any]:
    return await host.engine.commands["git_import"]({"model": model, "source": str(source), **more})


async def read(host: Host, *path: bytes, top: bytes = b"main") -> bytes:
    return await host.driver.read(await host.driver.ino(path, top))


async def fsck(host: Host) -> list[Any]:
    result = await host.engine.commands["fsck"]({"data": True})
    return list(result["problems"])


STEP = Step(0, (), ((b"a", b"100644", b"1"),), b"m", b"+0000", 5)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories)
@example(
    History([STEP, Step(1, (0,), ((b".mvcfs-attrs", b"100644", b"mine"),), b"", b"-0730", 1)], [(0, True), (1, False)])
)
def test_export_of_an_import_is_the_same_repository(history: History) -> None:
    async def play(folder: Path) -> None:
        source, target = make(folder / "source.git", history), folder / "target.git"
        async with empty_store(folder) as host:
            await bring(host, source)
            model = await host.engine.model("m")
            for name, state in model.data.repository.refs.branches.items():
                chain = git(source, "rev-list", "--first-parent", name).stdout.split()
                assert (state.version, state.tip) == (len(chain), chain[0])
                versions = await model.data.repository.history(name)
                assert [info.commit for info in versions] == chain
            for top in (b"main", b"main@1") if "main" in model.data.repository.refs.branches else ():
                assert (await host.driver.picture(top))[0] == "dir"
            assert await fsck(host) == []
            await export(host, target)
        assert refs_of(target) == refs_of(source)
        assert objects_of(target) == objects_of(source)
        assert git(target, "fsck", "--full").returncode == 0

    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, Path(folder))


async def test_git_lfs_there_and_back(tmp_path: Path) -> None:
    """Through import, reading, a new version, export: git and git-lfs find all as it was, and the new version clean."""
    lfs = lfs_settings(tmp_path)
    source = lfs_repository(tmp_path / "source", lfs)
    model_bin, small_bin = (source / "w/model.bin").read_bytes(), (source / "small.bin").read_bytes()
    git(source, "tag", "-a", "v1", "-m", "One")
    async with empty_store(tmp_path) as host:
        before = files_of(source)
        result = await bring(host, source)
        assert files_of(source) == before
        assert (result["lfs_files"], result["new_lfs_files"], result["missing_lfs"]) == (3, 3, [])
        assert [(each["branch"], each["version"]) for each in result["branches"]] == [("main", 2)]
        assert await read(host, b"w", b"model.bin") == model_bin
        assert await read(host, b"small.bin") == small_bin
        assert await read(host, b".gitattributes") == (source / ".gitattributes").read_bytes()
        assert len(await read(host, b"w", b"model.bin", top=b"main@1")) == 200_000
        assert await read(host, b"a.txt", top=b"v1") == b"one\n"
        assert await fsck(host) == []
        await host.driver.write(await host.driver.ino((b"w", b"model.bin")), 100, b"changed here")
        await host.put(b"new.txt", b"new\n")
        # Small files that .gitattributes wants in Git LFS are kept there.
        await host.put(b"tiny.bin", b"tiny")
        await host.put(b"empty.bin", b"")
        await host.driver.write(await host.driver.ino((b"small.bin",)), 0, b"!")
        assert (await host.commit())["version"] == 3
        await host.fs.mkdir(await host.driver.ino(()), b"sub", 0o755, ROOT)
        sub = await host.driver.ino((b"sub",))
        for name, data in (
            (b".gitattributes", b"*.bin -filter\n*.pt filter=lfs diff=lfs merge=lfs -text\n"),
            (b"x.bin", b"x"),
            (b"x.pt", b"y"),
        ):
            file, _ = await host.fs.create(sub, name, 0o644, os.O_RDWR, ROOT)
            await host.fs.write(file.fh, 0, data)
            await host.fs.release(file.fh)
        assert (await host.commit())["version"] == 4
        assert await read(host, b"tiny.bin") == b"tiny"
        assert await fsck(host) == []
        await export(host, tmp_path / "out.git")
    assert git(tmp_path / "out.git", "fsck", "--strict", "--full").stderr == ""
    assert (
        git(tmp_path / "out.git", "rev-parse", "main~2", "v1").stdout == git(source, "rev-parse", "main", "v1").stdout
    )
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(tmp_path / "out.git"), str(clone), **lfs)
    assert git(clone, "status", "--porcelain", **lfs).stdout == ""
    git(clone, "lfs", "fsck", **lfs)
    assert (clone / "w/model.bin").read_bytes() == model_bin[:100] + b"changed here" + model_bin[112:]
    assert (clone / "small.bin").read_bytes() == b"!" + small_bin[1:]
    for name, data in (
        ("new.txt", b"new\n"),
        ("tiny.bin", b"tiny"),
        ("empty.bin", b""),
        ("sub/x.bin", b"x"),
        ("sub/x.pt", b"y"),
    ):
        assert (clone / name).read_bytes() == data
    assert git(clone, "diff", "--name-only", "HEAD~2", "HEAD~1", **lfs).stdout.split() == [
        ".gitattributes", ".mvcfs-attrs", "empty.bin", "new.txt", "small.bin", "tiny.bin",
        "w/.gitattributes", "w/.mvcfs-attrs", "w/model.bin",
    ]  # fmt: skip
    # As if git-lfs had put them there: it finds nothing to do when all is added anew.
    for name in ("small.bin", "tiny.bin", "empty.bin", "sub/x.bin", "sub/x.pt"):
        (clone / name).touch()
    git(clone, "add", "-A", **lfs)
    assert git(clone, "status", "--porcelain", **lfs).stdout == ""


async def test_large_blobs_stay_blobs_until_they_change(tmp_path: Path) -> None:
    source = working_repository(tmp_path / "source")
    big, other = os.urandom(3_000_000), os.urandom(100_000)
    commit_files(source, {"big": big, "other": other, "d/deep": other[::-1]})
    async with empty_store(tmp_path) as host:
        await bring(host, source)
        assert await read(host, b"big") == big
        assert await read(host, b"big", top=b"main@1") == big
        model = await host.engine.model("m")
        entries = await model.data.entries(
            (await model.data.repository.commit_info(model.data.repository.refs.branch("main").tip)).tree
        )
        assert entries[b"big"].content.size_bytes == 3_000_000
        await host.driver.write(await host.driver.ino((b"big",)), 1_000_000, b"!")
        assert await read(host, b"big") == big[:1_000_000] + b"!" + big[1_000_001:]
        await host.commit()
        assert await read(host, b"big", top=b"main@2") == big[:1_000_000] + b"!" + big[1_000_001:]
        assert await read(host, b"other") == other
        assert await read(host, b"d", b"deep", top=b"main@2") == other[::-1]
        assert await fsck(host) == []
        await export(host, tmp_path / "out.git")
    out = tmp_path / "out.git"
    assert git(out, "cat-file", "-p", "main:big").stdout.startswith("version https://git-lfs")
    assert (
        git(out, "rev-parse", "main:other", "main:d").stdout == git(source, "rev-parse", "main:other", "main:d").stdout
    )
    assert git(out, "fsck", "--strict", "--full").stderr == ""


async def test_a_blob_that_is_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = working_repository(tmp_path / "source")
    commit_files(source, {"d/huge file": bytes(1_000_001)})
    monkeypatch.setattr(git_source, "MAX_BLOB_BYTES", 1_000_000)
    async with empty_store(tmp_path) as host:
        with pytest.raises(LimitExceeded, match="d/huge file has 1000001 bytes"):
            await bring(host, source)
        assert await host.engine.store.models() == []


async def test_missing_large_files(tmp_path: Path) -> None:
    lfs = lfs_settings(tmp_path)
    source = lfs_repository(tmp_path / "source", lfs)
    old = git(source, "cat-file", "-p", "main~1:w/model.bin").stdout.split("sha256:")[1][:64]
    path = source / ".git/lfs/objects" / old[:2] / old[2:4] / old
    data = path.read_bytes()
    path.unlink()
    async with empty_store(tmp_path) as host:
        with pytest.raises(NotFound, match=r"1 large files are not in .*w/model.bin.*--allow-missing"):
            await bring(host, source)
        assert await host.engine.store.models() == []
        tips = await bring(host, source, "tips", lfs="tips")
        assert (tips["lfs_files"], tips["left_out_lfs_files"], tips["missing_lfs"]) == (2, 1, [])
        result = await bring(host, source, allow_missing=True)
        assert result["missing_lfs"] == [{"oid": old, "size_bytes": 200_000, "path": "w/model.bin"}]
        assert len(await read(host, b"w", b"model.bin")) == 200_001
        ino = await host.driver.ino((b"w", b"model.bin"), b"main@1")
        assert (await host.fs.getattr(ino)).size_bytes == 200_000
        with pytest.raises(CorruptData, match=old):
            await host.driver.read(ino)
        assert [problem["file"] for problem in await fsck(host)] == [f"sha256:{old}"] * 2
        missing = await export(host, tmp_path / "out.git")
        assert missing["missing_lfs"] == [{"oid": old, "size_bytes": 200_000}]
        # An update brings what was missing, once it is there.
        path.write_bytes(data)
        assert (await bring(host, source, update=True))["new_lfs_files"] == 1
        assert await read(host, b"w", b"model.bin", top=b"main@1") == data
        # Damaged ones are noticed.
        path.chmod(0o644)
        path.write_bytes(bytes(len(data)))
        with pytest.raises(CorruptData, match=r"w/model\.bin"):
            await bring(host, source, "n")


async def test_update_follows_first_parents(tmp_path: Path) -> None:
    source = working_repository(tmp_path / "source")
    commit_files(source, {"a": b"1"})
    async with empty_store(tmp_path) as host:
        await bring(host, source)
        with pytest.raises(AlreadyExists, match="--update"):
            await bring(host, source)
        assert (await bring(host, source, update=True))["unchanged"] is True
        git(source, "checkout", "-q", "-b", "side")
        commit_files(source, {"b": b"2"})
        git(source, "checkout", "-q", "main")
        commit_files(source, {"a": b"3"})
        git(source, "merge", "-q", "--no-ff", "-m", "merge", "side")
        git(source, "tag", "v1")
        files = files_of(tmp_path / "store")
        result = await bring(host, source, update=True)
        assert {each["branch"]: (each["version"], each["moved"]) for each in result["branches"]} == {
            "main": (3, True), "side": (2, True),
        }  # fmt: skip
        assert await read(host, b"b", top=b"main@3") == b"2"
        new = [name for name in files_of(tmp_path / "store") if name not in files]
        assert sorted(name.rpartition(".")[2] for name in new if "/git/" in name) == ["idx", "pack"]
        # A merge into the other branch would put this one's versions aside.
        git(source, "checkout", "-q", "-B", "main", "side")
        commit_files(source, {"c": b"4"})
        git(source, "tag", "-f", "v1")
        with pytest.raises(Conflict, match=r"branch 'main'.*first parents.*tag 'v1'"):
            await bring(host, source, update=True)
        assert (await host.engine.model("m")).data.repository.refs.branch("main").version == 3
        assert await fsck(host) == []


async def test_into_an_empty_model_that_is_in_use(tmp_path: Path) -> None:
    source = working_repository(tmp_path / "source")
    commit_files(source, {"a": b"1"})
    async with empty_store(tmp_path) as host:
        await host.fs.mkdir(1, b"m", 0o755, ROOT)
        await host.driver.ino(())
        branch_id = (await host.engine.model("m")).data.repository.refs.branch("main").id
        assert (await bring(host, source))["created"] is False
        assert await read(host, b"a") == b"1"
        assert (await host.engine.model("m")).data.repository.refs.branch("main").id == branch_id
        await host.put(b"b", b"2")
        assert (await host.commit())["version"] == 2


async def test_names_that_can_not_be(tmp_path: Path) -> None:
    source = working_repository(tmp_path / "source")
    commit_files(source, {"a": b"1"})
    tree = git(source, "rev-parse", "HEAD^{tree}").stdout.strip()
    for words in (("branch", "a@b"), ("branch", "v1"), ("tag", "v1"), ("tag", "007"), ("tag", "tree", tree)):
        git(source, *words)
    git(source, "update-ref", "refs/notes/x", "HEAD")
    async with empty_store(tmp_path) as host:
        with pytest.raises(InvalidName) as caught:
            await bring(host, source)
        for part in ("'a@b' contains '@'", "'v1' is a branch and a tag", "'007'", "--rename OLD=NEW"):
            assert part in str(caught.value)
        renames = ["a@b=a-at-b", "refs/tags/v1=release-1", "007=", "nope=x"]
        with pytest.raises(InvalidName, match="no branch or tag 'nope'"):
            await bring(host, source, renames=renames)
        with pytest.raises(InvalidName, match="'tree' is of no commit"):
            await bring(host, source, renames=renames[:-1])
        result = await bring(host, source, renames=[*renames[:-1], "tree="])
        refs = (await host.engine.model("m")).data.repository.refs
        assert (sorted(refs.branches), sorted(refs.tags)) == (["a-at-b", "main", "v1"], ["release-1"])
        assert sorted(result["left_out_refs"]) == ["refs/notes/x", "refs/tags/007", "refs/tags/tree"]


def written(repository: Path, kind: str, data: bytes) -> str:
    """Writes an object as it is; gives its id."""
    words = ["git", "-C", repository, "hash-object", "--literally", "-t", kind, "-w", "--stdin"]
    return subprocess.run(words, input=data, capture_output=True, check=True).stdout.decode().strip()


def odd_tree(repository: Path, name: bytes) -> None:
    """Commits a tree with a name that only a hostile or broken tool writes."""
    blob = bytes.fromhex(written(repository, "blob", b"x"))
    tree = written(repository, "tree", b"100644 " + name + b"\0" + blob + b"100644 plain\0" + blob)
    git(repository, "update-ref", "refs/heads/main", git(repository, "commit-tree", "-m", "odd", tree).stdout.strip())


async def test_hostile_and_damaged_repositories(tmp_path: Path) -> None:
    async with empty_store(tmp_path) as host:
        for number, name in enumerate((b"..", b".git", b".")):
            source = tmp_path / f"odd{number}"
            git(tmp_path, "init", "-q", "--bare", "-b", "main", str(source))
            odd_tree(source, name)
            # Git warns of these only; they are left out, or shown as the plain files that they are.
            await bring(host, source, f"odd{number}")
            model = await host.engine.model(f"odd{number}")
            tip = model.data.repository.refs.branch("main").tip
            shown = await model.data.entries((await model.data.repository.commit_info(tip)).tree)
            assert set(shown) - {b".git"} == {b"plain"}
        source = tmp_path / "slash"
        git(tmp_path, "init", "-q", "--bare", "-b", "main", str(source))
        written(source, "tree", b"")
        commit = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b 1 +0000\n\nx"
        git(source, "update-ref", "refs/heads/main", written(source, "commit", commit))
        with pytest.raises(CorruptData, match=r"badEmail.*--no-fsck"):
            await bring(host, source, "slash")
        await bring(host, source, "slash", no_fsck=True)
        # An object that the source has lost.
        source = working_repository(tmp_path / "lost")
        commit_files(source, {"a": b"1", "b": b"2"})
        blob = git(source, "rev-parse", "HEAD:b").stdout.strip()
        (source / ".git/objects" / blob[:2] / blob[2:]).unlink()
        with pytest.raises(CorruptData, match=str(source)):
            await bring(host, source, "lost")
        assert "lost" not in await host.engine.store.models()
        assert not list((tmp_path / "store/tmp").iterdir())
        assert not list((tmp_path / "cache").rglob("imports/*"))


@pytest.mark.parametrize("length", [256, 3000])
async def test_names_that_are_too_long_for_a_directory(tmp_path: Path, length: int) -> None:
    """They are left out of listings, and stay in the versions that are made here."""
    source = tmp_path / "odd"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(source))
    odd_tree(source, b"a" * length)
    async with empty_store(tmp_path) as host:
        await bring(host, source)
        for top in (b"main", b"main@1"):
            assert [name for name, _ in await host.driver.list(await host.driver.ino((), top))] == [b"plain"]
        await host.put(b"new", b"n")
        await host.commit()
        assert sorted([name for name, _ in await host.driver.list(await host.driver.ino(()))]) == [b"new", b"plain"]
        await export(host, tmp_path / "out.git")
    names = git(tmp_path / "out.git", "ls-tree", "--name-only", "main").stdout.split()
    assert names == [".mvcfs-attrs", "a" * length, "new", "plain"]


async def test_sources_that_are_none(tmp_path: Path) -> None:
    async with empty_store(tmp_path) as host:
        with pytest.raises(NotFound, match="no Git repository"):
            await bring(host, tmp_path / "nowhere")
        source = working_repository(tmp_path / "source")
        with pytest.raises(InvalidArgument, match="nothing to import"):
            await bring(host, source)
        for number in range(3):
            commit_files(source, {"a": b"%d" % number})
        # A folder inside of a repository is not one.
        (source / "sub").mkdir()
        with pytest.raises(NotFound):
            await bring(host, source / "sub")
        git(tmp_path, "clone", "-q", "--depth", "1", f"file://{source}", str(tmp_path / "shallow"))
        with pytest.raises(NotSupported, match="unshallow"):
            await bring(host, tmp_path / "shallow")
        git(tmp_path, "init", "-q", "--object-format=sha256", str(tmp_path / "sha256"))
        with pytest.raises(NotSupported, match="SHA-1"):
            await bring(host, tmp_path / "sha256")
        with pytest.raises(InvalidName):
            await bring(host, source, "a:b")


async def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = working_repository(tmp_path / "source")
    async with empty_store(tmp_path) as host:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(NotSupported, match="apt-get install git"):
            await bring(host, source)


@pytest.mark.parametrize("number", range(0, 30, 3))
async def test_nothing_is_seen_of_an_import_that_fails(tmp_path: Path, number: int) -> None:
    """Whichever change of the store fails, there is the whole model or none."""
    lfs = lfs_settings(tmp_path)
    source = lfs_repository(tmp_path / "source", lfs)
    left = number
    storage = FaultyStorage(LocalStorage(tmp_path / "store"))

    async def count(call: Call) -> None:
        nonlocal left
        left -= call.mutates
        if left < 0:
            storage.die()

    storage.add(Fault(times=None, hook=count))
    failed = False
    async with empty_store(tmp_path, storage) as host:
        try:
            await bring(host, source)
        except MvcfsError:
            failed = True
    async with opened(tmp_path / "store", tmp_path / "cache") as engine:
        host = Host(engine)
        names = await engine.store.models()
        assert (names == []) if failed else (names == ["m"])
        if names:
            assert len(await read(host, b"w", b"model.bin")) == 200_001
            assert await fsck(host) == []


async def test_attributes_that_git_does_not_keep(tmp_path: Path) -> None:
    """Owner and time of imported files, before and after a version was made here."""
    source = working_repository(tmp_path / "source")
    (source / "run").write_bytes(b"#!")
    (source / "run").chmod(0o755)
    when = {"GIT_COMMITTER_DATE": "1700000000 +0100"}
    commit_files(source, {"d/a": b"1", "d/b": b"2"}, **when)
    async with empty_store(tmp_path) as host:
        await bring(host, source)
        for top in (b"main", b"main@1"):
            for path, mode in (((b"d", b"a"), 0o100644), ((b"d",), 0o040755), ((b"run",), 0o100755)):
                attr = await host.fs.getattr(await host.driver.ino(path, top))
                expected = (mode, os.getuid(), os.getgid(), 1_700_000_000 * 10**9)
                assert (attr.mode, attr.uid, attr.gid, attr.mtime_ns) == expected
        await host.driver.write(await host.driver.ino((b"d", b"a")), 0, b"!")
        version = await host.commit()
        commit = await (await host.engine.model("m")).data.repository.commit_info(str(version["commit"]))
        written = (await host.fs.getattr(await host.driver.ino((b"d", b"a"), b"main@2"))).mtime_ns
        assert abs(written - commit.committer_time_s * 10**9) < 60 * 10**9
        other = (await host.fs.getattr(await host.driver.ino((b"d", b"b"), b"main@2"))).mtime_ns
        assert other == commit.committer_time_s * 10**9


async def test_git_packs_are_no_longer_than_a_block(tmp_path: Path) -> None:
    source = working_repository(tmp_path / "source")
    for number in range(6):
        commit_files(source, {f"f{number}": os.urandom(3_000_000)})
    block = 8 << 20
    async with empty_store(tmp_path, LocalStorage(tmp_path / "store", block_bytes=block)) as host:
        await bring(host, source)
        refs = (await host.engine.model("m")).data.repository.refs
        assert len(refs.git) >= 3
        assert max(file.size_bytes for file in refs.git) <= block
        assert await fsck(host) == []
        assert await read(host, b"f3") == (source / "f3").read_bytes()


async def test_a_big_blob_is_in_memory_once(tmp_path: Path) -> None:
    source = working_repository(tmp_path / "source")
    commit_files(source, {"big": os.urandom(2_000_000)})
    async with empty_store(tmp_path) as host:
        await bring(host, source)
        data = (await host.engine.model("m")).data
        tip = data.repository.refs.branch("main").tip
        content = (await data.entries((await data.repository.commit_info(tip)).tree))[b"big"].content
        first, second = data.source(content), data.source(content)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.read_view, 0, 10)
            nursery.start_soon(second.read_view, 5, 10)
        assert (await first.read_view(0, 100)).obj is (await second.read_view(7, 9)).obj


async def test_moves_of_aliases_come_along(tmp_path: Path) -> None:
    async with empty_store(tmp_path) as host:
        await host.fs.mkdir(1, b"m", 0o755, ROOT)
        commands = host.engine.commands
        for text in (b"1", b"2"):
            await host.put(b"p", text)
            await host.commit()
        for name, version in (("best", 1), ("best", 2), ("gone", 1)):
            await commands["alias_set"](
                {"mount_path": "m", "name": name, "revision": f"main@{version}", "message": f"{name} {version}"}
            )
        await commands["alias_delete"]({"mount_path": "m", "name": "gone", "message": "no more"})
        first, second = tmp_path / "first.git", tmp_path / "second.git"
        await export(host, first)
        await bring(host, first, "copy")
        await export(host, second, mount_path="copy")
        assert refs_of(second) == refs_of(first)
        assert any(line.endswith("refs/mvcfs/alias-logs/gone") for line in refs_of(first))
        git(second, "fsck", "--strict")
        assert await commands["aliases"]({"mount_path": "copy"}) == {
            **await commands["aliases"]({"mount_path": "m"}), "model": "copy",
        }  # fmt: skip
        for name in ("best", "gone"):
            here = await commands["alias_log"]({"mount_path": "m", "name": name})
            assert await commands["alias_log"]({"mount_path": "copy", "name": name}) == {**here, "model": "copy"}
            assert len(here["moves"]) == 2
        # Once more changes nothing: what is there has a log of its own.
        await commands["alias_set"]({"mount_path": "copy", "name": "best", "revision": "main@1", "message": "back"})
        await bring(host, first, "copy", update=True)
        assert len((await commands["alias_log"]({"mount_path": "copy", "name": "best"}))["moves"]) == 3
        await bring(host, first, "renamed", renames=["best=better", "gone="])
        renamed = await commands["aliases"]({"mount_path": "renamed"})
        assert ([each["alias"] for each in renamed["aliases"]], renamed["removed"]) == (["better"], [])
        assert await fsck(host) == []
