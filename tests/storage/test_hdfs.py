"""What only real HDFS shows: several processes, foreign users, quotas, nameservices."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import cast

import pytest
import trio
from hdfs_native import Client

from mvcfs.errors import AlreadyExists, CorruptData, InvalidArgument, LimitExceeded, Transient
from mvcfs.storage.address import open_storage
from mvcfs.storage.config import RetryPolicy, StorageConfig
from mvcfs.storage.hdfs_errors import is_panic, translate
from mvcfs.storage.hdfs_reading import open_reader, read_range
from mvcfs.storage.protocol import Writer
from tests.hdfs_service import Cluster
from tests.storage.conftest import hdfs_storage

pytestmark = pytest.mark.hdfs

ROUNDS = 10


def _fight(url: str, barrier: Barrier, index: int, results: multiprocessing.SimpleQueue[list[bool]]) -> None:
    async def fight() -> list[bool]:
        storage, won = hdfs_storage(url), []
        for round_ in range(ROUNDS):
            for run in (
                lambda r=round_: storage.write_file(f"c{r}", b"%d" % index),
                lambda r=round_: storage.rename(f"s{r}-{index}", f"t{r}"),
                lambda r=round_: storage.mkdir(f"d{r}"),
            ):
                barrier.wait(120)
                try:
                    await run()
                    won.append(True)
                except AlreadyExists:
                    won.append(False)
        return won

    results.put(trio.run(fight))


async def test_of_many_processes_one_wins(hdfs_url: str) -> None:
    context, count = multiprocessing.get_context("spawn"), 3
    storage = hdfs_storage(hdfs_url)
    for round_ in range(ROUNDS):
        for index in range(count):
            await storage.write_file(f"s{round_}-{index}", b"")
    barrier, results = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=_fight, args=(hdfs_url, barrier, index, results)) for index in range(count)]
    for process in processes:
        process.start()
    won = [await trio.to_thread.run_sync(results.get) for _ in processes]
    for process in processes:
        process.join()
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 3 * ROUNDS


async def test_a_writer_that_died_leaves_a_hidden_name_only(hdfs_url: str) -> None:
    program = (
        "import os, sys, trio\n"
        "from tests.storage.conftest import hdfs_storage\n"
        "async def main():\n"
        "    writer = await hdfs_storage(sys.argv[1]).create('f')\n"
        "    await writer.write(b'x' * (3 << 20))\n"
        "    os._exit(9)\n"
        "trio.run(main)\n"
    )
    result = await trio.run_process([sys.executable, "-c", program, hdfs_url], check=False)
    assert result.returncode == 9
    storage = hdfs_storage(hdfs_url)
    assert await storage.list_dir("") == []
    await storage.write_file("f", b"whole")
    assert [entry.name for entry in await storage.list_dir("")] == ["f"]


async def test_blocks_have_the_size_asked_for(hdfs_url: str, hdfs_cluster: Cluster) -> None:
    storage = hdfs_storage(hdfs_url, StorageConfig(block_bytes=65_536, replication=1))
    data = os.urandom(300_000)
    await storage.write_file("f", data)
    status = Client(hdfs_cluster.url).get_file_info(hdfs_url.removeprefix(hdfs_cluster.url) + "/f")
    assert (status.blocksize, status.replication) == (65_536, 1)
    assert storage.block_bytes == 65_536
    for offset in range(0, 300_000, 65_536):
        assert await storage.read_range("f", max(0, offset - 10), 20) == data[max(0, offset - 10) :][:20]


async def test_a_block_size_that_the_cluster_refuses(hdfs_url: str) -> None:
    with pytest.raises(InvalidArgument, match="block size"):
        await hdfs_storage(hdfs_url, StorageConfig(block_bytes=1024)).write_file("f", b"x")


async def test_the_client_panics_past_the_end_and_that_is_caught(hdfs_url: str, hdfs_cluster: Cluster) -> None:
    await hdfs_storage(hdfs_url).write_file("f", b"12345")
    reader = Client(hdfs_cluster.url).read(hdfs_url.removeprefix(hdfs_cluster.url) + "/f")
    with pytest.raises(CorruptData):
        read_range(reader, "f", 3, 3)
    with pytest.raises(BaseException, match="past end") as caught:
        reader.read_range(3, 3)
    assert is_panic(caught.value)
    assert isinstance(translate(caught.value, "f", mutates=False), CorruptData)


async def test_a_file_is_whole_for_who_reads_it_right_after_its_close(hdfs_url: str) -> None:
    storage = hdfs_storage(hdfs_url, StorageConfig(block_bytes=65_536))
    data = os.urandom(70_000)

    async def write_and_read(number: int) -> None:
        for part in range(10):
            path = f"{number}-{part}"
            await storage.write_file(path, data)
            assert await storage.read_range(path, 65_530, 100) == data[65_530:65_630]
            assert await storage.read_file(path, max_bytes=1 << 20) == data

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(write_and_read, number)


class LateFile:
    """A client and reader of a file whose last block is reported after some opens."""

    def __init__(self, lengths: list[int], length: int):
        self.lengths = lengths
        self.length = length

    def read(self, _: str) -> LateFile:
        return LateFile(self.lengths, self.lengths.pop(0))

    def get_file_info(self, _: str) -> LateFile:
        return self

    def __len__(self) -> int:
        return self.length


def test_a_reader_that_opens_too_short_is_opened_again() -> None:
    client = LateFile([0, 64, 100], length=100)
    assert len(open_reader(cast("Client", client), "/f", 65)) == 100
    assert len(open_reader(cast("Client", LateFile([100], length=100)), "/f", 200)) == 100


async def test_a_foreign_user_is_refused(hdfs_url: str) -> None:
    await hdfs_storage(hdfs_url).write_file("f", b"x")
    program = (
        "import sys, trio\n"
        "from mvcfs.errors import PermissionDenied\n"
        "from tests.storage.conftest import hdfs_storage\n"
        "async def main():\n"
        "    storage = hdfs_storage(sys.argv[1])\n"
        "    assert await storage.read_file('f', max_bytes=9) == b'x'\n"
        "    for run in (lambda: storage.write_file('g', b''), lambda: storage.create('g'), lambda: storage.mkdir('d'),\n"
        "                lambda: storage.rename('f', 'g'), lambda: storage.delete('f')):\n"
        "        try:\n"
        "            await run()\n"
        "        except PermissionDenied as error:\n"
        "            assert 'mallory' in str(error), error\n"
        "        else:\n"
        "            sys.exit('was allowed')\n"
        "trio.run(main)\n"
    )
    environment = {**os.environ, "HADOOP_USER_NAME": "mallory"}
    await trio.run_process([sys.executable, "-c", program, hdfs_url], env=environment)


async def test_space_without_a_quota_lets_everybody_write(hdfs_url: str) -> None:
    storage = hdfs_storage(hdfs_url)
    await storage.write_file("f", b"x" * 1000)
    space = await storage.space()
    assert space.total_bytes - space.free_bytes == 1000
    assert space.free_bytes == 1 << 50


async def write_all(writer: Writer, mebibytes: int) -> None:
    for _ in range(mebibytes):
        await writer.write(b"x" * (1 << 20))
    await writer.close()


async def test_a_space_quota_is_the_room_and_the_limit(hdfs_url: str, hdfs_cluster: Cluster) -> None:
    path = hdfs_url.removeprefix(hdfs_cluster.url)
    await trio.to_thread.run_sync(hdfs_cluster.admin, "-setSpaceQuota", str(4 << 20), path)
    storage = hdfs_storage(hdfs_url, StorageConfig(block_bytes=1 << 20))
    await storage.write_file("f", b"x" * (1 << 19))
    space = await storage.space()
    assert (space.total_bytes, space.free_bytes) == (2 << 20, 3 << 19)
    writer = await storage.create("big")
    with pytest.raises(LimitExceeded, match="quota"):
        await write_all(writer, 16)
    await writer.abort()
    assert [entry.name for entry in await storage.list_dir("")] == ["f"]


async def test_a_nameservice_by_hadoops_configuration(hdfs_url: str, hdfs_cluster: Cluster, tmp_path: Path) -> None:
    address = hdfs_cluster.url.removeprefix("hdfs://")
    settings = {
        "dfs.nameservices": "models",
        "dfs.ha.namenodes.models": "nn1,nn2",
        "dfs.namenode.rpc-address.models.nn1": "127.0.0.1:9",
        "dfs.namenode.rpc-address.models.nn2": address,
    }
    rows = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items())
    (tmp_path / "hdfs-site.xml").write_text(f"<configuration>{rows}</configuration>")
    (tmp_path / "core-site.xml").write_text("<configuration></configuration>")
    url = "hdfs://models" + hdfs_url.removeprefix(hdfs_cluster.url)
    storage = await open_storage(url, hadoop_conf_dir=str(tmp_path))
    assert storage.url == url
    await storage.write_file("f", b"by name")
    assert await storage.read_range("f", 3, 4) == b"name"


async def test_a_port_where_no_namenode_listens(hdfs_cluster: Cluster) -> None:
    quick = StorageConfig(retry=RetryPolicy(attempts=1), metadata_deadline_s=20)
    storage = await open_storage(f"hdfs://127.0.0.1:{hdfs_cluster.ports['namenode-http']}/x", config=quick)
    with pytest.raises(Transient):
        await storage.stat("")
