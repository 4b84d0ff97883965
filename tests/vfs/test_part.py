"""Mounts of a part of a store without a kernel: numbers, what the kernel is told, what is read and never written."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from mvcfs.config import EngineConfig, MountRoot
from mvcfs.errors import Busy, InvalidName, NotFound, ReadOnly
from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from mvcfs.vfs.engine import Engine
from mvcfs.vfs.local_folder import LocalFolder
from tests.vfs.test_filesystem_model import NOTHING_AUTOMATIC, ROOT, Driver, opened
from tests.vfs.test_review_hosts import Host


class Kernel:
    """What the kernel was told to forget."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, bytes]] = []
        self.inodes: list[int] = []

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        self.entries.append((parent, name))

    def invalidate_inode(self, ino: int, attr_only: bool) -> None:
        assert attr_only
        self.inodes.append(ino)

    async def settled(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def part(
    store: Path, cache: Path, revision: str | None = None, *, read_only: bool = False, kernel: Kernel | None = None
) -> AsyncIterator[Engine]:
    """A mount of the model `m`, or of a revision of it."""
    config = EngineConfig(
        cache, "reader", "user", rules=NOTHING_AUTOMATIC, block_cache_bytes=1 << 24, staging_min_free_bytes=0,
        read_only=read_only, refresh_s=3600, root=MountRoot("m", revision),
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        engine = await Engine.open(LocalStorage(store), config, nursery, mounted=True, invalidator=kernel)
        try:
            yield engine
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await engine.aclose()


@asynccontextmanager
async def writing(tmp_path: Path) -> AsyncIterator[Host]:
    """A writable mount of a store with a model `m`."""
    await Store.init(LocalStorage(tmp_path / "store"))
    async with opened(tmp_path / "store", tmp_path / "writer") as engine:
        host = Host(engine)
        await host.fs.mkdir(1, b"m", 0o755, ROOT)
        yield host


async def content(engine: Engine, driver: Driver, *path: bytes) -> bytes:
    ino = 1
    for name in path:
        ino = (await driver.fs.lookup(ino, name, ROOT)).ino
    return await driver.read(ino)


async def test_every_root_is_inode_1(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        await host.put(b"f", b"1")
        await host.commit()
        for number, (revision, names) in enumerate(((None, [b"main"]), ("main", [b"f"]), ("main@1", [b"f"]))):
            async with part(tmp_path / "store", tmp_path / str(number), revision) as engine:
                fs = engine.filesystem()
                assert (await fs.getattr(1)).ino == 1
                assert [name for name, _ in await Driver(fs).list(1)] == names
                fs.forget([(1, 10)])
                assert (await fs.getattr(1)).ino == 1
                assert await content(engine, Driver(fs), *([b"main"] if revision is None else []), b"f") == b"1"


async def test_the_kernel_is_told_of_the_roots_names_by_their_place(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        await host.put(b"f", b"1")
        await host.put(b"g", b"1")
        await host.commit()
        kernel = Kernel()
        async with part(tmp_path / "store", tmp_path / "r", "main", read_only=True, kernel=kernel) as engine:
            driver = Driver(engine.filesystem())
            seen = {name: (await driver.fs.lookup(1, name, ROOT)).ino for name in (b"f", b"g")}
            held = await driver.fs.open(seen[b"f"], os.O_RDONLY, ROOT)
            await host.put(b"f", b"22")
            main = await host.driver.ino(())
            await host.fs.unlink(main, b"g", ROOT)
            await host.commit()
            model = engine.part.model
            assert model is not None
            await model.refresh()
            assert {(1, b"f"), (1, b"g")} <= set(kernel.entries)
            assert 1 in kernel.inodes
            assert bytes(await driver.fs.read(held.fh, 0, 10)) == b"1"
            assert (await driver.fs.lookup(1, b"f", ROOT)).ino != seen[b"f"]
            assert await content(engine, driver, b"f") == b"22"
            with pytest.raises(NotFound):
                await driver.fs.lookup(1, b"g", ROOT)


async def test_the_kernel_is_told_of_branches_by_the_place_of_the_root(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        kernel = Kernel()
        async with part(tmp_path / "store", tmp_path / "r", kernel=kernel) as engine:
            fs = engine.filesystem()
            await fs.lookup(1, b"main", ROOT)
            await host.engine.commands["branch_create"]({"mount_path": "m", "name": "exp"})
            await host.engine.commands["branch_delete"]({"mount_path": "m", "name": "main"})
            assert engine.part.model is not None
            await engine.part.model.refresh()
            assert {(1, b"main"), (1, b"exp")} <= set(kernel.entries)
            assert [name for name, _ in await Driver(fs).list(1)] == [b"exp"]


async def test_a_read_only_mount_changes_nothing_whatever_the_kernel_lets_through(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        await host.put(b"f", b"1")
        await host.commit()
        async with part(tmp_path / "store", tmp_path / "r", "main", read_only=True) as engine:
            fs = engine.filesystem()
            ino = (await fs.lookup(1, b"f", ROOT)).ino
            for change in (
                lambda: fs.mkdir(1, b"d", 0o755, ROOT),
                lambda: fs.unlink(1, b"f", ROOT),
                lambda: fs.open(ino, os.O_RDWR, ROOT),
                lambda: fs.rename(1, b"f", 1, b"g", 0, ROOT),
                lambda: fs.create(1, b"n", 0o644, os.O_RDWR, ROOT),
                lambda: engine.commands["commit"]({"mount_path": "", "message": "x"}),
                lambda: engine.commands["tag_create"]({"mount_path": "", "name": "t", "revision": "main@1"}),
                lambda: engine.create_model("n"),
            ):
                with pytest.raises(ReadOnly):
                    await change()
            assert (await fs.getattr(ino)).size_bytes == 1


@pytest.mark.parametrize(
    ("revision", "branch", "version", "state"),
    [
        ("v1", None, None, "snapshot"),
        ("main@2", "main", 2, "snapshot"),
        ("main~1", "main", 2, "snapshot"),
        ("main", "main", 3, "clean"),
    ],
)
async def test_commands_take_paths_in_what_is_shown(
    tmp_path: Path, revision: str, branch: str | None, version: int | None, state: str
) -> None:
    async with writing(tmp_path) as host:
        for number in range(3):
            await host.put(b"f", b"%d" % number)
            await host.commit()
        await host.engine.commands["tag_create"]({"mount_path": "m", "name": "v1", "revision": "main@2"})
        async with part(tmp_path / "store", tmp_path / "r", revision) as engine:
            ask = engine.commands
            info = await ask["info"]({"mount_path": "f"})
            assert [info[key] for key in ("model", "branch", "version", "path", "state")] == [
                "m",
                branch,
                version,
                "f",
                state,
            ]
            newest = 2 if state == "snapshot" else 3
            for path in ("", "f", "./f/"):
                log = await ask["log"]({"mount_path": path})
                assert len(log["versions"]) == newest
            diff = await ask["diff"]({"mount_path": "", "other": "main@1"})
            assert [row["path"] for row in diff["changes"]] == ["f"]
            assert (await ask["tags"]({"mount_path": ""}))["tags"][0]["tag"] == "v1"
            shows = (await ask["status"]({"mount_path": ""}))["shows"]
            assert shows["commit"] == info["commit"]
            assert shows["read_only"] is (state == "snapshot")
            with pytest.raises(NotFound):
                await ask["info"]({"mount_path": "m/main/f"})


async def test_the_branch_that_is_shown_is_not_deleted_from_under_it(tmp_path: Path) -> None:
    async with writing(tmp_path) as host, part(tmp_path / "store", tmp_path / "r", "main") as engine:
        with pytest.raises(Busy, match="unmount it first"):
            await engine.commands["branch_delete"]({"mount_path": "", "name": "main", "force": True})
        fs = engine.filesystem()
        model = engine.part.model
        assert model is not None
        await host.engine.commands["branch_rename"]({"mount_path": "m", "name": "main", "new_name": "first"})
        await model.refresh()
        await fs.mkdir(1, b"d", 0o755, ROOT)
        made = await engine.commands["commit"]({"mount_path": "", "message": "x"})
        assert (made["branch"], made["version"]) == ("first", 1)
        await (await host.engine.model("m")).refresh()
        await host.engine.commands["branch_delete"]({"mount_path": "m", "name": "first"})
        await model.refresh()
        with pytest.raises(NotFound, match="deleted"):
            await fs.mkdir(1, b"e", 0o755, ROOT)
        await host.engine.commands["branch_undelete"]({"mount_path": "m", "name": "first"})
        await model.refresh()
        await fs.mkdir(1, b"e", 0o755, ROOT)


async def test_a_version_for_good_is_read_after_joins_and_trims(tmp_path: Path) -> None:
    """Its reader was asleep while manifests and Git packs were joined and the log trimmed."""
    async with writing(tmp_path) as host:
        model = await host.engine.model("m")
        old = random.Random(0).randbytes(80_000)
        await host.put(b"old", old)
        await host.commit()
        async with part(tmp_path / "store", tmp_path / "r", "main@1") as engine:
            driver = Driver(engine.filesystem())
            for version in range(70):
                await host.put(b"p", random.Random(version + 1).randbytes(70_000))
                await host.commit()
                await model.housekeeping.keep()
            await host.engine.commands["branch_delete"]({"mount_path": "m", "name": "main"})
            assert await content(engine, driver, b"old") == old
            assert engine.part.model is not None
            await engine.part.model.refresh()
            assert [name for name, _ in await driver.list(1)] == [b"old"]
            assert await content(engine, driver, b"old") == old


async def test_a_removed_model_that_comes_back_is_followed_again(tmp_path: Path) -> None:
    async with writing(tmp_path) as host, part(tmp_path / "store", tmp_path / "r", read_only=True) as engine:
        fs = engine.filesystem()
        model = engine.part.model
        assert model is not None
        level = (await host.fs.lookup(1, b"m", ROOT)).ino
        await host.fs.rmdir(level, b"main", ROOT)
        await host.fs.rmdir(1, b"m", ROOT)
        await engine._refresh(model)
        assert engine.models.watched(engine.part.model) == [model]
        await host.engine.commands["undelete"]({"model": "m"})
        await host.engine.commands["branch_create"]({"mount_path": "m", "name": "again"})
        await engine._refresh(model)
        assert engine.models.by_name == {"m": model}
        assert b"again" in [name for name, _ in await Driver(fs).list(1)]


async def test_readers_share_a_cache_directory_and_a_writer_has_it_alone(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        data = random.Random(0).randbytes(100_000)
        await host.put(b"f", data)
        await host.commit()
        store, cache = tmp_path / "store", tmp_path / "cache"
        async with AsyncExitStack() as stack:
            engines = [
                await stack.enter_async_context(part(store, cache, "main@1")),
                await stack.enter_async_context(part(store, cache, "main", read_only=True)),
                await stack.enter_async_context(part(store, cache, "main")),
            ]
            assert len({engine.local_dir for engine in engines}) == 3
            for engine in engines:
                assert await content(engine, Driver(engine.filesystem()), b"f") == data
            with pytest.raises(Busy, match="another --cache-dir"):
                LocalFolder.take(cache / "stores" / engines[0].store.id, reader=False)
        blocks = list((cache / "stores").glob("*/blocks/??/*"))
        assert sum(path.stat().st_size for path in blocks) == len(data)
        async with part(store, cache, "main@1") as engine:
            assert engine.local_dir.name == "0"


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        (MountRoot("no"), NotFound),
        (MountRoot("../x", "main"), NotFound),
        (MountRoot("m", "no"), NotFound),
        (MountRoot("m", "main@9"), NotFound),
        (MountRoot("m", "main"), None),
        (MountRoot("m", "a@b@c"), InvalidName),
        (MountRoot("m", "1"), InvalidName),
    ],
)
async def test_what_is_not_there_cant_be_shown(tmp_path: Path, root: MountRoot, kind: type[Exception] | None) -> None:
    async with writing(tmp_path), trio.open_nursery() as nursery:
        config = EngineConfig(tmp_path / "r", "host", "user", block_cache_bytes=0)
        if kind is not None:
            with pytest.raises(kind):
                await Engine.open(LocalStorage(tmp_path / "store"), replace(config, root=root), nursery, mounted=True)
        # Nothing is left that would keep the folder.
        engine = await Engine.open(LocalStorage(tmp_path / "store"), config, nursery, mounted=True)
        await engine.aclose()
        nursery.cancel_scope.cancel()


def test_a_readers_folder_is_used_again_without_its_overlay(tmp_path: Path) -> None:
    first, second = (LocalFolder.take(tmp_path, reader=True) for _ in "ab")
    assert [folder.path.name for folder in (first, second)] == ["0", "1"]
    (first.path / "overlay").mkdir()
    (first.path / "models").mkdir()
    first.release()
    again = LocalFolder.take(tmp_path, reader=True)
    assert again.path == first.path
    assert sorted(path.name for path in again.path.iterdir()) == ["lock", "models"]
    writer = LocalFolder.take(tmp_path, reader=False)
    with pytest.raises(Busy, match=f"process {os.getpid()}"):
        LocalFolder.take(tmp_path, reader=False)
    for folder in (second, again, writer):
        folder.release()
