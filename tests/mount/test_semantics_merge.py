"""Merging and going back, as docs/semantics.md states it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mount.harness import Mount, mvcfs, run, wait_until

TEXT = [f"line {number}\n" for number in range(12)]


def text(**lines: str) -> str:
    """The text with other lines by number (`l3=…`)."""
    return "".join(lines.get(f"l{number}", line.strip()) + "\n" for number, line in enumerate(TEXT))


def command(*words: str | Path, code: int = 0) -> dict[str, Any]:
    """Runs a command of mvcfs and gives its JSON."""
    done = mvcfs(*words, "--json", check=False)
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout))


def pack_bytes(mount: Mount) -> int:
    """Bytes of file contents that the store holds."""
    return sum(path.stat().st_size for path in Path(mount.store).glob("models/m/packs/*"))


@pytest.fixture
def other(mnt: Mount, mounts: Callable[..., Mount]) -> Mount:
    """A second mount of the store with a cache of its own, as on another host."""
    return mounts(mnt.store, name="other").start()


@pytest.fixture
def dev(mnt: Mount, main: Path) -> Path:
    """A branch `dev` beside `main`: both start with a text, a large file and a checkpoint."""
    (main / "config").write_text(text())
    (main / "model.bin").write_bytes(os.urandom(200_000))
    (main / "checkpoint-1").mkdir()
    (main / "checkpoint-1/shard").write_bytes(b"1" * 100_000)
    mnt.commit()
    mvcfs("branch", mnt.point / "m", "dev", "--from", "main")
    return mnt.point / "m/dev"


def test_merge(mnt: Mount, main: Path, dev: Path) -> None:
    """`mvcfs merge` brings another branch's changes into a branch as one version, after what was unpublished there, and the mount shows it when the command returns."""
    (dev / "checkpoint-2").mkdir()
    (dev / "checkpoint-2/shard").write_bytes(b"2" * 100_000)
    mnt.commit("m/dev")
    (main / "checkpoint-3").mkdir()
    (main / "checkpoint-3/shard").write_bytes(b"3" * 100_000)
    assert sorted(os.listdir(main)) == ["checkpoint-1", "checkpoint-3", "config", "model.bin"]
    made = command("merge", main, "dev", "-m", "Take dev")
    assert (made["published"], made["conflicts"]) == (True, [])
    assert sorted(os.listdir(main)) == ["checkpoint-1", "checkpoint-2", "checkpoint-3", "config", "model.bin"]
    assert (main / "checkpoint-2/shard").read_bytes() == b"2" * 100_000
    assert sorted(os.listdir(mnt.snapshot(made["version"]))) == sorted(os.listdir(main))
    assert mnt.versions()[0]["message"].startswith("Take dev\n")
    again = command("merge", main, "dev")
    assert (again["contained"], again["version"]) == (True, made["version"])
    assert not any(mount["changed_files"] for mount in mnt.status()["models"])


def test_conflicts(mnt: Mount, main: Path, dev: Path) -> None:
    """What both sides changed otherwise is listed with sizes and times, and nothing changes until a side is chosen; no file gets a conflict marker."""
    (dev / "model.bin").write_bytes(b"d" * 150_000)
    (dev / "config").write_text(text(l3="dev"))
    mnt.commit("m/dev")
    (main / "model.bin").write_bytes(b"m" * 90_000)
    (main / "config").write_text(text(l3="main"))
    before = mnt.commit()["version"]
    found = command("merge", main, "dev", code=4)
    rows = {row["path"]: row for row in found["conflicts"]}
    assert sorted(rows) == ["config", "model.bin"]
    assert (rows["model.bin"]["ours"]["size_bytes"], rows["model.bin"]["theirs"]["size_bytes"]) == (90_000, 150_000)
    assert rows["model.bin"]["ours"]["time_ns"] == (main / "model.bin").stat().st_mtime_ns
    assert "90.0 kB" in mvcfs("merge", main, "dev", "--dry-run", check=False).stdout
    assert (len(mnt.versions()), (main / "config").read_text()) == (before, text(l3="main"))
    made = command("merge", main, "dev", "--ours", "--choose", "model.bin=theirs")
    assert made["published"]
    assert (main / "model.bin").read_bytes() == b"d" * 150_000
    assert (main / "config").read_text() == text(l3="main")


def test_keep_both(mnt: Mount, main: Path, dev: Path) -> None:
    """`--keep-both` puts theirs beside ours, named after its branch: `model.bin` and `model.dev.bin`."""
    (dev / "model.bin").write_bytes(b"d" * 150_000)
    mnt.commit("m/dev")
    (main / "model.bin").write_bytes(b"m" * 90_000)
    command("merge", main, "dev", "--keep-both")
    assert (main / "model.bin").read_bytes() == b"m" * 90_000
    assert (main / "model.dev.bin").read_bytes() == b"d" * 150_000


def test_protected(mnt: Mount, main: Path, dev: Path) -> None:
    """A protected branch takes merges."""
    (dev / "new").write_text("new")
    mnt.commit("m/dev")
    mvcfs("branch", mnt.point / "m", "main", "--protect")
    command("merge", main, "dev")
    assert (main / "new").read_text() == "new"
    with pytest.raises(OSError, match="Read-only"):
        (main / "new").write_text("newer")


def test_lines(mnt: Mount, main: Path, dev: Path, other: Mount) -> None:
    """Small text files that two branches or two mounts changed are merged by lines where the changed lines don't touch."""
    (dev / "config").write_text(text(l1="dev"))
    mnt.commit("m/dev")
    theirs = other.point / "m/main/config"
    wait_until("the text shows there", theirs.exists)
    with open(theirs, "r+") as file:
        file.write(text(l5="other"))
        file.flush()
        (main / "config").write_text(text(l10="main"))
        mnt.commit()
        file.truncate()
    made = other.commit()
    assert made["conflict"] is False
    wait_until("both show", lambda: (main / "config").read_text() == text(l5="other", l10="main"))
    assert theirs.read_text() == text(l5="other", l10="main")
    command("merge", main, "dev")
    assert (main / "config").read_text() == text(l1="dev", l5="other", l10="main")


def test_a_rename_and_a_change(mnt: Mount, main: Path, dev: Path) -> None:
    """What one side renamed and the other changed has the new name and the change."""
    os.rename(dev / "model.bin", dev / "best.bin")
    mnt.commit("m/dev")
    with open(main / "model.bin", "r+b") as file:
        file.write(b"changed")
    command("merge", main, "dev")
    assert sorted(os.listdir(main)) == ["best.bin", "checkpoint-1", "config"]
    assert (main / "best.bin").read_bytes()[:7] == b"changed"


def test_a_renamed_directory(mnt: Mount, main: Path, other: Mount) -> None:
    """What a mount adds to a directory while another one renames it is in the renamed directory on both."""
    (main / "tmp-1").mkdir()
    (main / "tmp-1/shard-0").write_bytes(b"0" * 100_000)
    mnt.commit()
    theirs = other.point / "m/main"
    wait_until("the directory shows there", (theirs / "tmp-1/shard-0").exists)
    (theirs / "tmp-1/shard-1").write_bytes(b"1" * 100_000)
    with open(theirs / "tmp-1/shard-2", "wb") as file:
        file.write(b"2" * 50_000)
        file.flush()
        (main / "tmp-1/shard-3").write_bytes(b"3" * 100_000)
        os.rename(main / "tmp-1", main / "checkpoint-1")
        mnt.commit()
        wait_until("the closed one is there", (main / "checkpoint-1/shard-1").exists)
        file.write(b"2" * 50_000)
    names = [f"shard-{number}" for number in range(4)]
    for place in (main, theirs):
        wait_until("all are there", lambda place=place: os.listdir(place) == ["checkpoint-1"])
        wait_until("all are there", lambda place=place: sorted(os.listdir(place / "checkpoint-1")) == names)
        for number, name in enumerate(names):
            wait_until(
                "each is whole",
                lambda place=place, name=name, number=number: (
                    (place / "checkpoint-1" / name).read_bytes() == b"%d" % number * 100_000
                ),
            )
    assert os.listdir(mnt.point / "m") == ["main"]


def test_restore(mnt: Mount, main: Path, dev: Path) -> None:
    """`mvcfs restore` gives a file, a directory or a branch what it had in a version, without moving data; a path that wasn't there is an error."""
    model = (main / "model.bin").read_bytes()
    (main / "model.bin").write_bytes(b"m" * 90_000)
    (main / "checkpoint-1/shard").unlink()
    (main / "checkpoint-1/late").write_text("late")
    mnt.commit()
    before = pack_bytes(mnt)
    made = command("restore", main / "model.bin", "--from", "main@1")
    assert (main / "model.bin").read_bytes() == model
    assert mnt.versions()[0]["message"].startswith("Restore model.bin from main@1\n")
    command("restore", main / "checkpoint-1", "--from", "dev")
    assert os.listdir(main / "checkpoint-1") == ["shard"]
    assert mvcfs("restore", main / "checkpoint-1/late", "--from", "main@1", check=False).returncode == 3
    assert command("restore", main / "model.bin", "--from", "main@1")["unchanged"]
    command("restore", main, "--from", "main@2")
    assert (main / "model.bin").read_bytes() == b"m" * 90_000
    assert os.listdir(main / "checkpoint-1") == ["late"]
    assert pack_bytes(mnt) == before
    assert len(mnt.versions()) == made["version"] + 2


def test_revert(mnt: Mount, main: Path, dev: Path) -> None:
    """`mvcfs revert` undoes what one version changed and keeps what came after."""
    model = (main / "model.bin").read_bytes()
    (main / "model.bin").write_bytes(b"m" * 90_000)
    (main / "bad").write_text("bad")
    mnt.commit()
    (main / "config").write_text(text(l3="after"))
    made = command("revert", main, "2")
    assert (made["published"], made["version"]) == (True, 4)
    assert sorted(os.listdir(main)) == ["checkpoint-1", "config", "model.bin"]
    assert (main / "model.bin").read_bytes() == model
    assert (main / "config").read_text() == text(l3="after")
    (main / "model.bin").write_bytes(b"n" * 90_000)
    assert command("revert", main, "4", code=4)["conflicts"][0]["kind"] == "changed"
    assert (main / "model.bin").read_bytes() == b"n" * 90_000


def test_copies_of_a_past_version(mnt: Mount, main: Path, dev: Path) -> None:
    """`cp -a` from a past version into a branch stores no content again."""
    model = (main / "model.bin").read_bytes()
    for name in ("model.bin", "checkpoint-1/shard"):
        (main / name).unlink()
    mnt.commit()
    before = pack_bytes(mnt)
    run("cp", "-a", f"{mnt.snapshot(1)}/.", main)
    made = mnt.commit()
    assert made["version"] == 3
    assert (main / "model.bin").read_bytes() == model
    assert pack_bytes(mnt) == before
    assert subprocess.run(["diff", "-r", mnt.snapshot(1), mnt.snapshot(3)], check=False).returncode == 0
