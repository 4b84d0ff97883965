"""A long history of a large tree, made small: what grows with it and what doesn't, counted in files, calls and bytes.

`scripts/scale` measures the same on stores of full size.
"""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from mvcfs.config import EngineConfig
from mvcfs.storage.faults import FaultyStorage
from mvcfs.storage.memory import MemoryStorage, MemoryStore
from mvcfs.storage.wrapper import Call
from mvcfs.versions.check import Severity
from mvcfs.versions.log.state import LogState
from mvcfs.vfs.engine import Engine
from tests.vfs.test_filesystem_model import NOTHING_AUTOMATIC, ROOT, Driver

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from scale_store import (
    MODEL,
    add_versions,
    count_files,
    file_at,
    fill_terabyte,
    fill_tree,
    opened,
)

T = TypeVar("T")

VERSIONS = 500
FILES = 5000
GB = 10**9


class Counted(FaultyStorage):
    """A host's way to a store in memory, with its calls and the bytes it read counted."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(MemoryStorage(store))
        self.asked: Counter[str] = Counter()

    async def around(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        self.asked[call.op] += 1
        return await super().around(call, run)


@asynccontextmanager
async def host(store: MemoryStore, folder: Path) -> AsyncIterator[tuple[Engine, Counted]]:
    storage = Counted(store)
    config = EngineConfig(
        folder, "host", "user", rules=NOTHING_AUTOMATIC, block_cache_bytes=0, staging_min_free_bytes=0
    )
    async with trio.open_nursery() as nursery:
        engine = await Engine.open(storage, config, nursery, mounted=True)
        try:
            yield engine, storage
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await engine.aclose()


async def test_a_long_history_of_a_large_tree(tmp_path: Path) -> None:
    store = MemoryStore()
    most = 0
    async with opened(MemoryStorage(store), make=True) as builder:
        await builder.create_model(MODEL)
        model = await builder.model(MODEL)
        await fill_tree(model, FILES)
        for _ in range(10):
            await add_versions(model, VERSIONS // 10, FILES)
            counts = await count_files(MemoryStorage(store))
            most = max(most, counts.total() - counts["packs"])
        state: LogState = model.data.repository.state
    versions = VERSIONS + 1
    # Besides data packs: the kept records and checkpoints, a few files a level, and those that wait to be deleted.
    assert most <= 400, counts
    assert len(state.refs.git) <= 40
    assert len(state.refs.manifests) <= 40
    assert len(state.condemned) <= 200

    async with host(store, tmp_path) as (engine, storage):
        driver = Driver(engine.filesystem())
        opening = sum(storage.asked.values())
        assert await driver.list(await driver.ino(()))
        # A listing, a checkpoint, the records after it, and the Git packs.
        assert sum(storage.asked.values()) - opening <= 70 + 4 * len(state.refs.git)
        storage.asked.clear()

        repository = (await engine.model(MODEL)).data.repository
        assert [info.version for info in await repository.history("main", limit=20)] == list(
            range(versions, versions - 20, -1)
        )
        history = await driver.ino((b"branches", b"main"), b".history")
        listed = await driver.list(history)
        assert [int(name.split(b"_")[0]) for name, _ in listed] == list(range(1, versions + 1))
        when = listed[versions // 2][0].split(b"_")[1].rstrip(b"Z")
        at = await repository.resolve("main@" + when.decode())
        assert await repository.version_of("main", at) >= versions // 2
        assert storage.asked.total() == 0  # the store isn't asked about the past

        path = file_at(FILES // 2)
        await driver.write(await driver.ino(path), 0, b"changed")
        assert (await engine.commands["commit"]({"mount_path": f"{MODEL}/main", "message": "x"}))[
            "version"
        ] == versions + 1
        # The record, its rename, what is looked at before and after; not a file more than one of one version has.
        assert storage.asked["write_file"] + storage.asked["create"] <= 4
        assert storage.asked.total() <= 40
        assert await driver.read(await driver.ino(path, b"main@1")) == b"%s of version 0\n" % path[-1]
        assert [problem for problem in await repository.fsck() if problem.severity is Severity.DAMAGE] == []


async def test_listing_versions_reads_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with opened(MemoryStorage(store), make=True) as builder:
        await builder.create_model(MODEL)
        model = await builder.model(MODEL)
        await fill_tree(model, 10)
        await add_versions(model, 60, 10)
    async with host(store, tmp_path) as (engine, _):
        driver = Driver(engine.filesystem())
        main = await driver.ino((b"branches", b"main"), b".history")
        assert len(await driver.list(main)) == 61
        repository = (await engine.model(MODEL)).data.repository
        read: list[str] = []
        before = repository._objects.read

        def counted(oid: str) -> tuple[str, bytes]:
            read.append(oid)
            return before(oid)

        monkeypatch.setattr(repository._objects, "read", counted)
        listed = await driver.list(main)
        assert len(listed) == 61
        assert read == []
        # Looked at, each shows what its version says.
        name = listed[30][0]
        attr = await driver.fs.lookup(main, name, ROOT)
        assert attr.uid == os.getuid()
        assert attr.mtime_ns == 1_700_000_000 * 10**9
        assert read


async def test_a_terabyte_is_opened_and_read_in_little_memory(tmp_path: Path) -> None:
    store = MemoryStore()
    async with opened(MemoryStorage(store), make=True) as builder:
        await builder.create_model(MODEL)
        offset, data = await fill_terabyte(await builder.model(MODEL), 1000 * GB)
    folder = store.find(f"models/{MODEL}/manifests")
    manifest_bytes = max(len(file.data) for file in folder.names.values())  # type: ignore[union-attr]
    assert manifest_bytes > 50 << 20

    async with host(store, tmp_path) as (engine, storage):
        driver = Driver(engine.filesystem())
        assert len(await driver.list(await driver.ino((), b"main@1"))) == 11
        await engine.commands["branch_create"]({"mount_path": MODEL, "name": "exp", "revision": "main@1"})
        assert len(await driver.list(await driver.ino((), b"exp"))) == 11
        assert storage.asked["read_range"] <= 10  # no manifest was fetched so far
        file = await driver.ino((b"shard-00.bin",), b"exp")
        tracemalloc.start()
        try:
            opening = await driver.fs.open(file, os.O_RDONLY, ROOT)
            found = bytes(await driver.fs.read(opening.fh, offset, 1 << 20))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found == data[: len(found)]
        assert found
        await driver.fs.release(opening.fh)
        assert peak < 40 << 20, "the manifest is read a piece at a time, and looked up where it is mapped"
