"""Several mounts of one store, as docs/semantics.md states it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.harness import Mount, mvcfs, wait_until


@pytest.fixture
def other(mnt: Mount, mounts: Callable[..., Mount]) -> Mount:
    """A second mount of the store with a cache of its own, as on another host."""
    return mounts(mnt.store, name="other").start()


def test_version_elsewhere_shows_here(mnt: Mount, main: Path, other: Mount) -> None:
    """A version published by one mount shows on the others within `--refresh` (2 s by default)."""
    assert os.listdir(other.point / "m/main") == []
    (main / "f").write_text("1")
    mnt.commit()
    wait_until("the file shows", lambda: os.listdir(other.point / "m/main") == ["f"])
    assert (other.point / "m/main/f").read_text() == "1"
    (main / "f").write_text("changed")
    mnt.commit()
    wait_until("its new content shows", lambda: (other.point / "m/main/f").read_text() == "changed")


def test_disjoint_changes_merge(mnt: Mount, main: Path, other: Mount) -> None:
    """Mounts that change different paths of a branch all get their changes in, without a conflict."""
    for place, name in ((main, "a"), (other.point / "m/main", "b")):
        (place / "d").mkdir(exist_ok=True)
        with open(place / f"d/{name}", "w") as file:
            file.write(name)
    mnt.commit()
    made = other.commit()
    assert made["conflict"] is False
    for mount in (mnt, other):
        wait_until("both are there", lambda mount=mount: sorted(os.listdir(mount.point / "m/main/d")) == ["a", "b"])
        assert sorted(os.listdir(mount.point / "m")) == ["main"]


def test_same_path_conflicts(mnt: Mount, main: Path, other: Mount) -> None:
    """When two mounts change the same path in ways that don't merge, one wins the branch; the other's commit goes to `<branch>-conflict-<host>`, which the log and `status` say, and nothing is lost."""
    (main / "f").write_text("ours")
    theirs = other.point / "m/main"
    with open(theirs / "f", "w") as file:
        file.write("theirs")
        file.flush()
        mnt.commit()
        result = mvcfs("commit", theirs, "-m", "late", "--json", check=False)
    assert result.returncode == 4
    made = json.loads(result.stdout)
    assert made["conflict"] is True
    name = made["branch"]
    assert name == f"main-conflict-{os.uname().nodename}"
    wait_until("the branch shows ours", lambda: (theirs / "f").read_text() == "ours")
    assert (other.point / "m" / name / "f").read_text() == "theirs"
    assert name in other.log_text()
    assert [row["conflict_branch"] for row in other.status()["models"] if row["branch"] == "main"] == [name]


def test_clean_files_follow(mnt: Mount, main: Path, other: Mount) -> None:
    """Files that are not changed here follow other mounts' versions also while others are; an open file keeps what it was opened with."""
    theirs = other.point / "m/main"
    (main / "d").mkdir()
    for name in ("d/read", "d/gone", "mine"):
        (main / name).write_text("1")
    mnt.commit()
    wait_until("the files show", lambda: (theirs / "mine").exists())
    with open(theirs / "mine", "w") as mine, open(theirs / "d/read") as held:
        mine.write("unpublished")
        mine.flush()
        assert sorted(os.listdir(theirs / "d")) == ["gone", "read"]
        (main / "d/read").write_text("2")
        (main / "d/gone").unlink()
        (main / "d/new").write_text("2")
        mnt.commit()
        wait_until("the new content shows", lambda: (theirs / "d/read").read_text() == "2")
        wait_until("the names are right", lambda: sorted(os.listdir(theirs / "d")) == ["new", "read"])
        wait_until("so is the time", lambda: (theirs / "d").stat().st_mtime_ns == (main / "d").stat().st_mtime_ns)
        assert not (theirs / "d/gone").exists()
        assert held.read() == "1"
    assert (theirs / "mine").read_text() == "unpublished"
    assert other.commit()["conflict"] is False


def test_both_changed_waits(mnt: Mount, main: Path, other: Mount) -> None:
    """Where a path was changed here and by another mount, newer versions show once ours is published; `status` names the path."""
    theirs = other.point / "m/main"
    (main / "f").write_text("1")
    mnt.commit()
    wait_until("the file shows", lambda: (theirs / "f").exists())
    with open(theirs / "f", "w") as file:
        file.write("theirs")
        file.flush()
        (main / "f").write_text("ours")
        (main / "g").write_text("new")
        mnt.commit()
        wait_until("the path is named", lambda: [row["waits_for"] for row in other.status()["models"]] == ["f"])
        assert not (theirs / "g").exists()
    wait_until("the new file shows", lambda: (theirs / "g").exists())
    assert (theirs / "f").read_text() == "ours"
    assert (other.point / f"m/main-conflict-{os.uname().nodename}/f").read_text() == "theirs"


def test_sync(mnt: Mount, main: Path, mounts: Callable[..., Mount]) -> None:
    """`mvcfs sync PATH` publishes all closed files and takes in what others published, now."""
    slow = mounts(mnt.store, name="slow").start("--refresh", "1h", "--settle", "1h", "--max-settle", "1h")
    theirs = slow.point / "m/main"
    assert os.listdir(theirs) == []
    (main / "a").write_text("1")
    mnt.commit()
    (theirs / "b").write_text("2")
    with open(theirs / "open", "w"):
        done = json.loads(mvcfs("sync", theirs, "--json").stdout)
    assert (done["published"], done["version"], done["left_out_files"]) == (True, 2, 1)
    assert [one["version"] for one in done["came"]] == [1]
    assert (theirs / "a").read_text() == "1"
    text = mvcfs("sync", main).stdout
    assert "version 2" in text
    assert (main / "b").read_text() == "2"


def test_fsync_publishes(mnt: Mount, main: Path, mounts: Callable[..., Mount]) -> None:
    """With `-o fsync=publish` fsync returns when the file, open or not, or the directory's names are in a published version."""
    sure = mounts(mnt.store, name="sure").start("-o", "fsync=publish", "--settle", "1h", "--max-settle", "1h")
    theirs = sure.point / "m/main"
    with open(theirs / "f", "w") as file:
        file.write("data")
        file.flush()
        os.fsync(file.fileno())
        assert [version["version"] for version in mnt.versions()] == [1]
        assert (mnt.snapshot(1) / "f").read_text() == "data"
    (theirs / "d").mkdir()
    fd = os.open(theirs, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    wait_until("the version shows", lambda: len(mnt.versions()) == 2)
    assert (mnt.snapshot(2) / "d").is_dir()


def test_status_names_other_mounts(mnt: Mount, main: Path, other: Mount) -> None:
    """`mvcfs status` says who else has a model mounted."""
    assert os.listdir(other.point / "m/main") == os.listdir(main) == []
    for one in (mnt, other):
        [found] = wait_until("the other shows", lambda one=one: one.status()["others"])
        assert (found["model"], found["host"], found["branches"]) == ("m", os.uname().nodename, ["main"])
        assert "also mounted: m by" in mvcfs("status", one.point).stdout
    other.umount()
    wait_until("it is gone", lambda: not mnt.status()["others"])
