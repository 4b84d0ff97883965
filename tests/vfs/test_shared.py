"""Hosts that share a branch (`-o shared`): what a call of one has returned for, the calls of the others see."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from mvcfs.config import EngineConfig
from mvcfs.errors import AlreadyExists, NotFound
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.protocol import Storage
from mvcfs.versions.store import Store
from mvcfs.vfs.attr import SetAttr
from mvcfs.vfs.engine import Engine
from tests.vfs.test_filesystem_model import NOTHING_AUTOMATIC, ROOT
from tests.vfs.test_review_hosts import Host


@asynccontextmanager
async def shared_host(
    store: Path, cache: Path, host: str, *, storage: Storage | None = None, shared: bool = True
) -> AsyncIterator[Host]:
    """A shared mount without a kernel, without automatic versions; leaving it ends everything at once."""
    config = EngineConfig(
        cache, host, "user", rules=NOTHING_AUTOMATIC, block_cache_bytes=0, staging_min_free_bytes=0, refresh_s=1e6,
        shared=shared,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        engine = await Engine.open(storage or LocalStorage(store), config, nursery, mounted=True)
        try:
            yield Shared(engine)
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await engine.aclose()


class Shared(Host):
    """A shared mount, used as programs use one: closes are flushed."""

    async def put(self, name: bytes, data: bytes, top: bytes = b"main") -> None:
        await self.write((name,), data)

    async def write(self, path: tuple[bytes, ...], data: bytes, *, exclusive: bool = False) -> None:
        """Opens, writes and closes."""
        parent, name = await self.driver.ino(path[:-1]), path[-1]
        try:
            ino = (await self.fs.lookup(parent, name, ROOT)).ino
        except NotFound:
            flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if exclusive else 0)
            file, _ = await self.fs.create(parent, name, 0o644, flags, ROOT)
        else:
            if exclusive:
                raise AlreadyExists("by lookup")
            file = await self.fs.open(ino, os.O_RDWR | os.O_TRUNC, ROOT)
        if data:
            await self.fs.write(file.fh, 0, data)
        await self.fs.flush(file.fh)
        await self.fs.release(file.fh)

    async def get(self, *path: bytes) -> bytes | None:
        """Opens and reads; None if it isn't there."""
        try:
            return await self.driver.read(await self.driver.ino(path))
        except NotFound:
            return None

    async def names(self, *path: bytes) -> list[bytes]:
        return sorted(name for name, _ in await self.driver.list(await self.driver.ino(path)))

    async def mkdir(self, *path: bytes) -> None:
        await self.fs.mkdir(await self.driver.ino(path[:-1]), path[-1], 0o755, ROOT)

    async def rename(self, source: tuple[bytes, ...], target: tuple[bytes, ...]) -> None:
        await self.fs.rename(
            await self.driver.ino(source[:-1]), source[-1], await self.driver.ino(target[:-1]), target[-1], 0, ROOT
        )

    async def unlink(self, *path: bytes) -> None:
        await self.fs.unlink(await self.driver.ino(path[:-1]), path[-1], ROOT)

    async def versions(self) -> list[str]:
        repository = (await self.engine.model("m")).data.repository
        return [version.message.partition("\n")[0] for version in await repository.history("main")]


@asynccontextmanager
async def shared_hosts(folder: Path, count: int = 2) -> AsyncIterator[list[Shared]]:
    store = folder / "store"
    await Store.init(LocalStorage(store))
    async with AsyncExitStack() as stack:
        hosts = []
        for number in range(count):
            hosts.append(await stack.enter_async_context(shared_host(store, folder / f"h{number}", f"h{number}")))
        await hosts[0].fs.mkdir(1, b"m", 0o755, ROOT)
        yield hosts


async def test_close_rename_mkdir_and_unlink_are_seen_at_once(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        assert await b.names() == []
        await a.write((b"f",), b"one")
        assert await b.get(b"f") == b"one"
        await b.write((b"f",), b"two, longer")
        assert await a.get(b"f") == b"two, longer"
        await a.mkdir(b"tmp-checkpoint-1")
        await b.write((b"tmp-checkpoint-1", b"shard-b"), b"b" * 100_000)
        await a.write((b"tmp-checkpoint-1", b"shard-a"), b"a" * 100_000)
        assert await a.names(b"tmp-checkpoint-1") == await b.names(b"tmp-checkpoint-1") == [b"shard-a", b"shard-b"]
        await b.rename((b"tmp-checkpoint-1",), (b"checkpoint-1",))
        assert await a.names() == [b"checkpoint-1", b"f"]
        assert await a.get(b"checkpoint-1", b"shard-b") == b"b" * 100_000
        await a.unlink(b"f")
        assert await b.names() == [b"checkpoint-1"]
        assert await b.get(b"f") is None


async def test_attributes_links_and_symlinks_are_seen_at_once(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        await a.write((b"f",), b"one")
        await b.fs.setattr(await b.driver.ino((b"f",)), SetAttr(mode=0o600), None, ROOT)
        assert stat.S_IMODE((await a.fs.lookup(await a.driver.ino(()), b"f", ROOT)).mode) == 0o600
        await a.fs.symlink(await a.driver.ino(()), b"s", b"f", ROOT)
        assert await b.fs.readlink(await b.driver.ino((b"s",))) == b"f"
        await b.fs.link(await b.driver.ino((b"f",)), await b.driver.ino(()), b"g", ROOT)
        assert await a.get(b"g") == b"one"
        await a.fs.setattr(await a.driver.ino((b"f",)), SetAttr(size=2), None, ROOT)
        assert await b.get(b"f") == b"on"


async def test_a_file_that_is_open_is_not_shown_half(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        main = await a.driver.ino(())
        file, _ = await a.fs.create(main, b"f", 0o644, os.O_RDWR, ROOT)
        await a.fs.write(file.fh, 0, b"half")
        await a.write((b"other",), b"x")
        assert await b.names() == [b"other"]
        await a.fs.write(file.fh, 4, b" and all")
        await a.fs.flush(file.fh)
        assert await b.get(b"f") == b"half and all"
        await a.fs.write(file.fh, 0, b"HALF")
        await b.write((b"other",), b"y")
        assert await a.get(b"other") == b"y"
        assert await b.get(b"f") == b"half and all"
        await a.fs.flush(file.fh)
        await a.fs.release(file.fh)
        assert await b.get(b"f") == b"HALF and all"


async def test_the_later_close_stands(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        await a.write((b"f",), b"start")
        file = await a.fs.open(await a.driver.ino((b"f",)), os.O_RDWR | os.O_TRUNC, ROOT)
        await a.fs.write(file.fh, 0, b"from a")
        await b.write((b"f",), b"from b")
        assert await b.get(b"f") == b"from b"
        await a.fs.flush(file.fh)
        await a.fs.release(file.fh)
        assert await b.get(b"f") == await a.get(b"f") == b"from a"


async def test_versions_hold_what_is_not_ignored(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        await a.write((b"f",), b"one")
        await b.write((b"g.tmp",), b"temporary")
        await b.commit()
        assert await a.names() == [b"f", b"g.tmp"]
        assert await a.versions() == ["x"]
        listed = [name for name, _ in await a.driver.list(await a.driver.ino((), b"main@1"))]
        assert listed == [b"f"]
        assert (await a.commit())["unchanged"]
        await b.rename((b"g.tmp",), (b"g",))
        await a.commit()
        assert sorted(name for name, _ in await b.driver.list(await b.driver.ino((), b"main@2"))) == [b"f", b"g"]
        assert len(await b.versions()) == 2


async def test_an_automatic_version_says_what_all_hosts_changed(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        await a.mkdir(b"checkpoint-1")
        await a.write((b"checkpoint-1", b"a"), b"x" * 1000)
        await b.write((b"checkpoint-1", b"b"), b"y" * 1000)
        await b.automatic()
        await a.refresh()
        assert await a.versions() == ["Add checkpoint-1/ (2 files, 2.0 kB)"]
        await a.automatic()
        assert len(await a.versions()) == 1


async def test_one_of_two_makes_a_directory(tmp_path: Path) -> None:
    """mkdir as a lock: both are past their lookup when they try."""
    async with shared_hosts(tmp_path, 3) as hosts:
        for number in range(5):
            name = b"lock%d" % number
            won: list[int] = []

            main = [await host.driver.ino(()) for host in hosts]

            async def make(
                host: Shared, who: int, name: bytes = name, won: list[int] = won, main: list[int] = main
            ) -> None:
                try:
                    await host.fs.mkdir(main[who], name, 0o755, ROOT)
                    won.append(who)
                except AlreadyExists:
                    pass

            async with trio.open_nursery() as nursery:
                for who, host in enumerate(hosts):
                    nursery.start_soon(make, host, who)
            assert len(won) == 1
            for host in hosts:
                assert name in await host.names()


async def test_one_of_two_makes_a_file_with_o_excl(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path, 3) as hosts:
        for number in range(5):
            name = b"lock%d" % number
            won: list[int] = []
            main = [await host.driver.ino(()) for host in hosts]

            async def make(
                host: Shared, who: int, name: bytes = name, won: list[int] = won, main: list[int] = main
            ) -> None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                try:
                    file, _ = await host.fs.create(main[who], name, 0o644, flags, ROOT)
                except AlreadyExists:
                    return
                won.append(who)
                await host.fs.write(file.fh, 0, b"%d" % who)
                await host.fs.flush(file.fh)
                await host.fs.release(file.fh)

            async with trio.open_nursery() as nursery:
                for who, host in enumerate(hosts):
                    nursery.start_soon(make, host, who)
            assert len(won) == 1
            for host in hosts:
                assert await host.get(name) == b"%d" % won[0]


async def test_one_of_two_takes_a_job_by_renaming_it(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path, 3) as hosts:
        for number in range(5):
            job = b"job%d" % number
            await hosts[0].write((job,), job)
            won: list[int] = []
            main = [await host.driver.ino(()) for host in hosts]

            async def take(
                host: Shared, who: int, job: bytes = job, won: list[int] = won, main: list[int] = main
            ) -> None:
                try:
                    await host.fs.rename(main[who], job, main[who], job + b".%d" % who, 0, ROOT)
                except NotFound:
                    return
                won.append(who)

            for host in hosts:
                assert await host.get(job) == job
            async with trio.open_nursery() as nursery:
                for who, host in enumerate(hosts):
                    nursery.start_soon(take, host, who)
            assert len(won) == 1
            for host in hosts:
                assert [name for name in await host.names() if name.startswith(job)] == [job + b".%d" % won[0]]


async def test_a_killed_host_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        store = tmp_path / "store"
        async with shared_host(store, tmp_path / "c", "c") as c:
            await c.write((b"f",), b"closed")
            main = await c.driver.ino(())
            file, _ = await c.fs.create(main, b"open", 0o644, os.O_RDWR, ROOT)
            await c.fs.write(file.fh, 0, b"not closed")
        assert await a.get(b"f") == b"closed"
        assert await b.get(b"open") is None
        await b.write((b"f",), b"by b since")
        async with shared_host(store, tmp_path / "c", "c") as c:
            assert await c.get(b"open") == b"not closed"
            assert await c.get(b"f") == b"by b since"
            await c.commit()
        assert await a.get(b"open") == b"not closed"
        assert await a.get(b"f") == b"by b since"


async def test_a_mount_that_is_not_shared_sees_versions_and_its_own_are_taken_in(tmp_path: Path) -> None:
    async with shared_hosts(tmp_path) as (a, b):
        store = tmp_path / "store"
        async with shared_host(store, tmp_path / "c", "c", shared=False) as c:
            await a.write((b"f",), b"from a")
            await c.refresh()
            assert await c.get(b"f") is None
            await c.put(b"g", b"from c")
            await c.commit()
            await a.refresh()
            committer = (await (await a.engine.model("m")).branch("main")).committer
            await committer.catch_up()  # type: ignore[attr-defined]
            assert await b.names() == [b"f", b"g"]
            await b.commit()
            await c.refresh()
            assert await c.get(b"f") == b"from a"
            assert len(await c.versions()) == 2


async def test_what_could_not_be_published_fails_and_is_published_later(tmp_path: Path) -> None:
    from mvcfs.errors import StorageError, Transient
    from mvcfs.storage.faults import Fault, FaultyStorage

    async with shared_hosts(tmp_path) as (a, _b):
        store = tmp_path / "store"
        faulty = FaultyStorage(LocalStorage(store))
        async with shared_host(store, tmp_path / "c", "c", storage=faulty) as c:
            await c.write((b"f",), b"fine")
            faulty.add(Fault(op="write_file", path="*/log/*", before=Transient("full"), times=3))
            with pytest.raises(StorageError):
                await c.mkdir(b"d")
            assert await c.names() == [b"d", b"f"]
            await c.write((b"g",), b"again")
            assert await a.names() == [b"d", b"f", b"g"]
