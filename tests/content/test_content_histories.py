"""Random histories: uploads of related contents, failures and cancellations anywhere, restarts, reads by windows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.content.block_cache import BlockCache
from mvcfs.content.budget import Budget
from mvcfs.content.config import ContentConfig
from mvcfs.content.model_content import ModelContent
from mvcfs.errors import MvcfsError, StorageError, Transient
from mvcfs.storage.faults import Fault
from mvcfs.storage.local import LocalStorage
from mvcfs.types import MIB, LargeContent
from tests.content.content_tools import BytesSource, Rig, noise, open_rig

OPS = ["create", "writer.write", "writer.close", "stat", "read_range", "delete"]

content = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15_000), st.integers(0, 15_000)), min_size=1, max_size=5)
fault = st.none() | st.tuples(st.sampled_from(OPS), st.integers(0, 8))
step = st.tuples(
    st.lists(content, min_size=1, max_size=4),
    fault,
    st.none() | st.integers(1, 30),  # cancelled after so many calls of the store
    st.booleans(),  # a restart before it
)


def build(parts: list[tuple[int, int, int]]) -> bytes:
    return b"".join(noise(15_000, seed)[begin : begin + length] for seed, begin, length in parts)


async def upload_all(rig: Rig, datas: list[bytes]) -> dict[bytes, LargeContent]:
    upload = rig.content.upload()
    added: dict[bytes, LargeContent] = {}
    try:

        async def add(data: bytes) -> None:
            added[data] = await upload.add(BytesSource(data))

        try:
            async with trio.open_nursery() as nursery:
                for data in datas:
                    nursery.start_soon(add, data)
        except* StorageError as group:
            raise group.exceptions[0] from None
        await rig.publish(upload)
    except BaseException:
        await upload.abort()
        raise
    return added


async def attempt(rig: Rig, datas: list[bytes], stop_after: int | None) -> dict[bytes, LargeContent]:
    scope = trio.CancelScope()
    calls = 0

    async def hook(op: str, path: str) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_after:
            scope.cancel()
            await trio.lowlevel.checkpoint()

    rig.storage.hook = hook
    try:
        with scope:
            return await upload_all(rig, datas)
    except (MvcfsError, BaseExceptionGroup):
        pass
    finally:
        rig.storage.hook = None
    return {}


async def check_all(rig: Rig, stored: dict[bytes, LargeContent]) -> None:
    for data, named in stored.items():
        reader = await rig.content.open(named)
        window = reader.window()
        for offset in range(0, len(data), 3333):
            assert bytes(await reader.read(offset, 3333, window)) == data[offset : offset + 3333]
        window.close()
    for file in rig.manifests:
        assert await rig.content.check_manifest(file.name) == []
    for file in rig.packs:
        assert await rig.content.check_pack(file.name, data=True) == []


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(step, min_size=1, max_size=4), budget=st.sampled_from([30_000, 1 << 20]))
def test_any_history(steps: list[tuple], budget: int) -> None:  # type: ignore[type-arg]
    async def run(directory: Path) -> None:
        with trio.fail_after(60):
            await history(directory)

    async def history(directory: Path) -> None:
        async with open_rig(directory, budget_bytes=budget) as rig:
            stored: dict[bytes, LargeContent] = {}
            orphans: set[str] = set()
            for contents, failing, stop_after, restart in steps:
                if restart:
                    await rig.content.aclose()
                    rig.content = rig.another()
                if failing is not None:
                    rig.storage.add(Fault(failing[0], skip=failing[1], before=Transient("down")))
                stored |= await attempt(rig, [build(parts) for parts in contents], stop_after)
                rig.storage.clear()
                await trio.testing.wait_all_tasks_blocked()
                known = {f"models/m/{file.name}" for file in (*rig.manifests, *rig.packs)}
                if failing is not None and failing[0] == "delete":
                    orphans |= set(rig.storage.files) - known
                assert set(rig.storage.files) == known | orphans
            await check_all(rig, stored)

    with tempfile.TemporaryDirectory() as directory:
        trio.run(run, Path(directory))


@pytest.mark.parametrize("cache_bytes", [0, 64 * MIB])
async def test_real_sizes_on_a_local_store(tmp_path: Path, cache_bytes: int) -> None:
    (tmp_path / "store").mkdir()
    storage = LocalStorage(tmp_path / "store", block_bytes=16 * MIB)
    await storage.mkdir("models/m/packs", parents=True)
    await storage.mkdir("models/m/manifests", parents=True)
    data = noise(40 * MIB + 12345)
    budget = Budget(64 * MIB)
    async with trio.open_nursery() as nursery:
        content = ModelContent(
            storage,
            model_path=lambda: "models/m",
            local_dir=tmp_path / "local",
            cache=BlockCache(tmp_path / "cache" if cache_bytes else None, cache_bytes, 0),
            budget=budget,
            config=ContentConfig(),
            nursery=nursery,
        )
        upload = content.upload()
        named = await upload.add(BytesSource(data))
        manifests, packs = await upload.finish()
        assert all(12 * MIB < pack.size_bytes <= 16 * MIB for pack in packs[:-2])
        content.set_live(manifests, packs)
        for _ in range(2):
            reader = await content.open(named)
            window = reader.window()
            got = [bytes(await reader.read(offset, MIB, window)) for offset in range(0, len(data), MIB)]
            assert b"".join(got) == data
            window.close()
        for file in packs:
            assert await content.check_pack(file.name, data=True) == []
        await content.aclose()
        assert budget.used_bytes == 0
    await storage.aclose()
