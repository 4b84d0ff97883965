"""What a mount leaves in its store: few files, checked by mvcfs, by a copy elsewhere, and by real Git."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvcfs.storage.address import open_storage
from mvcfs.versions.log.publish import Publisher
from mvcfs.versions.store import Store
from tests.e2e.tools import copy_store, differences, git, list_store
from tests.mount.harness import Mount

pytestmark = [pytest.mark.mount, pytest.mark.hdfs]

BLOCK = 8 << 20


def fill(main: Path) -> None:
    """Some of everything that a version can hold."""
    (main / "sub dir/deep").mkdir(parents=True)
    (main / "empty").mkdir()
    (main / "model.safetensors").write_bytes(os.urandom(30_000_000))
    (main / "sub dir" / 'a [b]*?"é\\.bin').write_bytes(os.urandom(100_000))
    (main / "sub dir" / " #!large").write_bytes(os.urandom(70_000))
    (main / ".gitattributes").write_text("*.txt text\n*.bin binary")
    (main / "a.txt").write_text("text\n")
    (main / "run").write_text("#!/bin/sh\n")
    (main / "run").chmod(0o750)
    (main / "sub dir/deep/link").symlink_to("../../a.txt")
    (main / "zero").write_bytes(b"")
    os.link(main / "model.safetensors", main / "sub dir/same.safetensors")
    Path(os.fsdecode(os.fsencode(main) + b"/sub dir/\xff\xfe")).write_bytes(bytes(66_000))


async def test_few_files_a_version(hdfs_store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    mnt = mounts(hdfs_store).start("--settle", "1h", "--max-settle", "1h", "--block-size", str(BLOCK))
    main = mnt.point / "m" / "main"
    main.parent.mkdir()
    fill(main)
    assert mnt.commit()["version"] == 1
    counts = [outside_packs(await list_store(hdfs_store))]
    for number in range(2, 22):
        (main / f"small-{number}").write_text(str(number))
        if number % 2:
            (main / "model.safetensors").write_bytes(os.urandom(200_000))
        assert mnt.commit()["version"] == number
        counts.append(outside_packs(await list_store(hdfs_store)))
    growth = [after - before for before, after in itertools.pairwise(counts)]
    print(f"files outside packs after version 1: {counts[0]}, then a version: {growth}")
    assert counts[0] <= 8
    assert max(growth) <= 5
    mnt.umount()
    files = await list_store(hdfs_store)
    assert max(files.values()) <= BLOCK
    assert sum(1 for path in files if "/packs/" in path) >= 4
    assert [path for path in files if "tmp" in path] == []
    report = mnt.fsck()
    assert report["problems"] == []
    print(report["counts"])

    await copy_store(hdfs_store, tmp_path / "copy")
    original, copied = mounts(hdfs_store).start(), mounts(str(tmp_path / "copy")).start()
    for branch in ("main", "main@1", "main@12"):
        assert differences(original.point / "m" / branch, copied.point / "m" / branch) == ""
    assert copied.fsck()["problems"] == []
    assert copied.versions() == original.versions()


def outside_packs(files: dict[str, int]) -> int:
    return sum(1 for path in files if "/packs/" not in path)


async def test_real_git_agrees(hdfs_store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    mnt = mounts(hdfs_store).start("--settle", "1h", "--max-settle", "1h")
    main = mnt.point / "m" / "main"
    main.parent.mkdir()
    fill(main)
    mnt.commit(message="first\n\nwith a body")
    (main / "sub dir/deep/.git").mkdir()
    (main / "sub dir/deep/.git/config").write_text("[core]\n")
    (main / ".gitmodules").write_text("[submodule]\n")
    (main / "a.txt").write_text("changed\n")
    mnt.commit(message="second")
    os.unlink(main / "sub dir/ #!large")
    mnt.commit(message="third")
    bare = tmp_path / "bare.git"
    await export(hdfs_store, tmp_path, bare)

    checked = git(bare, "fsck", "--strict", "--no-dangling")
    assert (checked.stdout, checked.stderr) == ("", "")
    assert git(bare, "log", "--format=%s", "main").stdout.split() == ["third", "second", "first"]
    commits = git(bare, "log", "--format=%H", "main").stdout.split()
    assert commits == [version["commit"] for version in mnt.versions()]
    listed = git(bare, "ls-tree", "-r", "-z", "--name-only", "main").stdout.split("\0")
    assert {"a.txt", "model.safetensors", "sub dir/deep/link", ".mvcfs-attrs", "empty/.mvcfs-attrs"} <= set(listed)
    assert not [name for name in listed if ".git" in name.split("/")]

    home = tmp_path / "home"
    home.mkdir()
    settings = {"GIT_CONFIG_GLOBAL": str(home / "config"), "HOME": str(home)}
    git(tmp_path, "lfs", "install", **settings)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(bare), str(clone), GIT_LFS_SKIP_SMUDGE="1", **settings)
    for version, commit in ((3, "main"), (1, "main~2")):
        snapshot = mnt.snapshot(version)
        git(clone, "checkout", "-q", commit, GIT_LFS_SKIP_SMUDGE="1", **settings)
        large = lfs_objects(snapshot, clone / ".git" / "lfs" / "objects")
        lfs_files = git(clone, "lfs", "ls-files", "--long", commit, **settings).stdout.splitlines()
        assert {line.split()[0] for line in lfs_files} == large
        git(clone, "lfs", "checkout", **settings)
        assert git(clone, "status", "--porcelain", **settings).stdout == ""
        git(clone, "lfs", "fsck", **settings)
        compare(snapshot, clone)
        git(clone, "read-tree", "-u", "--reset", "HEAD", GIT_LFS_SKIP_SMUDGE="1", **settings)


async def export(url: str, folder: Path, bare: Path) -> None:
    storage = await open_storage(url)
    store = await Store.open(storage)
    publisher = Publisher("host", "user", "test", time.time_ns)
    repository = await store.open_model("m", local_dir=folder / "local", publisher=publisher)
    export = repository.git_export(bare)
    await export.open()
    await export.write_objects()
    await export.write_refs()
    export.close()
    await storage.aclose()


def lfs_objects(snapshot: Path, objects: Path) -> set[str]:
    """Puts the large files of a version where git-lfs looks for them. Gives their oids."""
    found = set()
    for path in snapshot.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.stat().st_size < 65536:
            continue
        oid = subprocess.run(["sha256sum"], stdin=path.open("rb"), capture_output=True, check=True).stdout[:64].decode()
        target = objects / oid[:2] / oid[2:4] / oid
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        found.add(oid)
    return found


def compare(snapshot: Path, clone: Path) -> None:
    """Holds the working files of a clone against the version's; names that Git refuses are there under other names."""
    compared = 0
    for directory, names, files in os.walk(snapshot):
        if ".git" in names:
            names.remove(".git")
        for name in files:
            path = Path(directory) / name
            other = clone / path.relative_to(snapshot)
            if path.name == ".gitattributes":
                assert other.read_bytes().startswith(path.read_bytes())
            elif path.name != ".gitmodules":
                assert other.is_symlink() == path.is_symlink()
                assert other.read_bytes() == path.read_bytes(), path
                assert path.is_symlink() or (other.stat().st_mode & 0o100) == (path.stat().st_mode & 0o100)
            compared += 1
    assert compared >= 10


async def test_file_that_reads_as_a_pointer(hdfs_store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    # git-lfs itself takes such a file for a pointer when it looks at a working tree; what it fetches is right.
    mnt = mounts(hdfs_store).start("--settle", "1h", "--max-settle", "1h")
    main = mnt.point / "m" / "main"
    main.parent.mkdir()
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    (main / "pointer").write_text(text)
    mnt.commit()
    assert (mnt.snapshot(1) / "pointer").read_text() == text
    bare = tmp_path / "bare.git"
    await export(hdfs_store, tmp_path, bare)
    oid = hashlib.sha256(text.encode()).hexdigest()
    (bare / "lfs/objects" / oid[:2] / oid[2:4]).mkdir(parents=True)
    (bare / "lfs/objects" / oid[:2] / oid[2:4] / oid).write_text(text)
    blob = tmp_path / "blob"
    blob.write_text(git(bare, "cat-file", "blob", "main:pointer").stdout)
    assert oid in blob.read_text()
    with blob.open() as stdin:
        assert git(bare, "lfs", "smudge", stdin=stdin).stdout == text
