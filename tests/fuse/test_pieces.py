"""Option parsing, the mount table, the invalidator, the errno table."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pyfuse3
import pytest
import trio

from mvcfs import errors
from mvcfs.errors import InvalidArgument
from mvcfs.fuse.errnos import ERRNOS, answers_errno, errno_of
from mvcfs.fuse.invalidator import Invalidator
from mvcfs.fuse.mounts import Mount, find_mount, parse_mountinfo, real_mountpoint
from mvcfs.fuse.options import parse_options

MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:39 / /mnt/a\040b rw,nosuid - fuse.mvcfs file:///s\040\134x rw,user_id=1000,group_id=1000,default_permissions
41 22 0:40 / /mnt/a rw shared:5 master:2 - fuse.mvcfs hdfs://n:8020/s rw,user_id=0,group_id=0
42 41 0:41 / /mnt/a rw - fuse.mvcfs second rw,user_id=0
43 22 0:42 / /mnt/c rw - fuse.other x rw,user_id=0
broken line
44 22 0:43 / /mnt/d rw - fuse.mvcfs
"""


def test_the_mount_table_is_read_with_its_escapes(tmp_path: Path) -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert mounts[0] == Mount("/mnt/a b", "file:///s \\x", 1000, "0:39", 40, 1000)
    assert [mount.mountpoint for mount in mounts] == ["/mnt/a b", "/mnt/a", "/mnt/a"]
    table = tmp_path / "mountinfo"
    table.write_bytes(MOUNTINFO)
    found = find_mount("/mnt/a/x/../y", table)
    assert found is not None
    assert found.source == "second"
    assert find_mount("/mnt/a b", table) == mounts[0]
    assert find_mount("/mnt/ab", table) is None
    assert find_mount("/mnt", table) is None
    table.write_bytes(rb"9 1 0:9 / /odd\377 rw - fuse.mvcfs s rw")
    assert find_mount(os.fsdecode(b"/odd\xff/x"), table) is not None


def test_a_mount_point_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "d" / "m").mkdir(parents=True)
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "k").symlink_to("d/m")
    real = os.path.realpath(tmp_path / "d" / "m")
    assert real_mountpoint(tmp_path / "l" / "m") == real_mountpoint(tmp_path / "k") == real


def test_options_are_sorted_by_who_takes_them() -> None:
    parsed = parse_options(["rw,dev,suid,noatime,_netdev,x-systemd.automount", "xattr,show-history,settle=2s,cache=5G"])
    assert parsed.kernel == {"dev", "suid", "noatime"}
    assert parsed.settings == {"xattr": True, "show_history": True, "settle": "2s", "block_cache": "5G"}
    assert parse_options([]).kernel == frozenset()
    assert parse_options(["", " , "]).settings == {}


def test_the_later_option_wins() -> None:
    assert parse_options(["ro", "rw"]).kernel == frozenset()
    assert parse_options(["rw,ro"]).settings == {"read_only": True}
    assert parse_options(["dev,nodev"]).kernel == {"nodev"}
    assert parse_options(["memory=1G", "memory=2G"]).settings == {"memory": "2G"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("bogus", "unknown mount option bogus"),
        ("max_read=4", "unknown mount option max_read"),
        ("settle", "settle needs a value"),
        ("settle=", "settle needs a value"),
        ("xattr=1", "xattr takes no value"),
        ("ro=1", "ro takes no value"),
    ],
)
def test_a_bad_option_is_named(option: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        parse_options([option])


def test_every_error_has_an_errno() -> None:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.MvcfsError):
            expected = next(ERRNOS[parent] for parent in kind.__mro__ if parent in ERRNOS)
            assert errno_of(kind("x"), "test") == expected
    assert errno_of(OSError(errno.ENOSPC, "full"), "write") == errno.ENOSPC
    assert errno_of(OSError(errno.EBADF, "bug"), "write") == errno.EIO


class Handlers:
    @answers_errno
    async def sleep(self) -> None:
        await trio.sleep_forever()

    @answers_errno
    async def in_group(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise errors.ReadOnly("x")

    @answers_errno
    async def own(self) -> None:
        raise pyfuse3.FUSEError(errno.ENODATA)


async def test_cancellation_passes_and_groups_are_looked_into() -> None:
    with trio.move_on_after(0.01) as scope:
        await Handlers().sleep()
    assert scope.cancelled_caught
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers().in_group()
    assert caught.value.errno == errno.EROFS
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers().own()
    assert caught.value.errno == errno.ENODATA


class Kernel:
    """Takes invalidations, one at a time if held."""

    def __init__(self) -> None:
        self.dropped: list[tuple[int, object]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def inode(self, ino: int, attr_only: bool) -> None:
        self._take((ino, attr_only))

    def entry(self, parent: int, name: bytes) -> None:
        self._take((parent, name))
        if name == b"unknown":
            raise OSError(errno.ENOENT, "no such entry")
        if name == b"odd":
            raise OSError(errno.EPERM, "odd")

    def _take(self, what: tuple[int, object]) -> None:
        self.entered.set()
        self.gate.wait(10)
        self.dropped.append(what)


async def test_invalidations_coalesce_and_errors_end_nothing() -> None:
    kernel = Kernel()
    invalidator = Invalidator(drop_inode=kernel.inode, drop_entry=kernel.entry)
    invalidator.start()
    invalidator.invalidate_entry(1, b"unknown")
    await trio.to_thread.run_sync(kernel.entered.wait, 10)
    for _ in range(3):
        invalidator.invalidate_entry(1, b"odd")
        invalidator.invalidate_inode(7, attr_only=True)
        invalidator.invalidate_inode(8)
        invalidator.invalidate_inode(8, attr_only=True)
    invalidator.invalidate_inode(7)
    kernel.gate.set()
    await invalidator.settled()
    assert kernel.dropped == [(1, b"unknown"), (1, b"odd"), (7, False), (8, False)]
    assert invalidator.stop()


async def test_invalidations_are_bounded_and_stop_with_the_thread() -> None:
    kernel = Kernel()
    invalidator = Invalidator(limit=3, drop_inode=kernel.inode, drop_entry=kernel.entry)
    for number in range(10):
        invalidator.invalidate_inode(number)
    kernel.gate.set()
    invalidator.start()
    await invalidator.settled()
    assert kernel.dropped == [(0, False), (1, False), (2, False)]
    invalidator.invalidate_inode(1)
    await invalidator.settled()
    assert len(kernel.dropped) == 4
    assert invalidator.stop()
    invalidator.invalidate_inode(2)
    await invalidator.settled()
    assert len(kernel.dropped) == 4


async def test_an_invalidator_that_is_stuck_says_so() -> None:
    kernel = Kernel()
    invalidator = Invalidator(drop_inode=kernel.inode, drop_entry=kernel.entry)
    invalidator.start()
    invalidator.invalidate_inode(1)
    await trio.to_thread.run_sync(kernel.entered.wait, 10)
    assert not invalidator.stop(timeout_s=0.05)
    kernel.gate.set()
    assert invalidator.stop()
