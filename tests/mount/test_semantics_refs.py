"""Branches, protection, tags and aliases, as docs/semantics.md states them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mount.harness import Mount, command, wait_until


@pytest.fixture
def other(store: str, mnt: Mount, mounts: Callable[..., Mount]) -> Mount:
    """A second mount of the store, with a local folder of its own."""
    return mounts(store, name="other").start()


def commit(mount: Mount) -> None:
    """Makes a version of main."""
    command("commit", mount.point / "m/main", "-m", "by hand")


def listed(mount: Mount, name: str = "main") -> dict[str, Any]:
    """What `mvcfs branch` says of a branch."""
    rows = json.loads(command("branch", mount.point / "m", "--json").stdout)["branches"]
    return next(row for row in rows if row["branch"] == name)


def refused(call: Callable[[], object]) -> bool:
    """Whether a call fails because the file system is read-only there."""
    number = 0
    try:
        call()
    except OSError as error:
        number = error.errno
    assert number in (0, errno.EROFS), os.strerror(number)
    return number == errno.EROFS


def changes(branch: Path) -> dict[str, Callable[[], object]]:
    """Calls that would change a branch with the file `f` and the directory `d`."""
    return {
        "create": lambda: (branch / "new").write_text("x"),
        "write": lambda: os.close(os.open(branch / "f", os.O_WRONLY)),
        "truncate": lambda: os.truncate(branch / "f", 0),
        "mkdir": lambda: os.mkdir(branch / "e"),
        "symlink": lambda: os.symlink("f", branch / "s"),
        "link": lambda: os.link(branch / "f", branch / "g"),
        "rename": lambda: os.rename(branch / "f", branch / "g"),
        "rename out": lambda: os.rename(branch / "f", branch.parent / "exp/g"),
        "rename in": lambda: os.rename(branch.parent / "exp/f", branch / "f2"),
        "replace": lambda: os.rename(branch / "f", branch / "k"),
        "unlink": lambda: os.unlink(branch / "f"),
        "rmdir": lambda: os.rmdir(branch / "d"),
        "chmod": lambda: os.chmod(branch / "f", 0o600),
        "utime": lambda: os.utime(branch / "f", (1, 1)),
        "chmod of the branch": lambda: os.chmod(branch, 0o700),
        "rename of the branch": lambda: os.rename(branch, branch.parent / "main2"),
        "removal of the branch": lambda: os.rmdir(branch),
    }


def test_names_of_refs_show_at_once(mnt: Mount, main: Path, store: str, mounts: Callable[..., Mount]) -> None:
    """What a command makes, renames, moves or deletes (a branch, a tag, an alias) is there or gone at once on its mount, whatever the kernel keeps."""
    model = mounts(store, "--refresh", "1h", name="slow").start().point / "m"
    (main / "f").write_text("1")
    commit(mnt)
    for name in ("exp", "rel/1"):
        command("branch", model, name, "--from", "main@1")
        assert (model / name / "f").read_text() == "1"
        assert name.split("/")[0] in os.listdir(model)
    assert not (model / "try").exists()
    command("branch", model, "exp", "-m", "try")
    assert sorted(os.listdir(model)) == ["main", "rel", "try"]
    assert (model / "try/f").read_text() == "1"
    assert not (model / "exp").exists()
    command("branch", model, "try", "--delete")
    command("branch", model, "rel/1", "--delete")
    assert os.listdir(model) == ["main"]
    assert not (model / "try").exists()
    assert not (model / "rel").exists()
    command("branch", model, "try", "--undelete")
    assert (model / "try/f").read_text() == "1"
    command("tag", model, "v1", "main@1")
    assert (model / "v1/f").read_text() == "1"
    command("tag", model, "v1", "--delete")
    assert not (model / "v1").exists()
    (main / "f").write_text("2")
    commit(mnt)
    for version in ("1", "2", "1"):
        command("alias", model, "team/best", f"main@{version}", "-m", "why")
        for place in (model / "team/best", model / ".history/aliases/team/best"):
            assert (place / "f").read_text() == version
    command("alias", model, "team/best", "--delete")
    assert not (model / "team").exists()
    assert os.listdir(model / ".history/aliases") == []


def test_protected_branch_is_read_only(mnt: Mount, main: Path, other: Mount) -> None:
    """Every change in a protected branch fails with EROFS, on every mount within its `--refresh`, also through files that were open for writing."""
    (main / "d").mkdir()
    for name in ("f", "k"):
        (main / name).write_text("1")
    commit(mnt)
    command("branch", mnt.point / "m", "exp", "--from", "main")
    far = other.point / "m/main"
    wait_until("the other mount has exp", lambda: (other.point / "m/exp/f").exists())
    handles = [os.open(branch / "f", os.O_RDWR) for branch in (main, far)]
    command("branch", mnt.point / "m", "main", "--protect")
    assert refused(lambda: os.pwrite(handles[0], b"2", 0))
    for what, call in changes(main).items():
        assert refused(call), what
    wait_until("the other mount refuses", lambda: refused(lambda: os.pwrite(handles[1], b"1", 0)))
    for what, call in changes(far).items():
        assert refused(call), what
    for handle, branch in zip(handles, (main, far), strict=True):
        assert refused(lambda handle=handle: os.ftruncate(handle, 0))
        os.close(handle)
        assert (branch / "f").read_text() == "1"
    assert listed(mnt)["protected"]
    result = command("branch", mnt.point / "m", "main", "--delete", check=False)
    assert (result.returncode, "protected" in result.stderr) == (8, True)
    command("branch", mnt.point / "m", "main", "--unprotect")
    (main / "f").write_text("2")
    wait_until("the other mount takes changes again", lambda: not refused(lambda: os.utime(far / "k", (1, 1))))
    commit(other)


def test_protected_branch_keeps_what_was_unpublished(mnt: Mount, main: Path) -> None:
    """What a branch had unpublished when it was protected stays in the overlay, which `status` and the log say, also after a remount; `mvcfs commit --override-protection` publishes it."""
    (main / "f").write_text("1")
    commit(mnt)
    with (main / "f").open("r+") as file:
        file.write("2")
        file.flush()
        command("branch", mnt.point / "m", "main", "--protect")
    assert "is protected: what was written here before" in mnt.log_text()
    assert (listed(mnt)["changed_files"], listed(mnt)["version"]) == (1, 1)
    assert mnt.umount(check=False).returncode == 6
    mnt.start()
    (row,) = [row for row in mnt.status()["models"] if row["branch"] == "main"]
    assert (row["protected"], row["changed_files"], row["next_version_in_s"]) == (True, 1, None)
    result = command("commit", main, "-m", "no", check=False)
    assert (result.returncode, "--override-protection" in result.stderr) == (8, True)
    command("commit", main, "-m", "yes", "--override-protection")
    assert (listed(mnt)["version"], listed(mnt)["changed_files"]) == (2, 0)
    assert (mnt.snapshot(2) / "f").read_text() == "2"


def test_commit_to_a_new_branch(store: str, mounts: Callable[..., Mount]) -> None:
    """`mvcfs commit --to-branch NAME` moves what is unpublished in a branch to a new one, protected or not."""
    mnt = mounts(store, "--settle", "1h", "--max-settle", "1h").start()
    main = mnt.point / "m/main"
    main.parent.mkdir()
    (main / "f").write_text("1")
    commit(mnt)
    (main / "f").write_text("2")
    (main / "g.tmp").write_text("ignored")
    command("branch", mnt.point / "m", "main", "--protect")
    command("commit", main, "-m", "aside", "--to-branch", "aside")
    assert (mnt.point / "m/aside/f").read_text() == "2"
    assert (main / "f").read_text() == "1"
    assert (main / "g.tmp").read_text() == "ignored"
    assert (listed(mnt)["version"], listed(mnt)["changed_files"]) == (1, 0)
    assert (listed(mnt, "aside")["ahead"], listed(mnt, "aside")["behind"]) == (1, 0)
    command("branch", mnt.point / "m", "main", "--unprotect")
    (main / "f").write_text("3")
    assert command("commit", main, "-m", "x", "--to-branch", "aside", check=False).returncode == 9
    assert (main / "f").read_text() == "3"


def test_alias_moves(mnt: Mount, main: Path, other: Mount) -> None:
    """An alias is a directory of the model that shows the version it names; once it was moved (within `--refresh` on other mounts) it shows the new one, and a program that has it open keeps what it opened."""
    for text in ("1", "2"):
        (main / "f").write_text(text)
        commit(mnt)
    model = mnt.point / "m"
    command("alias", model, "champion", "main@1", "-m", "first")
    wait_until("the other mount shows it", lambda: (other.point / "m/champion/f").exists())
    opened = [os.open(mount.point / "m/champion", os.O_RDONLY | os.O_DIRECTORY) for mount in (mnt, other)]
    with (model / "champion/f").open() as file:
        command("alias", model, "champion", "main", "-m", "better")
        assert (model / "champion/f").read_text() == "2"
        assert (model / ".history/aliases/champion/f").read_text() == "2"
        assert file.read() == "1"
    wait_until("the other mount shows the new one", lambda: (other.point / "m/champion/f").read_text() == "2")
    for handle in opened:
        with open("f", opener=lambda name, flags, handle=handle: os.open(name, flags, dir_fd=handle)) as file:
            assert file.read() == "1"
        os.close(handle)
    assert refused(lambda: (model / "champion/g").write_text("x"))
    assert os.listdir(model) == ["main"]
    assert os.listdir(model / ".history/aliases") == ["champion"]


def test_alias_log(mnt: Mount, main: Path) -> None:
    """`mvcfs log --alias NAME MODEL` shows every move of an alias with who, when and why, its removals too."""
    for text in ("1", "2"):
        (main / "f").write_text(text)
        commit(mnt)
    model = mnt.point / "m"
    command("alias", model, "champion", "main@1", "-m", "First", "--author", "Ada <ada@example.org>")
    command("alias", model, "champion", "main@2", "-m", "Better")
    command("alias", model, "champion", "--delete", "-m", "Withdrawn")
    moves = json.loads(command("log", "--alias", "champion", model, "--json").stdout)["moves"]
    assert [(move["why"], move["version"], move["deleted"]) for move in moves] == [
        ("Withdrawn", None, True), ("Better", 2, False), ("First", 1, False),
    ]  # fmt: skip
    assert (moves[2]["who"], moves[2]["email"]) == ("Ada", "ada@example.org")
    assert moves[1]["commit"] == mnt.versions()[0]["commit"]
    assert all(move["time_ns"] > 0 for move in moves)
    words = command("log", "--alias", "champion", "--store", mnt.store, "m").stdout
    assert [line.split()[0] for line in words.splitlines()] == ["VERSION", "deleted", "main@2", "main@1"]
    assert command("alias", model, "champion", "main@1", check=False).returncode == 2
