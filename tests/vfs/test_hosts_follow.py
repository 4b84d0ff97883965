"""Several mounts of one branch whose changes meet in shared directories, against what each has written.

Every file has one name in the world, and one host changes it; directories are everybody's. So whatever the order of
changes, versions, looks at the store and kills: no conflict, and each name is at one place with its last content.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvcfs.errors import MvcfsError, NotFound, Stale
from mvcfs.storage.local import LocalStorage
from mvcfs.versions.store import Store
from mvcfs.vfs.attr import SetAttr
from tests.vfs.test_filesystem_model import ROOT, opened
from tests.vfs.test_review_hosts import Host

DIRS = [b"d", b"e"]
Path_ = tuple[bytes, ...]


class Mount(Host):
    """A mount that can be killed and come back, with what it has written."""

    def __init__(self, folder: Path, name: str, nursery: trio.Nursery) -> None:
        self.folder, self.name, self.nursery = folder, name, nursery
        self.mine: dict[bytes, bytes] = {}
        self.open: dict[bytes, int] = {}

    async def start(self) -> None:
        await self.nursery.start(self._serve)

    async def _serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._stop, self._gone = trio.Event(), trio.Event()
        async with opened(self.folder / "store", self.folder / self.name, host=self.name) as engine:
            Host.__init__(self, engine)
            task_status.started()
            await self._stop.wait()
        self._gone.set()

    async def kill(self) -> None:
        self._stop.set()
        await self._gone.wait()
        self.open.clear()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def tree(self, top: bytes = b"main") -> dict[Path_, int]:
        """All paths of a tree with their inode numbers."""
        found: dict[Path_, int] = {}

        async def walk(ino: int, path: Path_) -> None:
            for name, child in await self.driver.list(ino):
                found[*path, name] = child
                if stat.S_ISDIR((await self.fs.getattr(child)).mode):
                    await walk(child, (*path, name))

        await walk(await self.driver.ino((), top), ())
        return found

    async def dirs(self) -> list[Path_]:
        found = await self.tree()
        return [(), *[path for path, ino in found.items() if stat.S_ISDIR((await self.fs.getattr(ino)).mode)]]

    async def files(self, top: bytes = b"main") -> dict[bytes, bytes]:
        """All files by name, which no two places may share."""
        found: dict[bytes, bytes] = {}
        for path, ino in (await self.tree(top)).items():
            if stat.S_ISREG((await self.fs.getattr(ino)).mode):
                assert path[-1] not in found, f"{path!r} is there twice"
                found[path[-1]] = await self.driver.read(ino)
        return found

    async def find(self, name: bytes) -> Path_:
        return next(path for path in await self.tree() if path[-1] == name)


@asynccontextmanager
async def hosts(folder: Path, count: int) -> AsyncIterator[list[Mount]]:
    await Store.init(LocalStorage(folder / "store"))
    async with trio.open_nursery() as nursery:
        made = [Mount(folder, "abc"[number], nursery) for number in range(count)]
        for mount in made:
            await mount.start()
            if mount is made[0]:
                await mount.fs.mkdir(1, b"m", 0o755, ROOT)
        yield made
        for mount in made:
            await mount.kill()


class Play:
    """Random steps. What a step needs and isn't there, it makes; what can't be done is left out."""

    def __init__(self, mounts: list[Mount]) -> None:
        self.mounts = mounts
        self.count = 0

    async def step(self, who: int, what: str, one: int, other: int) -> None:
        mount = self.mounts[who]
        dirs = await mount.dirs()
        place = dirs[one % len(dirs)]
        self.count += 1
        data = b"%d" % self.count * (1 + 20_000 * (other % 2))
        mine = sorted(mount.mine)
        if what == "put":
            name = b"%s%d" % (mount.name.encode(), other)
            if name not in mount.mine:
                file, _ = await mount.fs.create(await mount.driver.ino(place), name, 0o644, os.O_RDWR, ROOT)
            elif name in mount.open:
                return
            else:
                ino = await mount.driver.ino(await mount.find(name))
                file = await mount.fs.open(ino, os.O_RDWR | os.O_TRUNC, ROOT)
            mount.mine[name] = data
            await mount.fs.write(file.fh, 0, data)
            if one % 3:
                await mount.fs.release(file.fh)
            else:
                mount.open[name] = file.fh
        elif what == "close" and mount.open:
            await mount.fs.release(mount.open.pop(sorted(mount.open)[other % len(mount.open)]))
        elif what in ("unlink", "move", "chmod") and mine:
            name = mine[other % len(mine)]
            path = await mount.find(name)
            parent = await mount.driver.ino(path[:-1])
            if what == "unlink":
                await mount.fs.unlink(parent, name, ROOT)
                del mount.mine[name]
                if name in mount.open:
                    await mount.fs.release(mount.open.pop(name))
            elif what == "move":
                await mount.fs.rename(parent, name, await mount.driver.ino(place), name, 0, ROOT)
            else:
                await mount.fs.setattr(await mount.driver.ino(path), SetAttr(mode=0o600 + one % 8), None, ROOT)
        elif what == "mkdir" and len(place) < 3:
            await mount.fs.mkdir(await mount.driver.ino(place), DIRS[other % 2], 0o755, ROOT)
        elif what == "rmdir" and place:
            await mount.fs.rmdir(await mount.driver.ino(place[:-1]), place[-1], ROOT)
        elif what == "renamedir" and who == 0 and place:
            target = dirs[other % len(dirs)]
            await mount.fs.rename(
                await mount.driver.ino(place[:-1]), place[-1], await mount.driver.ino(target), DIRS[one % 2], 0, ROOT
            )
        elif what == "ignored":
            file, _ = await mount.fs.create(await mount.driver.ino(place), b"%s%d.tmp" % (mount.name.encode(), self.count), 0o644, os.O_RDWR, ROOT)  # fmt: skip
            await mount.fs.release(file.fh)
        elif what == "commit":
            assert not (await mount.commit())["conflict"]
        elif what == "automatic":
            await mount.automatic()
        elif what == "refresh":
            await mount.refresh()
        elif what == "restart":
            await mount.restart()

    async def check_own(self) -> None:
        """Each host sees what it wrote."""
        for mount in self.mounts:
            seen = {
                name: data
                for name, data in (await mount.files()).items()
                if name.startswith(mount.name.encode()) and not name.endswith(b".tmp")
            }
            assert seen == mount.mine

    async def end(self) -> None:
        """Everything is published and everybody has it."""
        for mount in self.mounts:
            for fh in mount.open.values():
                await mount.fs.release(fh)
            mount.open.clear()
            await mount.commit()
        wanted = {name: data for mount in self.mounts for name, data in mount.mine.items()}
        pictures = []
        for mount in self.mounts:
            await mount.refresh()
            repository = (await mount.engine.model("m")).data.repository
            assert list(repository.refs.branches) == ["main"]
            found = {name: data for name, data in (await mount.files()).items() if not name.endswith(b".tmp")}
            assert found == wanted
            branch = await (await mount.engine.model("m")).branch("main")
            assert branch.tree.collision is None
            tip = repository.refs.branches["main"].tip
            assert branch.tree.base_commit == tip
            if tip is not None:
                pictures.append(await mount.driver.picture(f"main@{tip}".encode()))
                kept = {name for name in await mount.files() if name.endswith(b".tmp")}
                if not kept:
                    assert await mount.driver.picture(b"main") == pictures[-1]
        assert all(one == pictures[0] for one in pictures)


CHANGES = ["put", "put", "put", "unlink", "move", "chmod", "mkdir", "mkdir", "rmdir", "ignored", "close", "renamedir"]
SHARING = ["commit", "automatic", "refresh", "refresh", "restart"]
steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(CHANGES + SHARING), st.integers(0, 5), st.integers(0, 3)),
    min_size=10, max_size=40,
)  # fmt: skip


async def play(folder: Path, todo: list[tuple[int, str, int, int]]) -> None:
    async with hosts(folder, 3) as mounts:
        game = Play(mounts)
        for who, what, one, other in todo:
            try:
                await game.step(who, what, one, other)
            except (MvcfsError, StopIteration) as error:
                if what not in ("put", "mkdir", "rmdir", "move", "renamedir") or isinstance(error, (Stale, NotFound)):
                    raise
            await game.check_own()
        await game.end()


@settings(max_examples=int(os.environ.get("EXAMPLES", "20")), deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_changes_in_shared_directories_all_join(todo: list[tuple[int, str, int, int]]) -> None:
    """No conflict, nothing lost, nothing twice, nothing back, and all hosts end with the same tree."""
    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, Path(folder), todo)


async def test_clean_files_follow_while_others_are_changed(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        await a.put(b"f", b"start")
        await a.put(b"g", b"start")
        await a.commit()
        await b.refresh()
        assert await b.read(b"g") == b"start"
        await b.put(b"f", b"unpublished")
        await a.put(b"g", b"changed")
        await a.put(b"h", b"new")
        await a.commit()
        await b.refresh()
        assert [await b.read(name) for name in (b"f", b"g", b"h")] == [b"unpublished", b"changed", b"new"]
        await b.restart()
        assert [await b.read(name) for name in (b"f", b"g", b"h")] == [b"unpublished", b"changed", b"new"]
        assert not (await b.commit())["conflict"]
        await a.refresh()
        assert await a.read(b"f") == b"unpublished"


async def test_a_path_changed_on_both_sides_waits_for_the_merge(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        await a.put(b"f", b"start")
        await a.commit()
        await b.refresh()
        await b.put(b"f", b"from b")
        await a.put(b"f", b"from a")
        await a.put(b"h", b"new")
        await a.commit()
        await b.refresh()
        tree = (await (await b.engine.model("m")).branch("main")).tree
        assert tree.collision == "f"
        assert await b.read(b"h") is None
        assert (await b.commit())["conflict"]
        assert tree.collision is None
        assert [await b.read(name) for name in (b"f", b"h")] == [b"from a", b"new"]
        assert await b.read(b"f", b"main-conflict-b") == b"from b"


async def test_nothing_is_made_in_a_directory_that_another_host_removed(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        main = await a.driver.ino(())
        outer = (await a.fs.mkdir(main, b"d", 0o755, ROOT)).ino
        await a.fs.mkdir(outer, b"e", 0o755, ROOT)
        await a.commit()
        await b.refresh()
        await b.put(b"changed", b"here")
        held = await b.driver.ino((b"d", b"e"))
        await a.fs.rmdir(outer, b"e", ROOT)
        await a.fs.rmdir(main, b"d", ROOT)
        await a.commit()
        await b.refresh()
        with pytest.raises(NotFound):
            await b.fs.create(held, b"lost", 0o644, os.O_RDWR, ROOT)


async def test_ignored_files_keep_no_removed_directory_alive(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        main = await a.driver.ino(())
        folder = (await a.fs.mkdir(main, b"d", 0o755, ROOT)).ino
        file, _ = await a.fs.create(folder, b"f", 0o644, os.O_RDWR, ROOT)
        await a.fs.release(file.fh)
        await a.commit()
        await b.refresh()
        file, _ = await b.fs.create(await b.driver.ino((b"d",)), b"x.tmp", 0o644, os.O_RDWR, ROOT)
        await b.fs.release(file.fh)
        await a.fs.unlink(folder, b"f", ROOT)
        await a.fs.rmdir(main, b"d", ROOT)
        await a.commit()
        await b.refresh()
        assert set(await b.tree()) == {(b"d",), (b"d", b"x.tmp")}
        await b.restart()
        await b.put(b"other", b"1")
        await b.commit()
        assert set(await b.tree(b"main~0")) == {(b"other",)}
        assert set(await b.tree()) == {(b"other",), (b"d",), (b"d", b"x.tmp")}


async def test_a_directorys_mode_set_elsewhere_survives_changes_in_it(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        await a.fs.mkdir(await a.driver.ino(()), b"d", 0o755, ROOT)
        await a.commit()
        await b.refresh()
        file, _ = await b.fs.create(await b.driver.ino((b"d",)), b"f", 0o644, os.O_RDWR, ROOT)
        await b.fs.release(file.fh)
        for path, mode in (((b"d",), 0o700), ((), 0o711)):
            await a.fs.setattr(await a.driver.ino(path), SetAttr(mode=mode), None, ROOT)
        await a.commit()
        await b.refresh()
        for mount in (b, a):
            for path, mode in (((b"d",), 0o700), ((), 0o711)):
                assert stat.S_IMODE((await mount.fs.getattr(await mount.driver.ino(path))).mode) == mode
            await mount.commit()
            await a.refresh()


async def test_the_kernel_is_told_of_attributes_and_of_all_names_of_what_is_gone(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (a, b):
        main = await a.driver.ino(())
        gone = (await a.fs.mkdir(main, b"gone", 0o755, ROOT)).ino
        await a.fs.mkdir(gone, b"below", 0o755, ROOT)
        await a.fs.mkdir(main, b"kept", 0o755, ROOT)
        await a.commit()
        await b.refresh()
        await b.put(b"changed", b"here")
        root = await b.driver.ino(())
        kept, dropped = await b.driver.ino((b"kept",)), await b.driver.ino((b"gone",))
        await b.driver.ino((b"gone", b"below"))
        told: list[tuple[int, bytes | None]] = []

        class Kernel:
            def invalidate_entry(self, parent: int, name: bytes) -> None:
                told.append((parent, name))

            def invalidate_inode(self, ino: int, attr_only: bool) -> None:
                assert attr_only
                told.append((ino, None))

        b.engine._invalidator = Kernel()
        await a.fs.rmdir(gone, b"below", ROOT)
        await a.fs.rmdir(main, b"gone", ROOT)
        await a.fs.mkdir(await a.driver.ino((b"kept",)), b"new", 0o755, ROOT)
        await a.commit()
        await b.refresh()
        assert {(root, b"gone"), (dropped, b"below"), (kept, None), (root, None)} <= set(told)
