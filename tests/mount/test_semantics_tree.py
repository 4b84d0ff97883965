"""The tree of models, branches and past versions, as docs/semantics.md states it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.mount.harness import Mount, mvcfs, run, wait_until


def test_mkdir_makes_model_with_main(mnt: Mount) -> None:
    """`mkdir` at the root makes a model with an empty, writable branch `main`."""
    os.mkdir(mnt.point / "llama")
    assert os.listdir(mnt.point / "llama") == ["main"]
    (mnt.point / "llama/main/file").write_text("x")
    assert os.listdir(mnt.point / "llama/main") == ["file"]


def test_mkdir_makes_branch(mnt: Mount) -> None:
    """`mkdir` in a model makes an empty branch."""
    os.mkdir(mnt.point / "m/exp")
    assert sorted(os.listdir(mnt.point / "m")) == ["exp", "main"]
    assert os.listdir(mnt.point / "m/exp") == []


def test_branch_from_revision(mnt: Mount, main: Path) -> None:
    """`mvcfs branch MODEL NAME --from REV` makes a branch that starts with that revision's files, at once and without copying."""
    (main / "w").write_bytes(os.urandom(200_000))
    mnt.commit()
    mvcfs("branch", mnt.point / "m", "exp", "--from", "main@1")
    assert (mnt.point / "m/exp/w").read_bytes() == (main / "w").read_bytes()
    assert len(mnt.versions("m/exp")) == 1


def test_slash_is_a_level(mnt: Mount, main: Path) -> None:
    """A slash in a branch's name is a directory level."""
    (main / "f").write_text("1")
    mnt.commit()
    mvcfs("branch", mnt.point / "m", "feature/x", "--from", "main")
    assert sorted(os.listdir(mnt.point / "m")) == ["feature", "main"]
    assert os.listdir(mnt.point / "m/feature") == ["x"]
    assert (mnt.point / "m/feature/x/f").read_text() == "1"
    assert (mnt.point / "m/feature/x@1/f").read_text() == "1"


def test_names_by_lookup(mnt: Mount, main: Path) -> None:
    """`branch@N`, `branch@<commit>`, `branch@<UTC time>`, `branch~N` and tags name past versions as read-only directories; none of them is listed."""
    for text in ("one", "two"):
        (main / "f").write_text(text)
        commit = mnt.commit()
    first = mnt.versions()[1]["commit"]
    mvcfs("tag", mnt.point / "m", "v1.0", "main@1")
    model = mnt.point / "m"
    # Digits alone would be a version number.
    prefix, last = (next(oid[:n] for n in range(8, 41) if not oid[:n].isdigit()) for oid in (first, commit["commit"]))
    for name in ("main@1", f"main@{prefix}", "main~1", "v1.0"):
        assert (model / name / "f").read_text() == "one", name
    assert (model / "main@2099-01-01" / "f").read_text() == "two"
    assert (model / f"main@{last}" / "f").read_text() == "two"
    assert os.listdir(model) == ["main"]


def test_history_directory(mnt: Mount, main: Path) -> None:
    """`.history/branches/<branch>/` lists one directory a version, oldest first, named `<version>_<time>_<commit>`."""
    for text in ("one", "two"):
        (main / "f").write_text(text)
        mnt.commit()
    history = mnt.point / "m/.history/branches/main"
    names = sorted(os.listdir(history))
    assert [name.split("_")[0] for name in names] == ["00000001", "00000002"]
    assert (history / names[0] / "f").read_text() == "one"
    commit = mnt.versions()[0]["commit"]
    assert names[1].endswith(commit[:7])
    assert (mnt.point / "m/.history/commits" / commit[:10] / "f").read_text() == "two"


def test_history_unlisted(mnt: Mount) -> None:
    """`.history` is found by name and listed only with `-o show-history`."""
    assert ".history" not in os.listdir(mnt.point / "m")
    assert sorted(os.listdir(mnt.point / "m/.history")) == ["aliases", "branches", "commits", "tags"]


def test_no_snapshot_like_branch(mnt: Mount) -> None:
    """`mkdir` of a name with `@` or `~` fails with EINVAL."""
    for name in ("main@3", "x~1"):
        with pytest.raises(OSError) as error:
            os.mkdir(mnt.point / "m" / name)
        assert error.value.errno == errno.EINVAL


def test_snapshot_is_read_only(mnt: Mount, main: Path) -> None:
    """Any change inside a past version fails with EROFS."""
    (main / "d").mkdir()
    (main / "d/f").write_text("x")
    mnt.commit()
    snapshot = mnt.snapshot(1)
    for change in (
        lambda: (snapshot / "d/f").write_text("y"),
        lambda: (snapshot / "new").write_text("y"),
        lambda: (snapshot / "d/f").unlink(),
        lambda: (snapshot / "sub").mkdir(),
        lambda: os.rename(snapshot / "d/f", snapshot / "d/g"),
        lambda: os.chmod(snapshot / "d/f", 0o600),
        lambda: os.truncate(snapshot / "d/f", 0),
        lambda: os.symlink("x", snapshot / "l"),
        lambda: os.rmdir(snapshot / "d"),
    ):
        with pytest.raises(OSError) as error:
            change()
        assert error.value.errno == errno.EROFS


def test_only_branches_in_a_model(mnt: Mount) -> None:
    """Creating a file in a model's own directory fails with EPERM, and the log names a branch to write into."""
    with pytest.raises(PermissionError):
        (mnt.point / "m/file").write_text("x")
    wait_until("the log says so", lambda: "m/main" in mnt.log_text())


def test_rename_branch_and_model(mnt: Mount, main: Path) -> None:
    """`mv` of a branch or a model renames it, with its history and its unpublished files."""
    (main / "f").write_text("1")
    mnt.commit()
    (main / "g.tmp").write_text("unpublished")
    os.rename(main, mnt.point / "m/trunk")
    os.rename(mnt.point / "m", mnt.point / "renamed")
    trunk = mnt.point / "renamed/trunk"
    assert (trunk / "f").read_text() == "1"
    assert (trunk / "g.tmp").read_text() == "unpublished"
    assert (mnt.point / "renamed/trunk@1/f").read_text() == "1"


def test_rm_rf_model_and_undelete(mnt: Mount, main: Path) -> None:
    """`rm -rf` of a model removes it without publishing emptied versions; `mvcfs undelete` brings back its last versions."""
    (main / "d").mkdir()
    for i in range(20):
        (main / f"d/{i}").write_text(str(i))
    mnt.commit()
    run("rm", "-rf", mnt.point / "m")
    assert os.listdir(mnt.point) == []
    mvcfs("undelete", mnt.point / "m")
    wait_until("the model is back", lambda: "m" in os.listdir(mnt.point))
    assert sorted(os.listdir(main / "d")) == sorted(str(i) for i in range(20))
    assert len(mnt.versions()) == 1


def test_rm_rf_branch_and_undelete(mnt: Mount, main: Path) -> None:
    """`rm -rf` of a branch deletes it; `mvcfs branch --undelete` brings back its last version that is not empty."""
    mvcfs("branch", mnt.point / "m", "exp")
    exp = mnt.point / "m/exp"
    (exp / "f").write_text("kept")
    mnt.commit("m/exp")
    run("rm", "-rf", exp)
    assert os.listdir(mnt.point / "m") == ["main"]
    mvcfs("branch", mnt.point / "m", "exp", "--undelete")
    assert (exp / "f").read_text() == "kept"


def test_rmdir_refuses_full_branch(mnt: Mount, main: Path) -> None:
    """`rmdir` of a branch or model that is not empty fails with ENOTEMPTY."""
    (main / "f").write_text("1")
    mnt.commit()
    for path in (main, mnt.point / "m"):
        with pytest.raises(OSError) as error:
            os.rmdir(path)
        assert error.value.errno == errno.ENOTEMPTY
    assert (main / "f").read_text() == "1"


def test_model_tools_skip_history(mnt: Mount, main: Path, tmp_path: Path) -> None:
    """`cp -r` and `du` of a model see its branches only, not its past versions."""
    (main / "f").write_bytes(b"x" * 100_000)
    mnt.commit()
    (main / "f").write_bytes(b"y" * 100_000)
    mnt.commit()
    run("cp", "-r", mnt.point / "m", tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == ["f", "main"]
    kib = int(run("du", "-sk", mnt.point / "m").stdout.split()[0])
    assert 97 <= kib <= 110


def test_rename_between_branches(mnt: Mount, main: Path) -> None:
    """`rename` between branches of one model moves files and directories without copying data; between models it fails with EXDEV, so `mv` copies."""
    os.mkdir(mnt.point / "m/exp")
    os.mkdir(mnt.point / "other")
    (main / "d").mkdir()
    (main / "d/f").write_bytes(b"1" * 100_000)
    mnt.commit()
    os.rename(main / "d", mnt.point / "m/exp/d")
    assert (mnt.point / "m/exp/d/f").read_bytes() == b"1" * 100_000
    assert os.listdir(main) == []
    with pytest.raises(OSError) as error:
        os.rename(mnt.point / "m/exp/d", mnt.point / "other/main/d")
    assert error.value.errno == errno.EXDEV
    run("mv", mnt.point / "m/exp/d", mnt.point / "other/main/d")
    assert (mnt.point / "other/main/d/f").read_bytes() == b"1" * 100_000


def test_statfs(mnt: Mount) -> None:
    """`df` shows the store's free space."""
    shown = os.statvfs(mnt.point)
    real = os.statvfs(mnt.store)
    assert shown.f_bavail * shown.f_frsize == pytest.approx(real.f_bavail * real.f_frsize, rel=0.2)


def test_info(mnt: Mount, main: Path) -> None:
    """`mvcfs info` says of a path its model, branch, version, commit, digest and state."""
    import json

    (main / "f").write_text("1")
    made = mnt.commit()
    found = json.loads(mvcfs("info", main / "f", "--json").stdout)
    assert (found["model"], found["branch"], found["version"], found["commit"]) == ("m", "main", 1, made["commit"])
    assert found["state"] == "clean"
    oid = (
        subprocess.run(["git", "hash-object", "--stdin"], input=b"1", capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )
    assert found["digest"] == f"git:{oid}"
    (main / "g.tmp").write_text("2")
    assert json.loads(mvcfs("info", main / "g.tmp", "--json").stdout)["state"] == "ignored"
    with open(main / "g", "w") as file:
        file.write("still open, so in no version")
        file.flush()
        assert json.loads(mvcfs("info", main / "g", "--json").stdout)["state"] == "changed"
    assert json.loads(mvcfs("info", mnt.snapshot(1) / "f", "--json").stdout)["state"] == "snapshot"
