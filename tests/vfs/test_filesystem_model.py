"""The file system against a simple model: random operations, versions, hard kills; every version stays what it was."""

from __future__ import annotations

import copy
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvcfs.config import EngineConfig, VersionRules
from mvcfs.errors import MvcfsError, ReadOnly
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.protocol import Storage
from mvcfs.types import Caller
from mvcfs.versions.store import Store
from mvcfs.vfs.attr import SetAttr
from mvcfs.vfs.engine import Engine
from mvcfs.vfs.filesystem import FileSystem

ROOT = Caller(0, 0, 0)
NAMES = [b"a", b"b", b".git", b"\xff"]
NOTHING_AUTOMATIC = VersionRules(settle_s=1e6, max_settle_s=1e6, live_interval_s=1e6)


@dataclass(eq=False)
class Item:
    """A file, directory or symlink of the model."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    names: dict[bytes, Item] = field(default_factory=dict)


def picture(item: Item) -> Any:
    """A value that two equal trees share: kinds, modes, bytes, and which names are one file."""
    groups: dict[int, int] = {}

    def draw(one: Item) -> Any:
        if stat.S_ISDIR(one.mode):
            return ("dir", one.mode, tuple((name, draw(child)) for name, child in sorted(one.names.items())))
        if stat.S_ISLNK(one.mode):
            return ("link", one.target)
        return ("file", one.mode, bytes(one.data), groups.setdefault(id(one), len(groups)))

    return draw(item)


class Driver:
    """Runs operations on the file system by path."""

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs

    async def ino(self, path: tuple[bytes, ...], top: bytes = b"main") -> int:
        ino = (await self.fs.lookup(1, b"m", ROOT)).ino
        for name in (top, *path):
            ino = (await self.fs.lookup(ino, name, ROOT)).ino
        return ino

    async def read(self, ino: int) -> bytes:
        opened = await self.fs.open(ino, os.O_RDONLY, ROOT)
        size = (await self.fs.getattr(ino)).size_bytes
        data = b""
        while len(data) < size:
            part = bytes(await self.fs.read(opened.fh, len(data), 70_000))
            assert part, "a read inside the file gave nothing"
            data += part
        assert not bytes(await self.fs.read(opened.fh, size, 10))
        await self.fs.release(opened.fh)
        return data

    async def write(self, ino: int, offset: int, data: bytes) -> None:
        opened = await self.fs.open(ino, os.O_RDWR, ROOT)
        await self.fs.write(opened.fh, offset, data)
        await self.fs.flush(opened.fh)
        await self.fs.release(opened.fh)

    async def list(self, ino: int) -> list[tuple[bytes, int]]:
        fh = await self.fs.opendir(ino, ROOT)
        found: list[tuple[bytes, int]] = []
        position = 0
        while part := await self.fs.readdir(fh, position):
            found += [(name, attr.ino) for _, name, attr in part]
            for _, _, attr in part:
                self.fs.remember(attr.ino)
            position = part[-1][0]
        await self.fs.releasedir(fh)
        return found

    async def picture(self, top: bytes) -> Any:
        groups: dict[int, int] = {}

        async def draw(ino: int) -> Any:
            attr = await self.fs.getattr(ino)
            if stat.S_ISDIR(attr.mode):
                return (
                    "dir",
                    attr.mode,
                    tuple([(name, await draw(child)) for name, child in sorted(await self.list(ino))]),
                )
            if stat.S_ISLNK(attr.mode):
                return ("link", await self.fs.readlink(ino))
            key = ino if attr.nlink > 1 else -len(groups) - 1
            return ("file", attr.mode, await self.read(ino), groups.setdefault(key, len(groups)))

        return await draw(await self.ino((), top))


@asynccontextmanager
async def opened(
    folder: Path, cache: Path, storage: Storage | None = None, host: str = "host"
) -> AsyncIterator[Engine]:
    """A mount without a kernel; leaving it ends everything at once, as a hard kill does."""
    config = EngineConfig(cache, host, "user", rules=NOTHING_AUTOMATIC, block_cache_bytes=0, staging_min_free_bytes=0)
    async with trio.open_nursery() as nursery:
        engine = await Engine.open(storage or LocalStorage(folder), config, nursery, mounted=True)
        try:
            yield engine
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await engine.aclose()


# A path is chosen when the operation runs: ("old", n) the n-th that there is, ("new", n, name) a name in the n-th directory.
old = st.tuples(st.just("old"), st.integers(0, 50))
new = st.tuples(st.just("new"), st.integers(0, 50), st.sampled_from(NAMES))
paths = st.one_of(old, old, new)
fresh = st.one_of(new, new, old)
offsets = st.sampled_from([0, 1, 1000, 65_535, 65_536, (1 << 20) - 1, 1 << 20, 1_500_000])
operations = st.one_of(
    st.tuples(st.just("create"), fresh),
    st.tuples(st.just("mkdir"), fresh),
    st.tuples(st.just("symlink"), fresh),
    st.tuples(st.just("write"), paths, offsets, st.integers(1, 80_000)),
    st.tuples(st.just("write"), paths, offsets, st.integers(1, 80_000)),
    st.tuples(st.just("truncate"), paths, offsets),
    st.tuples(st.just("chmod"), paths, st.sampled_from([0o600, 0o755, 0o4711])),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("rename"), old, paths, st.sampled_from([0, 0, 1, 2])),
    st.tuples(st.just("link"), old, fresh),
    st.tuples(st.just("commit")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("kill")),
    st.tuples(st.just("protect"), st.booleans()),
)


class Model:
    """The same operations on plain objects; each returns whether it is allowed."""

    def __init__(self) -> None:
        self.root = Item(stat.S_IFDIR | 0o755)

    def find(self, path: tuple[bytes, ...]) -> Item | None:
        item: Item | None = self.root
        for name in path:
            if item is None or not stat.S_ISDIR(item.mode):
                return None
            item = item.names.get(name)
        return item

    def every(self) -> tuple[list[tuple[bytes, ...]], list[tuple[bytes, ...]]]:
        """The paths of all items, and those of directories, the root among them."""
        items: list[tuple[bytes, ...]] = []
        directories: list[tuple[bytes, ...]] = [()]

        def walk(item: Item, path: tuple[bytes, ...]) -> None:
            for name, child in sorted(item.names.items()):
                items.append((*path, name))
                if stat.S_ISDIR(child.mode):
                    directories.append((*path, name))
                    walk(child, (*path, name))

        walk(self.root, ())
        return items, directories

    def choose(self, operation: tuple[Any, ...]) -> tuple[Any, ...]:
        """The operation with its paths chosen."""
        items, directories = self.every()

        def path(choice: Any) -> Any:
            if not isinstance(choice, tuple):
                return choice
            if choice[0] == "old":
                return items[choice[1] % len(items)] if items else (b"none",)
            return (*directories[choice[1] % len(directories)], choice[2])

        return (operation[0], *map(path, operation[1:]))

    def make(self, path: tuple[bytes, ...], mode: int, target: bytes = b"") -> bool:
        parent = self.find(path[:-1])
        if parent is None or not stat.S_ISDIR(parent.mode) or path[-1] in parent.names:
            return False
        parent.names[path[-1]] = Item(mode, target=target)
        return True

    def remove(self, path: tuple[bytes, ...], directory: bool) -> bool:
        item, parent = self.find(path), self.find(path[:-1])
        if item is None or parent is None or stat.S_ISDIR(item.mode) != directory or item.names:
            return False
        del parent.names[path[-1]]
        return True

    def link(self, source: tuple[bytes, ...], target: tuple[bytes, ...]) -> bool:
        item, parent = self.find(source), self.find(target[:-1])
        if item is None or parent is None or stat.S_ISDIR(item.mode) or not stat.S_ISDIR(parent.mode):
            return False
        if target[-1] in parent.names:
            return False
        parent.names[target[-1]] = item
        return True

    def rename(self, source: tuple[bytes, ...], target: tuple[bytes, ...], flags: int) -> bool:
        item, old = self.find(source), self.find(target)
        source_dir, target_dir = self.find(source[:-1]), self.find(target[:-1])
        if item is None or source_dir is None or target_dir is None or not stat.S_ISDIR(target_dir.mode):
            return False
        if (flags == 1 and old is not None) or (flags == 2 and old is None):
            return False
        if stat.S_ISDIR(item.mode) and target[: len(source)] == source and len(target) > len(source):
            return False
        if (
            flags == 2
            and old is not None
            and stat.S_ISDIR(old.mode)
            and source[: len(target)] == target
            and len(source) > len(target)
        ):
            return False
        if item is old:
            return True
        if flags == 2:
            assert old is not None
            source_dir.names[source[-1]], target_dir.names[target[-1]] = old, item
            return True
        if old is not None and (stat.S_ISDIR(old.mode) != stat.S_ISDIR(item.mode) or old.names):
            return False
        del source_dir.names[source[-1]]
        target_dir.names[target[-1]] = item
        return True


async def apply(
    driver: Driver, model: Model, operation: tuple[Any, ...], step: int, *, protected: bool = False
) -> None:
    """Does an operation on both; they must agree on whether it is allowed. In a protected branch nothing is."""
    kind, *args = operation
    fs = driver.fs
    allowed = True
    done = True
    try:
        if kind == "create":
            allowed = model.make(args[0], stat.S_IFREG | 0o644)
            opened_file, _ = await fs.create(await driver.ino(args[0][:-1]), args[0][-1], 0o644, os.O_RDWR, ROOT)
            await fs.release(opened_file.fh)
        elif kind == "mkdir":
            allowed = model.make(args[0], stat.S_IFDIR | 0o700)
            await fs.mkdir(await driver.ino(args[0][:-1]), args[0][-1], 0o700, ROOT)
        elif kind == "symlink":
            target = b"to-%d" % step
            allowed = model.make(args[0], stat.S_IFLNK | 0o777, target)
            await fs.symlink(await driver.ino(args[0][:-1]), args[0][-1], target, ROOT)
        elif kind in ("write", "truncate", "chmod"):
            item = model.find(args[0])
            allowed = item is not None and (stat.S_ISREG(item.mode) or (kind == "chmod" and stat.S_ISDIR(item.mode)))
            if not allowed or item is None:
                return
            await change(driver, item, kind, args, step)
        elif kind in ("unlink", "rmdir"):
            allowed = model.remove(args[0], kind == "rmdir")
            call = fs.rmdir if kind == "rmdir" else fs.unlink
            await call(await driver.ino(args[0][:-1]), args[0][-1], ROOT)
        elif kind == "rename":
            allowed = model.rename(args[0], args[1], args[2])
            source, target_dir = await driver.ino(args[0][:-1]), await driver.ino(args[1][:-1])
            await fs.rename(source, args[0][-1], target_dir, args[1][-1], args[2], ROOT)
        elif kind == "link":
            allowed = model.link(args[0], args[1])
            await fs.link(await driver.ino(args[0]), await driver.ino(args[1][:-1]), args[1][-1], ROOT)
    except MvcfsError:
        done = False
    assert done == (allowed and not protected), f"step {step}: {operation}"


async def change(driver: Driver, item: Item, kind: str, args: list[Any], step: int) -> None:
    ino = await driver.ino(args[0])
    if kind == "write":
        data = bytes([step % 255 + 1]) * args[2]
        await driver.write(ino, args[1], data)
        item.data.extend(bytes(max(0, args[1] - len(item.data))))
        item.data[args[1] : args[1] + len(data)] = data
    elif kind == "truncate":
        await driver.fs.setattr(ino, SetAttr(size=args[1]), None, ROOT)
        del item.data[args[1] :]
        item.data.extend(bytes(args[1] - len(item.data)))
    else:
        await driver.fs.setattr(ino, SetAttr(mode=args[1]), None, ROOT)
        item.mode = stat.S_IFMT(item.mode) | args[1]


async def play(steps: list[tuple[Any, ...]], folder: Path) -> None:
    store, cache = folder / "store", folder / "cache"
    await Store.init(LocalStorage(store))
    model, versions, todo = Model(), [], list(enumerate(steps))
    first, protected = True, False
    while todo or first:
        async with opened(store, cache) as engine:
            driver = Driver(engine.filesystem())
            if first:
                await driver.fs.mkdir(1, b"m", 0o755, ROOT)
                first = False
            else:
                assert await driver.picture(b"main") == picture(model.root), "after a kill"
            while todo:
                step, operation = todo.pop(0)
                if operation[0] == "kill":
                    break
                if operation[0] == "protect":
                    protected = operation[1]
                    await engine.commands["branch_protect"]({"mount_path": "m", "name": "main", "protected": protected})
                elif operation[0] == "commit":
                    try:
                        made = await engine.commands["commit"]({"mount_path": "m/main", "message": "x"})
                    except ReadOnly:
                        assert protected
                        continue
                    if not made["unchanged"]:
                        assert not protected
                        versions.append(picture(model.root))
                        assert made["version"] == len(versions)
                else:
                    chosen = model.choose(operation)
                    await apply(driver, copy.deepcopy(model) if protected else model, chosen, step, protected=protected)
            assert await driver.picture(b"main") == picture(model.root)
            for number, expected in enumerate(versions, 1):
                assert await driver.picture(b"main@%d" % number) == expected, f"version {number}"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(operations, min_size=5, max_size=60))
def test_against_model(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(play, steps, Path(folder))
