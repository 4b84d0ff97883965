"""Addresses, the table of HDFS errors, threads that are given up, and what only the local and memory stores have."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import trio

from mvcfs import errors
from mvcfs.errors import AlreadyExists, InvalidArgument, LimitExceeded, MvcfsError, NotFound, Transient, UnknownOutcome
from mvcfs.storage import local, local_publish
from mvcfs.storage.address import open_storage
from mvcfs.storage.config import RetryPolicy, StorageConfig
from mvcfs.storage.hdfs_errors import translate
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.memory import MemoryStorage, MemoryStore
from mvcfs.storage.store_url import StoreAddress, parse_store_url
from mvcfs.storage.threads import CallThreads

# -- addresses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("/a/b/", "file:///a/b"),
        ("file:///a/b", "file:///a/b"),
        ("file://localhost/a", "file:///a"),
        ("file:///a%20b", "file:///a b"),
        ("/a b#c?d", "file:///a b#c?d"),
        ("hdfs://h:8020/a//b/", "hdfs://h:8020/a/b"),
        ("hdfs://cluster/ä b", "hdfs://cluster/ä b"),
        ("HDFS://h:1", "hdfs://h:1/"),
        ("hdfs://[::1]:9000/a", "hdfs://[::1]:9000/a"),
    ],
)
def test_an_address_has_one_form(text: str, url: str) -> None:
    assert parse_store_url(text).url == url
    assert parse_store_url(url.replace("a b", "a%20b") if url.startswith("file") else url).url == url


def test_a_relative_path_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_store_url("x/y") == StoreAddress("file", "", f"{tmp_path}/x/y")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "a store is written"),
        ("  ", "a store is written"),
        ("s3://bucket/x", "s3://"),
        ("http://h/x", "http://"),
        ("hdfs:/x/y", "slash"),
        ("file:/x", "slash"),
        ("hdfs:///x", "names no NameNode"),
        ("hdfs://user@h:1/x", "user@h:1"),
        ("hdfs://h:port/x", "h:port"),
        ("hdfs://h:99999/x", "h:99999"),
        ("hdfs://h:1/a/../b", "'..'"),
        ("hdfs://h:1/a:b", "':'"),
        ("file://host/x", "host"),
        ("file://", "no path"),
    ],
)
def test_a_bad_address_is_refused_by_name(text: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_store_url(text)
    assert hint in str(caught.value)
    assert repr(text) in str(caught.value)


async def test_open_storage(tmp_path: Path) -> None:
    storage = await open_storage(str(tmp_path))
    await storage.write_file("f", b"x")
    assert (await storage.stat("f")).size_bytes == 1
    assert storage.url == f"file://{tmp_path}"
    with pytest.raises(InvalidArgument):
        await open_storage("ftp://x/y")


QUICK = StorageConfig(metadata_deadline_s=20, retry=RetryPolicy(attempts=2, first_pause_s=0.01))


async def test_a_namenode_that_refuses_is_an_error_soon() -> None:
    storage = await open_storage("hdfs://127.0.0.1:9/x", config=QUICK)
    with pytest.raises(Transient, match=r"hdfs://127\.0\.0\.1:9/x"):
        await storage.stat("")
    with pytest.raises(UnknownOutcome):
        await storage.mkdir("d", parents=True)


async def test_a_host_that_is_none_is_an_error_soon(tmp_path: Path) -> None:
    storage = await open_storage("hdfs://no.such.host.invalid/x", config=QUICK, hadoop_conf_dir=str(tmp_path))
    with pytest.raises(Transient, match=r"no\.such\.host\.invalid"):
        await storage.stat("")


# -- errors of HDFS ---------------------------------------------------------------------------------------------------------


class PanicException(BaseException):
    """As hdfs-native's, which can't be imported."""


def rpc(java: str, message: str = "text") -> RuntimeError:
    return RuntimeError(f'RPCError("{java}", "{message}\\n\\tat org.apache.hadoop.X(X.java:1)")')


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (FileNotFoundError("/x"), "NotFound"),
        (FileNotFoundError("Path is not a file: /p\n\tat org"), "IsADirectory"),
        (FileExistsError("x"), "AlreadyExists"),
        (IsADirectoryError("x"), "IsADirectory"),
        (rpc("org.apache.hadoop.security.AccessControlException", 'user=a, inode=\\"/\\"'), "PermissionDenied"),
        (rpc("org.apache.hadoop.security.AccessControlException", "/f (is not a directory)"), "NotFound"),
        (rpc("org.apache.hadoop.fs.ParentNotDirectoryException"), "NotFound"),
        (rpc("org.apache.hadoop.fs.PathIsNotEmptyDirectoryException"), "NotEmpty"),
        (rpc("org.apache.hadoop.fs.InvalidPathException"), "InvalidArgument"),
        (rpc("org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException"), "NameTooLong"),
        (rpc("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException"), "LimitExceeded"),
        (rpc("org.apache.hadoop.hdfs.protocol.NSQuotaExceededException"), "LimitExceeded"),
        (rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException"), "Transient"),
        (rpc("org.apache.hadoop.ipc.StandbyException"), "Transient"),
        (rpc("java.io.IOException", "Source /a and destination /b must both be directories"), "AlreadyExists"),
        (rpc("java.io.IOException", "could only be written to 0 of the 1 minReplication nodes"), "Transient"),
        (rpc("java.io.IOException", "something else"), "StorageError"),
        (rpc("java.lang.NullPointerException"), "StorageError"),
        (RuntimeError('InvalidArgument("No NameNode hosts found")'), "InvalidArgument"),
        (RuntimeError('SASLError("no")'), "PermissionDenied"),
        (RuntimeError("never seen"), "StorageError"),
        (PanicException("Cannot read past end of the file"), "CorruptData"),
        (PanicException("index out of bounds"), "StorageError"),
    ],
)
def test_an_error_of_hdfs_has_one_meaning(raised: BaseException, kind: str) -> None:
    for mutates in (False, True):
        found = translate(raised, "hdfs://h/x", mutates=mutates)
        assert type(found) is getattr(errors, kind)
        assert str(found).startswith("hdfs://h/x: ")
        assert "org.apache.hadoop.X" not in str(found)
        assert "\n" not in str(found)


@pytest.mark.parametrize(
    "raised",
    [
        OSError("RPC listener disconnected"),
        OSError("Connection refused (os error 111)"),
        RuntimeError('DataTransferError("x")'),
        RuntimeError("BlocksNotFound"),
        RuntimeError('OperationFailed("x")'),
    ],
)
def test_a_call_that_broke_off_is_unknown_if_it_changes_something(raised: Exception) -> None:
    assert type(translate(raised, "x", mutates=False)) is Transient
    assert type(translate(raised, "x", mutates=True)) is UnknownOutcome


# -- threads ----------------------------------------------------------------------------------------------------------------


async def test_an_abandoned_call_gives_its_place_to_the_next() -> None:
    threads, hold = CallThreads("store", 1, abandoned_limit=2), threading.Event()
    for expected in (1, 2):
        with trio.move_on_after(0.05) as scope:
            await threads.run(hold.wait)
        assert scope.cancelled_caught
        assert threads.abandoned == expected
    with pytest.raises(Transient, match="2 earlier calls"):
        await threads.run(int)
    hold.set()
    with trio.fail_after(30):
        while threads.abandoned:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert await threads.run(lambda: 7) == 7


async def test_no_more_calls_run_at_once_than_may() -> None:
    threads, lock = CallThreads("store", 3), threading.Lock()
    running = most = 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(threads.run, work)
    assert 1 <= most <= 3


# -- local ------------------------------------------------------------------------------------------------------------------


def _fight(root: str, barrier: Barrier, index: int) -> list[bool]:
    async def attempt(operation: str, round_: int) -> bool:
        storage = LocalStorage(Path(root))
        try:
            if operation == "create":
                await storage.write_file(f"c{round_}", b"%d" % index)
            else:
                await storage.rename(f"s{round_}-{index}", f"t{round_}")
        except AlreadyExists:
            return False
        return True

    won = []
    for round_ in range(20):
        for operation in ("create", "rename"):
            barrier.wait(60)
            won.append(trio.run(attempt, operation, round_))
    return won


def _fighter(root: str, barrier: Barrier, index: int, results: multiprocessing.SimpleQueue[list[bool]]) -> None:
    results.put(_fight(root, barrier, index))


def test_of_many_processes_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    count = 3
    for round_ in range(20):
        for index in range(count):
            (tmp_path / f"s{round_}-{index}").touch()
    barrier, results = context.Barrier(count), context.SimpleQueue()
    arguments = [(str(tmp_path), barrier, index, results) for index in range(count)]
    processes = [context.Process(target=_fighter, args=each) for each in arguments]
    for process in processes:
        process.start()
    won = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 40


def link_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that has no renameat2 with flags."""
    for module in (local, local_publish):
        monkeypatch.setattr(module, "publish", local_publish.publish_portably)


async def test_without_renameat2_it_is_as_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link_only(monkeypatch)
    storage = LocalStorage(tmp_path)
    await storage.write_file("f", b"x")
    await storage.write_file("g", b"y")
    await storage.mkdir("d")
    await storage.write_file("d/f", b"z")
    for source, target in (("f", "g"), ("f", "d"), ("d", "f")):
        with pytest.raises(AlreadyExists):
            await storage.rename(source, target)
    await storage.rename("d", "e")
    await storage.rename("f", "e/g")
    assert [entry.name for entry in await storage.list_dir("e")] == ["f", "g"]
    assert sorted(os.listdir(tmp_path)) == ["e", "g"]


async def test_links_in_a_store_lead_nowhere(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret").write_text("secret")
    (root / "dir").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    storage = LocalStorage(root)
    for run in (
        lambda: storage.read_file("dir/secret", max_bytes=9),
        lambda: storage.read_file("file", max_bytes=9),
        lambda: storage.write_file("dir/new", b""),
        lambda: storage.stat("file"),
        lambda: storage.rename("dir/secret", "stolen"),
    ):
        with pytest.raises(MvcfsError):
            await run()
    assert await storage.list_dir("") == []
    await storage.delete("dir", recursive=True)
    assert os.listdir(outside) == ["secret"]


async def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    await LocalStorage(tmp_path / "root").write_file("f", b"x")
    assert (tmp_path / "real" / "f").read_bytes() == b"x"


async def test_a_writer_that_died_leaves_a_hidden_name_only(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    writer = await storage.create("f")
    await writer.write(b"half")
    assert [name[:5] for name in os.listdir(tmp_path)] == [".tmp-"]
    assert await storage.list_dir("") == []
    await storage.write_file("f", b"whole")
    await writer.abort()
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, "LimitExceeded"),
        (errno.EDQUOT, "LimitExceeded"),
        (errno.EACCES, "PermissionDenied"),
        (errno.EROFS, "ReadOnly"),
        (errno.EIO, "StorageError"),
        (errno.EMFILE, "Transient"),
        (errno.ENOTDIR, "NotFound"),
    ],
)
async def test_an_error_of_the_system_has_one_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    storage = LocalStorage(tmp_path)
    monkeypatch.setattr(os, "write", fail)
    try:
        with pytest.raises(getattr(errors, kind), match="f: "):
            await storage.write_file("f", b"x")
    finally:
        monkeypatch.undo()
    assert os.listdir(tmp_path) == []


async def test_a_missing_root(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "none" / "yet")
    for path in ("", "f"):
        with pytest.raises(NotFound):
            await storage.stat(path)
    await storage.mkdir("", parents=True)
    assert await storage.list_dir("") == []


# -- memory -----------------------------------------------------------------------------------------------------------------


async def test_hosts_share_a_memory_store() -> None:
    store = MemoryStore(clock=lambda: 99)
    one, two = MemoryStorage(store), MemoryStorage(store)
    await one.write_file("f", b"x")
    assert (await two.stat("f")).mtime_ns == 99
    with pytest.raises(AlreadyExists):
        await two.write_file("f", b"y")


async def test_a_memory_store_can_be_full() -> None:
    storage = MemoryStorage(MemoryStore(capacity_bytes=10))
    await storage.mkdir("d")
    await storage.write_file("d/f", b"12345678")
    with pytest.raises(LimitExceeded):
        await storage.write_file("g", b"123")
    assert (await storage.space()).free_bytes == 2
    await storage.delete("d", recursive=True)
    assert (await storage.space()).free_bytes == 10
