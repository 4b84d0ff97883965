"""A store in memory that several simulated hosts share, each with its own faults."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from mvcfs.errors import AlreadyExists, CorruptData, NotADirectory, NotEmpty, NotFound, Transient, UnknownOutcome
from mvcfs.storage.protocol import Space, StoreEntry
from mvcfs.types import NS_PER_S, SELF, Attributes, Author, DirChange, FileChange, Identity
from mvcfs.versions.log.publish import Attempt, CommitRequest, Publisher
from mvcfs.versions.repository import ModelRepository
from mvcfs.versions.store import Store

CHANGING = ("write_file", "create", "close", "rename", "mkdir", "delete")
AUTHOR = Author("Ada", "ada@example.org")
ROOT = Attributes(0o040755, 1000, 1000, 1)


class Crash(Exception):
    """The host is gone."""


class World:
    """What the store holds."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.mtimes: dict[str, int] = {}
        self.dirs = {""}
        self.ticks = itertools.count(1)
        self.late: list[Callable[[], None]] = []

    def parent_of(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent not in self.dirs:
            raise NotFound(parent)

    def put(self, path: str, data: bytes) -> None:
        if path in self.files or path in self.dirs:
            raise AlreadyExists(path)
        self.parent_of(path)
        self.files[path] = data
        self.mtimes[path] = next(self.ticks)

    def move(self, source: str, target: str) -> None:
        if source not in self.files and source not in self.dirs:
            raise NotFound(source)
        if target in self.files or target in self.dirs:
            raise AlreadyExists(target)
        self.parent_of(target)
        for names in (self.files, self.mtimes):
            for path in [path for path in names if path == source or path.startswith(source + "/")]:
                names[target + path[len(source) :]] = names.pop(path)
        for path in [path for path in self.dirs if path == source or path.startswith(source + "/")]:
            self.dirs.remove(path)
            self.dirs.add(target + path[len(source) :])

    def mkdir(self, path: str, parents: bool) -> None:
        if path in self.dirs and not parents:
            raise AlreadyExists(path)
        while path and parents:
            self.dirs.add(path)
            path = path.rpartition("/")[0]
        if path:
            self.parent_of(path)
            self.dirs.add(path)

    def delete(self, path: str, recursive: bool) -> None:
        if path in self.files:
            del self.files[path]
            return
        if path not in self.dirs:
            raise NotFound(path)
        inside = [name for name in (*self.files, *self.dirs) if name.startswith(path + "/")]
        if inside and not recursive:
            raise NotEmpty(path)
        self.dirs -= {path, *inside}
        for name in inside:
            self.files.pop(name, None)

    def run_late(self) -> None:
        """Renames that a host had given up on happen now."""
        late, self.late = self.late, []
        for call in late:
            with contextlib.suppress(AlreadyExists, NotFound):
                call()

    def names(self, prefix: str) -> list[str]:
        return sorted(path for path in self.files if path.startswith(prefix))


Plan = Callable[[str, str], str | None]


class SimulatedStorage:
    """One host's way to the world. `plan(operation, path)` says what goes wrong, None nothing:

    `transient` (nothing happens), `unknown` (nothing happens, but who knows), `lost` (it happens, the answer is lost),
    `late` (it happens later, if it still can), `crash` (before it), `crash-after`.
    """

    url = "memory://"
    block_bytes = 1 << 20

    def __init__(self, world: World, plan: Plan | None = None) -> None:
        self.world = world
        self.plan = plan
        self.dead = False
        self.calls: list[tuple[str, str]] = []
        self.hook: Callable[[str, str], Awaitable[None]] | None = None

    async def _do(self, operation: str, path: str, call: Callable[[], object]) -> object:
        await trio.lowlevel.checkpoint()
        if self.dead:
            raise Crash
        self.calls.append((operation, path))
        if self.hook is not None:
            await self.hook(operation, path)
        fault = self.plan(operation, path) if self.plan else None
        if fault in ("crash", "crash-after"):
            self.dead = True
        if fault == "transient" or (fault in ("unknown", "lost", "late") and operation not in CHANGING):
            raise Transient(f"{operation} {path}: simulated")
        if fault == "crash":
            raise Crash
        if fault == "unknown":
            raise UnknownOutcome(f"{operation} {path}: simulated")
        if fault == "late":
            self.world.late.append(lambda: call() and None)
            raise UnknownOutcome(f"{operation} {path}: simulated")
        result = call()
        if fault == "crash-after":
            raise Crash
        if fault == "lost":
            raise UnknownOutcome(f"{operation} {path}: simulated")
        return result

    async def stat(self, path: str, *, identity: Identity = SELF) -> StoreEntry:
        def call() -> StoreEntry:
            if path in self.world.dirs:
                return StoreEntry(path.rpartition("/")[2], True, 0, 0)
            if path not in self.world.files:
                raise NotFound(path)
            data = self.world.files[path]
            return StoreEntry(path.rpartition("/")[2], False, len(data), self.world.mtimes[path])

        return await self._do("stat", path, call)  # type: ignore[return-value]

    async def list_dir(self, path: str, *, identity: Identity = SELF) -> list[StoreEntry]:
        def call() -> list[StoreEntry]:
            if path in self.world.files:
                raise NotADirectory(path)
            if path not in self.world.dirs:
                raise NotFound(path)
            prefix = path + "/" if path else ""
            found = {}
            for name in (*self.world.files, *self.world.dirs):
                if name.startswith(prefix) and name != path and "/" not in (rest := name[len(prefix) :]) and rest:
                    is_dir = name in self.world.dirs
                    size = 0 if is_dir else len(self.world.files[name])
                    found[rest] = StoreEntry(rest, is_dir, size, self.world.mtimes.get(name, 0))
            return [found[name] for name in sorted(found)]

        return await self._do("list_dir", path, call)  # type: ignore[return-value]

    def _data(self, path: str) -> bytes:
        if path not in self.world.files:
            raise NotFound(path)
        return self.world.files[path]

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        data = await self._do("read_range", path, lambda: self._data(path))
        assert isinstance(data, bytes)
        if offset + length > len(data):
            raise CorruptData(path)
        return data[offset : offset + length]

    async def read_file(self, path: str, *, max_bytes: int, identity: Identity = SELF) -> bytes:
        data = await self._do("read_file", path, lambda: self._data(path))
        assert isinstance(data, bytes)
        return data

    async def create(self, path: str, *, identity: Identity = SELF) -> SimulatedWriter:
        def check() -> None:
            if path in self.world.files:
                raise AlreadyExists(path)
            self.world.parent_of(path)

        await self._do("create", path, check)
        return SimulatedWriter(self, path)

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        await self._do("write_file", path, lambda: self.world.put(path, data))

    async def rename(self, source: str, target: str, *, identity: Identity = SELF) -> None:
        await self._do("rename", f"{source} {target}", lambda: self.world.move(source, target))

    async def mkdir(self, path: str, *, parents: bool = False, identity: Identity = SELF) -> None:
        await self._do("mkdir", path, lambda: self.world.mkdir(path, parents))

    async def delete(self, path: str, *, recursive: bool = False, identity: Identity = SELF) -> None:
        await self._do("delete", path, lambda: self.world.delete(path, recursive))

    async def space(self, *, identity: Identity = SELF) -> Space:
        return Space(1 << 40, 1 << 39)

    async def aclose(self) -> None:
        pass


class SimulatedWriter:
    def __init__(self, storage: SimulatedStorage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._data = bytearray()

    async def write(self, data: bytes | bytearray) -> None:
        await trio.lowlevel.checkpoint()
        self._data += data

    async def close(self) -> None:
        data = bytes(self._data)
        await self._storage._do("close", self._path, lambda: self._storage.world.put(self._path, data))

    async def abort(self) -> None:
        pass


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000 * NS_PER_S

    def __call__(self) -> int:
        return self.now_ns

    def forward(self, seconds: float) -> None:
        self.now_ns += int(seconds * NS_PER_S)


def publisher(host: str = "a", clock: Clock | None = None) -> Publisher:
    return Publisher(host, "ada", "test", clock or Clock())


async def make_model(world: World, name: str = "llama") -> str:
    storage = SimulatedStorage(world)
    store = await Store.open(storage) if "mvcfs.json" in world.files else await Store.init(storage)
    return await store.create_model(name, publisher=publisher())


async def open_host(
    world: World, local: Path, host: str = "a", plan: Plan | None = None, clock: Clock | None = None
) -> tuple[ModelRepository, SimulatedStorage]:
    storage = SimulatedStorage(world)
    store = await Store.open(storage)
    repository = await store.open_model("llama", local_dir=local / host, publisher=publisher(host, clock))
    storage.plan = plan
    return repository, storage


def file(data: bytes, mtime_ns: int = 5) -> FileChange:
    return FileChange(Attributes(0o100644, 1000, 1000, mtime_ns), data)


async def commit_files(
    repository: ModelRepository,
    files: dict[bytes, bytes | None],
    *,
    branch: str = "main",
    base: str | type | None = str,
    message: str = "Change",
    on_attempt: Callable[[Attempt | None], None] | None = None,
    override_protection: bool = False,
) -> object:
    """Publishes changes of top-level files on `base` (default: the tip as known)."""
    state = repository.refs.branch(branch)
    start = state.tip if base is str else base
    tree = None if start is None else (await repository.commit_info(start)).tree
    changes = {name: None if data is None else file(data) for name, data in files.items()}
    built = await repository.build_tree(DirChange(ROOT, tree, changes))
    return await repository.publish_commit(
        CommitRequest(
            state.id,
            start,
            built,
            AUTHOR,
            message,
            f"{branch}-conflict-x",
            on_attempt=on_attempt,
            override_protection=override_protection,
        )
    )


async def content_of(repository: ModelRepository, commit: str) -> dict[bytes, bytes]:
    tree = (await repository.commit_info(commit)).tree
    return {
        entry.name: await repository.read_content(entry.content)  # type: ignore[arg-type]
        for entry in await repository.list_tree(tree)
    }
