"""The life of a mount: starting, failing to start, ending, crashing."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvcfs.fuse.control_client import call
from mvcfs.fuse.mounts import MountState, find_mount, mount_at, state_of
from mvcfs.fuse.session import READ_AHEAD_KIB
from tests.fuse.conftest import REPOSITORY, Fake, wait_for
from tests.fuse_device import open_to_all

pytestmark = pytest.mark.mount


def test_a_background_mount_answers_when_the_command_returns(fake: Fake) -> None:
    root = fake.mount()
    (root / "f").write_bytes(b"there at once")
    mount = mount_at(str(root))
    assert mount is not None
    assert (mount.source, mount.user_id) == ("file:///a store, with a comma", 0)
    assert state_of(str(root)) is MountState.ALIVE
    assert find_mount(root / "a" / "b") == mount
    assert fake.call("ping") == {
        "pid": fake.pid,
        "mountpoint": str(root),
        "source": "file:///a store, with a comma",
        "phase": "serving",
    }
    assert os.getsid(fake.pid) != os.getsid(0)
    assert os.readlink(f"/proc/{fake.pid}/cwd") == "/"
    assert "is mounted on" in fake.log()


def test_root_gets_read_ahead_and_the_options_that_hold_always(fake: Fake) -> None:
    root = fake.mount(kernel_options=["noatime", "dev", "suid"])
    mount = mount_at(str(root))
    assert mount is not None
    assert Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").read_text().strip() == str(READ_AHEAD_KIB)
    (line,) = [line for line in Path("/proc/mounts").read_text().splitlines() if f" {root} " in line]
    options = line.split()[3].split(",")
    assert {"rw", "noatime", "default_permissions", "allow_other"} <= set(options)
    assert not {"nodev", "nosuid"} & set(options)


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("error", "NotFound: no mvcfs store at file:///nowhere"),
        ("die", "died before it served; its log is"),
        ("bug", "unexpected ZeroDivisionError: oh"),
    ],
)
def test_a_mount_that_fails_to_start_says_why(fake: Fake, fail: str, said: str) -> None:
    done = fake.run(fail=fail)
    assert done.returncode == 3
    assert said in done.stderr
    assert mount_at(str(fake.path)) is None
    assert ("Traceback" in fake.log()) == (fail == "bug")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: path.rmdir(), "NotFound: {path} doesn't exist; make it with: mkdir -p {path}"),
        (lambda path: (path.rmdir(), path.touch()), "NotADirectory: {path} is no directory"),
        (lambda path: (path / "x").touch(), "NotEmpty: {path} isn't empty (there is 'x')"),
    ],
)
def test_a_bad_mount_point_is_named(fake: Fake, prepare, said: str) -> None:  # type: ignore[no-untyped-def]
    prepare(fake.path)
    done = fake.run()
    assert done.returncode == 3
    assert said.format(path=fake.path) in done.stderr


def test_a_machine_without_fuse_is_told_what_to_do(fake: Fake) -> None:
    done = fake.run(device=str(fake.base / "no-fuse"))
    assert done.returncode == 3
    assert "modprobe fuse" in done.stderr


def test_a_mount_point_in_use_is_refused(fake: Fake) -> None:
    root = fake.mount()
    (root / "f").write_bytes(b"stays")
    done = fake.run()
    assert done.returncode == 3
    assert f"is mounted on {root} already" in done.stderr
    assert (root / "f").read_bytes() == b"stays"


def test_an_unmount_from_outside_drains(fake: Fake) -> None:
    root = fake.mount()
    (root / "f").write_bytes(b"kept")
    subprocess.run(["umount", str(root)], check=True)
    fake.wait_gone()
    assert (fake.drained / "f").read_bytes() == b"kept"
    assert (fake.base / "closed").exists()
    assert list(root.iterdir()) == []
    assert not fake.socket.exists()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "command"])
def test_open_files_and_mapped_pages_are_kept_to_the_last_byte(fake: Fake, how: str) -> None:
    root = fake.mount()
    data = os.urandom(2 * 1024 * 1024 + 5)
    (root / "mapped").write_bytes(bytes(len(data)))
    writer = (root / "written").open("wb", buffering=0)
    mapped_file = (root / "mapped").open("r+b")
    mapped = mmap.mmap(mapped_file.fileno(), 0)
    writer.write(data[:1000])
    mapped[:] = data
    unmount = None
    if how == "command":
        code = f"from mvcfs.fuse.control_client import call; print(call({str(fake.socket)!r}, 'unmount'))"
        unmount = subprocess.Popen([fake.argv()[0], "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    else:
        os.kill(fake.pid, signal.Signals[how])
    wait_for(lambda: mount_at(str(root)) is None)
    assert list(root.iterdir()) == []
    assert fake.call("ping")["phase"] == "closing"
    writer.write(data[1000:])
    mapped[7:9] = b"!!"
    writer.close()
    mapped.close()
    mapped_file.close()
    fake.wait_gone()
    assert (fake.drained / "written").read_bytes() == data
    assert (fake.drained / "mapped").read_bytes() == data[:7] + b"!!" + data[9:]
    if unmount is not None:
        said, _ = unmount.communicate(timeout=20)
        assert "'complete': True" in said


def test_a_second_signal_hurries_and_says_what_is_left(fake: Fake) -> None:
    process = subprocess.Popen(fake.argv(foreground=True, drain_s=1000), cwd=REPOSITORY, stderr=subprocess.PIPE)
    try:
        fake.pids.append(process.pid)
        wait_for(lambda: mount_at(str(fake.path)) and fake.socket.exists())
        wait_for(lambda: fake.call("ping")["phase"] == "serving")
        os.kill(process.pid, signal.SIGTERM)
        wait_for(lambda: fake.call("ping")["phase"] == "draining")
        os.kill(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 6
        assert b"3 files (300 bytes) wait in the overlay for the next mount: told not to wait" in said
    finally:
        process.kill()
        process.wait()
    assert mount_at(str(fake.path)) is None


def test_a_hurried_end_does_not_wait_for_open_files(fake: Fake) -> None:
    root = fake.mount()
    handle = os.open(root / "f", os.O_WRONLY | os.O_CREAT)
    assert fake.call("unmount", {"hurry": True})["left_files"] == 3
    fake.wait_gone()
    with pytest.raises(OSError, match="not connected"):
        os.close(handle)
    assert mount_at(str(root)) is None


def test_after_a_kill_the_mount_point_is_dead_until_the_next_mount(fake: Fake) -> None:
    root = fake.mount()
    (root / "f").touch()
    os.kill(fake.pid, signal.SIGKILL)
    fake.wait_gone()
    assert state_of(str(root)) is MountState.DEAD
    with pytest.raises(OSError, match="not connected"):
        os.listdir(root)
    fake.mount()
    assert os.listdir(root) == []
    assert state_of(str(root)) is MountState.ALIVE


def test_a_failing_service_leaves_a_dead_mount_and_not_an_empty_directory(fake: Fake) -> None:
    root = fake.mount(crash_after_s=2)
    fake.wait_gone()
    assert state_of(str(root)) is MountState.DEAD
    assert "a service broke" in fake.log()
    assert (fake.base / "closed").exists()


def test_a_stopped_daemon_is_seen_to_hang(fake: Fake) -> None:
    root = fake.mount()
    os.kill(fake.pid, signal.SIGSTOP)
    try:
        assert state_of(str(root), timeout_s=0.5) is MountState.HUNG
    finally:
        os.kill(fake.pid, signal.SIGCONT)
    assert state_of(str(root)) is MountState.ALIVE


def test_a_mount_through_a_symlink_finds_its_socket(fake: Fake) -> None:
    (fake.base / "link").symlink_to("mnt")
    fake.mount(mountpoint=str(fake.base / "link"))
    assert mount_at(str(fake.path)) is not None


def test_what_mount_fuse_runs_can_be_served(fake: Fake) -> None:
    """mount(8) runs the program named by the type's suffix with source, directory and -o."""
    program = fake.base / "bin" / "mvcfs"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$#" "$@" > ' + str(fake.base / "argv") + "\n")
    program.chmod(0o755)
    subprocess.run(
        ["/sbin/mount.fuse3", "mvcfs#file:///a b", str(fake.path), "-o", "rw,dev,suid,xattr,settle=2s"],
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        check=True,
        timeout=30,
    )
    wait_for((fake.base / "argv").exists)
    time.sleep(0.1)
    assert (fake.base / "argv").read_text().splitlines()[:3] == ["4", "file:///a b", str(fake.path)]


NOBODY = 65534


@pytest.fixture
def users_place(open_fake: Fake) -> Iterator[Fake]:
    """A place of an ordinary user's, on a machine whose /dev/fuse is open to all (as it is wherever udev runs)."""
    for path in (open_fake.base, open_fake.path):
        os.chown(path, NOBODY, NOBODY)
    with open_to_all():
        yield open_fake


def test_an_ordinary_user_mounts_and_unmounts(users_place: Fake) -> None:
    fake = users_place
    done = fake.run(uid=NOBODY, drain_s=1)
    assert done.returncode == 0, done.stderr + fake.log()
    pid = call(fake.socket, "ping", server_uid=NOBODY)["pid"]
    fake.pids.append(pid)
    mount = mount_at(str(fake.path))
    assert mount is not None
    assert mount.user_id == NOBODY
    with pytest.raises(PermissionError):
        os.listdir(fake.path)
    assert state_of(str(fake.path)) is MountState.ALIVE
    subprocess.run(["sh", "-c", f"echo mine > {fake.path / 'f'}"], user=NOBODY, group=NOBODY, check=True)
    os.kill(pid, signal.SIGTERM)
    fake.wait_gone()
    assert (fake.drained / "f").read_bytes() == b"mine\n"
    assert mount_at(str(fake.path)) is None


def test_a_dead_mount_of_an_ordinary_user_is_cleaned_up_by_them(users_place: Fake) -> None:
    fake = users_place
    assert fake.run(uid=NOBODY).returncode == 0
    fake.pids.append(call(fake.socket, "ping", server_uid=NOBODY)["pid"])
    os.kill(fake.pid, signal.SIGKILL)
    fake.wait_gone()
    assert state_of(str(fake.path)) is MountState.DEAD
    done = fake.run(uid=NOBODY - 1)
    assert done.returncode == 3
    assert f"user {NOBODY} has file:///a store, with a comma mounted on {fake.path}" in done.stderr
    done = fake.run(uid=NOBODY)
    assert done.returncode == 0, done.stderr + fake.log()
    fake.pids.append(call(fake.socket, "ping", server_uid=NOBODY)["pid"])


def test_an_ordinary_user_needs_leave_for_allow_other(users_place: Fake) -> None:
    conf = users_place.base / "fuse.conf"
    conf.write_text("#user_allow_other\n")
    done = users_place.run(uid=NOBODY, kernel_options=["allow_other"], conf=str(conf))
    assert done.returncode == 3
    assert "user_allow_other" in done.stderr
    conf.write_text("user_allow_other  # yes\n")
    done = users_place.run(uid=NOBODY, kernel_options=["allow_other"], conf=str(conf))
    assert done.returncode == 3
    assert "fusermount3" in done.stderr


def test_a_closed_fuse_device_is_named(users_place: Fake) -> None:
    os.chmod("/dev/fuse", 0o600)
    done = users_place.run(uid=NOBODY)
    assert done.returncode == 3
    assert "can't open /dev/fuse: Permission denied; `chmod 666 /dev/fuse`" in done.stderr
