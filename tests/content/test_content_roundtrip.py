"""What goes up comes down: every size and offset round chunk borders, across restarts, from many tasks."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.errors import NotFound
from mvcfs.types import LargeContent
from tests.content.content_tools import SMALL, BytesSource, noise, open_rig


async def test_content_is_named_by_its_sha256(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(50_000))
        assert content == LargeContent(hashlib.sha256(noise(50_000)).hexdigest(), 50_000)
        assert await rig.content.find(content.oid)
        assert not await rig.content.find("0" * 64)
        with pytest.raises(NotFound, match="0" * 64):
            await rig.content.open(LargeContent("0" * 64, 1))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 2048, 4095, 4096, 4097, 8192, 100_000])
async def test_every_size_reads_back_whole(tmp_path: Path, size: int) -> None:
    async with open_rig(tmp_path) as rig:
        data = noise(size, size)
        (content,) = await rig.store(data)
        reader = await rig.content.open(content)
        assert reader.size_bytes == size
        assert bytes(await reader.read(0, size + 10)) == data
        assert bytes(await reader.read(size, 10)) == b""


async def test_every_range_round_chunk_borders(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        data = noise(20_000)
        (content,) = await rig.store(data)
        reader = await rig.content.open(content)
        borders = [ref.start for ref in reader._chunks.refs(0, len(data))] + [len(data)]
        assert len(borders) > 15
        for border in borders:
            for begin in (border - 1, border, border + 1):
                for end in (border, border + 1, border + 700, border + 5000, len(data)):
                    if 0 <= begin <= end:
                        assert bytes(await reader.read(begin, end - begin)) == data[begin:end]


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60_000), min_size=1, max_size=6),
    reads=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60_000), st.integers(0, 20_000)), max_size=20),
    budget=st.sampled_from([20_000, 60_000, 1 << 20]),
    cache=st.sampled_from([0, 1 << 20]),
)
def test_any_reads_of_any_files(sizes: list[int], reads: list[tuple[int, int, int]], budget: int, cache: int) -> None:
    async def run(directory: Path) -> None:
        async with open_rig(directory, budget_bytes=budget, cache_bytes=cache) as rig:
            datas = [noise(size, size) for size in sizes]
            contents = await rig.store(*datas)
            readers = [await rig.content.open(content) for content in contents]
            windows = [reader.window() for reader in readers]

            async def read(which: int, offset: int, length: int) -> None:
                which %= len(readers)
                got = await readers[which].read(offset, length, windows[which])
                assert bytes(got) == datas[which][offset : offset + length]
                assert rig.budget.used_bytes <= budget

            async with trio.open_nursery() as nursery:
                for arguments in reads:
                    nursery.start_soon(read, *arguments)
            for window in windows:
                window.close()

    with tempfile.TemporaryDirectory() as directory:
        trio.run(run, Path(directory))


async def test_many_files_added_at_once_share_packs(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        datas = [noise(1000 + 37 * i, i) for i in range(40)]
        upload = rig.content.upload()
        contents: dict[int, LargeContent] = {}
        seen = 0

        def progress(n: int) -> None:
            nonlocal seen
            seen += n

        async def add(index: int) -> None:
            contents[index] = await upload.add(BytesSource(datas[index]), progress)

        async with trio.open_nursery() as nursery:
            for index in range(len(datas)):
                nursery.start_soon(add, index)
        manifests, packs = await rig.publish(upload)
        total = sum(len(data) for data in datas)
        assert seen == upload.total_bytes == upload.uploaded_bytes == upload.stored_bytes == total
        assert len(manifests) == 1
        assert len(packs) <= total // (SMALL.pack_bytes - 6000) + 1
        assert all(pack.size_bytes <= SMALL.pack_bytes for pack in packs)
        assert {pack.name: pack.size_bytes for pack in packs} == {
            name.removeprefix("models/m/"): len(rig.storage.files[name]) for name in rig.pack_files()
        }
        for index, data in enumerate(datas):
            reader = await rig.content.open(contents[index])
            assert bytes(await reader.read(0, len(data))) == data


async def test_another_host_and_a_restart_read_the_same(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        contents = []
        for number in range(3):
            contents += await rig.store(noise(9000, number))
        for directory in ("elsewhere", "local"):
            other = rig.another(directory)
            for number, content in enumerate(contents):
                assert bytes(await (await other.open(content)).read(0, 9000)) == noise(9000, number)
            await other.aclose()


async def test_a_read_in_memory_is_a_view_of_it(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(4000))
        reader = await rig.content.open(content)
        first = await reader.read(0, 4000)
        assert isinstance(first, memoryview)
        reads = len(rig.storage.reads)
        second = await reader.read(100, 3000)
        assert isinstance(second, memoryview)
        assert second.obj is first.obj
        assert len(rig.storage.reads) == reads


async def test_zeros_are_one_chunk(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(bytes(100_000))
        assert sum(map(len, map(rig.storage.files.get, rig.pack_files()))) < 10_000  # type: ignore[arg-type]
        reader = await rig.content.open(content)
        window = reader.window()
        for offset in range(0, 100_000, 3000):
            assert not any(await reader.read(offset, 3000, window))
        window.close()
