"""Ordinary programs on a mount, whatever it stores on."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.tools import differences, git
from tests.mount.harness import Mount, mvcfs, run

pytestmark = pytest.mark.mount


@pytest.fixture
def mnt(any_store: str, patient: Callable[[str], Mount]) -> Mount:
    mount = patient(any_store)
    (mount.point / "m").mkdir()
    return mount


@pytest.fixture
def main(mnt: Mount) -> Path:
    return mnt.point / "m" / "main"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of all sorts."""
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "a" / "large").write_bytes(os.urandom(3_000_000))
    (tree / "a" / "b" / "script").write_text("#!/bin/sh\n")
    (tree / "a" / "b" / "script").chmod(0o755)
    (tree / "a" / "naïve").write_text("x" * 70_000)
    (tree / "link").symlink_to("a/b/script")
    os.link(tree / "a" / "large", tree / "again")
    return tree


def committed(mnt: Mount, message: str = "by hand") -> Path:
    """Commits and gives the new version's directory."""
    made = mnt.commit(message=message)
    assert made["unchanged"] is False
    return mnt.snapshot(made["version"])


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate", "persist"])
def test_sqlite(mnt: Mount, main: Path, journal: str) -> None:
    path = main / "runs.db"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
        db.execute("CREATE TABLE runs(step INTEGER PRIMARY KEY, loss REAL, note BLOB)")
        for batch in range(10):
            with db:
                rows = [(batch * 100 + n, 1 / (n + 1), bytes(500)) for n in range(100)]
                db.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
        db.execute("UPDATE runs SET loss = 0")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO runs VALUES (5, 0, NULL)")
        db.rollback()
    script = "DELETE FROM runs WHERE step % 2; VACUUM; PRAGMA integrity_check; SELECT count(*), sum(loss) > 1 FROM runs"
    assert run("sqlite3", path, script).stdout.split() == ["ok", "500|1"]
    snapshot = committed(mnt)
    with closing(sqlite3.connect(f"file:{snapshot / 'runs.db'}?immutable=1", uri=True)) as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (500,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sqlite_two_connections(main: Path) -> None:
    path = main / "shared.db"
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(path)) as two:
        one.execute("PRAGMA journal_mode=wal")
        one.execute("CREATE TABLE t(x)")
        for number in range(50):
            with one if number % 2 else two as db:
                db.execute("INSERT INTO t VALUES (?)", (number,))
        assert two.execute("SELECT count(*), sum(x) FROM t").fetchone() == (50, 1225)


def test_git_in_a_branch(mnt: Mount, main: Path) -> None:
    git(main, "init", "-q", "-b", "main")
    for number in range(5):
        (main / f"file-{number}").write_text(f"{number}\n" * 1000)
        (main / "large").write_bytes(os.urandom(200_000))
        git(main, "add", "-A")
        git(main, "commit", "-q", "-m", f"commit {number}")
    git(main, "checkout", "-q", "-b", "side", "HEAD~2")
    (main / "file-0").write_text("side\n")
    git(main, "commit", "-q", "-a", "-m", "side")
    git(main, "merge", "-q", "-m", "merged", "main")
    snapshot = committed(mnt)
    for directory in (main, snapshot):
        git(directory, "fsck", "--strict", "--full")
        assert git(directory, "status", "--porcelain").stdout == ""
        assert git(directory, "rev-list", "--count", "HEAD").stdout == "7\n"
    git(main, "gc", "-q", "--prune=now")
    git(main, "repack", "-q", "-a", "-d", "-f")
    git(main, "fsck", "--strict", "--full")
    again = committed(mnt)
    git(again, "fsck", "--strict", "--full")
    assert git(again, "log", "--format=%s", "-1").stdout == "merged\n"
    clone = mnt.point / "m" / "clone"
    run("git", "clone", "-q", "--no-hardlinks", snapshot, clone)
    assert git(clone, "status", "--porcelain").stdout == ""
    assert (clone / "large").read_bytes() == (main / "large").read_bytes()


def test_tar_and_zip(mnt: Mount, main: Path, tree: Path, tmp_path: Path) -> None:
    run("tar", "-cf", main / "tree.tar", "-C", tree.parent, "tree")
    run("tar", "-xpf", main / "tree.tar", "-C", main)
    assert differences(tree, main / "tree") == ""
    run("tar", "-df", main / "tree.tar", "-C", main)
    snapshot = committed(mnt)
    run("tar", "-cf", tmp_path / "back.tar", "-C", snapshot, "tree")
    run("tar", "-df", tmp_path / "back.tar", "-C", tree.parent)
    (tmp_path / "back").mkdir()
    run("tar", "-xpf", tmp_path / "back.tar", "-C", tmp_path / "back")
    assert differences(tree, tmp_path / "back" / "tree") == ""
    run(sys.executable, "-m", "zipfile", "-c", main / "a.zip", f"{tree}/a")
    run(sys.executable, "-m", "zipfile", "-t", main / "a.zip")
    run(sys.executable, "-m", "zipfile", "-e", main / "a.zip", main / "unzipped")
    run("diff", "-r", tree / "a", main / "unzipped" / "a")
    snapshot = committed(mnt)
    run(sys.executable, "-m", "zipfile", "-e", snapshot / "a.zip", tmp_path / "unzipped")
    run("diff", "-r", tree / "a", tmp_path / "unzipped" / "a")


def test_cp(mnt: Mount, main: Path, tree: Path, tmp_path: Path) -> None:
    run("cp", "-a", tree, main / "copy")
    first = committed(mnt)
    run("cp", "--reflink=auto", "-a", main / "copy", main / "reflink")
    run("cp", "--reflink=auto", first / "copy/a/large", main / "from-snapshot")
    run("cp", "-r", main / "copy", main / "plain")
    assert run("cp", "--reflink=always", main / "copy/a/large", main / "no", check=False).returncode == 1
    os.unlink(main / "no")
    assert differences(tree, main / "reflink") == ""
    run("diff", "-r", tree, main / "plain")
    run("cmp", tree / "a/large", main / "from-snapshot")
    run("cp", "-r", mnt.point / "m", tmp_path / "model")
    assert os.listdir(tmp_path / "model") == ["main"]
    run("diff", "-r", main, tmp_path / "model" / "main")


def test_dd_in_the_middle(mnt: Mount, main: Path) -> None:
    size = 96 << 20
    data = bytearray(os.urandom(size))
    (main / "big").write_bytes(data)
    first = committed(mnt)
    patch = os.urandom(10_000)
    run("dd", "of=" + str(main / "big"), "bs=1000", "seek=50001", "conv=notrunc", "status=none", stdin=_pipe(patch))
    data[50_001_000:50_011_000] = patch
    assert mnt.status()["staging"]["used_bytes"] < 4 << 20
    assert (main / "big").read_bytes() == data
    second = committed(mnt)
    assert (second / "big").read_bytes() == data
    assert (first / "big").read_bytes() == bytes(data[:50_001_000]) + (first / "big").read_bytes()[50_001_000:]
    assert (first / "big").read_bytes()[50_001_000:50_011_000] != patch
    run("dd", f"if={first / 'big'}", f"of={main / 'big'}", "bs=1M", "skip=40", "seek=40", "count=20", "conv=notrunc", "status=none")  # fmt: skip
    assert (main / "big").read_bytes() == (first / "big").read_bytes()


def _pipe(data: bytes) -> int:
    """The end to read `data` from."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


def test_snapshots_are_read_only(mnt: Mount, main: Path, tree: Path) -> None:
    run("cp", "-a", tree, main / "copy")
    snapshot = committed(mnt)
    changes: list[Callable[[], object]] = [
        lambda: (snapshot / "new").write_text("x"),
        lambda: open(snapshot / "copy/a/large", "r+b"),
        lambda: os.open(snapshot / "copy/a/large", os.O_RDONLY | os.O_TRUNC),
        lambda: os.unlink(snapshot / "again"),
        lambda: os.rename(snapshot / "copy", snapshot / "moved"),
        lambda: os.rename(snapshot / "copy/a/large", main / "stolen"),
        lambda: os.mkdir(snapshot / "dir"),
        lambda: os.rmdir(snapshot / "copy/empty"),
        lambda: os.chmod(snapshot / "copy/a/large", 0o600),
        lambda: os.utime(snapshot / "copy/a/large"),
        lambda: os.symlink("x", snapshot / "sym"),
        lambda: os.truncate(snapshot / "copy/a/large", 5),
    ]
    (main / "again").write_text("so that there is one")
    snapshot = committed(mnt)
    for number, change in enumerate(changes):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.EROFS, f"change {number}: {caught.value}"
    result = run("touch", snapshot / "copy/a/large", check=False)
    assert "Read-only file system" in result.stderr
    assert differences(tree, snapshot / "copy") == ""


def test_du_and_rm(mnt: Mount, main: Path, tree: Path) -> None:
    shutil.copytree(tree, main / "copy", symlinks=True)
    committed(mnt)
    (main / "more").write_bytes(bytes(1_000_000))
    committed(mnt)
    apparent = int(run("du", "-sb", "--exclude=.", mnt.point / "m").stdout.split()[0])
    files = sum(path.lstat().st_size for path in main.rglob("*") if path.is_file() and not path.is_symlink())
    assert files <= apparent < files + 100_000
    listed = [path for path in run("find", mnt.point / "m").stdout.splitlines() if "@" in path or ".history" in path]
    assert listed == []
    run("rm", "-rf", mnt.point / "m")
    assert os.listdir(mnt.point) == []
    (mnt.point / "m").mkdir()
    assert os.listdir(mnt.point / "m") == ["main"]
    assert os.listdir(main) == []
    os.rmdir(main)
    os.rmdir(mnt.point / "m")
    mvcfs("undelete", mnt.point / "m", check=False)
    assert mnt.fsck()["problems"] == []


def test_undelete_after_rm(mnt: Mount, main: Path, tree: Path) -> None:
    run("cp", "-a", tree, main / "copy")
    committed(mnt)
    run("rm", "-rf", mnt.point / "m")
    assert os.listdir(mnt.point) == []
    mvcfs("undelete", mnt.point / "m")
    assert differences(tree, main / "copy") == ""
    assert differences(tree, mnt.snapshot(1) / "copy") == ""
