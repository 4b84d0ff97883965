"""Reading: never wrong bytes, ranges and windows, shared fetches, cancelled readers, the budget."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from mvcfs.errors import CorruptData, Transient
from mvcfs.types import LargeContent
from tests.content.content_tools import MODEL, SMALL, Rig, noise, open_rig

SIZE = 100_000


async def whole(rig: Rig, content: LargeContent) -> bytes:
    reader = await rig.content.open(content)
    return bytes(await reader.read(0, content.size_bytes))


async def test_a_damaged_chunk_fails_only_what_needs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_rig(tmp_path) as rig:
        data = noise(SIZE)
        (content,) = await rig.store(data)
        reader = await rig.content.open(content)
        refs = reader._chunks.refs(0, SIZE)
        bad = refs[5]
        rig.damage(f"{MODEL}/{bad.pack}", bad.offset + 3)
        with pytest.raises(CorruptData, match=f"{content.oid}.*{bad.pack} at {bad.offset}"):
            await reader.read(0, SIZE)
        end = bad.start + bad.length
        assert bytes(await reader.read(0, bad.start)) == data[: bad.start]
        assert bytes(await reader.read(end, SIZE)) == data[end:]
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        for part in (MODEL, content.oid, bad.pack, str(bad.offset)):
            assert part in errors[0]


@pytest.mark.parametrize("how", ["cut", "gone"])
async def test_a_pack_cut_short_or_gone(tmp_path: Path, how: str) -> None:
    async with open_rig(tmp_path) as rig:
        data = noise(10_000)
        (content,) = await rig.store(data)
        (path,) = rig.pack_files()
        full = rig.storage.files[path]
        if how == "cut":
            rig.storage.files[path] = full[:5000]
        else:
            del rig.storage.files[path]
        reader = await rig.content.open(content)
        with pytest.raises(CorruptData):
            await reader.read(0, 10_000)
        if how == "cut":
            assert bytes(await reader.read(0, 2000)) == data[:2000]
        rig.storage.files[path] = full
        assert bytes(await reader.read(0, 10_000)) == data


async def test_bytes_that_came_wrong_once_are_read_again(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(3000))
        (path,) = rig.pack_files()
        good = rig.storage.files[path]
        rig.damage(path, 100)

        async def mend(op: str, called: str) -> None:
            if len(rig.storage.reads) > 1:
                rig.storage.files[path] = good

        rig.storage.hook = mend
        assert await whole(rig, content) == noise(3000)


async def test_a_failing_store_is_an_error_and_passes(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(3000))
        reader = await rig.content.open(content)

        async def fail(op: str, path: str) -> None:
            raise Transient("down")

        rig.storage.hook = fail
        with pytest.raises(Transient, match="down"):
            await reader.read(0, 10)
        rig.storage.hook = None
        assert bytes(await reader.read(0, 10)) == noise(3000)[:10]


async def test_the_block_cache_serves_and_a_damaged_one_does_not_lie(tmp_path: Path) -> None:
    async with open_rig(tmp_path, cache_bytes=1 << 20) as rig:
        (content,) = await rig.store(noise(20_000))
        assert await whole(rig, content) == noise(20_000)
        await trio.testing.wait_all_tasks_blocked(0.05)
        chunks = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert len(chunks) > 10
        rig.content._store.reclaim(1 << 20)
        rig.storage.reads.clear()
        assert await whole(rig, content) == noise(20_000)
        assert not rig.storage.reads
        await rig.content.aclose()
        for path in chunks:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        rig.cache = type(rig.cache)(tmp_path / "cache", 1 << 20, 0)
        rig.content = rig.another()
        assert await whole(rig, content) == noise(20_000)
        assert rig.storage.reads


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
async def test_a_damaged_local_manifest_is_fetched_again(tmp_path: Path, damage: str) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(20_000))
        await rig.content.aclose()
        (copy,) = (tmp_path / "local" / "manifests").iterdir()
        if damage == "flip":
            good = copy.read_bytes()
            copy.write_bytes(good[:200] + b"\xff" * 200 + good[400:])
        elif damage == "cut":
            copy.write_bytes(copy.read_bytes()[:-8])
        else:
            copy.unlink()
        rig.content = rig.another()
        assert await whole(rig, content) == noise(20_000)


async def test_a_local_manifest_that_rotted_inside_is_fetched_again(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(20_000))
        reader = await rig.content.open(content)
        (ref, *_) = reader._chunks.refs(0, 1)
        await rig.content.aclose()
        (copy,) = (tmp_path / "local" / "manifests").iterdir()
        copy.write_bytes(copy.read_bytes().replace(ref.hash, bytes(32)))
        rig.content = rig.another()
        with pytest.raises(CorruptData):
            await whole(rig, content)
        assert await whole(rig, content) == noise(20_000)


async def test_a_damaged_manifest_in_the_store(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (good,) = await rig.store(noise(20_000))
        (lost,) = await rig.store(noise(20_000, 1))
        path = f"{MODEL}/{rig.manifests[1].name}"
        rig.storage.files[path] = b"\0" * len(rig.storage.files[path])
        other = rig.another("elsewhere")
        assert (await other.open(good)).size_bytes == 20_000
        with pytest.raises(CorruptData, match=rig.manifests[1].name):
            await other.open(lost)
        with pytest.raises(CorruptData):
            await rig.content.open(LargeContent(good.oid, 19_999))
        await other.aclose()


async def test_readers_of_one_chunk_share_a_fetch(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(3000))
        reader = await rig.content.open(content)
        gate = trio.Event()

        async def wait(op: str, path: str) -> None:
            await gate.wait()

        rig.storage.hook = wait
        rig.storage.reads.clear()
        got: list[bytes] = []

        async def read() -> None:
            got.append(bytes(await reader.read(0, 100)))

        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(5)]

            async def cancellable(scope: trio.CancelScope) -> None:
                with scope:
                    await read()

            for scope in scopes:
                nursery.start_soon(cancellable, scope)
            await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()  # whoever came first leaves; the others still get theirs
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert got == [noise(3000)[:100]] * 4
        assert len(rig.storage.reads) == 1


async def test_a_fetch_nobody_wants_is_cancelled(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(3000))
        reader = await rig.content.open(content)

        async def hang(op: str, path: str) -> None:
            await trio.sleep_forever()

        rig.storage.hook = hang
        with trio.move_on_after(0.01):
            await reader.read(0, 100)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.storage.running == 0
        assert rig.budget.used_bytes == 0
        rig.storage.hook = None
        assert bytes(await reader.read(0, 100)) == noise(3000)[:100]


async def test_sequential_reading_uses_long_ranges_and_grows_its_window(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        data = noise(SIZE)
        (content,) = await rig.store(data)
        reader = await rig.content.open(content)
        window = reader.window()
        rig.storage.reads.clear()
        sizes = []
        for offset in range(0, SIZE, 500):
            assert bytes(await reader.read(offset, 500, window)) == data[offset : offset + 500]
            sizes.append(window.size_bytes)
        assert sizes == sorted(sizes)
        assert sizes[-1] == SMALL.window_max_bytes
        assert all(length <= SMALL.range_bytes for _, _, length in rig.storage.reads)
        assert sum(length for _, _, length in rig.storage.reads) == SIZE
        assert len(rig.storage.reads) < 60
        window.close()


async def test_a_far_seek_closes_the_window_and_cancels(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(SIZE))
        reader = await rig.content.open(content)
        window = reader.window()
        for offset in range(0, 40_000, 1000):
            await reader.read(offset, 1000, window)
        gate = trio.Event()

        async def hook(op: str, path: str) -> None:
            await gate.wait()

        rig.storage.hook = hook
        window._ahead = 0  # as if nothing had been asked for yet
        rig.content._store.reclaim(1 << 20)
        with trio.move_on_after(0.01):
            await reader.read(40_000, 1000, window)
        assert rig.storage.running > 0
        with trio.move_on_after(0.01):
            await reader.read(90_000, 1000, window)
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert window.size_bytes == 0
        assert rig.storage.running == 0
        gate.set()
        window.close()


async def test_random_reads_do_not_read_ahead(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(SIZE))
        reader = await rig.content.open(content)
        window = reader.window()
        rig.storage.reads.clear()
        for offset in (50_000, 90_000, 20_000, 70_000, 40_000):
            await reader.read(offset, 100, window)
        assert sum(length for _, _, length in rig.storage.reads) <= 10 * SMALL.chunk_max_bytes
        window.close()


async def test_a_read_does_not_wait_for_a_used_up_budget_or_for_slots(tmp_path: Path) -> None:
    async with open_rig(tmp_path, budget_bytes=50_000, config=replace(SMALL, fetches=1)) as rig:
        data = noise(SIZE)
        (content,) = await rig.store(data)
        reader = await rig.content.open(content)
        rig.content._store.reclaim(50_000)
        await rig.budget.reserve(50_000)
        with trio.fail_after(5):
            assert bytes(await reader.read(3000, 50_000)) == data[3000:53_000]
        assert rig.budget.used_bytes == 50_000
        rig.budget.release(50_000)
        window = reader.window()
        gate = trio.Event()

        async def hook(op: str, path: str) -> None:
            if rig.storage.reads[-1][2] > SMALL.chunk_max_bytes:
                await gate.wait()

        rig.storage.hook = hook
        window._bytes, window._grow_at = 16_384, 1 << 40
        with trio.fail_after(5):
            await reader.read(0, 500, window)
            await trio.testing.wait_all_tasks_blocked()
            assert rig.storage.running == 1
            await reader.read(SIZE - 100, 100)
            queued = list(rig.content._store._queue)
            assert queued
            ref = queued[0].refs[0]
        gate.set()
        assert bytes(await reader.read(ref.start, 10)) == data[ref.start : ref.start + 10]
        window.close()


async def test_kept_chunks_give_way_to_others(tmp_path: Path) -> None:
    async with open_rig(tmp_path, budget_bytes=60_000) as rig:
        (content,) = await rig.store(noise(SIZE))
        reader = await rig.content.open(content)
        for offset in range(0, SIZE, 4000):
            await reader.read(offset, 4000)
            assert rig.budget.used_bytes <= 60_000
        assert rig.budget.used_bytes > 40_000
        with trio.fail_after(5):
            await rig.budget.reserve(60_000)
        rig.budget.release(60_000)


async def test_what_arrives_while_others_wait_for_memory_is_not_kept(tmp_path: Path) -> None:
    async with open_rig(tmp_path, budget_bytes=20_000) as rig:
        (content,) = await rig.store(noise(SIZE))
        reader = await rig.content.open(content)
        window = reader.window()
        gate = trio.Event()

        async def hook(op: str, path: str) -> None:
            await gate.wait()

        rig.storage.hook = hook
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read, 0, 100, window)
            await trio.testing.wait_all_tasks_blocked()
            assert rig.budget.used_bytes > 0
            nursery.start_soon(rig.budget.reserve, 20_000)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
            with trio.fail_after(5):
                while rig.budget.waiting:
                    await trio.testing.wait_all_tasks_blocked()
        assert bytes(await reader.read(0, SIZE, window)) == noise(SIZE)
        rig.budget.release(20_000)
        window.close()


async def test_closing_while_reading(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(SIZE))
        reader = await rig.content.open(content)
        window = reader.window()
        for offset in range(0, 30_000, 1000):
            await reader.read(offset, 1000, window)

        async def hang(op: str, path: str) -> None:
            await trio.sleep_forever()

        rig.storage.hook = hang
        failed = False

        async def read() -> None:
            nonlocal failed
            try:
                await reader.read(80_000, 10)
            except Exception:  # noqa: BLE001
                failed = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await rig.content.aclose()
        assert failed
        assert rig.budget.used_bytes == 0
        window.close()
