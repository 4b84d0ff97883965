"""A cluster whose parts stop, die and come back, and `scripts/hdfs` itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from mvcfs.errors import StorageError, Transient, UnknownOutcome
from mvcfs.storage.address import open_storage
from mvcfs.storage.config import RetryPolicy, StorageConfig
from mvcfs.storage.protocol import Storage
from tests.hdfs_service import ROOT, Cluster

pytestmark = [pytest.mark.hdfs, pytest.mark.xdist_group("own_hdfs")]

PATIENT = StorageConfig(retry=RetryPolicy(attempts=50, max_pause_s=1, total_s=90))


async def store(cluster: Cluster, name: str, config: StorageConfig = PATIENT) -> Storage:
    storage = await open_storage(f"{cluster.url}/{name}", config=config)
    await storage.mkdir("", parents=True)
    return storage


async def test_a_stopped_namenode_costs_the_deadline_and_no_more(own_hdfs_cluster: Cluster) -> None:
    config = StorageConfig(metadata_deadline_s=1, data_deadline_s=2, retry=RetryPolicy(attempts=1))
    await store(own_hdfs_cluster, "stopped")
    storage = await store(own_hdfs_cluster, "stopped", config)
    await storage.write_file("f", b"data")
    writer = await storage.create("unfinished")
    own_hdfs_cluster.pause("namenode")
    try:
        with trio.fail_after(120):
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    for _ in range(30):  # more than there are threads for
                        nursery.start_soon(expect, Transient, storage, "f")
            with pytest.raises(UnknownOutcome):
                await storage.rename("f", "g")
            with pytest.raises(StorageError):
                await writer.close()
            await writer.abort()
    finally:
        own_hdfs_cluster.signal("namenode", signal.SIGCONT)
    later = await store(own_hdfs_cluster, "stopped")
    with trio.fail_after(60):
        while (await later.list_dir(""))[0].name == "f":  # noqa: ASYNC110 - the late rename will come
            await trio.sleep(0.05)
    await storage.write_file("h", b"again")
    assert await storage.read_range("g", 0, 4) == b"data"
    assert await storage.read_file("h", max_bytes=10) == b"again"


async def expect(error: type[Exception], storage: Storage, path: str) -> None:
    with pytest.raises(error):
        await storage.stat(path)


async def test_a_namenode_that_restarts(own_hdfs_cluster: Cluster) -> None:
    storage = await store(own_hdfs_cluster, "restarted")
    await storage.write_file("f", b"data")
    own_hdfs_cluster.kill_namenode()
    with pytest.raises(UnknownOutcome):
        await storage.rename("f", "g")
    with pytest.raises(StorageError):
        await (await open_storage(storage.url, config=StorageConfig(retry=RetryPolicy(attempts=1)))).stat("f")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, own_hdfs_cluster.start_namenode)
        assert (await storage.stat("f")).size_bytes == 4
    await storage.rename("f", "g")
    assert await storage.read_file("g", max_bytes=4) == b"data"


async def test_a_datanode_that_dies_while_files_are_written_and_read(own_hdfs_cluster: Cluster) -> None:
    storage = await store(own_hdfs_cluster, "datanode")
    data = os.urandom(3 << 20)
    await storage.write_file("before", data)
    writer = await storage.create("during")
    await writer.write(data)
    await trio.to_thread.run_sync(own_hdfs_cluster.kill_datanode, 1)
    try:
        await writer.write(data)
        await writer.close()
        for path, size in (("before", len(data)), ("during", 2 * len(data))):
            for offset in range(0, size, 1 << 20):
                expected = (data + data)[offset : offset + (1 << 20)]
                assert await storage.read_range(path, offset, 1 << 20) == expected
    finally:
        await trio.to_thread.run_sync(own_hdfs_cluster.start_datanode, 1)


def hdfs(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "hdfs"), "--dir", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_sees_and_mends_a_cluster(own_hdfs_cluster: Cluster) -> None:
    folder = own_hdfs_cluster.directory
    works = hdfs(folder, "status")
    assert works.returncode == 0
    assert own_hdfs_cluster.url in works.stdout
    before = own_hdfs_cluster.pid("namenode")
    assert hdfs(folder, "start").stdout.strip() == own_hdfs_cluster.url
    assert own_hdfs_cluster.pid("namenode") == before
    assert hdfs(folder, "kill-datanode", "2").returncode == 0
    assert "datanode2: stopped" in hdfs(folder, "status").stdout
    assert hdfs(folder, "start").stdout.strip() == own_hdfs_cluster.url
    assert hdfs(folder, "status").returncode == 0
    assert "no DataNode 3" in hdfs(folder, "kill-datanode", "3").stderr


def test_a_pid_file_of_another_process_is_not_believed(own_hdfs_cluster: Cluster, tmp_path: Path) -> None:
    other = Cluster(tmp_path)
    (tmp_path / "namenode.pid").write_text(str(own_hdfs_cluster.pid("namenode")))
    (tmp_path / "datanode1.pid").write_text("no number")
    assert other.pid("namenode") is None
    assert other.pid("datanode1") is None
    other.wipe()
    assert own_hdfs_cluster.pid("namenode") is not None


def test_without_a_cluster_the_command_line_says_so(tmp_path: Path) -> None:
    for command in (["status"], ["start-namenode"], ["start-datanode", "1"]):
        result = hdfs(tmp_path / "none", *command)
        assert result.returncode == 1
        assert "scripts/hdfs start" in result.stderr
    for command in ("stop", "wipe"):
        assert hdfs(tmp_path / "none", command).returncode == 0


def test_a_missing_java_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "hdfs"), "--dir", str(tmp_path), "start"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)})
    assert result.returncode == 1
    assert "`java` is not installed" in result.stderr
