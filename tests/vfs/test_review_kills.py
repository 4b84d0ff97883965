"""What a hard kill, a version under way and other requests may do to a file that is being changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from mvcfs.errors import LimitExceeded
from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from mvcfs.vfs.attr import SetAttr
from mvcfs.vfs.engine import Engine
from mvcfs.vfs.working_tree.node import Node
from tests.vfs.test_filesystem_model import ROOT, Driver, opened

COMMIT = {"mount_path": "m/main", "message": "x"}


async def make(engine: Engine, name: bytes, data: bytes) -> tuple[Driver, int]:
    """A model with one committed file."""
    fs = engine.filesystem()
    driver = Driver(fs)
    await fs.mkdir(1, b"m", 0o755, ROOT)
    main = await driver.ino(())
    file, _ = await fs.create(main, name, 0o644, os.O_RDWR, ROOT)
    await fs.write(file.fh, 0, data)
    await fs.release(file.fh)
    await engine.commands["commit"](COMMIT)
    return driver, main


@pytest.mark.parametrize("by", ["open", "setattr"])
async def test_bytes_cut_off_stay_away_after_a_kill(tmp_path: Path, by: str) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        driver, _ = await make(engine, b"f", b"old" * 50_000)
        ino = await driver.ino((b"f",))
        if by == "open":
            file = await driver.fs.open(ino, os.O_WRONLY | os.O_TRUNC, ROOT)
            await driver.fs.release(file.fh)
        else:
            await driver.fs.setattr(ino, SetAttr(size=0), None, ROOT)
    async with opened(store, cache) as engine:
        driver = Driver(engine.filesystem())
        assert await driver.read(await driver.ino((b"f",))) == b""


async def test_a_version_gives_back_the_room_of_a_file_written_meanwhile(tmp_path: Path) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        driver, _ = await make(engine, b"f", b"first" * 50_000)
        assert engine.staging is not None
        file = await driver.fs.open(await driver.ino((b"f",)), os.O_RDWR, ROOT)
        for round_number in range(5):
            await driver.fs.write(file.fh, 0, b"%d" % round_number * 100_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.commands["commit"], COMMIT)
                await trio.testing.wait_all_tasks_blocked()
                await driver.fs.write(file.fh, 0, b"meanwhile")
        await driver.fs.release(file.fh)
        await engine.commands["commit"](COMMIT)
        await engine.staging.reap()
        assert engine.staging.used_bytes == 0
        assert not list((engine.local_dir / "overlay" / "staging").iterdir())


async def test_a_version_gives_back_the_room_of_a_file_removed_meanwhile(tmp_path: Path) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        driver, main = await make(engine, b"f", b"first" * 50_000)
        assert engine.staging is not None
        ino = await driver.ino((b"f",))
        await driver.write(ino, 0, b"second" * 50_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.commands["commit"], COMMIT)
            await trio.testing.wait_all_tasks_blocked()
            await driver.fs.unlink(main, b"f", ROOT)
            driver.fs.forget([(ino, 100)])
        await engine.staging.reap()
        assert not list((engine.local_dir / "overlay" / "staging").iterdir())


async def test_a_write_that_waits_while_a_version_is_made_goes_into_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        driver, _ = await make(engine, b"f", b"a" * 3_000_000)
        ino = await driver.ino((b"f",))
        file = await driver.fs.open(ino, os.O_RDWR, ROOT)
        await driver.fs.write(file.fh, 0, b"b" * 100)
        node = driver.fs.table.get(ino)
        assert isinstance(node, Node)
        assert node.staged is not None
        held, goes_on = trio.Event(), trio.Event()
        read_below = node.staged._read_below

        async def slow(block: int) -> bytes:
            data = await read_below(block)
            held.set()
            await goes_on.wait()
            return data

        monkeypatch.setattr(node.staged, "_read_below", slow)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.fs.write, file.fh, 2_000_000, b"c" * 100)
            await held.wait()
            await engine.commands["commit"](COMMIT)
            goes_on.set()
        await driver.fs.release(file.fh)
        data = bytearray(b"a" * 3_000_000)
        data[:100], data[2_000_000:2_000_100] = b"b" * 100, b"c" * 100
        assert await driver.read(ino) == data


async def test_an_open_that_fails_to_cut_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        driver, _ = await make(engine, b"f", b"a" * 1000)
        ino = await driver.ino((b"f",))
        node = driver.fs.table.get(ino)
        assert isinstance(node, Node)

        async def full(*_args: object) -> None:
            raise LimitExceeded("no room")

        monkeypatch.setattr(node.tree.data, "truncate", full)
        before = driver.fs.open_handles
        with pytest.raises(LimitExceeded):
            await driver.fs.open(ino, os.O_WRONLY | os.O_TRUNC, ROOT)
        assert (driver.fs.open_handles, node.writers) == (before, 0)


async def test_a_close_without_a_write_lets_a_changed_file_become_a_version(tmp_path: Path) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        driver, _ = await make(engine, b"f", b"a" * 1000)
        ino = await driver.ino((b"f",))
        silent = await driver.fs.open(ino, os.O_RDWR, ROOT)
        await driver.write(ino, 0, b"b")
        branch = await (await engine.model("m")).branch("main")
        assert (await branch.settler.commit_automatic()).left_out == 1
        assert branch.settler.due() is None
        await driver.fs.release(silent.fh)
        assert branch.settler.due() is not None
