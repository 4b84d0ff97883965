"""Exports of a model to plain Git: what git and git-lfs make of them, exports into the same folder, refusals."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mvcfs.errors import AlreadyExists, Busy, Conflict, InvalidArgument, LimitExceeded, NotEmpty, NotFound
from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from mvcfs.vfs.commands import git_export
from tests.e2e.tools import git
from tests.vfs.test_filesystem_model import ROOT, opened
from tests.vfs.test_review_hosts import Host


@asynccontextmanager
async def one_host(folder: Path) -> AsyncIterator[Host]:
    store = folder / "store"
    await Store.init(LocalStorage(store))
    async with opened(store, folder / "cache") as engine:
        host = Host(engine)
        await host.fs.mkdir(1, b"m", 0o755, ROOT)
        yield host


async def export(host: Host, target: Path, **more: Any) -> dict[str, Any]:
    args = {"mount_path": "m", "directory": str(target), **more}
    return await host.engine.commands["git_export"](args)


def refs(bare: Path) -> dict[str, str]:
    lines = git(bare, "for-each-ref", "--format=%(refname) %(objectname)").stdout.splitlines()
    return dict(line.split() for line in lines)


def lfs_settings(folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    settings = {"GIT_CONFIG_GLOBAL": str(home / "config"), "HOME": str(home)}
    git(folder, "lfs", "install", **settings)
    return settings


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_git_and_git_lfs_take_it(tmp_path: Path) -> None:
    bare, large = tmp_path / "out.git", os.urandom(300_000)
    async with one_host(tmp_path) as host:
        await host.put(b"large.bin", large)
        await host.put(b"a.txt", b"one\n")
        await host.commit()
        await host.engine.commands["tag_create"](
            {"mount_path": "m", "name": "v1", "revision": "main@1", "message": "One"}
        )
        await host.engine.commands["tag_create"]({"mount_path": "m", "name": "light", "revision": "main@1"})
        for number in range(3):
            await host.put(b"a.txt", b"%d" % number)
            await host.commit()
        for name in ("exp/x", "gone"):
            await host.engine.commands["branch_create"]({"mount_path": "m", "name": name, "revision": "main@2"})
        await host.engine.commands["branch_delete"]({"mount_path": "m", "name": "gone"})
        result = await export(host, bare)
        expected = (await host.engine.model("m")).data.repository.refs
    assert (result["head"], result["lfs_files"], result["new_lfs_files"], result["missing_lfs"]) == ("main", 1, 1, [])
    checked = git(bare, "fsck", "--strict", "--full", "--no-dangling")
    assert checked.stdout + checked.stderr == ""
    (deleted,) = expected.deleted
    assert refs(bare) == {
        "refs/heads/main": expected.branch("main").tip,
        "refs/heads/exp/x": expected.branch("exp/x").tip,
        "refs/tags/v1": expected.tags["v1"],
        "refs/tags/light": expected.tags["light"],
        f"refs/mvcfs/deleted/{deleted.id}": deleted.tip,
    }
    assert git(bare, "cat-file", "-t", "v1").stdout.strip() == "tag"
    settings = lfs_settings(tmp_path)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(bare), str(clone), **settings)
    assert (clone / "large.bin").read_bytes() == large
    assert (clone / "a.txt").read_bytes() == b"2"
    assert git(clone, "status", "--porcelain", **settings).stdout == ""
    git(clone, "lfs", "fsck", **settings)
    assert len(git(clone, "log", "--format=%H").stdout.split()) == 4


async def test_again_into_the_same_folder_writes_only_what_is_new(tmp_path: Path) -> None:
    bare = tmp_path / "out.git"
    async with one_host(tmp_path) as host:
        await host.put(b"large.bin", os.urandom(200_000))
        for number in range(30):
            await host.put(b"f%d" % number, os.urandom(20_000))
        await host.commit()
        await host.engine.commands["branch_create"]({"mount_path": "m", "name": "b", "revision": "main"})
        await export(host, bare)
        before = files_of(bare)
        again = await export(host, bare)
        assert (again["new_packs"], again["new_lfs_files"], again["moved_refs"], again["removed_refs"]) == (0, 0, 0, 0)
        assert {name for name, state in files_of(bare).items() if before[name] != state} <= {
            "mvcfs-export.json", "packed-refs", "mvcfs-export.lock",
        }  # fmt: skip
        await host.put(b"large.bin", os.urandom(200_001))
        await host.commit()
        await host.engine.commands["branch_delete"]({"mount_path": "m", "name": "b"})
        third = await export(host, bare)
    assert (third["lfs_files"], third["new_lfs_files"], third["new_lfs_bytes"]) == (2, 1, 200_001)
    assert third["removed_refs"] == 1
    assert "refs/heads/b" not in refs(bare)
    after = files_of(bare)
    kept = [name for name in before if name.startswith("lfs/")]
    assert kept
    assert all(after[name] == before[name] for name in kept)
    assert git(bare, "fsck", "--strict", "--full").stderr == ""
    packs = {path.stem for path in (bare / "objects/pack").glob("*.pack")}
    assert packs == set(json.loads((bare / "mvcfs-export.json").read_text())["packs"])


async def test_an_export_that_was_cut_short_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, data = tmp_path / "out.git", [os.urandom(100_000 + number) for number in range(3)]
    async with one_host(tmp_path) as host:
        for number, each in enumerate(data):
            await host.put(b"large-%d" % number, each)
        await host.commit()
        finish, count = git_export._finish, 0

        def cut(*args: Any) -> None:
            nonlocal count
            count += 1
            if count == 2:
                raise KeyError("the end")
            finish(*args)

        monkeypatch.setattr(git_export, "_finish", cut)
        with pytest.raises(KeyError):
            await export(host, bare)
        assert refs(bare) == {}
        result = await export(host, bare)
    assert result["new_lfs_files"] == 2
    for each in data:
        oid = hashlib.sha256(each).hexdigest()
        assert (bare / "lfs/objects" / oid[:2] / oid[2:4] / oid).read_bytes() == each
    assert list((bare / "lfs/incomplete").iterdir()) == []
    assert git(bare, "fsck", "--strict", "--full").stderr == ""


async def test_tips_and_single_branches(tmp_path: Path) -> None:
    async with one_host(tmp_path) as host:
        await host.put(b"large.bin", os.urandom(100_000))
        await host.commit()
        await host.engine.commands["branch_create"]({"mount_path": "m", "name": "old", "revision": "main"})
        await host.engine.commands["tag_create"]({"mount_path": "m", "name": "later", "revision": "main"})
        await host.put(b"large.bin", os.urandom(100_001))
        await host.commit()
        await host.put(b"large.bin", os.urandom(100_002))
        await host.commit()
        await host.engine.commands["tag_create"]({"mount_path": "m", "name": "newest", "revision": "main"})
        tips = await export(host, tmp_path / "tips.git", lfs="tips")
        assert (tips["lfs_files"], tips["lfs_bytes"]) == (2, 200_002)
        assert (await export(host, tmp_path / "none.git", lfs="none"))["lfs_files"] == 0
        one = await export(host, tmp_path / "one.git", branches=["old"])
        assert sorted(refs(tmp_path / "one.git")) == ["refs/heads/old", "refs/tags/later"]
        assert (one["head"], one["lfs_files"]) == ("old", 1)
        assert git(tmp_path / "one.git", "fsck", "--strict", "--full").stderr == ""
        with pytest.raises(NotFound, match="no branch 'nope'"):
            await export(host, tmp_path / "two.git", branches=["nope"])
        both = await export(host, tmp_path / "one.git", branches=["old", "main"])
        assert (both["new_lfs_files"], both["moved_refs"]) == (2, 2)
        assert (await export(host, tmp_path / "one.git", branches=["old", "main"]))["new_packs"] == 0
        assert git(tmp_path / "one.git", "fsck", "--strict", "--full").stderr == ""
        whole = await export(host, tmp_path / "one.git")
    assert git(tmp_path / "one.git", "fsck", "--strict", "--full").stderr == ""
    assert len(list((tmp_path / "one.git/objects/pack").glob("*.pack"))) == whole["new_packs"]


async def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "out.git"
    async with one_host(tmp_path) as host:
        await host.put(b"large.bin", os.urandom(100_000))
        await host.commit()
        (tmp_path / "foreign").mkdir()
        (tmp_path / "foreign/file").write_text("x")
        with pytest.raises(NotEmpty, match="neither empty nor an export"):
            await export(host, tmp_path / "foreign")
        assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["file"]
        with pytest.raises(InvalidArgument):
            await export(host, bare, lfs="some")
        with pytest.raises(InvalidArgument, match="whole model"):
            await host.engine.commands["git_export"]({"mount_path": "m/main", "directory": str(bare)})
        await export(host, bare)
        await host.fs.mkdir(1, b"other", 0o755, ROOT)
        with pytest.raises(AlreadyExists, match="another model"):
            await host.engine.commands["git_export"]({"mount_path": "other", "directory": str(bare)})
        running = (await host.engine.model("m")).data.repository.git_export(bare)
        await running.open()
        with pytest.raises(Busy):
            await export(host, bare)
        running.close()
        # What others have pushed into the folder is not lost unasked.
        tree = git(bare, "rev-parse", "main^{tree}").stdout.strip()
        pushed = git(bare, "commit-tree", "-m", "mine", "-p", "main", tree).stdout.strip()
        git(bare, "update-ref", "refs/heads/main", pushed)
        with pytest.raises(Conflict, match="refs/heads/main"):
            await export(host, bare)
        assert git(bare, "rev-parse", "main").stdout.strip() == pushed
        await export(host, bare, force=True)
        assert git(bare, "rev-parse", "main").stdout.strip() != pushed
        monkeypatch.setattr(git_export, "_SPARE_BYTES", 1 << 60)
        with pytest.raises(LimitExceeded, match="--lfs tips"):
            await export(host, tmp_path / "full.git")


async def test_an_empty_model(tmp_path: Path) -> None:
    async with one_host(tmp_path) as host:
        result = await export(host, tmp_path / "out.git")
    assert (result["refs"], result["head"]) == (0, "main")
    git(tmp_path, "clone", "-q", str(tmp_path / "out.git"), str(tmp_path / "clone"))
