"""What hosts tell each other and a user asks for: leases in the status, conflicts, sync, fsync that publishes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from mvcfs.config import EngineConfig
from mvcfs.errors import StorageError
from mvcfs.storage.faults import Fault, FaultyStorage
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.protocol import Storage
from mvcfs.vfs.engine import Engine
from tests.vfs.test_filesystem_model import NOTHING_AUTOMATIC, ROOT
from tests.vfs.test_hosts_follow import hosts
from tests.vfs.test_review_hosts import Host

SYNC = {"mount_path": "m/main"}


@asynccontextmanager
async def publishing(folder: Path, name: str, storage: Storage | None = None, **more: bool) -> AsyncIterator[Host]:
    """A mount whose fsync publishes."""
    config = EngineConfig(
        folder / name, name, "user", rules=NOTHING_AUTOMATIC, block_cache_bytes=0, staging_min_free_bytes=0,
        fsync_publish=True,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        engine = await Engine.open(
            storage or LocalStorage(folder / "store"), replace(config, **more), nursery, mounted=True
        )
        try:
            yield Host(engine)
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await engine.aclose()


def leases(folder: Path) -> list[Path]:
    return sorted((folder / "store/models/m/leases").iterdir())


async def keep(mount: Host) -> None:
    """What a second of a mount's life does for its leases."""
    for model in mount.engine.models.by_name.values():
        await mount.engine._presence.keep(model)


async def test_status_shows_who_else_has_the_model_mounted(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        await a.put(b"f", b"1")
        await a.commit()
        await keep(a)
        assert (await a.engine.commands["status"]({}))["others"] == []
        await b.refresh()
        await b.read(b"f")
        await keep(b)
        [other] = (await b.engine.commands["status"]({}))["others"]
        assert (other["model"], other["host"], other["purpose"], other["branches"]) == ("m", "a", "overlay", ["main"])
        assert [one["host"] for one in (await a.engine.commands["status"]({}))["others"]] == ["b"]
        await keep(a)
        assert len(leases(tmp_path)) == 2
        await a.kill()
        assert (await b.engine.commands["status"]({}))["others"] == []
        await a.start()


async def test_a_model_that_is_only_listed_has_no_lease(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_a, b):
        await b.fs.lookup(1, b"m", ROOT)
        await keep(b)
        assert leases(tmp_path) == []


async def test_a_read_only_mount_has_a_lease_while_it_holds_a_past_version(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (a,):
        await a.put(b"f", b"1")
        made = await a.commit()
        async with publishing(tmp_path, "reader", read_only=True) as reader:
            await reader.read(b"f")
            await keep(reader)
            assert leases(tmp_path) == []
            snapshot = await reader.driver.ino((), b"main@1")
            await keep(reader)
            assert len(leases(tmp_path)) == 1
            [(found, _)] = await (await a.engine.model("m")).data.lease.others()
            assert (found.lease.purpose, found.lease.commits) == ("snapshot", (made["commit"],))
            reader.fs.forget([(snapshot, 100)])
            await keep(reader)
            assert leases(tmp_path) == []


async def test_status_names_conflicts_and_what_to_do(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        await b.put(b"f", b"b")
        await a.put(b"f", b"a")
        await a.commit()
        assert (await b.commit())["conflict"]
        for mount in (a, b):
            await mount.refresh()
            [conflict] = (await mount.engine.commands["status"]({}))["conflicts"]
            assert (conflict["branch"], conflict["target"], conflict["host"]) == ("main-conflict-b", "main", "b")
            assert "mvcfs merge m/main main-conflict-b" in conflict["resolve"]


async def test_sync_publishes_what_is_closed_and_takes_in_the_rest(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        await b.refresh()
        await b.put(b"b", b"1")
        held, _ = await b.fs.create(await b.driver.ino(()), b"open", 0o644, os.O_RDWR, ROOT)
        await a.put(b"a", b"1")
        await a.commit()
        done = await b.engine.commands["sync"](SYNC)
        assert (done["version"], done["published"], done["conflict"], done["left_out_files"]) == (2, True, False, 1)
        assert done["came_versions"] == 1
        assert [one["version"] for one in done["came"]] == [1]
        assert await b.read(b"a") == b"1"
        again = await b.engine.commands["sync"](SYNC)
        assert (again["version"], again["published"], again["came"]) == (2, False, [])
        await b.fs.release(held.fh)
        found = await a.engine.commands["sync"](SYNC)
        assert (found["version"], found["published"], found["came_versions"]) == (2, False, 1)
        assert await a.read(b"b") == b"1"


async def test_sync_of_a_conflict_says_so(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        await b.put(b"f", b"b")
        await a.put(b"f", b"a")
        await a.commit()
        done = await b.engine.commands["sync"](SYNC)
        assert (done["conflict"], done["branch"]) == (True, "main-conflict-b")
        assert await b.read(b"f") == b"a"


async def test_fsync_returns_when_an_open_file_is_published(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (a,), publishing(tmp_path, "b") as b:
        file, _ = await b.fs.create(await b.driver.ino(()), b"f", 0o644, os.O_RDWR, ROOT)
        await b.fs.write(file.fh, 0, b"first")
        await b.fs.fsync(file.fh, False)
        await a.refresh()
        assert await a.read(b"f") == b"first"
        await b.fs.write(file.fh, 0, b"again")
        await b.fs.fsync(file.fh, False)
        await b.fs.fsync(file.fh, True)
        await a.refresh()
        assert await a.read(b"f") == b"again"
        assert (await a.engine.model("m")).data.repository.refs.branches["main"].version == 2
        await b.fs.release(file.fh)


async def test_many_fsyncs_at_once_are_few_versions(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (a,), publishing(tmp_path, "b") as b:
        main = await b.driver.ino(())
        handles = []
        for number in range(12):
            file, _ = await b.fs.create(main, b"%d" % number, 0o644, os.O_RDWR, ROOT)
            await b.fs.write(file.fh, 0, b"data")
            handles.append(file.fh)
        async with trio.open_nursery() as nursery:
            for fh in handles:
                nursery.start_soon(b.fs.fsync, fh, False)
        await a.refresh()
        assert (await a.engine.model("m")).data.repository.refs.branches["main"].version <= 2
        for number in range(12):
            assert await a.read(b"%d" % number) == b"data"


async def test_fsync_of_a_directory_publishes_its_names(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (a,), publishing(tmp_path, "b") as b:
        main = await b.driver.ino(())
        folder = (await b.fs.mkdir(main, b"d", 0o755, ROOT)).ino
        file, _ = await b.fs.create(folder, b"f.part", 0o644, os.O_RDWR, ROOT)
        await b.fs.write(file.fh, 0, b"data")
        await b.fs.release(file.fh)
        await b.fs.rename(folder, b"f.part", folder, b"f", 0, ROOT)
        fh = await b.fs.opendir(folder, ROOT)
        await b.fs.fsyncdir(fh)
        await b.fs.releasedir(fh)
        await a.refresh()
        assert set(await a.tree()) == {(b"d",), (b"d", b"f")}


async def test_fsync_takes_a_renamed_directory_whole(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (a,), publishing(tmp_path, "b") as b:
        main = await b.driver.ino(())
        folder = (await b.fs.mkdir(main, b"tmp-checkpoint-1", 0o755, ROOT)).ino
        one, _ = await b.fs.create(folder, b"one", 0o644, os.O_RDWR, ROOT)
        other, _ = await b.fs.create(folder, b"other", 0o644, os.O_RDWR, ROOT)
        await b.fs.fsync(one.fh, False)
        await b.fs.rename(main, b"tmp-checkpoint-1", main, b"checkpoint-1", 0, ROOT)
        await b.fs.fsync(one.fh, False)
        await a.refresh()
        assert set(await a.tree()) == {(b"checkpoint-1",), (b"checkpoint-1", b"one"), (b"checkpoint-1", b"other")}
        for file in (one, other):
            await b.fs.release(file.fh)


async def test_fsync_that_can_not_publish_fails_and_loses_nothing(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1):
        faulty = FaultyStorage(LocalStorage(tmp_path / "store"))
        async with publishing(tmp_path, "b", faulty) as b:
            file, _ = await b.fs.create(await b.driver.ino(()), b"f", 0o644, os.O_RDWR, ROOT)
            await b.fs.write(file.fh, 0, b"data")
            faulty.add(Fault(op="write_file", path="*/log/*", before=StorageError("the store is full"), times=None))
            with pytest.raises(StorageError, match="no version could be made"):
                await b.fs.fsync(file.fh, False)
            faulty.clear()
            await b.fs.fsync(file.fh, False)
            await b.fs.release(file.fh)
            assert await b.read(b"f", b"main@1") == b"data"
