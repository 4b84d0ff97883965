"""The adapter on a real mount of a small in-memory file system."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.fuse.conftest import Fake

pytestmark = pytest.mark.mount


def failure(path: Path) -> int | None:
    with pytest.raises(OSError) as caught:
        os.stat(path)
    return caught.value.errno


def test_files_directories_and_links(fake: Fake) -> None:
    root = fake.mount()
    (root / "a" / "b").mkdir(parents=True)
    file = root / "a" / "b" / "f"
    file.write_bytes(b"hello")
    with file.open("ab") as handle:
        handle.write(b" world")
    assert file.read_bytes() == b"hello world"
    os.truncate(file, 3)
    assert file.read_bytes() == b"hel"
    file.write_bytes(b"new")
    assert file.read_bytes() == b"new"
    (root / "s").symlink_to("a/b/f")
    assert (root / "s").read_bytes() == b"new"
    assert os.readlink(root / "s") == "a/b/f"
    os.link(file, root / "h")
    assert file.stat().st_nlink == 2
    assert file.stat().st_ino == (root / "h").stat().st_ino
    os.unlink(root / "h")
    os.mkfifo(root / "fifo", 0o640)
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
    with pytest.raises(OSError, match="not empty"):
        os.rmdir(root / "a")
    with pytest.raises(IsADirectoryError):
        os.unlink(root / "a")
    with pytest.raises(NotADirectoryError):
        os.stat(file / "below")
    file.unlink()
    (root / "a" / "b").rmdir()
    assert sorted(os.listdir(root)) == ["a", "fifo", "s"]


def test_rename_with_its_flags(fake: Fake) -> None:
    root = fake.mount()
    (root / "x").write_bytes(b"x")
    (root / "y").write_bytes(b"y")
    no_replace = subprocess.run(["mv", "-n", root / "x", root / "y"], capture_output=True, check=False)
    assert no_replace.returncode in (0, 1)
    assert (root / "y").read_bytes() == b"y"
    os.rename(root / "x", root / "y")
    assert os.listdir(root) == ["y"]
    assert (root / "y").read_bytes() == b"x"


def test_attributes(fake: Fake) -> None:
    root = fake.mount()
    file = root / "f"
    file.write_bytes(bytes(1000))
    os.utime(file, ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    os.chown(file, 12, 34)
    os.chmod(file, 0o4750)
    found = os.stat(file)
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_987_654_321)
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o4750, 12, 34)
    assert (found.st_size, found.st_blocks) == (1000, 2)
    old_umask = os.umask(0o027)
    try:
        (root / "masked").touch(0o666)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE((root / "masked").stat().st_mode) == 0o640
    space = os.statvfs(root)
    assert (space.f_frsize, space.f_blocks, space.f_bavail, space.f_namemax) == (4096, 1000, 500, 255)


def test_names_need_not_be_text(fake: Fake) -> None:
    root = os.fsencode(fake.mount())
    name = b"\xff\xfe \n\\"
    with open(root + b"/" + name, "wb"):
        pass
    assert os.listdir(root) == [name]


def test_a_name_over_255_bytes_is_too_long(fake: Fake) -> None:
    root = fake.mount()
    (root / ("n" * 255)).touch()
    with pytest.raises(OSError, match="too long"):
        (root / ("n" * 256)).touch()


def test_mapped_writes_arrive(fake: Fake) -> None:
    root = fake.mount()
    file = root / "m"
    file.write_bytes(bytes(3 * mmap.PAGESIZE))
    with file.open("r+b") as handle, mmap.mmap(handle.fileno(), 0) as mapped:
        mapped[5000:5005] = b"abcde"
        mapped.flush()
        with file.open("rb") as reader:
            assert reader.read()[5000:5005] == b"abcde"


def test_large_files_and_sync(fake: Fake) -> None:
    root = fake.mount()
    data = os.urandom(5 * 1024 * 1024 + 17)
    with (root / "big").open("wb") as handle:
        handle.write(data)
        os.fsync(handle.fileno())
        os.fdatasync(handle.fileno())
    assert (root / "big").read_bytes() == data
    directory = os.open(root, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    calls = fake.call("calls")
    assert calls["fsync"] == calls["fdatasync"] == calls["fsyncdir"] == 1
    assert calls["flush"] >= 1


def test_a_directory_of_10000_entries(fake: Fake) -> None:
    root = fake.mount()
    names = {f"file-{number:05d}-{'x' * 40}" for number in range(10_000)}
    for name in names:
        os.mknod(root / name)
    assert set(os.listdir(root)) == names
    with os.scandir(root) as entries:
        assert sum(entry.stat().st_ino > 1 for entry in entries) == 10_000
    subprocess.run(["rm", "-rf", "--", *(str(entry) for entry in root.glob("*"))], check=True)
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("raise-readonly", errno.EROFS),
        ("raise-full", errno.ENOSPC),
        ("raise-transient", errno.EIO),
        ("raise-corrupt", errno.EIO),
        ("raise-group", errno.EROFS),
        ("raise-mixed", errno.EIO),
        ("raise-bug", errno.EIO),
        ("raise-panic", errno.EIO),
        ("missing", errno.ENOENT),
    ],
)
def test_errors_become_numbers_and_the_mount_lives_on(fake: Fake, name: str, number: int) -> None:
    root = fake.mount()
    assert failure(root / name) == number
    (root / "still").write_bytes(b"here")
    assert (root / "still").read_bytes() == b"here"
    assert ("Traceback" in fake.log()) == (name in {"raise-bug", "raise-mixed", "raise-panic"})


def test_a_request_that_waits_blocks_nobody_else(fake: Fake) -> None:
    root = fake.mount()
    # In a directory of its own: while a lookup waits, the kernel lets nobody make a name in the same one.
    (root / "d").mkdir()
    command = ["stat", str(root / "d" / "wait")]
    waiting = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(5)]
    (root / "f").write_bytes(b"1")
    assert (root / "f").read_bytes() == b"1"
    assert all(process.poll() is None for process in waiting)
    fake.call("let-go")
    assert [process.wait(20) for process in waiting] == [1] * 5


def test_xattrs_are_off_by_default_and_asked_for_once(fake: Fake) -> None:
    root = fake.mount()
    (root / "f").touch()
    with pytest.raises(OSError, match="not supported"):
        os.setxattr(root / "f", "user.a", b"1")
    with pytest.raises(OSError, match="not supported"):
        os.getxattr(root / "f", "user.a")
    with pytest.raises(OSError, match="not supported"):
        os.listxattr(root / "f")
    assert "getxattr" not in fake.call("calls")


def test_xattrs_if_asked_for(fake: Fake) -> None:
    root = fake.mount(xattr=True)
    file = root / "f"
    file.touch()
    os.setxattr(file, "user.a", b"\x00\x01")
    assert os.getxattr(file, "user.a") == b"\x00\x01"
    assert os.listxattr(file) == ["user.a"]
    with pytest.raises(FileExistsError):
        os.setxattr(file, "user.a", b"2", os.XATTR_CREATE)
    with pytest.raises(OSError, match="No data"):
        os.setxattr(file, "user.b", b"2", os.XATTR_REPLACE)
    os.removexattr(file, "user.a")
    with pytest.raises(OSError, match="No data"):
        os.removexattr(file, "user.a")


def test_a_writeback_mount_takes_appends_and_write_only_handles(fake: Fake) -> None:
    root = fake.mount(writeback=True)
    file = root / "f"
    file.write_bytes(b"x" * 100)
    with file.open("ab", buffering=0) as handle:
        handle.write(b"one")
        handle.write(b"two")
    descriptor = os.open(file, os.O_WRONLY)
    os.pwrite(descriptor, b"Y", 50)
    os.close(descriptor)
    assert file.read_bytes() == b"x" * 50 + b"Y" + b"x" * 49 + b"onetwo"


def test_a_read_only_mount_says_so(fake: Fake) -> None:
    root = fake.mount(kernel_options=["ro", "noexec"])
    with pytest.raises(OSError, match="Read-only"):
        (root / "f").touch()


def test_permissions_are_checked_for_other_users(open_fake: Fake) -> None:
    root = open_fake.mount()
    (root / "secret").write_bytes(b"s")
    os.chmod(root / "secret", 0o600)
    done = subprocess.run(["cat", str(root / "secret")], user=65534, group=65534, capture_output=True, check=False)
    assert b"Permission denied" in done.stderr
