from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import pytest
import trio
from blake3 import blake3

from mvcfs.content import block_cache
from mvcfs.content.block_cache import BlockCache

LIMIT = 1 << 20


def chunk(n: int, size: int = 1000) -> tuple[bytes, bytes]:
    data = (b"%d " % n) * size
    data = data[:size]
    return blake3(data).digest(), data


def sizes(root: Path, pattern: str = "??/*") -> list[int]:
    return [path.stat().st_size for path in root.glob(pattern)]


def path_of(root: Path, hash: bytes) -> Path:
    return root / hash.hex()[:2] / hash.hex()


async def test_what_was_put_is_got_also_after_a_restart(tmp_path: Path) -> None:
    root = tmp_path / "a" / "blocks"
    cache = BlockCache(root, LIMIT, 0)
    hash, data = chunk(1)
    assert await cache.get(hash, len(data)) is None
    await cache.put(hash, data)
    assert await cache.get(hash, len(data)) == data
    assert cache.used_bytes == len(data)
    again = BlockCache(root, LIMIT, 0)
    assert await again.get(hash, len(data)) == data
    await again.trim()
    assert again.used_bytes == len(data)
    assert root.stat().st_mode & 0o777 == 0o700
    assert path_of(root, hash).stat().st_mode & 0o777 == 0o600
    assert path_of(root, hash).parent.stat().st_mode & 0o777 == 0o700


async def test_an_open_folder_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir(mode=0o755)
    BlockCache(tmp_path / "c", LIMIT, 0)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["flip", "short", "long", "zeros", "empty"])
async def test_a_damaged_file_is_a_miss_and_removed(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    hash, data = chunk(2)
    await BlockCache(tmp_path, LIMIT, 0).put(hash, data)
    path = path_of(tmp_path, hash)
    wrong = {
        "flip": data[:500] + bytes([data[500] ^ 1]) + data[501:],
        "short": data[:-1],
        "long": data + b"x",
        "zeros": bytes(len(data)),
        "empty": b"",
    }[damage]
    path.write_bytes(wrong)
    cache = BlockCache(tmp_path, LIMIT, 0)
    assert await cache.get(hash, len(data)) is None
    assert not path.exists()
    assert hash.hex() in caplog.text
    await cache.put(hash, data)
    assert await cache.get(hash, len(data)) == data


async def test_a_replaced_file_is_checked_again(tmp_path: Path) -> None:
    hash, data = chunk(3)
    cache = BlockCache(tmp_path, LIMIT, 0)
    await cache.put(hash, data)
    assert await cache.get(hash, len(data)) == data
    other = path_of(tmp_path, hash).with_name("other")
    other.write_bytes(bytes(len(data)))
    other.rename(path_of(tmp_path, hash))
    assert await cache.get(hash, len(data)) is None


async def test_least_recently_used_chunks_make_room(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 20_000, 0)
    chunks = [chunk(n) for n in range(60)]
    for n, (hash, data) in enumerate(chunks):
        await cache.put(hash, data)
        if n < 20:
            os.utime(path_of(tmp_path, hash), (n, n))
        if n == 10:
            assert await cache.get(*(chunks[0][0], 1000))  # its use makes it young
        total = sum(sizes(tmp_path))
        assert total <= 20_000
        assert cache.used_bytes == total
        if n == 21:
            kept = [i for i in range(20) if path_of(tmp_path, chunks[i][0]).exists()]
            assert 0 in kept
            assert 1 not in kept
            assert 19 in kept


async def test_a_smaller_bound_at_the_next_start_is_kept(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LIMIT, 0)
    for n in range(50):
        await cache.put(*chunk(n))
    small = BlockCache(tmp_path, 10_000, 0)
    await small.trim()
    assert sum(sizes(tmp_path)) == small.used_bytes == 9_000


async def test_concurrent_gets_and_puts(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 30_000, 0)
    chunks = [chunk(n, 1000 + n) for n in range(40)]

    async def client(start: int) -> None:
        for step in range(60):
            hash, data = chunks[(start * 7 + step) % len(chunks)]
            found = await cache.get(hash, len(data))
            assert found is None or found == data
            await cache.put(hash, data)

    async with trio.open_nursery() as nursery:
        for start in range(8):
            nursery.start_soon(client, start)
    await cache.trim()
    total = sum(sizes(tmp_path))
    assert cache.used_bytes == total <= 30_000
    assert not sizes(tmp_path, "??/tmp-*")


async def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    hash, data = chunk(4)
    cache = BlockCache(tmp_path, LIMIT, 0)
    await cache.put(hash, data)
    folder = path_of(tmp_path, hash).parent
    foreign = [tmp_path / "notes.txt", folder / "notes.txt", tmp_path / ("0" * 64), folder / ("g" * 64)]
    other = "ff" if folder.name != "ff" else "00"
    foreign.append(folder / (other + "0" * 62))
    for path in foreign:
        path.write_bytes(b"x" * 5000)
    small = BlockCache(tmp_path, 1, 0)
    await small.trim()
    assert small.used_bytes == 0
    assert all(path.exists() for path in foreign)
    assert not path_of(tmp_path, hash).exists()


async def test_stale_temporary_files_go_and_fresh_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    stale, fresh = tmp_path / "ab" / ("tmp-" + "0" * 32), tmp_path / "ab" / ("tmp-" + "1" * 32)
    stale.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(stale, (1, 1))
    await BlockCache(tmp_path, LIMIT, 0).trim()
    assert not stale.exists()
    assert fresh.exists()


async def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    hash, data = chunk(5)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / hash.hex()).write_bytes(data)
    root = tmp_path / "cache"
    cache = BlockCache(root, LIMIT, 0)
    (root / hash.hex()[:2]).symlink_to(outside)
    assert await cache.get(hash, len(data)) is None
    await cache.put(hash, data)
    await BlockCache(root, 1, 0).trim()
    assert [p.name for p in outside.iterdir()] == [hash.hex()]
    (root / hash.hex()[:2]).unlink()
    (root / hash.hex()[:2]).mkdir()
    path_of(root, hash).symlink_to(outside / hash.hex())
    cache = BlockCache(root, LIMIT, 0)
    assert await cache.get(hash, len(data)) is None
    await cache.put(hash, data)
    assert not path_of(root, hash).is_symlink()
    assert await cache.get(hash, len(data)) == data


async def test_a_fifo_or_a_folder_under_a_chunks_name_is_a_miss(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LIMIT, 0)
    (fifo, data), (folder, other) = chunk(6), chunk(7)
    path_of(tmp_path, fifo).parent.mkdir(exist_ok=True)
    os.mkfifo(path_of(tmp_path, fifo))
    path_of(tmp_path, folder).mkdir(parents=True)
    assert await cache.get(fifo, len(data)) is None
    assert await cache.get(folder, len(other)) is None
    await cache.put(folder, other)
    assert await cache.get(folder, len(other)) is None


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
async def test_a_folder_that_takes_nothing_is_passed_through_and_said_once(
    tmp_path: Path, error: OSError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(tmp_path, LIMIT, 0)
    kept = chunk(8)
    await cache.put(*kept)

    def refuse(fd: int, data: bytes) -> None:
        raise error

    monkeypatch.setattr(block_cache, "_write_all", refuse)
    with caplog.at_level(logging.WARNING):
        for n in range(20, 25):
            hash, data = chunk(n)
            await cache.put(hash, data)
            assert await cache.get(hash, len(data)) is None
    assert len(caplog.records) == 1
    assert str(error.strerror) in caplog.text
    assert await cache.get(kept[0], 1000) == kept[1]
    assert cache.used_bytes == 1000
    assert not sizes(tmp_path, "??/tmp-*")


async def test_free_space_is_left_to_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await BlockCache(tmp_path, LIMIT, 0).put(*chunk(9))
    cache = BlockCache(tmp_path, LIMIT, 1 << 62)
    hash, data = chunk(10)
    await cache.put(hash, data)
    assert await cache.get(hash, len(data)) is None
    assert cache.used_bytes == 0
    assert not sizes(tmp_path)
    assert len(caplog.records) == 1


async def test_a_folder_that_cannot_be_made_turns_the_cache_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = BlockCache(tmp_path / "file" / "blocks", LIMIT, 0)
    hash, data = chunk(11)
    await cache.put(hash, data)
    assert await cache.get(hash, len(data)) is None
    await cache.trim()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("directory", "limit"), [(False, LIMIT), (True, 0), (True, 10)])
async def test_off_or_too_small_holds_nothing(tmp_path: Path, directory: bool, limit: int) -> None:
    cache = BlockCache(tmp_path if directory else None, limit, 0)
    hash, data = chunk(12)
    await cache.put(hash, data)
    assert await cache.get(hash, len(data)) is None
    assert not sizes(tmp_path)


async def test_two_caches_in_one_folder_keep_the_bound_and_never_lie(tmp_path: Path) -> None:
    """As two mounts have them: each counts what the other puts when it scans."""
    limit = 100_000
    caches = [BlockCache(tmp_path, limit, 0) for _ in "ab"]
    chunks = [chunk(n, 2000 + n) for n in range(200)]
    most = 0

    def used() -> int:
        total = 0
        for path in tmp_path.glob("??/[0-9a-f]*"):
            with contextlib.suppress(FileNotFoundError):  # the other cache may just have removed it
                total += path.stat().st_size
        return total

    async def use(cache: BlockCache, order: list[int]) -> None:
        nonlocal most
        for n in order:
            hash, data = chunks[n]
            found = await cache.get(hash, len(data))
            assert found is None or found == data
            if found is None:
                await cache.put(hash, data)
            most = max(most, used())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, caches[0], list(range(200)))
        nursery.start_soon(use, caches[1], list(range(199, -1, -1)))
    assert limit // 2 < most <= limit + 2 * limit // 8 + 2 * 2200
    for cache in caches:
        await cache.trim()
    assert sum(sizes(tmp_path)) <= limit
