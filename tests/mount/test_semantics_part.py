"""Mounts that show one model, one branch or one version, as docs/semantics.md states it."""

from __future__ import annotations

import errno
import json
import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.harness import CommandFailed, Mount, mvcfs, run, wait_until

Mounts = Callable[..., Mount]


def info(path: Path) -> dict[str, object]:
    return dict(json.loads(mvcfs("info", path, "--json").stdout))


def wait_soon(what: str, condition: Callable[[], bool]) -> None:
    """Waits for less than the kernel keeps what nobody tells it to forget (`--entry-timeout`, 60 s)."""
    wait_until(what, condition, timeout=40)


def store_files(store: str) -> dict[str, tuple[int, int]]:
    """Everything in a store, with length and time of modification."""
    found = {}
    for path in Path(store).rglob("*"):
        status = path.stat()
        found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def test_a_model_is_the_root(mnt: Mount, main: Path, mounts: Mounts) -> None:
    """`mvcfs mount --model M` shows a model: its branches are the root, past versions and `.history` are there by name."""
    (main / "d").mkdir()
    (main / "d/f").write_text("1")
    mnt.commit()
    one = mounts(mnt.store, "--model", "m", "--settle", "1h", "--max-settle", "2h", name="one").start()
    assert os.listdir(one.point) == ["main"]
    assert (one.point / "main@1/d/f").read_text() == "1"
    assert os.listdir(one.point / ".history/branches") == ["main"]
    os.mkdir(one.point / "exp")
    (one.point / "exp/g").write_text("2")
    os.rename(one.point / "main/d/f", one.point / "main/f")
    assert one.versions("main") == mnt.versions()
    mvcfs("commit", one.point / "main", "-m", "from here")
    mvcfs("commit", one.point / "exp", "-m", "from here")
    mvcfs("tag", one.point, "v1", "main@2")
    assert (one.point / "v1/f").read_text() == "1"
    wait_until("the others see it", lambda: (mnt.point / "m/exp").exists() and (mnt.point / "m/main/f").exists())
    assert info(one.point)["kind"] == "model"
    assert info(one.point / "main/f")["branch"] == "main"
    assert info(one.point / ".history/tags/v1/f")["model"] == "m"
    assert one.status()["shows"]["model"] == "m"
    run("df", one.point)


def test_a_branch_is_the_root(mnt: Mount, main: Path, mounts: Mounts) -> None:
    """`--model M --revision BRANCH` shows a branch's working tree, writable, and all commands take paths in it."""
    (main / "f").write_text("1")
    mnt.commit()
    one = mounts(mnt.store, "--model", "m", "--revision", "main", "--settle", "1h", "--max-settle", "2h", name="one")
    root = one.start().point
    assert os.listdir(root) == ["f"]
    (root / "new").write_text("n")
    (root / "d").mkdir()
    os.rename(root / "new", root / "d/new")
    os.rename(root / "d/new", root / "renamed")
    os.chmod(root, 0o750)
    assert root.stat().st_ino == 1
    assert root.stat().st_mode & 0o777 == 0o750
    assert info(root / "renamed")["state"] == "changed"
    made = json.loads(mvcfs("commit", root, "-m", "from here", "--json").stdout)
    assert (made["branch"], made["version"]) == ("main", 2)
    assert [v["version"] for v in one.versions(".")] == [2, 1]
    wait_until("the other mount sees it", lambda: sorted(os.listdir(main)) == ["d", "f", "renamed"])
    (main / "f").unlink()
    (main / "renamed").write_text("elsewhere")
    mnt.commit()
    wait_soon("removed here, too", lambda: sorted(os.listdir(root)) == ["d", "renamed"])
    wait_soon("changed here, too", lambda: (root / "renamed").read_text() == "elsewhere")
    (root / "kept").write_text("k")
    one.kill()
    with pytest.raises(OSError) as caught:
        os.stat(root / "kept")
    assert caught.value.errno == errno.ENOTCONN
    one.start()
    assert (root / "kept").read_text() == "k"
    one.umount()
    assert mnt.versions()[0]["version"] == 4


def test_a_read_only_branch_follows(mnt: Mount, main: Path, mounts: Mounts) -> None:
    """With `--read-only` a mount follows what others publish, and a file that was replaced elsewhere keeps what it was for who has it open or mapped."""
    size = 300_000
    (main / "f").write_bytes(b"1" * size)
    (main / "d").mkdir()
    (main / "d/gone").write_text("x")
    mnt.commit()
    one = mounts(mnt.store, "--model", "m", "--revision", "main", "--read-only", name="one").start()
    path = one.point / "f"
    before = path.stat().st_ino
    assert (one.point / "d/gone").read_text() == "x"
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:1] == b"1"
        with open(main / "f", "wb") as other:
            other.write(b"2" * (size + 10))
        os.chmod(main / "f", 0o600)
        (main / "d/gone").rename(main / "d/come")
        mnt.commit()
        wait_soon("the new file shows", lambda: path.stat().st_size == size + 10)
        assert path.read_bytes() == b"2" * (size + 10)
        assert path.stat().st_ino != before
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(one.point / "d") == ["come"]
        with pytest.raises(FileNotFoundError):
            os.stat(one.point / "d/gone")
        assert os.pread(file.fileno(), size + 10, 0) == b"1" * size
        assert mapped[:] == b"1" * size
    stamp = 1_600_000_000_000_000_000
    os.utime(main / "d", ns=(stamp, stamp))
    with open(one.point / "d/come", "rb") as file:
        os.chmod(main / "d/come", 0o640)
        mnt.commit()
        wait_soon("an open file has its new mode", lambda: os.fstat(file.fileno()).st_mode & 0o777 == 0o640)
    wait_soon("a directory has its new time", lambda: (one.point / "d").stat().st_mtime_ns == stamp)
    os.chmod(main, 0o700)
    mnt.commit()
    wait_soon("the root has its new mode", lambda: one.point.stat().st_mode & 0o777 == 0o700)


def test_a_read_only_mount_writes_nothing(mnt: Mount, main: Path, mounts: Mounts) -> None:
    """A read-only mount writes nothing to the store, whatever command is given it."""
    (main / "f").write_text("1")
    mnt.commit()
    mnt.umount()
    before = store_files(mnt.store)
    one = mounts(mnt.store, "--read-only", name="one").start()
    model = one.point / "m"
    for words in (
        ("branch", model, "b", "--from", "main@1"),
        ("branch", model, "main", "--delete"),
        ("tag", model, "t", "main@1"),
        ("commit", model / "main", "-m", "x"),
    ):
        assert mvcfs(*words, check=False).returncode == 8, words
    with pytest.raises(OSError) as caught:
        (model / "main/f").write_text("2")
    assert caught.value.errno == errno.EROFS
    one.umount()
    assert store_files(mnt.store) == before


def test_a_pinned_mount_never_changes(mnt: Mount, main: Path, mounts: Mounts) -> None:
    """`--revision` with a tag, an alias, a number, a commit or a time shows that version for good: also when the tag is given to another version or deleted, the branch deleted, the model renamed."""
    data = os.urandom(700_000)
    (main / "d").mkdir()
    (main / "d/w").write_bytes(data)
    (main / "d/w2").write_bytes(data[::-1])
    (main / "f").write_text("1")
    mnt.commit()
    model = mnt.point / "m"
    mvcfs("tag", model, "v1", "main@1")
    mvcfs("alias", model, "champion", "main@1", "-m", "best so far")
    pinned = [
        mounts(mnt.store, "--model", "m", "--revision", revision, name=f"one{number}").start()
        for number, revision in enumerate(("v1", "champion", "main@1"))
    ]
    for one in pinned:
        assert sorted(os.listdir(one.point)) == ["d", "f"]
        assert (one.point / "d/w").read_bytes() == data
        assert info(one.point / "d/w")["state"] == "snapshot"
        assert one.status()["shows"]["read_only"] is True
    (main / "f").write_text("2")
    (main / "d/w").unlink()
    mnt.commit()
    mvcfs("tag", model, "v1", "--delete")
    mvcfs("tag", model, "v1", "main@2")
    mvcfs("alias", model, "champion", "main@2", "-m", "best so far")
    mvcfs("branch", model, "other", "--from", "main@2")
    mvcfs("branch", model, "main", "--delete")
    os.rename(model, mnt.point / "n")
    for one in pinned:
        wait_until("the new name is known", lambda one=one: info(one.point)["model"] == "n")
        assert info(one.point)["state"] == "snapshot"
    mnt.kill()
    run("sh", "-c", "echo 2 > /proc/sys/vm/drop_caches", check=False)
    for one in pinned:
        assert sorted(os.listdir(one.point)) == ["d", "f"]
        assert (one.point / "f").read_text() == "1"
        assert (one.point / "d/w").read_bytes() == data
        assert (one.point / "d/w2").read_bytes() == data[::-1]
        with pytest.raises(OSError) as caught:
            (one.point / "f").write_text("3")
        assert caught.value.errno == errno.EROFS
    root = pinned[0].point
    assert mvcfs("commit", root, "-m", "x", check=False).returncode == 8
    assert "shows n v1 (" in mvcfs("status", root).stdout
    pinned[0].umount()


def test_readers_share_a_cache_directory(mnt: Mount, main: Path, mounts: Mounts) -> None:
    """Read-only mounts share a `--cache-dir` and its block cache with one another and with a writable mount, and live on when that is killed."""
    data = os.urandom(2_000_000)
    (main / "w").write_bytes(data)
    mnt.commit()
    (main / "unpublished.tmp").write_text("x")
    readers = [
        mounts(mnt.store, "--model", "m", "--revision", "main@1", name="r0"),
        mounts(mnt.store, "--model", "m", "--revision", "main@1", name="r1"),
        mounts(mnt.store, "--read-only", name="r2"),
    ]
    for reader in readers:
        reader.cache = mnt.cache
        reader.start()
    first, second, whole = (reader.point for reader in readers)
    assert (first / "w").read_bytes() == data
    blocks = next(mnt.cache.glob("stores/*/blocks"))
    wait_until(
        "the blocks are kept", lambda: sum(f.stat().st_size for f in blocks.rglob("*") if f.is_file()) == len(data)
    )
    packs = Path(mnt.store, "models/m/packs")
    packs.rename(packs.with_name("hidden"))
    assert (second / "w").read_bytes() == data
    packs.with_name("hidden").rename(packs)
    assert os.listdir(whole / "m/main") == ["w"]
    readers[0].kill()
    mnt.kill()
    assert (second / "w").read_bytes() == data
    assert (whole / "m/main/w").read_bytes() == data
    mnt.start()
    assert (main / "unpublished.tmp").read_text() == "x"
    readers[0].start()
    assert (first / "w").read_bytes() == data


def test_what_is_not_there_is_not_mounted(mnt: Mount, mounts: Mounts) -> None:
    """A model or revision that isn't there fails before the mount answers, with exit code 3, and 2 for what can't be one."""
    one = mounts(mnt.store, name="one")
    for options, code, said in (
        (("--model", "nope"), 3, "no model nope"),
        (("--model", "nope", "--revision", "main"), 3, "no model 'nope'"),
        (("--model", "m", "--revision", "nope"), 3, "nope"),
        (("--model", "m", "--revision", "main@7"), 3, "7"),
        (("--model", "m", "--revision", "a@b@c"), 2, "no revision"),
        (("--revision", "main"), 2, "--model"),
    ):
        with pytest.raises(CommandFailed) as caught:
            one.start(*options)
        assert (caught.value.result.returncode, said in caught.value.result.stderr) == (code, True), options
        assert not os.path.ismount(one.point)


def test_fstab_options(mnt: Mount, main: Path, mounts: Mounts) -> None:
    """In /etc/fstab it is `-o model=M,revision=REV,ro`."""
    (main / "f").write_text("1")
    mnt.commit()
    one = mounts(mnt.store, "-o", "model=m,revision=main@1,ro", name="one").start()
    assert (one.point / "f").read_text() == "1"
    mounted = next(line for line in Path("/proc/mounts").read_text().splitlines() if str(one.point) in line)
    assert mounted.split()[3].startswith("ro,")
    assert subprocess.run(["test", "-w", one.point / "f"], check=False).returncode == 1
