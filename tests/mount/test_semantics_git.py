"""`git-import` and `git-export` through a real mount, by the commands that a user types."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.tools import git
from tests.mount.harness import Mount, mvcfs, run
from tests.vfs.git_sources import lfs_repository, objects_of, refs_of
from tests.vfs.test_git_export import lfs_settings

pytestmark = pytest.mark.mount


def test_a_git_lfs_repository_there_and_back(store: str, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    """`mvcfs git-import` brings a Git (+ LFS) repository in with its commits as they are, to be read and written like any
    other model, and `mvcfs git-export` writes a repository that git and git-lfs clone clean."""
    lfs = lfs_settings(tmp_path)
    source = lfs_repository(tmp_path / "source", lfs, (5_000_000, 10_000))
    git(source, "tag", "-a", "v1", "-m", "One")
    mnt = mounts(store).start("--settle", "1h", "--max-settle", "1h")
    main = mnt.point / "gpt" / "main"
    # By its address: cloned with git and git-lfs first.
    told = mvcfs(
        "git-import", f"file://{source}", mnt.point / "gpt", "--json", "--cache-dir", tmp_path / "c",
        env={**os.environ, **lfs},
    )  # fmt: skip
    result = json.loads(told.stdout)
    assert (result["created"], result["lfs_files"], result["missing_lfs"]) == (True, 3, [])
    for name in ("a.txt", "w/model.bin", "small.bin", ".gitattributes"):
        assert (main / name).read_bytes() == (source / name).read_bytes()
    assert mnt.versions("gpt/main")[1]["message"].strip() == "first"
    assert len((mnt.point / "gpt" / "v1" / "w" / "model.bin").read_bytes()) == 5_000_001

    mvcfs("git-export", mnt.point / "gpt", tmp_path / "same.git")
    assert objects_of(tmp_path / "same.git") == objects_of(source)
    assert refs_of(tmp_path / "same.git") == refs_of(source)

    with (main / "w/model.bin").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed here")
    (main / "b.txt").write_text("new\n")
    assert mnt.commit("gpt/main")["version"] == 3
    exported = json.loads(mvcfs("git-export", mnt.point / "gpt", tmp_path / "same.git", "--json").stdout)
    assert (exported["moved_refs"], exported["new_lfs_files"]) == (1, 1)
    checked = git(tmp_path / "same.git", "fsck", "--strict", "--full")
    assert checked.stdout + checked.stderr == ""
    git(tmp_path, "clone", "-q", str(tmp_path / "same.git"), str(tmp_path / "clone"), **lfs)
    clone = tmp_path / "clone"
    assert git(clone, "status", "--porcelain", **lfs).stdout == ""
    git(clone, "lfs", "fsck", **lfs)
    for name in ("a.txt", "b.txt", "w/model.bin", "small.bin"):
        assert (clone / name).read_bytes() == (main / name).read_bytes()

    refused = mvcfs("git-export", mnt.point / "gpt", main / "out.git", check=False)
    assert (refused.returncode, "outside of it" in refused.stderr) == (2, True)
    taken = mvcfs("git-import", source, mnt.point / "gpt", check=False)
    assert (taken.returncode, "--update" in taken.stderr) == (9, True)
    # A repository that lies in the mount itself.
    copied = main / "copy"
    run("cp", "-r", source, copied)
    mvcfs("git-import", copied, mnt.point / "inner")
    assert (mnt.point / "inner/main/w/model.bin").read_bytes() == (source / "w/model.bin").read_bytes()
    run("rm", "-rf", copied)
    mnt.umount()
    for options, code, text in ((("--read-only",), 8, "read-only"), (("--model", "gpt"), 8, "one model")):
        part = mounts(store).start(*options)
        refused = mvcfs("git-import", source, part.point / "other", check=False)
        assert (refused.returncode, text in refused.stderr) == (code, True)
        path = part.point if "--model" in options else part.point / "gpt"
        again = json.loads(mvcfs("git-export", path, tmp_path / "same.git", "--json").stdout)
        assert (again["moved_refs"], again["new_packs"], again["new_lfs_files"]) == (0, 0, 0)
        part.umount()
    assert mnt.fsck()["problems"] == []
