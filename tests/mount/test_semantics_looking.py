"""What a mount promises of looking at versions: log, history, show and diff."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mount.harness import Mount, mvcfs

BIG = os.urandom(6 << 20)


@pytest.fixture
def mnt(store: str, mounts: Callable[..., Mount]) -> Mount:
    """A mount with a model `m`, in which versions are made by hand only."""
    mount = mounts(store, "--settle", "1000", "--max-settle", "1000").start()
    (mount.point / "m").mkdir()
    return mount


def said(*words: str | Path) -> dict[str, Any]:
    command, *rest = words
    return dict(json.loads(mvcfs(command, "--json", *rest).stdout))


def changes(*words: str | Path) -> dict[str, tuple[Any, ...]]:
    """By path: what happened, the old path, and the bytes shared."""
    rows = said("diff", *words)["changes"]
    return {row["path"]: (row["change"], row["old_path"], row["shared_bytes"]) for row in rows}


def test_log_of_a_path(mnt: Mount, main: Path) -> None:
    """`mvcfs log` of a file or directory lists the versions in which it changed, followed over renames."""
    (main / "tmp").mkdir()
    (main / "tmp/shard").write_bytes(BIG)
    mnt.commit(message="first")
    (main / "other").write_text("1")
    mnt.commit(message="other")
    os.rename(main / "tmp", main / "checkpoint-1")
    mnt.commit(message="renamed")
    with (main / "checkpoint-1/shard").open("ab") as file:
        file.write(b"more")
    mnt.commit(message="longer")
    rows = said("log", main / "checkpoint-1/shard")["versions"]
    assert [(row["version"], row["change"], row["path"]) for row in rows] == [
        (4, "changed", "checkpoint-1/shard"), (3, "renamed", "checkpoint-1/shard"), (1, "added", "tmp/shard"),
    ]  # fmt: skip
    assert [row["version"] for row in said("log", main / "checkpoint-1")["versions"]] == [4, 3, 1]
    assert [row["version"] for row in said("log", mnt.point / "m/main@2/tmp/shard")["versions"]] == [1]
    assert [row["version"] for row in said("log", main, "-n", "2", "--author", rows[0]["author"])["versions"]] == [4, 3]
    assert said("log", main, "--since", "2100-01-01")["versions"] == []
    text = mvcfs("log", main / "checkpoint-1/shard").stdout
    assert "renamed from tmp/shard" in text


def test_history_of_a_file(mnt: Mount, main: Path) -> None:
    """`mvcfs history` says of a file what size, digest and name it had in each version that changed it."""
    (main / "f").write_text("one")
    mnt.commit()
    (main / "f").write_text("three")
    mnt.commit()
    (main / "f").unlink()
    mnt.commit()
    rows = said("history", main / "f")["versions"]
    assert [(row["version"], row["change"], row["size_bytes"]) for row in rows] == [
        (3, "removed", None), (2, "changed", 5), (1, "added", 3),
    ]  # fmt: skip
    assert rows[1]["digest"] == said("info", mnt.point / "m/main@2/f")["digest"]


def test_what_versions_added(mnt: Mount, main: Path) -> None:
    """`mvcfs log --stat` says of each version how many bytes of files it brought, and how many its large files added to the store."""
    (main / "big").write_bytes(BIG)
    mnt.commit()
    (main / "copy").write_bytes(BIG)
    (main / "small").write_text("x")
    mnt.commit()
    copied, first = said("log", main, "--stat")["versions"]
    assert first["stat"]["added_bytes"] == len(BIG)
    assert len(BIG) < first["stored_bytes"] < len(BIG) * 1.01
    assert copied["stat"]["added_bytes"] == len(BIG) + 1
    assert copied["stored_bytes"] < 10_000


def test_diff_of_versions(store: str, mnt: Mount, main: Path) -> None:
    """`mvcfs diff` finds what was added, removed, changed and renamed between two versions, and the bytes that large files share, without reading their data."""
    (main / "a").mkdir()
    for name in ("a/moved", "gone", "text"):
        (main / name).write_text(f"this is {name}\n")
    (main / "big").write_bytes(BIG)
    (main / "a/shard").write_bytes(BIG[: 1 << 20])
    mnt.commit()
    os.rename(main / "a", main / "b")
    (main / "gone").unlink()
    (main / "new").write_text("new")
    (main / "text").write_text("this is other\n")
    (main / "text").chmod(0o600)
    (main / "big").write_bytes(BIG[: 5 << 20] + b"another end")
    mnt.commit()
    for pack in Path(store).glob("models/m/packs/*"):
        pack.rename(pack.with_name(f"away-{pack.name}"))
    found = changes(mnt.point / "m", "main@1", "main@2")
    shared = found.pop("big")[2]
    assert (2 << 20) < shared <= 5 << 20
    assert found == {
        "b": ("renamed", "a", None),
        "gone": ("removed", None, None),
        "new": ("added", None, None),
        "text": ("changed", None, 0),
    }
    assert changes(mnt.point / "m/main@2") == changes(mnt.point / "m/main@1", mnt.point / "m/main@2")
    assert set(changes(mnt.point / "m", "main@1", "main@2", "--", "new", "b")) == {"new", "b/moved", "b/shard"}
    text = mvcfs("diff", "--text", mnt.point / "m/main@1/text", mnt.point / "m/main@2/text").stdout
    assert "-this is text\n+this is other\n" in text
    modes = said("diff", "--attributes", mnt.point / "m/main@1/text", mnt.point / "m/main@2/text")["changes"][0]
    assert modes["attributes"]["mode"][1] == 0o100600
    assert mvcfs("diff", "--exit-code", mnt.point / "m", "main@1", "main@2", check=False).returncode == 1
    assert mvcfs("diff", "--exit-code", mnt.point / "m", "main@1", "main@1").stdout == "nothing differs\n"


def test_diff_of_a_working_tree(mnt: Mount, main: Path) -> None:
    """`mvcfs diff` of a mounted branch shows what is in no version yet, against the version that it stands on or another."""
    (main / "big").write_bytes(BIG)
    (main / "old").write_text("old\n")
    assert changes(main) == {"big": ("added", None, None), "old": ("added", None, None)}
    mnt.commit()
    assert changes(main) == {}
    with (main / "big").open("r+b") as file:
        file.seek(100)
        file.write(b"x")
    os.rename(main / "old", main / "new")
    (main / "x.tmp").write_text("never in a version")
    assert changes(main) == {"big": ("changed", None, 5 << 20), "new": ("renamed", "old", 4)}
    assert changes(main / "new") == {"new": ("added", None, None)}
    mnt.commit()
    (main / "new").unlink()
    assert changes(main) == {"new": ("removed", None, None)}
    assert changes(mnt.point / "m/main@1", main).keys() == {"big", "old"}
    assert changes(main, "main@1")["old"] == ("added", None, None)


def test_show(mnt: Mount, main: Path) -> None:
    """`mvcfs show` tells of a version who made it, when, why and what it changed, and of a path in it what it is."""
    (main / "f").write_text("one\n")
    mnt.commit(message="The first")
    (main / "f").write_text("two\n")
    mnt.commit(message="The second")
    text = mvcfs("show", mnt.point / "m/main@2", "--text").stdout
    assert "version: main@2\n" in text
    assert "    The second\n" in text
    assert "-one\n+two\n" in text
    shown = said("show", mnt.point / "m", "main@1")
    assert [row["change"] for row in shown["changes"]] == ["added"]
    entry = said("show", mnt.point / "m/main@2/f")["entry"]
    assert (entry["kind"], entry["size_bytes"], entry["last_change"]["version"]) == ("file", 4, 2)


def test_graph(mnt: Mount, main: Path) -> None:
    """`mvcfs log --graph` draws the versions that a merge brought in beside those of the branch."""
    (main / "a").write_text("1")
    mnt.commit(message="base")
    mvcfs("branch", mnt.point / "m", "exp", "--from", "main")
    (mnt.point / "m/exp/b").write_text("2")
    mnt.commit("m/exp", message="on exp")
    (main / "c").write_text("3")
    mnt.commit(message="on main")
    mvcfs("merge", main, "exp", "-m", "joined")
    lines = mvcfs("log", "--graph", main).stdout.splitlines()
    assert [line[:4].rstrip() for line in lines][:2] == ["*  3", "|\\"]
    assert {line.split("  ")[0] for line in lines if "on " in line} == {"| *", "* |"}
    assert lines[-2:] == ["|/", lines[-1]]
    assert lines[-1].startswith("*  1  ")
    assert [row["place"] for row in said("log", "--graph", main)["versions"] if row["version"] is None] == ["exp@2"]
    assert len(mvcfs("log", "--graph", "-n", "2", main).stdout.splitlines()) == 3
