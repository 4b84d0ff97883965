"""A store that goes away while it is mounted: what was read stays readable, nothing lies, nothing is lost, all resumes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hdfs_service import Cluster
from tests.mount.harness import Mount, mvcfs, wait_until
from tests.rough.tools import Took, branch_status, drop_page_cache, fails, mounted, refused, stopped

pytestmark = pytest.mark.mount

SMALL = b"a few words\n"
LARGE = 3 << 20


@pytest.fixture
def data() -> bytes:
    return os.urandom(LARGE)


def forget_blocks(mount: Mount) -> None:
    """Leaves nothing of the large files on local disk."""
    for folder in mount.cache.glob("stores/*/blocks"):
        shutil.rmtree(folder)


def reopened(store: str, mounts: Callable[..., Mount], data: bytes, *options: str) -> Mount:
    """A mount of a store with two versions, a pack each, of which only `read` has been read."""
    first = mounts(store).start()
    (first.point / "m").mkdir()
    (first.point / "m/main/small").write_bytes(SMALL)
    (first.point / "m/main/read").write_bytes(data)
    first.commit()
    (first.point / "m/main/unread").write_bytes(data[::-1])
    first.umount()
    forget_blocks(first)
    mount = mounts(store, "--metadata-timeout", "1s", "--data-timeout", "2s", *options).start()
    main = mount.point / "m" / "main"
    assert (main / "read").read_bytes() == data
    assert (main / "unread").stat().st_size == LARGE
    drop_page_cache(main / "read")
    return mount


def check_while_gone(mount: Mount, data: bytes) -> None:
    main = mount.point / "m" / "main"
    assert (main / "read").read_bytes() == data
    with Took() as took, pytest.raises(OSError, match="Input/output error"):
        (main / "unread").read_bytes()
    assert took.seconds < 90
    (main / "written").write_bytes(data[: LARGE // 2])
    with (main / "read").open("r+b") as file:
        file.seek(5)
        file.write(b"patched")
    assert (main / "written").read_bytes() == data[: LARGE // 2]
    wait_until("status tells of the store", lambda: mount.status()["store_error"])
    wait_until("status tells of the branch", lambda: branch_status(mount)["last_error"])
    status = mount.status()
    assert status["state"] != "ok"
    assert status["store_error_since_s"] >= status["since_s"]
    row = branch_status(mount)
    assert row["changed_files"] == 2
    assert row["error_since_s"] is not None
    said = mvcfs("status", mount.point).stdout
    assert "error" in said
    assert " since " in said or " for " in said
    # Which call failed last changes from moment to moment.
    wait_until(
        "status says in words what it says in JSON",
        lambda: mount.status()["store_error"] in mvcfs("status", mount.point).stdout,
    )


def check_when_back(mount: Mount, data: bytes) -> None:
    main = mount.point / "m" / "main"
    mount.settled(3)
    assert (main / "unread").read_bytes() == data[::-1]
    wait_until("status is well", lambda: mount.status()["state"] == "ok" and not branch_status(mount)["last_error"])
    assert (main / "read").read_bytes() == data[:5] + b"patched" + data[12:]
    assert (mount.snapshot(1) / "read").read_bytes() == data
    assert mount.fsck()["problems"] == []
    mount.umount()
    versions = json.loads(mvcfs("log", "--store", mount.store, "m/main", "--json").stdout)["versions"]
    assert [each["version"] for each in versions] == [3, 2, 1]


def test_a_folder_that_goes_and_comes_back(store: str, mounts: Callable[..., Mount], data: bytes) -> None:
    mount = reopened(store, mounts, data)
    os.rename(store, f"{store}-away")
    check_while_gone(mount, data)
    os.rename(f"{store}-away", store)
    check_when_back(mount, data)
    assert "Traceback" not in mount.log_text()


def test_an_empty_folder_in_the_stores_place(store: str, mounts: Callable[..., Mount], data: bytes) -> None:
    """As when the disk under the store is unmounted: nothing is taken for removed, nothing is written into the folder."""
    mount = reopened(store, mounts, data)
    os.rename(store, f"{store}-away")
    os.mkdir(store)
    check_while_gone(mount, data)
    assert sorted(os.listdir(store)) == []
    os.rmdir(store)
    os.rename(f"{store}-away", store)
    check_when_back(mount, data)


def test_umount_with_the_store_gone(store: str, mounts: Callable[..., Mount], data: bytes) -> None:
    mount = reopened(store, mounts, data)
    os.rename(store, f"{store}-away")
    (mount.point / "m/main/written").write_bytes(data)
    done = mount.umount("--drain-timeout", "2s", check=False)
    refused(6, "1 files (3.1 MB) wait in the overlay", done=done)
    assert not mounted(mount.point)
    line = mvcfs("mount", store, mount.point, "--cache-dir", mount.cache, check=False)
    refused(3, store, done=line)
    os.rename(f"{store}-away", store)
    mount.start()
    mount.settled(3)
    assert (mount.snapshot(3) / "written").read_bytes() == data
    assert mount.fsck()["problems"] == []


# -- HDFS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gone_store(own_hdfs_cluster: Cluster) -> str:
    """A store on an HDFS that this module may stop."""
    url = f"{own_hdfs_cluster.url}/store-{secrets.token_hex(4)}"
    mvcfs("init", url)
    return url


@pytest.mark.hdfs
def test_a_namenode_that_stands_still(
    gone_store: str, own_hdfs_cluster: Cluster, mounts: Callable[..., Mount], data: bytes, tmp_path: Path
) -> None:
    mount = reopened(gone_store, mounts, data)
    pid = own_hdfs_cluster.pid("namenode")
    assert pid is not None
    with stopped(pid):
        check_while_gone(mount, data)
        point = tmp_path / "other"
        point.mkdir()
        words = ["mount", gone_store, point, "--cache-dir", tmp_path / "other-cache", "--metadata-timeout", "1s"]
        fails(7, "no answer", words=list(words))
    check_when_back(mount, data)


@pytest.mark.hdfs
def test_a_namenode_that_dies(
    gone_store: str, own_hdfs_cluster: Cluster, mounts: Callable[..., Mount], data: bytes
) -> None:
    mount = reopened(gone_store, mounts, data)
    own_hdfs_cluster.kill_namenode()
    try:
        check_while_gone(mount, data)
        done = mvcfs("commit", mount.point / "m/main", "-m", "by hand", check=False)
        refused(7, gone_store.split("/")[2], done=done)
    finally:
        own_hdfs_cluster.start_namenode()
    check_when_back(mount, data)


@pytest.mark.hdfs
def test_umount_with_the_namenode_dead(
    gone_store: str, own_hdfs_cluster: Cluster, mounts: Callable[..., Mount], data: bytes
) -> None:
    mount = reopened(gone_store, mounts, data)
    own_hdfs_cluster.kill_namenode()
    try:
        (mount.point / "m/main/written").write_bytes(data)
        with Took() as took:
            done = mount.umount("--drain-timeout", "2s", check=False)
        refused(6, "1 files (3.1 MB) wait in the overlay", done=done)
        assert took.seconds < 60
        assert not mounted(mount.point)
    finally:
        own_hdfs_cluster.start_namenode()
    mount.start()
    mount.settled(3)
    assert (mount.snapshot(3) / "written").read_bytes() == data
