"""Protected branches on two mounts of one store, without a kernel."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvcfs.errors import AlreadyExists, ReadOnly
from mvcfs.vfs.attr import SetAttr
from mvcfs.vfs.working_tree.namespace import RENAME_EXCHANGE
from tests.vfs.test_filesystem_model import ROOT
from tests.vfs.test_review_hosts import COMMIT, Host, two_hosts


async def protect(host: Host, on: bool = True) -> dict[str, object]:
    return await host.engine.commands["branch_protect"]({"mount_path": "m", "name": "main", "protected": on})


async def row(host: Host) -> dict[str, object]:
    """What `status` says of main."""
    rows = (await host.engine.commands["status"]({"mount_path": "m/main"}))["models"]
    return next(row for row in rows if row["branch"] == "main")


async def version(host: Host) -> int:
    return int((await row(host))["version"])


names = st.sampled_from([b"p", b"q"])
WORDS = ["put", "put", "put", "commit", "automatic", "refresh", "protect", "unprotect", "override", "aside"]
steps = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(WORDS), names), min_size=4, max_size=25)


class Play:
    """What two hosts did, and what each of them knows of the protection."""

    def __init__(self, hosts: tuple[Host, Host]) -> None:
        self.hosts = hosts
        self.protected = False
        self.known = [False, False]
        self.last: list[dict[bytes, bytes]] = [{}, {}]

    async def step(self, number: int, who: int, what: str, name: bytes) -> None:
        host = self.hosts[who]
        if self.known[who]:
            # What came before the protection may not be here yet.
            await host.refresh()
            self.known[who] = self.protected
        before, knew = await version(host), self.known[who]
        if what == "put":
            await self.put(number, who, name)
        elif what in ("protect", "unprotect"):
            self.protected = self.known[who] = what == "protect"
            await protect(host, self.protected)
        elif what == "refresh":
            await host.refresh()
            self.known[who] = self.protected
        else:
            await self.publish(number, who, what)
        if knew and what not in ("override", "unprotect"):
            assert await version(host) == before
        assert (await row(host))["protected"] == self.known[who]

    async def put(self, number: int, who: int, name: bytes) -> None:
        data = b"%d of %d" % (number, who)
        if self.known[who]:
            before = await self.hosts[who].read(name)
            with pytest.raises(ReadOnly):
                await self.hosts[who].put(name, data)
            assert await self.hosts[who].read(name) == before
            return
        await self.hosts[who].put(name, data)
        self.last[who][name] = data

    async def publish(self, number: int, who: int, what: str) -> None:
        host = self.hosts[who]
        more: dict[str, object] = {"override": {"override_protection": True}, "aside": {"to_branch": f"aside-{number}"}}.get(what, {})  # fmt: skip
        try:
            if what == "automatic":
                await host.automatic()
            else:
                await host.engine.commands["commit"]({**COMMIT, **more})
        except ReadOnly:
            assert self.protected
            assert what in ("commit", "automatic")
            # The refusal has brought the news.
            await host.refresh()
            self.known[who] = True
        else:
            changed = (await row(host))["changed_files"]
            assert not changed or (self.known[who] and what == "automatic")
            await host.refresh()
            self.known[who] = self.protected


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_protection_holds_and_loses_nothing(todo: list[tuple[int, str, bytes]]) -> None:
    """No host that knows of it changes a protected branch, and whatever was written before is in a version in the end."""

    async def play(folder: Path) -> None:
        async with two_hosts(folder) as hosts:
            await hosts[0].put(b"p", b"start")
            await hosts[0].commit()
            await hosts[1].refresh()
            # A working tree is there once it was looked at.
            for host in hosts:
                await host.read(b"p")
            game = Play(hosts)
            for number, (who, what, name) in enumerate(todo):
                await game.step(number, who, what, name)
            await protect(hosts[0], False)
            for host in hosts:
                await host.refresh()
                await host.commit()
            await seen(hosts[0], game.last)

    async def seen(host: Host, last: list[dict[bytes, bytes]]) -> None:
        await host.refresh()
        repository = (await host.engine.model("m")).data.repository
        found: set[tuple[bytes, bytes | None]] = set()
        for branch in repository.refs.branches:
            for info in await repository.history(branch):
                found |= {(name, await host.read(name, f"{branch}@{info.commit}".encode())) for name in (b"p", b"q")}
        for mine in last:
            assert set(mine.items()) <= found

    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, Path(folder))


async def test_changes_from_before_wait_and_are_published_when_it_is_lifted(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"p", b"1")
        await a.commit()
        await b.refresh()
        await b.put(b"p", b"2")
        settler = (await (await b.engine.model("m")).branch("main")).settler
        assert settler.due() is not None
        await protect(a)
        await b.refresh()
        assert settler.due() is None
        assert not settler.has_closed()
        assert (await row(b))["changed_files"] == 1
        await protect(a, False)
        await b.refresh()
        assert settler.due() is not None
        assert (await b.commit())["version"] == 2


async def test_what_was_on_its_way_is_refused_whole(tmp_path: Path) -> None:
    """A version that was begun before its host heard of the protection isn't published, and stays in the overlay."""
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"p", b"1")
        await a.commit()
        await b.refresh()
        await b.put(b"big", bytes(300_000))
        await protect(a)
        with pytest.raises(ReadOnly, match="override-protection"):
            await b.commit()
        assert await version(a) == 1
        await b.refresh()
        assert (await row(b))["changed_files"] == 1
        done = await b.engine.commands["commit"]({**COMMIT, "override_protection": True})
        assert (done["version"], done["branch"]) == (2, "main")


async def test_a_new_branch_for_changes_must_be_new(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, b):
        await a.put(b"p", b"1")
        await a.commit()
        await b.engine.commands["branch_create"]({"mount_path": "m", "name": "aside"})
        await a.put(b"p", b"2")
        with pytest.raises(AlreadyExists):
            await a.engine.commands["commit"]({**COMMIT, "to_branch": "aside"})
        assert await a.read(b"p") == b"2"
        done = await a.engine.commands["commit"]({**COMMIT, "to_branch": "other"})
        assert (done["branch"], done["version"], done["conflict"]) == ("other", 1, False)
        assert (await a.read(b"p"), await a.read(b"p", b"other")) == (b"1", b"2")
        assert (await row(a))["changed_files"] == 0


async def test_an_unlinked_open_file_is_protected_too(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, _):
        main = await a.driver.ino(())
        opened, attr = await a.fs.create(main, b"f", 0o644, 2, ROOT)
        await a.fs.unlink(main, b"f", ROOT)
        await a.put(b"p", b"1")
        await a.commit()
        await protect(a)
        with pytest.raises(ReadOnly):
            await a.fs.write(opened.fh, 0, b"x")
        with pytest.raises(ReadOnly):
            await a.fs.mkdir(main, b"d", 0o755, ROOT)
        assert attr.ino != main
        await a.fs.release(opened.fh)


async def test_every_change_is_refused(tmp_path: Path) -> None:
    async with two_hosts(tmp_path) as (a, _):
        fs, main = a.fs, await a.driver.ino(())
        for name in (b"f", b"k"):
            await a.put(name, b"1")
        await fs.mkdir(main, b"d", 0o755, ROOT)
        await a.commit()
        await a.engine.commands["branch_create"]({"mount_path": "m", "name": "exp", "revision": "main"})
        exp, f, d = await a.driver.ino((), b"exp"), await a.driver.ino((b"f",)), await a.driver.ino((b"d",))
        opened = await fs.open(f, os.O_RDWR, ROOT)
        before = await a.driver.picture(b"main")
        await protect(a)
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "create": lambda: fs.create(main, b"n", 0o644, os.O_RDWR, ROOT),
            "create below": lambda: fs.create(d, b"n", 0o644, os.O_RDWR, ROOT),
            "mknod": lambda: fs.mknod(main, b"n", stat.S_IFIFO | 0o644, 0, ROOT),
            "mkdir": lambda: fs.mkdir(main, b"n", 0o755, ROOT),
            "symlink": lambda: fs.symlink(main, b"n", b"f", ROOT),
            "link": lambda: fs.link(f, main, b"n", ROOT),
            "unlink": lambda: fs.unlink(main, b"f", ROOT),
            "rmdir": lambda: fs.rmdir(main, b"d", ROOT),
            "rename": lambda: fs.rename(main, b"f", d, b"n", 0, ROOT),
            "replace": lambda: fs.rename(main, b"f", main, b"k", 0, ROOT),
            "exchange": lambda: fs.rename(main, b"f", main, b"k", RENAME_EXCHANGE, ROOT),
            "rename out": lambda: fs.rename(main, b"f", exp, b"n", 0, ROOT),
            "rename in": lambda: fs.rename(exp, b"f", main, b"n", 0, ROOT),
            "open for writing": lambda: fs.open(f, os.O_WRONLY, ROOT),
            "open and cut": lambda: fs.open(f, os.O_RDWR | os.O_TRUNC, ROOT),
            "write": lambda: fs.write(opened.fh, 0, b"2"),
            "truncate": lambda: fs.setattr(f, SetAttr(size=0), None, ROOT),
            "truncate an open file": lambda: fs.setattr(f, SetAttr(size=0), opened.fh, ROOT),
            "chmod": lambda: fs.setattr(f, SetAttr(mode=0o600), None, ROOT),
            "chown": lambda: fs.setattr(d, SetAttr(uid=7), None, ROOT),
            "utimens": lambda: fs.setattr(f, SetAttr(mtime_ns=7), None, ROOT),
            "chmod of the branch": lambda: fs.setattr(main, SetAttr(mode=0o700), None, ROOT),
            "setxattr": lambda: fs.setxattr(f, b"user.a", b"1", ROOT),
        }
        for what, change in changes.items():
            with pytest.raises(ReadOnly):
                await change()
                pytest.fail(what)
        assert await a.driver.picture(b"main") == before
        assert await a.read(b"f", b"exp") == b"1"
        await fs.release(opened.fh)
        assert (await row(a))["changed_files"] == 0
