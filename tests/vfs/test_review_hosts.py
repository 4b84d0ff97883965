"""Two mounts of one store, with separate local folders: what either has acknowledged is on the branch or on a conflict branch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvcfs.errors import CrossDevice, MvcfsError, NotFound, Stale
from mvcfs.storage.faults import Fault, FaultyStorage
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.wrapper import Call
from mvcfs.versions.store import Store
from mvcfs.vfs.changes import count_changes
from mvcfs.vfs.engine import Engine
from tests.vfs.test_filesystem_model import ROOT, Driver, opened

COMMIT = {"mount_path": "m/main", "message": "x"}


class Host:
    """One mount."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.driver = Driver(engine.filesystem())
        self.fs = self.driver.fs

    async def put(self, name: bytes, data: bytes) -> None:
        """Writes a file anew, made if it isn't there."""
        main = await self.driver.ino(())
        try:
            ino = (await self.fs.lookup(main, name, ROOT)).ino
        except NotFound:
            file, _ = await self.fs.create(main, name, 0o644, os.O_RDWR, ROOT)
        else:
            file = await self.fs.open(ino, os.O_RDWR | os.O_TRUNC, ROOT)
        await self.fs.write(file.fh, 0, data)
        await self.fs.release(file.fh)

    async def commit(self) -> dict[str, object]:
        """A version of all."""
        return await self.engine.commands["commit"](COMMIT)

    async def automatic(self) -> None:
        """A version of what is closed."""
        branch = await (await self.engine.model("m")).branch("main")
        branch.settler.hurry()
        await branch.settler.commit_automatic()

    async def refresh(self) -> None:
        """Takes in what the other published."""
        await (await self.engine.model("m")).refresh()

    async def read(self, name: bytes, top: bytes = b"main") -> bytes | None:
        """A file's bytes, None if there is none."""
        try:
            return await self.driver.read(await self.driver.ino((name,), top))
        except NotFound:
            return None


@asynccontextmanager
async def two_hosts(folder: Path) -> AsyncIterator[tuple[Host, Host]]:
    store = folder / "store"
    await Store.init(LocalStorage(store))
    async with AsyncExitStack() as stack:
        first = Host(await stack.enter_async_context(opened(store, folder / "a", host="a")))
        await first.fs.mkdir(1, b"m", 0o755, ROOT)
        yield first, Host(await stack.enter_async_context(opened(store, folder / "b", host="b")))


names = st.sampled_from([b"p", b"q", b"r"])
steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["put", "put", "open", "close", "commit", "automatic", "refresh"]), names),
    min_size=4, max_size=25,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_what_hosts_wrote_is_in_a_version(todo: list[tuple[int, str, bytes]]) -> None:
    """Each content that stood when its host was asked for a version is in a version, and no other host's is written over unseen."""

    async def play(folder: Path) -> None:
        async with two_hosts(folder) as hosts:
            await hosts[0].put(b"p", b"start")
            await hosts[0].commit()
            await hosts[1].refresh()
            held: list[dict[bytes, int]] = [{}, {}]
            last: list[dict[bytes, bytes]] = [{}, {}]

            async def step(number: int, who: int, what: str, name: bytes) -> None:
                host, mine = hosts[who], held[who]
                if what == "put" and name not in mine:
                    await host.put(name, b"%d of %d" % (number, who))
                    last[who][name] = b"%d of %d" % (number, who)
                elif what == "open" and name not in mine and await host.read(name) is not None:
                    mine[name] = (await host.fs.open(await host.driver.ino((name,)), os.O_RDWR | os.O_TRUNC, ROOT)).fh
                    await host.fs.write(mine[name], 0, b"%d of %d" % (number, who))
                    last[who][name] = b"%d of %d" % (number, who)
                elif what == "close" and name in mine:
                    await host.fs.release(mine.pop(name))
                elif what == "commit":
                    await host.commit()
                elif what == "automatic":
                    await host.automatic()
                elif what == "refresh":
                    await host.refresh()

            for number, (who, what, name) in enumerate(todo):
                await step(number, who, what, name)
            for who, host in enumerate(hosts):
                for fh in held[who].values():
                    await host.fs.release(fh)
                await host.commit()
            await seen(hosts[0], last)

    async def seen(host: Host, last: list[dict[bytes, bytes]]) -> None:
        """Each host's last content of a name is in some version of the branch or of a conflict branch."""
        await host.refresh()
        repository = (await host.engine.model("m")).data.repository
        found: set[tuple[bytes, bytes]] = set()
        for branch in repository.refs.branches:
            for version in await repository.history(branch):
                for name in (b"p", b"q", b"r"):
                    data = await host.read(name, f"{branch}@{version.commit}".encode())
                    if data is not None:
                        found.add((name, data))
        for mine in last:
            assert set(mine.items()) <= found

    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, Path(folder))


async def test_different_files_join(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        for number in range(5):
            await a.put(b"a%d" % number, b"from a")
            await b.put(b"b%d" % number, b"from b")
            await a.commit()
            assert not (await b.commit())["conflict"]
        await a.refresh()
        for host in (a, b):
            for number in range(5):
                assert await host.read(b"a%d" % number) == b"from a"
                assert await host.read(b"b%d" % number) == b"from b"


async def test_a_file_held_back_meets_the_others_change_in_a_merge(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", b"start")
        await a.commit()
        await b.refresh()
        ino = await a.driver.ino((b"f",))
        file = await a.fs.open(ino, os.O_RDWR, ROOT)
        await a.fs.write(file.fh, 0, b"from a")
        await b.put(b"f", b"from b")
        await b.commit()
        await a.put(b"other", b"1")
        await a.automatic()
        await a.put(b"other", b"2")
        await a.automatic()
        await a.fs.release(file.fh)
        assert (await a.commit())["conflict"]
        assert await a.read(b"f") == b"from b"
        assert await a.read(b"f", b"main-conflict-a") == b"from a"
        assert await a.read(b"other") == b"2"
        await b.refresh()
        assert await b.read(b"other") == b"2"


async def test_a_change_while_another_hosts_version_is_read_meets_it_in_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", b"start")
        await a.commit()
        await b.refresh()
        assert await a.read(b"f") == b"start"
        await b.put(b"f", b"from b")
        await b.commit()
        model = await a.engine.model("m")
        entries = model.data.entries

        async def slow(tree: str, *more: str | None) -> object:
            found = await entries(tree, *more)
            if await a.read(b"f") == b"start":
                await a.put(b"f", b"from a")
            return found

        monkeypatch.setattr(model.data, "entries", slow)
        await a.refresh()
        monkeypatch.undo()
        assert (await a.commit())["conflict"]
        assert await a.read(b"f", b"main-conflict-a") == b"from a"
        assert await a.read(b"f") == b"from b"


async def test_a_file_that_another_host_replaced_takes_no_writes(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", b"start")
        await a.commit()
        await b.refresh()
        file = await a.fs.open(await a.driver.ino((b"f",)), os.O_RDWR, ROOT)
        await b.put(b"f", b"from b")
        await b.commit()
        await a.refresh()
        assert bytes(await a.fs.read(file.fh, 0, 10)) == b"start"
        with pytest.raises(Stale):
            await a.fs.write(file.fh, 0, b"lost")
        await a.fs.release(file.fh)
        assert await a.read(b"f") == b"from b"


def changed_files(host: Host) -> int:
    """Also of models that were removed elsewhere."""
    branches = [branch for model in host.engine.models.all() for branch in model.branches.values()]
    return sum(count_changes(branch)["changed_files"] for branch in branches)


async def test_a_model_renamed_elsewhere_is_open_once(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", b"unpublished")
        await b.fs.rename(1, b"m", 1, b"n", 0, ROOT)
        model = a.engine.models.by_name["m"]
        a.engine.models.forget_names()
        assert await a.engine.model("n") is model
        assert list(a.engine.models.by_name) == ["n"]
        await a.engine.commands["commit"]({"mount_path": "n/main", "message": "x"})
        assert changed_files(a) == 0


async def test_changes_of_a_model_removed_elsewhere_count_and_come_back(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", b"unpublished")
        model = a.engine.models.by_name["m"]
        await b.fs.rmdir((await b.fs.lookup(1, b"m", ROOT)).ino, b"main", ROOT)
        await b.fs.rmdir(1, b"m", ROOT)
        await a.engine._refresh(model)
        assert "m" not in a.engine.models.by_name
        assert changed_files(a) == 1
        await b.engine.commands["undelete"]({"model": "m"})
        a.engine.models.forget_names()
        assert await a.engine.model("m") is model
        await a.refresh()
        assert await a.read(b"f") == b"unpublished"


async def test_nothing_is_made_in_a_branch_that_is_being_removed(tmp_path: Path) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    faulty = FaultyStorage(LocalStorage(store))
    async with opened(store, cache, faulty) as engine:
        host = Host(engine)
        level = (await host.fs.mkdir(1, b"m", 0o755, ROOT)).ino
        main = await host.driver.ino(())
        made: list[str] = []

        async def write(_call: Call) -> None:
            try:
                file, _ = await host.fs.create(main, b"f", 0o644, os.O_RDWR, ROOT)
                await host.fs.release(file.fh)
                made.append("made")
            except MvcfsError:
                made.append("refused")

        faulty.add(Fault(op="rename", path="*/log/*", hook=write))
        await host.fs.rmdir(level, b"main", ROOT)
        assert made == ["refused"]


async def test_two_listings_at_once_each_keep_what_they_answered(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, _):
        await a.put(b"f", b"x")
        await a.commit()
        main = await a.driver.ino(())
        a.fs.forget([(await a.driver.ino((b"f",)), 100)])
        one, other = await a.fs.opendir(main, ROOT), await a.fs.opendir(main, ROOT)
        ino = (await a.fs.readdir(one, 0))[0][2].ino
        await a.fs.readdir(other, 0)
        await a.fs.releasedir(other)
        a.fs.remember(ino)
        assert (await a.fs.getattr(ino)).size_bytes == 1


async def test_a_directory_with_a_linked_file_stays_in_its_branch(tmp_path: Path) -> None:
    store, cache = tmp_path / "store", tmp_path / "cache"
    await Store.init(LocalStorage(store))
    async with opened(store, cache) as engine:
        host = Host(engine)
        level = (await host.fs.mkdir(1, b"m", 0o755, ROOT)).ino
        dev = (await host.fs.mkdir(level, b"dev", 0o755, ROOT)).ino
        main = await host.driver.ino(())
        folder = (await host.fs.mkdir(main, b"d", 0o755, ROOT)).ino
        await host.put(b"f", b"data")
        await host.fs.link(await host.driver.ino((b"f",)), folder, b"g", ROOT)
        with pytest.raises(CrossDevice):
            await host.fs.rename(main, b"d", dev, b"d", 0, ROOT)
        await host.commit()
    async with opened(store, cache) as engine:
        host = Host(engine)
        main, dev = await host.driver.ino(()), await host.driver.ino((), b"dev")
        with pytest.raises(CrossDevice):
            await host.fs.rename(main, b"d", dev, b"d", 0, ROOT)
        assert await host.read(b"f") == b"data"


class Killed(Exception):
    """Stands for a hard kill."""


async def test_a_kill_after_a_merged_version_keeps_what_was_removed_since_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"f", b"start")
        await a.commit()
        await b.refresh()
        await b.put(b"g", b"from b")
        await b.commit()
        await a.put(b"f", b"from a")
        await a.put(b"n", b"new")

        async def killed(*_args: object, **_more: object) -> None:
            raise Killed

        monkeypatch.setattr("mvcfs.vfs.working_tree.committer.adopt", killed)
        with pytest.raises(Killed):
            await a.commit()
        monkeypatch.undo()
    for _ in range(2):
        async with opened(store, tmp_path / "a", host="a") as engine:
            a = Host(engine)
            assert await a.read(b"n") in (b"new", None)
            if await a.read(b"n") is not None:
                await a.fs.unlink(await a.driver.ino(()), b"n", ROOT)
            await a.put(b"f", b"second")
    async with opened(store, tmp_path / "a", host="a") as engine:
        a = Host(engine)
        assert not (await a.commit())["conflict"]
        assert [await a.read(name) for name in (b"f", b"g", b"n")] == [b"second", b"from b", None]
        branches = (await a.engine.model("m")).data.repository.refs.branches
        assert list(branches) == ["main"]
