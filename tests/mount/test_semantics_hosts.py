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
