"""What the tests of large-file content share: a small store in memory, small chunks, a rig that wires it all."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from mvcfs.content.block_cache import BlockCache
from mvcfs.content.budget import Budget
from mvcfs.content.config import ContentConfig
from mvcfs.content.model_content import ModelContent
from mvcfs.content.upload import Upload
from mvcfs.errors import NotFound, Transient
from mvcfs.storage.faults import FaultyStorage
from mvcfs.storage.memory import MemoryStorage, MemoryStore
from mvcfs.storage.wrapper import Call
from mvcfs.types import SELF, Identity, LargeContent, StoredFile

T = TypeVar("T")

SMALL = ContentConfig(
    chunk_min_bytes=256,
    chunk_avg_bytes=512,
    chunk_max_bytes=2048,
    pack_bytes=16384,
    piece_bytes=4096,
    upload_bytes=65536,
    range_bytes=4096,
    window_min_bytes=2048,
    window_max_bytes=16384,
    fetches=3,
)
MODEL = "models/m"


class Files(MutableMapping[str, bytes]):
    """The files of a store in memory, to look at and to damage."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __getitem__(self, path: str) -> bytes:
        try:
            return self._store.find(path).data  # type: ignore[union-attr]
        except NotFound:
            raise KeyError(path) from None

    def __setitem__(self, path: str, data: bytes) -> None:
        self.pop(path, None)
        self._store.put(path, bytes(data))

    def __delitem__(self, path: str) -> None:
        directory, name = self._store.parent(path)
        del directory.names[name]

    def __iter__(self) -> Iterator[str]:
        for kind in ("manifests", "packs"):
            for name in sorted(self._store.find(f"{MODEL}/{kind}").names):  # type: ignore[union-attr]
                yield f"{MODEL}/{kind}/{name}"

    def __len__(self) -> int:
        return sum(1 for _ in self)


class LabStorage(FaultyStorage):
    """A store in memory that remembers range reads and calls a hook before everything."""

    def __init__(self) -> None:
        store = MemoryStore()
        super().__init__(MemoryStorage(store))
        self.files = Files(store)
        self.reads: list[tuple[str, int, int]] = []
        self.hook: Callable[[str, str], Awaitable[None]] | None = None
        self.running = 0

    async def around(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        if self.hook is not None:
            await self.hook(call.op.removeprefix("writer."), call.path)
        return await super().around(call, run)

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        self.reads.append((path, offset, length))
        self.running += 1
        try:
            return await super().read_range(path, offset, length, identity=identity)
        finally:
            self.running -= 1


@dataclass
class BytesSource:
    data: bytes
    fail_at: int | None = None
    claim: int | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data) if self.claim is None else self.claim

    async def read(self, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.fail_at is not None and offset + length > self.fail_at:
            raise Transient("overtaken by a write")
        return self.data[offset : offset + length]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class Rig:
    """A model's content on a store, and what a ref log would say of it."""

    storage: LabStorage
    directory: Path
    nursery: trio.Nursery
    config: ContentConfig = SMALL
    budget: Budget = field(default_factory=lambda: Budget(1 << 20))
    cache_bytes: int = 0
    manifests: list[StoredFile] = field(default_factory=list)
    packs: list[StoredFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = BlockCache(self.directory / "cache" if self.cache_bytes else None, self.cache_bytes, 0)
        self.content = self.another()

    def another(self, directory: str = "local", reread: Callable[[], Awaitable[None]] | None = None) -> ModelContent:
        """One more mount of the model; with the same directory it is the same host after a restart."""
        content = ModelContent(
            self.storage,
            model_path=lambda: MODEL,
            local_dir=self.directory / directory,
            cache=self.cache,
            budget=self.budget,
            config=self.config,
            nursery=self.nursery,
            reread=reread,
        )
        content.set_live(self.manifests, self.packs)
        return content

    async def publish(self, upload: Upload) -> tuple[tuple[StoredFile, ...], tuple[StoredFile, ...]]:
        manifests, packs = await upload.finish()
        self.manifests += manifests
        self.packs += packs
        self.content.set_live(self.manifests, self.packs)
        return manifests, packs

    async def store(self, *contents: bytes) -> list[LargeContent]:
        upload = self.content.upload()
        added = [await upload.add(BytesSource(data)) for data in contents]
        await self.publish(upload)
        return added

    def pack_files(self) -> list[str]:
        return sorted(name for name in self.storage.files if name.startswith(f"{MODEL}/packs/"))

    def damage(self, path: str, at: int) -> None:
        data = bytearray(self.storage.files[path])
        data[at] ^= 0xFF
        self.storage.files[path] = bytes(data)


@asynccontextmanager
async def open_rig(
    directory: Path, *, config: ContentConfig = SMALL, budget_bytes: int = 1 << 20, cache_bytes: int = 0
) -> AsyncIterator[Rig]:
    """A rig; at the end nothing may hold budget any more."""
    storage = LabStorage()
    for kind in ("manifests", "packs"):
        await storage.mkdir(f"{MODEL}/{kind}", parents=True)
    async with trio.open_nursery() as nursery:
        rig = Rig(storage, directory, nursery, config, Budget(budget_bytes), cache_bytes)
        try:
            yield rig
        finally:
            await rig.content.aclose()
        assert rig.budget.used_bytes == 0
        assert rig.budget.waiting == 0
        nursery.cancel_scope.cancel()
