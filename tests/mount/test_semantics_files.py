"""Files in a working tree, as docs/semantics.md states it."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.harness import Mount, mvcfs, wait_until

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def renameat2(source: Path, target: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def test_rename_flags(main: Path) -> None:
    """`rename` replaces atomically; RENAME_NOREPLACE and RENAME_EXCHANGE work."""
    (main / "a").write_text("a")
    (main / "b").write_text("b")
    renameat2(main / "a", main / "b", RENAME_EXCHANGE)
    assert ((main / "a").read_text(), (main / "b").read_text()) == ("b", "a")
    with pytest.raises(FileExistsError):
        renameat2(main / "a", main / "b", RENAME_NOREPLACE)
    os.rename(main / "a", main / "b")
    assert (main / "b").read_text() == "b"
    assert os.listdir(main) == ["b"]


def test_hard_links(mnt: Mount, main: Path) -> None:
    """Hard links inside a branch are one file, also in past versions and after a remount."""
    (main / "d").mkdir()
    (main / "a").write_text("1")
    os.link(main / "a", main / "d/b")
    mnt.commit()
    snapshot = mnt.snapshot(1)
    assert os.stat(snapshot / "a").st_ino == os.stat(snapshot / "d/b").st_ino
    assert os.stat(snapshot / "a").st_nlink == 2
    mnt.restart()
    with open(main / "d/b", "a") as file:
        file.write("2")
    assert (main / "a").read_text() == "12"
    assert os.stat(main / "a").st_ino == os.stat(main / "d/b").st_ino
    mnt.commit()
    os.unlink(main / "a")
    assert os.stat(main / "d/b").st_nlink == 1
    assert (mnt.snapshot(2) / "a").read_text() == "12"


def test_unlink_while_open(main: Path) -> None:
    """A file that is unlinked while open can be read and written until it is closed."""
    with open(main / "f", "w+") as file:
        file.write("x" * 1000)
        file.flush()
        os.unlink(main / "f")
        assert os.listdir(main) == []
        file.write("y")
        file.seek(0)
        assert file.read() == "x" * 1000 + "y"


def test_append_truncate(mnt: Mount, main: Path) -> None:
    """O_APPEND, O_TRUNC and ftruncate work; bytes that were cut off never come back."""
    path = main / "f"
    path.write_bytes(b"1" * 3_000_000)
    mnt.commit()
    os.truncate(path, 10)
    os.truncate(path, 2_000_000)
    data = path.read_bytes()
    assert data == b"1" * 10 + bytes(1_999_990)
    with open(path, "ab") as file:
        file.write(b"end")
    assert path.read_bytes() == data + b"end"
    with open(path, "wb"):
        pass
    assert path.read_bytes() == b""


def test_mmap_shared(mnt: Mount, main: Path) -> None:
    """Files can be mapped for reading and for shared writing, and what is written so is in the next version."""
    path = main / "f"
    path.write_bytes(bytes(3 << 20))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[5:10] = b"hello"
        view[2 << 20 : (2 << 20) + 3] = b"end"
        view.flush()
    expected = bytearray(3 << 20)
    expected[5:10] = b"hello"
    expected[2 << 20 : (2 << 20) + 3] = b"end"
    assert path.read_bytes() == expected
    made = mnt.commit()
    assert (mnt.snapshot(made["version"]) / "f").read_bytes() == expected


def test_attributes_kept(mnt: Mount, main: Path) -> None:
    """Modes, owners and modification times in nanoseconds are kept in versions and come back after a remount."""
    path = main / "f"
    path.write_text("x")
    os.chmod(path, 0o4751)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
        os.chmod(path, 0o4751)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_001_987_654_321))
    (main / "d").mkdir(mode=0o700)
    os.utime(main / "d", ns=(1, 1_500_000_000_000_000_007))
    mnt.commit()
    mnt.umount()
    mnt.start()
    for root in (main, mnt.snapshot(1)):
        found = os.stat(root / "f")
        assert stat.S_IMODE(found.st_mode) == 0o4751
        assert found.st_mtime_ns == 1_600_000_001_987_654_321
        if os.geteuid() == 0:
            assert (found.st_uid, found.st_gid) == (12345, 54321)
        assert os.stat(root / "d").st_mtime_ns == 1_500_000_000_000_000_007
        assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o700


def test_symlinks_and_empty_directories(mnt: Mount, main: Path) -> None:
    """Symbolic links, dangling ones too, and empty directories are versioned."""
    os.symlink("nowhere/at all", main / "link")
    (main / "empty/deeper").mkdir(parents=True)
    mnt.commit()
    mnt.umount()
    mnt.start()
    for root in (main, mnt.snapshot(1)):
        assert os.readlink(root / "link") == "nowhere/at all"
        assert os.listdir(root / "empty") == ["deeper"]
        assert os.listdir(root / "empty/deeper") == []


def test_any_name(mnt: Mount, main: Path) -> None:
    """Any name that a local disk takes is kept: `.git`, `.gitattributes`, `.mvcfs-attrs`, names that are not UTF-8, names of 255 bytes."""
    names = [
        b".git", b".GIT", b"git~1", b".gitmodules", b".gitattributes", b".gitignore", b".mvcfs-attrs", b"\xff\xfe",
        b"a b", b'"q"', b"back\\slash", b"new\nline", b"*?[x]", b"-rf", b"x" * 255, "naïve".encode(), b".mvcfs-name-0",
    ]  # fmt: skip
    root = os.fsencode(main)
    for name in names:
        with open(root + b"/" + name, "wb") as file:
            file.write(name * 1000)
    os.mkdir(root + b"/d")
    os.mkdir(root + b"/d/.git")
    with open(root + b"/d/.git/config", "wb") as file:
        file.write(b"[core]")
    mnt.commit()
    mnt.umount()
    mnt.start()
    for base in (root, os.fsencode(mnt.snapshot(1))):
        assert sorted(os.listdir(base)) == sorted([*names, b"d"])
        for name in names:
            with open(base + b"/" + name, "rb") as file:
                assert file.read() == name * 1000, name
        with open(base + b"/d/.git/config", "rb") as file:
            assert file.read() == b"[core]"


def test_too_long_name(main: Path) -> None:
    """A name of more than 255 bytes fails with ENAMETOOLONG."""
    with pytest.raises(OSError, match="File name too long"):
        (main / ("x" * 256)).write_text("")


def test_sockets_and_fifos(mnt: Mount, main: Path) -> None:
    """Sockets and fifos work in the working tree, stay out of versions, and the log warns of them."""
    os.mkfifo(main / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(main)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
    (main / "f").write_text("1")
    mnt.commit()
    assert sorted(os.listdir(main)) == ["f", "fifo", "sock"]
    assert os.listdir(mnt.snapshot(1)) == ["f"]
    wait_until("the log warns", lambda: "fifo" in mnt.log_text())


def test_xattrs(store: str, mounts: Callable[..., Mount]) -> None:
    """With `-o xattr` user extended attributes are kept and versioned, and `user.mvcfs.*` shows what `mvcfs info` says."""
    mnt = mounts(store, "--xattr").start()
    (mnt.point / "m").mkdir()
    path = mnt.point / "m/main/f"
    path.write_text("x")
    os.setxattr(path, "user.origin", b"\x00here")
    made = mnt.commit()
    mnt.umount()
    mnt.start()
    for place in (path, mnt.snapshot(1) / "f"):
        assert os.getxattr(place, "user.origin") == b"\x00here"
        assert "user.mvcfs.digest" in os.listxattr(place)
    assert os.getxattr(path, "user.mvcfs.commit").decode() == made["commit"]
    os.removexattr(path, "user.origin")
    assert "user.origin" not in os.listxattr(path)
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, "user.origin")


def test_xattrs_off(main: Path) -> None:
    """Without it extended attributes fail with ENOTSUP."""
    (main / "f").write_text("x")
    with pytest.raises(OSError, match="not supported"):
        os.setxattr(main / "f", "user.x", b"1")


def test_partial_overwrite_is_cheap(mnt: Mount, main: Path) -> None:
    """Overwriting a part of a large versioned file copies only the touched blocks to local disk."""
    path = main / "big"
    with open(path, "wb") as file:
        for i in range(64):
            file.write(bytes([i]) * (1 << 20))
    mnt.commit()
    assert mnt.status()["staging"]["used_bytes"] == 0
    with open(path, "r+b") as file:
        file.seek((10 << 20) + 100)
        file.write(b"changed")
        file.flush()
        assert 0 < mnt.status()["staging"]["used_bytes"] <= 3 << 20
    mnt.commit()
    with open(mnt.snapshot(2) / "big", "rb") as file:
        file.seek(10 << 20)
        block = file.read(1 << 20)
    assert block == b"\x0a" * 100 + b"changed" + b"\x0a" * ((1 << 20) - 107)


def test_fsync(main: Path) -> None:
    """fsync of a file and of a directory make data and names durable on this host."""
    with open(main / "f", "wb") as file:
        file.write(b"x" * 5000)
        os.fsync(file.fileno())
    fd = os.open(main, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
    assert (main / "f").read_bytes() == b"x" * 5000


def test_st_blocks(main: Path) -> None:
    """st_blocks follows the logical size, so `du` shows what a copy would take."""
    path = main / "f"
    path.write_bytes(b"x" * 1_000_000)
    assert abs(os.stat(path).st_blocks * 512 - 1_000_000) < 4096


def test_kill_keeps_all(mnt: Mount, main: Path) -> None:
    """`kill -9` of the daemon loses nothing that a system call has returned for."""
    (main / "d").mkdir()
    open_file = open(main / "d/open.tmp", "wb")
    open_file.write(b"o" * 100_000)
    open_file.flush()
    (main / "d/a.tmp").write_bytes(b"a" * 3_000_000)
    os.symlink("a.tmp", main / "d/l.tmp")
    os.link(main / "d/a.tmp", main / "d/b.tmp")
    os.rename(main / "d/b.tmp", main / "c.tmp")
    os.chmod(main / "c.tmp", 0o600)
    mnt.kill()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(main)
    with pytest.raises(OSError):
        open_file.close()
    mnt.start()
    assert sorted(os.listdir(main / "d")) == ["a.tmp", "l.tmp", "open.tmp"]
    assert (main / "d/a.tmp").read_bytes() == b"a" * 3_000_000
    assert (main / "d/open.tmp").read_bytes() == b"o" * 100_000
    assert os.stat(main / "c.tmp").st_ino == os.stat(main / "d/a.tmp").st_ino
    assert stat.S_IMODE(os.stat(main / "c.tmp").st_mode) == 0o600


def test_crash_answers_enotconn(mnt: Mount, main: Path) -> None:
    """After a crash the mount point answers ENOTCONN, never an empty directory, until `mvcfs mount` cleans up and replays."""
    (main / "f").write_text("1")
    mnt.kill()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mnt.point)
    mnt.start()
    assert (main / "f").read_text() == "1"


def test_second_mount_refused(mnt: Mount, mounts: Callable[..., Mount], tmp_path: Path) -> None:
    """Two mounts of one overlay are refused, with a message that says what to do."""
    second = tmp_path / "second"
    second.mkdir()
    result = mvcfs("mount", mnt.store, second, "--cache-dir", mnt.cache, check=False)
    assert result.returncode == 11
    assert "--cache-dir" in result.stderr


def test_sigterm_keeps_dirty_pages(mnt: Mount, main: Path) -> None:
    """SIGTERM and `umount` serve until the last file is closed, so no mapped page is lost, and then commit."""
    import signal

    path = main / "f"
    path.write_bytes(bytes(1 << 20))
    file = open(path, "r+b")
    view = mmap.mmap(file.fileno(), 0)
    view[100:105] = b"late!"
    pid = mnt.pid()
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    assert Path(f"/proc/{pid}").exists()
    view.close()
    file.close()
    wait_until("the daemon is gone", lambda: not Path(f"/proc/{pid}").exists())
    mnt.start()
    assert path.read_bytes()[100:105] == b"late!"
    assert (mnt.snapshot(mnt.versions()[0]["version"]) / "f").read_bytes()[100:105] == b"late!"
