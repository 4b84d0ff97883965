"""What the tests of large-file content share: a small store in memory, small chunks, a rig that wires it all."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from mvcfs.content.block_cache import BlockCache
from mvcfs.content.budget import Budget
from mvcfs.content.config import ContentConfig
from mvcfs.content.model_content import ModelContent
from mvcfs.content.upload import Upload
from mvcfs.errors import AlreadyExists, CorruptData, NotFound, Transient
from mvcfs.storage.protocol import Space, StoreEntry
from mvcfs.types import SELF, Identity, LargeContent, StoredFile

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


class DictStorage:
    """A store in a dict, with hooks: damage the files, fail or delay calls."""

    url = "memory://test"
    block_bytes = 1 << 20

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.reads: list[tuple[str, int, int]] = []
        self.hook: Callable[[str, str], Awaitable[None]] | None = None
        self.running = 0

    async def _call(self, op: str, path: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.hook is not None:
            await self.hook(op, path)

    async def stat(self, path: str, *, identity: Identity = SELF) -> StoreEntry:
        await self._call("stat", path)
        if path not in self.files:
            raise NotFound(path)
        return StoreEntry(path.rpartition("/")[2], False, len(self.files[path]), 0)

    async def list_dir(self, path: str, *, identity: Identity = SELF) -> list[StoreEntry]:
        raise NotImplementedError

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        self.reads.append((path, offset, length))
        self.running += 1
        try:
            await self._call("read_range", path)
        finally:
            self.running -= 1
        if path not in self.files:
            raise NotFound(path)
        data = self.files[path][offset : offset + length]
        if len(data) != length:
            raise CorruptData(f"{path} ends before {offset + length}")
        return data

    async def read_file(self, path: str, *, max_bytes: int, identity: Identity = SELF) -> bytes:
        return await self.read_range(path, 0, len(self.files[path]))

    async def create(self, path: str, *, identity: Identity = SELF) -> DictWriter:
        await self._call("create", path)
        if path in self.files:
            raise AlreadyExists(path)
        return DictWriter(self, path)

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        raise NotImplementedError

    async def rename(self, source: str, target: str, *, identity: Identity = SELF) -> None:
        raise NotImplementedError

    async def mkdir(self, path: str, *, parents: bool = False, identity: Identity = SELF) -> None:
        raise NotImplementedError

    async def delete(self, path: str, *, recursive: bool = False, identity: Identity = SELF) -> None:
        await self._call("delete", path)
        if self.files.pop(path, None) is None:
            raise NotFound(path)

    async def space(self, *, identity: Identity = SELF) -> Space:
        raise NotImplementedError

    async def aclose(self) -> None:
        return None


class DictWriter:
    def __init__(self, storage: DictStorage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._data = bytearray()

    async def write(self, data: bytes | bytearray) -> None:
        assert isinstance(data, bytes)
        await self._storage._call("write", self._path)
        self._data += data

    async def close(self) -> None:
        await self._storage._call("close", self._path)
        self._storage.files[self._path] = bytes(self._data)

    async def abort(self) -> None:
        await self._storage._call("abort", self._path)


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

    storage: DictStorage
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

    def another(self, directory: str = "local") -> ModelContent:
        """One more mount of the model; with the same directory it is the same host after a restart."""
        content = ModelContent(
            self.storage,
            model_path=lambda: MODEL,
            local_dir=self.directory / directory,
            cache=self.cache,
            budget=self.budget,
            config=self.config,
            nursery=self.nursery,
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
    async with trio.open_nursery() as nursery:
        rig = Rig(DictStorage(), directory, nursery, config, Budget(budget_bytes), cache_bytes)
        try:
            yield rig
        finally:
            await rig.content.aclose()
        assert rig.budget.used_bytes == 0
        assert rig.budget.waiting == 0
        nursery.cancel_scope.cancel()
