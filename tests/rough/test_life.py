"""The life of a mount as its user sees it: ends, crashes, settings, other users."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.harness import MVCFS, Mount, mvcfs, run, wait_until
from tests.rough.tools import Took, User, branch_status, daemon_of, fails, mounted, refused, stopped

pytestmark = pytest.mark.mount


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# -- ends -----------------------------------------------------------------------------------------------------------


def test_umount_says_how_far_it_is_and_what_it_did(store: str, mounts: Callable[..., Mount]) -> None:
    mount = mounts(store, "--settle", "1h", "--max-settle", "2h").start()
    (mount.point / "m").mkdir()
    (mount.point / "m/main/a").write_bytes(os.urandom(2 << 20))
    (mount.point / "m/main/b.tmp").write_text("ignored")
    with (mount.point / "m/main/open").open("w") as file:
        file.write("held")
        umount = subprocess.Popen(
            [MVCFS, "umount", str(mount.point)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until("the mount is off", lambda: not mounted(mount.point))
        assert umount.poll() is None
        line = umount.stderr.readline()  # type: ignore[union-attr]
        assert "umount" in line
        assert "clos" in line or "open" in line
    out, err = umount.communicate(timeout=60)
    assert umount.returncode == 0, out + err
    assert "everything is in the store" in out
    assert "1 ignored" in out
    assert "Traceback" not in err
    names = {Path(path).name for path in ("a", "open")}
    mount.start()
    assert {path.name for path in (mount.point / "m/main@1").iterdir()} == names
    assert (mount.point / "m/main@1/open").read_text() == "held"
    assert (mount.point / "m/main/b.tmp").read_text() == "ignored"


def test_sigterm_with_the_store_gone_and_a_second_one_that_hurries(store: str, mounts: Callable[..., Mount]) -> None:
    mount = mounts(store, "--settle", "1h", "--max-settle", "2h", "--drain-timeout", "1h").start()
    (mount.point / "m").mkdir()
    (mount.point / "m/main/a").write_text("kept")
    os.rename(store, f"{store}-away")
    pid = mount.pid()
    os.kill(pid, signal.SIGTERM)
    wait_until("it is off", lambda: not mounted(mount.point))
    wait_until(
        "it tells why it can't end",
        lambda: "no version could be made" in mount.log_text() or "main:" in mount.log_text(),
    )
    os.kill(pid, signal.SIGTERM)
    wait_until("it is gone", lambda: gone(pid))
    assert "1 files (4 bytes) wait in the overlay" in mount.log_text()
    os.rename(f"{store}-away", store)
    mount.start()
    assert (mount.point / "m/main/a").read_text() == "kept"
    mount.umount()
    versions = json.loads(mvcfs("log", "--store", store, "m/main", "--json").stdout)["versions"]
    assert len(versions) == 1


def test_umount_by_force_leaves_what_is_open(mnt: Mount, main: Path) -> None:
    (main / "a").write_text("a")
    mnt.commit()
    fd = os.open(main / "open", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"written")
    done = mnt.umount("--force", check=False)
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    assert done.returncode == 6
    assert "wait in the overlay" in done.stderr
    assert not mounted(mnt.point)
    mnt.start()
    assert (main / "open").read_text() == "written"


def test_a_kill_and_the_next_mount(mnt: Mount, main: Path, tmp_path: Path) -> None:
    (main / "a").write_text("a")
    mnt.commit()
    (main / "b").write_text("b")
    mnt.kill()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(main)
    for words in (["log", main], ["commit", main, "-m", "x"], ["info", main / "a"], ["status", main]):
        with Took() as took:
            fails(3, "daemon", words=words)
        assert took.seconds < 30
    every = mvcfs("status", check=False)
    assert every.returncode == 0
    assert str(mnt.point) in every.stderr
    mnt.start()
    assert (main / "b").read_text() == "b"
    mnt.settled(2)


def test_a_daemon_that_hangs(mnt: Mount, main: Path) -> None:
    (main / "a").write_text("a")
    with stopped(mnt.pid()):
        with Took() as took:
            done = mvcfs("log", main, check=False)
        assert done.returncode != 0
        assert "silent" in refused(done.returncode, done=done)
        assert took.seconds < 45
        line = fails(1, str(mnt.point), "doesn't answer", words=["umount", mnt.point])
        assert "umount" in line
        fails(11, str(mnt.point), "doesn't answer", words=["mount", mnt.store, mnt.point, "--cache-dir", mnt.cache])
    assert (main / "a").read_text() == "a"
    mnt.settled(1)


# -- settings -------------------------------------------------------------------------------------------------------


def test_option_environment_and_file(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: Callable[..., Mount]
) -> None:
    """An option wins over the environment, and the environment over the file: seen in a mount's own figures."""
    config = tmp_path / "config.toml"
    config.write_text(
        'block-size = "1MiB"\n[mount]\nmemory = "64M"\nblock-cache = "32M"\nstaging = "128M"\nread-only = false\n'
    )
    monkeypatch.setenv("MVCFS_CONFIG", str(config))
    monkeypatch.setenv("MVCFS_BLOCK_CACHE", "48M")
    monkeypatch.setenv("MVCFS_STAGING", "256M")
    mount = mounts(store, "-o", "staging=512M").start()
    status = mount.status()
    assert status["memory"]["limit_bytes"] == 64 << 20
    assert status["cache"]["limit_bytes"] == 48 << 20
    assert status["staging"]["limit_bytes"] == 512 << 20
    config.write_text('[mount]\nmemmory = "64M"\n')
    fails(2, "memmory", str(config), words=["mount", store, mount.point])


def test_read_only(store: str, mounts: Callable[..., Mount]) -> None:
    first = mounts(store).start()
    (first.point / "m").mkdir()
    (first.point / "m/main/a").write_text("a")
    first.umount()
    mount = mounts(store, "-o", "ro").start()
    root = mount.point
    assert (root / "m/main/a").read_text() == "a"
    for change in (
        lambda: (root / "n").mkdir(),
        lambda: (root / "m/main/b").write_text("b"),
        lambda: (root / "m/main/a").unlink(),
        lambda: (root / "m").rename(root / "n"),
        lambda: os.chmod(root / "m/main/a", 0o600),
    ):
        with pytest.raises(OSError, match="Read-only"):
            change()
    mount.umount()


def test_a_log_of_ones_own(store: str, tmp_path: Path, mounts: Callable[..., Mount]) -> None:
    mount = mounts(store, "--log-file", str(tmp_path / "own.log")).start()
    assert "is mounted on" in (tmp_path / "own.log").read_text()
    mount.umount()


# -- other users ----------------------------------------------------------------------------------------------------


def test_an_ordinary_user(users: tuple[User, User]) -> None:
    """Mounts, works by commands over the socket, unmounts; another user can do none of it."""
    one, two = users
    store, point = one.home / "store", one.home / "mnt"
    one.mvcfs("init", store)
    os.chmod(one.home, 0o755)
    one.mvcfs("mount", store, point, "--settle", "1h", "--max-settle", "2h")
    one.run("sh", "-c", f"mkdir {point}/m && echo mine > {point}/m/main/a")
    one.mvcfs("commit", point / "m/main", "-m", "by me")
    (version,) = json.loads(one.mvcfs("log", point / "m/main", "--json").stdout)["versions"]
    assert version["message"].splitlines()[0] == "by me"
    assert json.loads(one.mvcfs("info", point / "m/main/a", "--json").stdout)["state"] == "clean"
    assert (one.home / ".cache" / "mvcfs").stat().st_uid == one.uid
    assert (one.home / ".cache" / "mvcfs").stat().st_mode & 0o777 == 0o700
    assert two.run("ls", point, check=False).returncode != 0
    for words in (["log", point / "m/main"], ["commit", point / "m/main", "-m", "x"], ["umount", point]):
        done = two.mvcfs(*words, check=False)
        assert done.returncode in (1, 3, 8), done.stderr
        refused(done.returncode, done=done)
    assert mounted(point)
    os.chmod(one.home / "run", 0o777)
    for folder in (one.home / "run").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    done = one.mvcfs("umount", point, check=False)
    assert not mounted(point) or done.returncode == 8


def test_a_users_dead_mount_is_theirs_to_mount_again(users: tuple[User, User]) -> None:
    one, _ = users
    store, point = one.home / "store", one.home / "mnt"
    one.mvcfs("init", store)
    one.mvcfs("mount", store, point)
    one.run("sh", "-c", f"mkdir {point}/m && echo mine > {point}/m/main/a")
    pid = daemon_of(point)
    os.kill(pid, signal.SIGKILL)
    wait_until("it is gone", lambda: gone(pid))
    wait_until("it is dead", lambda: "not connected" in one.run("ls", point, check=False).stderr)
    refused(3, "daemon", done=one.mvcfs("status", point, check=False))
    one.mvcfs("mount", store, point)
    assert one.run("cat", point / "m/main/a").stdout == "mine\n"
    one.mvcfs("umount", point)
    assert not mounted(point)


# -- doctor ---------------------------------------------------------------------------------------------------------


def test_doctor(store: str, tmp_path: Path) -> None:
    done = mvcfs("doctor", store, "--cache-dir", tmp_path / "c", "--json", check=False)
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["checks"]}
    assert rows["store"]["state"] == "ok"
    assert rows["/dev/fuse"]["state"] == "ok"
    assert (done.returncode == 0) == found["ok"]
    done = mvcfs("doctor", tmp_path / "nowhere", "--cache-dir", tmp_path / "c", check=False)
    assert done.returncode == 1
    assert "mvcfs init" in done.stdout
    assert done.stderr == ""


# -- full disks -----------------------------------------------------------------------------------------------------


def fill_up(path: Path, piece: bytes) -> int:
    """Writes until there is no room, and returns how many bytes the system took."""
    written = 0
    with path.open("wb", buffering=0) as file:
        while written < 64 << 20:
            try:
                written += file.write(piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return written
    raise AssertionError("there is room without end")


def test_the_staging_bound(store: str, mounts: Callable[..., Mount]) -> None:
    """Writers wait at the bound while closed files become versions; nothing fails and nothing is lost."""
    mount = mounts(store, "--staging", "8M").start()
    (mount.point / "m").mkdir()
    main = mount.point / "m" / "main"
    parts = [os.urandom(3 << 20) for _ in range(6)]
    for number, part in enumerate(parts):
        (main / f"part{number}").write_bytes(part)
    for number, part in enumerate(parts):
        assert (main / f"part{number}").read_bytes() == part
    wait_until("all is in the store", lambda: not branch_status(mount)["changed_files"])
    mount.umount()


def test_one_file_larger_than_the_staging_bound(store: str, mounts: Callable[..., Mount]) -> None:
    """Nothing could make room: ENOSPC, and what was written before stays."""
    mount = mounts(store, "--staging", "8M").start()
    (mount.point / "m").mkdir()
    main = mount.point / "m" / "main"
    (main / "before").write_text("before")
    data = os.urandom(1 << 20)
    written = fill_up(main / "big", data)
    assert 4 << 20 <= written <= 9 << 20
    with (main / "big").open("rb") as file:
        assert file.read(written) == (data * 20)[:written]
    assert (main / "before").read_text() == "before"
    assert "staging" in mount.log_text()
    (main / "big").unlink()
    wait_until("there is room again", lambda: mount.status()["staging"]["used_bytes"] < 1 << 20)
    (main / "after").write_bytes(data * 2)
    assert (main / "after").read_bytes() == data * 2
    mount.umount()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m", "none", disk)
    yield disk
    run("umount", "-l", disk)


def test_a_full_local_disk(store: str, mounts: Callable[..., Mount], small_disk: Path) -> None:
    """The local disk fills up to the last byte: ENOSPC and a message, what was written stays, the next mount goes on."""
    mount = mounts(store, "--staging-min-free", "0", "--block-cache", "0", "--settle", "1h", "--max-settle", "2h")
    mount.cache = small_disk / "cache"
    mount.start()
    (mount.point / "m").mkdir()
    main = mount.point / "m" / "main"
    (main / "before").write_text("before")
    hog = small_disk / "hog"
    fill_up(hog, bytes(1 << 12))
    with pytest.raises(OSError, match="No space left"):
        (main / "big").write_bytes(os.urandom(4 << 20))
    assert (main / "before").read_text() == "before"
    assert "before" in os.listdir(main)
    assert "free space" in mvcfs("status", mount.point).stdout
    assert "free space" in mount.log_text()
    hog.unlink()
    mount.umount(check=False)
    assert not mounted(mount.point)
    mount.start()
    assert (main / "before").read_text() == "before"
    (main / "after").write_bytes(b"after" * 1000)
    mount.commit()
    mount.umount()
    versions = json.loads(mvcfs("log", "--store", store, "m/main", "--json").stdout)["versions"]
    assert len(versions) <= 2
    assert json.loads(mvcfs("fsck", store, "--data", "--json").stdout)["problems"] == []


def test_the_space_that_is_left_alone(store: str, mounts: Callable[..., Mount], small_disk: Path) -> None:
    """Data stops before the disk is full, so that names and attributes can still be kept, and goes on with room again."""
    mount = mounts(store, "--staging-min-free", "8M", "--block-cache", "0", "--settle", "1h", "--max-settle", "2h")
    mount.cache = small_disk / "cache"
    mount.start()
    (mount.point / "m").mkdir()
    main = mount.point / "m" / "main"
    data = os.urandom(1 << 20)
    written = fill_up(main / "big", data)
    assert written >= 4 << 20
    (main / "name").mkdir()
    with (main / "big").open("rb") as file:
        assert file.read(written) == (data * 64)[:written]
    assert "no room" in mount.log_text()
    (main / "big").unlink()
    wait_until("there is room again", lambda: mount.status()["staging"]["used_bytes"] < 1 << 20)
    (main / "after").write_bytes(data)
    mount.umount()
    assert {path.name for path in (mount.start().snapshot(1)).iterdir()} == {"after", "name"}
