"""What `mvcfs.storage.protocol` promises, asked of every storage and wrapper."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from mvcfs.errors import (
    AlreadyExists,
    CorruptData,
    InvalidArgument,
    IsADirectory,
    LimitExceeded,
    MvcfsError,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotSupported,
    StorageError,
)
from mvcfs.storage.protocol import Storage, Writer
from mvcfs.types import MIB, SELF, Identity

BLOCK = 1 << 20


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def race(*runs: Callable[[], Awaitable[object]]) -> list[MvcfsError | None]:
    """Runs all at once; each one's error, or None."""
    results: list[MvcfsError | None] = [None] * len(runs)

    async def run(index: int) -> None:
        try:
            await runs[index]()
        except MvcfsError as error:
            results[index] = error

    async with trio.open_nursery() as nursery:
        for index in range(len(runs)):
            nursery.start_soon(run, index)
    return results


async def names(storage: Storage, path: str = "") -> list[str]:
    return [entry.name for entry in await storage.list_dir(path)]


async def test_a_written_file_reads_back(storage: Storage) -> None:
    writer = await storage.create("f")
    await writer.write(b"one ")
    await writer.write(bytearray(b"two"))
    await writer.close()
    assert await storage.read_file("f", max_bytes=100) == b"one two"
    entry = await storage.stat("f")
    assert (entry.name, entry.is_dir, entry.size_bytes) == ("f", False, 7)
    assert abs(entry.mtime_ns - time.time_ns()) < 600e9


async def test_an_empty_file(storage: Storage) -> None:
    await (await storage.create("made")).close()
    await storage.write_file("written", b"")
    for path in ("made", "written"):
        assert await storage.read_file(path, max_bytes=0) == b""
        assert await storage.read_range(path, 0, 0) == b""
        assert (await storage.stat(path)).size_bytes == 0


async def test_a_big_file_in_ranges_over_block_borders(storage: Storage) -> None:
    data = noise(3 * MIB + 12345)
    writer = await storage.create("big")
    for start in range(0, len(data), 300_000):
        await writer.write(data[start : start + 300_000])
    await writer.close()
    assert (await storage.stat("big")).size_bytes == len(data)
    for offset, length in [
        (0, 1),
        (0, len(data)),
        (BLOCK - 1, 2),
        (BLOCK, 4096),
        (BLOCK - 70_000, 140_000),
        (511, 2 * BLOCK),
        (len(data) - 1, 1),
        (len(data), 0),
    ]:
        assert await storage.read_range("big", offset, length) == data[offset : offset + length]


async def test_ranges_read_at_once_do_not_mix(storage: Storage) -> None:
    data = noise(2 * MIB)
    await storage.write_file("f", data)

    async def read(offset: int) -> None:
        assert await storage.read_range("f", offset, 100_000) == data[offset : offset + 100_000]

    assert await race(*(lambda at=at: read(at) for at in range(0, MIB, 65_537))) == [None] * 16


async def test_a_range_past_the_end_is_corrupt_data(storage: Storage) -> None:
    await storage.write_file("f", b"12345")
    for offset, length in [(0, 6), (5, 1), (6, 0), (1 << 40, 1)]:
        with pytest.raises(CorruptData):
            await storage.read_range("f", offset, length)
    assert await storage.read_range("f", 1, 4) == b"2345"


async def test_a_senseless_range_is_refused(storage: Storage) -> None:
    await storage.write_file("f", b"12345")
    for offset, length in [(-1, 1), (0, -1)]:
        with pytest.raises(InvalidArgument):
            await storage.read_range("f", offset, length)


async def test_read_file_refuses_more_than_it_may(storage: Storage) -> None:
    await storage.write_file("f", b"12345")
    assert await storage.read_file("f", max_bytes=5) == b"12345"
    with pytest.raises(LimitExceeded, match="f"):
        await storage.read_file("f", max_bytes=4)


async def test_what_is_missing_is_not_found(storage: Storage) -> None:
    await storage.write_file("file", b"")
    for path in ("gone", "gone/below", "file/below"):
        for run in (
            lambda p=path: storage.stat(p),
            lambda p=path: storage.list_dir(p),
            lambda p=path: storage.read_range(p, 0, 1),
            lambda p=path: storage.read_file(p, max_bytes=10),
            lambda p=path: storage.delete(p),
            lambda p=path: storage.rename(p, "target"),
        ):
            with pytest.raises(NotFound):
                await run()


async def test_no_call_makes_a_parent(storage: Storage) -> None:
    await storage.write_file("file", b"")
    for path in ("gone/f", "gone/deeper/f", "file/f"):
        for run in (
            lambda p=path: storage.create(p),
            lambda p=path: storage.write_file(p, b"x"),
            lambda p=path: storage.mkdir(p),
            lambda p=path: storage.rename("file", p),
        ):
            with pytest.raises(NotFound):
                await run()
    assert await names(storage) == ["file"]


async def test_a_directory_is_no_file_and_a_file_no_directory(storage: Storage) -> None:
    await storage.mkdir("d")
    await storage.write_file("f", b"x")
    with pytest.raises(IsADirectory):
        await storage.read_range("d", 0, 1)
    with pytest.raises(IsADirectory):
        await storage.read_file("d", max_bytes=1)
    with pytest.raises(NotADirectory):
        await storage.list_dir("f")


async def test_a_file_is_not_there_before_its_close(storage: Storage) -> None:
    writer = await storage.create("f")
    await writer.write(noise(2 * MIB))
    with pytest.raises(NotFound):
        await storage.stat("f")
    assert await names(storage) == []
    await writer.close()
    assert (await storage.stat("f")).size_bytes == 2 * MIB


async def test_an_aborted_file_leaves_nothing(storage: Storage) -> None:
    await storage.mkdir("d")
    writer = await storage.create("d/f")
    await writer.write(noise(2 * MIB))
    await writer.abort()
    await writer.abort()
    assert await names(storage, "d") == []
    with pytest.raises(StorageError):
        await writer.write(b"more")
    with pytest.raises(StorageError):
        await writer.close()
    await storage.delete("d")


async def test_abort_works_in_a_cancelled_task(storage: Storage) -> None:
    await storage.mkdir("d")
    writer = await storage.create("d/f")
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.abort()
    await storage.delete("d")


async def test_abort_after_close_keeps_the_file(storage: Storage) -> None:
    writer = await storage.create("f")
    await writer.write(b"kept")
    await writer.close()
    await writer.abort()
    assert await storage.read_file("f", max_bytes=10) == b"kept"


async def test_create_is_exclusive(storage: Storage) -> None:
    await storage.write_file("f", b"first")
    await storage.mkdir("d")
    for path in ("f", "d"):
        with pytest.raises(AlreadyExists):
            await storage.create(path)
        with pytest.raises(AlreadyExists):
            await storage.write_file(path, b"second")
    assert await storage.read_file("f", max_bytes=10) == b"first"


async def test_of_two_open_writers_the_first_to_close_wins(storage: Storage) -> None:
    first, second = await storage.create("f"), await storage.create("f")
    await first.write(b"first")
    await second.write(b"second")
    await second.close()
    with pytest.raises(AlreadyExists):
        await first.close()
    await first.abort()
    assert await storage.read_file("f", max_bytes=10) == b"second"
    assert await names(storage) == ["f"]


async def test_of_many_creators_one_wins(storage: Storage) -> None:
    for attempt in range(3):
        path = f"f{attempt}"
        results = await race(*(lambda i=i, p=path: storage.write_file(p, b"%d" % i) for i in range(8)))
        assert results.count(None) == 1
        assert all(error is None or isinstance(error, AlreadyExists) for error in results)
        assert await storage.read_file(path, max_bytes=1) == b"%d" % results.index(None)
    assert await names(storage) == ["f0", "f1", "f2"]


async def test_of_many_writers_one_wins(storage: Storage) -> None:
    async def write(writer: Writer) -> None:
        await writer.write(b"x")
        await writer.close()

    writers = [await storage.create("f") for _ in range(6)]
    results = await race(*(lambda w=w: write(w) for w in writers))
    assert results.count(None) == 1
    assert all(error is None or isinstance(error, AlreadyExists) for error in results)
    assert await names(storage) == ["f"]


async def test_rename_moves_files_and_directories(storage: Storage) -> None:
    await storage.mkdir("a/b", parents=True)
    await storage.write_file("a/b/f", b"data")
    await storage.rename("a/b/f", "a/g")
    await storage.rename("a", "z")
    assert await storage.read_file("z/g", max_bytes=10) == b"data"
    assert await names(storage, "z/b") == []
    for path in ("a", "a/g", "z/b/f"):
        with pytest.raises(NotFound):
            await storage.stat(path)


async def test_rename_never_replaces(storage: Storage) -> None:
    await storage.write_file("f", b"f")
    await storage.write_file("g", b"g")
    for directory in ("d", "e"):
        await storage.mkdir(directory)
    pairs = [("f", "g"), ("f", "d"), ("d", "f"), ("d", "e"), ("f", "f"), ("d", "d")]
    for source, target in pairs:
        with pytest.raises(AlreadyExists):
            await storage.rename(source, target)
    assert await names(storage) == ["d", "e", "f", "g"]
    assert await names(storage, "e") == []
    assert await storage.read_file("f", max_bytes=1) == b"f"
    assert await storage.read_file("g", max_bytes=1) == b"g"


async def test_a_directory_does_not_move_into_itself(storage: Storage) -> None:
    await storage.mkdir("d")
    with pytest.raises(InvalidArgument):
        await storage.rename("d", "d/below")
    assert await names(storage, "d") == []


async def test_of_many_renames_to_one_name_one_wins(storage: Storage) -> None:
    for attempt in range(3):
        target = f"target{attempt}"
        for index in range(8):
            await storage.write_file(f"source{index}", b"%d" % index)
        results = await race(*(lambda i=i, t=target: storage.rename(f"source{i}", t) for i in range(8)))
        assert results.count(None) == 1
        winner = results.index(None)
        assert await storage.read_file(target, max_bytes=1) == b"%d" % winner
        for index in range(8):
            if index != winner:
                assert isinstance(results[index], AlreadyExists)
                assert await storage.read_file(f"source{index}", max_bytes=1) == b"%d" % index
                await storage.delete(f"source{index}")


async def test_of_many_renames_of_one_source_one_wins(storage: Storage) -> None:
    await storage.write_file("source", b"data")
    results = await race(*(lambda i=i: storage.rename("source", f"target{i}") for i in range(6)))
    assert results.count(None) == 1
    assert all(error is None or isinstance(error, NotFound) for error in results)
    assert await names(storage) == [f"target{results.index(None)}"]


async def test_of_many_renames_of_directories_one_wins(storage: Storage) -> None:
    for index in range(6):
        await storage.mkdir(f"d{index}")
        await storage.write_file(f"d{index}/f", b"%d" % index)
    results = await race(*(lambda i=i: storage.rename(f"d{i}", "target") for i in range(6)))
    assert results.count(None) == 1
    assert all(error is None or isinstance(error, AlreadyExists) for error in results)
    assert await storage.read_file("target/f", max_bytes=1) == b"%d" % results.index(None)
    assert await names(storage, "target") == ["f"]


async def test_mkdir_is_exclusive(storage: Storage) -> None:
    results = await race(*(lambda: storage.mkdir("d") for _ in range(6)))
    assert results.count(None) == 1
    assert all(error is None or isinstance(error, AlreadyExists) for error in results)
    await storage.write_file("f", b"")
    for parents in (False, True):
        with pytest.raises(AlreadyExists):
            await storage.mkdir("f", parents=parents)
    assert await names(storage) == ["d", "f"]


async def test_mkdir_with_parents_takes_what_is_there(storage: Storage) -> None:
    await storage.mkdir("", parents=True)
    for _ in range(2):
        await storage.mkdir("a/b/c", parents=True)
    assert await names(storage, "a/b") == ["c"]
    assert (await storage.stat("a/b/c")).is_dir
    assert (await storage.stat("")).is_dir


async def test_listing_is_sorted_and_complete(storage: Storage) -> None:
    wanted = ["B", "a", "a b", "a-b", "a.b", "z", "ä", "é", "%41", "日本", "👩‍👩‍👧"]
    for name in wanted[::2]:
        await storage.mkdir(name)
    for name in wanted[1::2]:
        await storage.write_file(name, name.encode())
    entries = await storage.list_dir("")
    assert [entry.name for entry in entries] == sorted(wanted)
    for entry in entries:
        assert entry == await storage.stat(entry.name)
    assert await storage.read_file("日本", max_bytes=99) == "日本".encode()


async def test_delete(storage: Storage) -> None:
    await storage.mkdir("d/e", parents=True)
    await storage.write_file("d/e/f", b"x")
    with pytest.raises(NotEmpty):
        await storage.delete("d")
    await storage.delete("d/e/f")
    await storage.delete("d/e")
    await storage.write_file("d/f", b"x")
    await storage.delete("d", recursive=True)
    assert await names(storage) == []
    for recursive in (False, True):
        with pytest.raises(NotFound):
            await storage.delete("d", recursive=recursive)


async def test_a_name_is_free_again_after_delete_and_shows_the_new_file(storage: Storage) -> None:
    await storage.write_file("f", b"old")
    assert await storage.read_range("f", 0, 3) == b"old"
    await storage.delete("f")
    await storage.write_file("f", b"newer")
    assert await storage.read_range("f", 0, 5) == b"newer"
    assert await storage.read_file("f", max_bytes=5) == b"newer"


async def test_files_follow_a_renamed_directory(storage: Storage) -> None:
    await storage.mkdir("a")
    await storage.write_file("a/f", b"old")
    assert await storage.read_range("a/f", 0, 3) == b"old"
    await storage.rename("a", "b")
    await storage.mkdir("a")
    await storage.write_file("a/f", b"new")
    assert await storage.read_range("a/f", 0, 3) == b"new"
    assert await storage.read_range("b/f", 0, 3) == b"old"


async def test_a_writer_whose_directory_moved_away_does_not_make_it_again(storage: Storage) -> None:
    await storage.mkdir("a")
    writer = await storage.create("a/f")
    await writer.write(b"x")
    await storage.rename("a", "b")
    # A store may finish the file in the directory under its new name; the old name stays free.
    await race(writer.close)
    await writer.abort()
    assert await names(storage) == ["b"]


@pytest.mark.parametrize("path", ["/a", "a/", "a//b", ".", "a/..", "../a", "a:b", "a\0b", "a\nb", ".tmp-1", "d/.tmp-1"])
async def test_a_path_that_is_none_is_refused(storage: Storage, path: str) -> None:
    for run in (
        lambda: storage.stat(path),
        lambda: storage.write_file(path, b""),
        lambda: storage.rename("x", path),
        lambda: storage.delete(path, recursive=True),
    ):
        with pytest.raises(InvalidArgument):
            await run()


async def test_a_name_of_256_bytes_is_too_long(storage: Storage) -> None:
    await storage.write_file("x" * 255, b"")
    with pytest.raises(LimitExceeded):
        await storage.write_file("x" * 256, b"")


async def test_the_root_stays(storage: Storage) -> None:
    for run in (
        lambda: storage.delete("", recursive=True),
        lambda: storage.rename("", "x"),
        lambda: storage.create(""),
        lambda: storage.mkdir(""),
    ):
        with pytest.raises(InvalidArgument):
            await run()


async def test_calls_are_made_as_somebody(storage: Storage) -> None:
    await storage.write_file("f", b"x", identity=SELF)
    other = Identity("somebody")
    for run in (
        lambda: storage.stat("f", identity=other),
        lambda: storage.list_dir("", identity=other),
        lambda: storage.read_range("f", 0, 1, identity=other),
        lambda: storage.read_file("f", max_bytes=1, identity=other),
        lambda: storage.create("g", identity=other),
        lambda: storage.write_file("g", b"", identity=other),
        lambda: storage.rename("f", "g", identity=other),
        lambda: storage.mkdir("g", identity=other),
        lambda: storage.delete("f", identity=other),
        lambda: storage.space(identity=other),
    ):
        with pytest.raises(NotSupported, match="somebody"):
            await run()
    assert await names(storage) == ["f"]


async def test_space_url_and_block_size(storage: Storage) -> None:
    space = await storage.space()
    assert 0 < space.free_bytes <= space.total_bytes
    assert storage.url.partition("://")[0] in ("file", "memory", "hdfs")
    assert storage.block_bytes >= 65_536


async def test_a_closed_storage_may_be_closed_again(storage: Storage) -> None:
    await storage.aclose()
    await storage.aclose()
