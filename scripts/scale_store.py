"""Stores that are large in one way: many versions of a large tree, or a terabyte of large files.

Built through the engine, without a mount and without most of the data: versions are published as a mount would publish
them, joined and trimmed as they come; large files are manifests whose chunks are made up, but for a few that are there.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import trio

from mvcfs.config import EngineConfig
from mvcfs.content.manifest_file import ROW, ChunkRef
from mvcfs.content.manifest_writing import SpooledFile, write_manifest
from mvcfs.storage.protocol import Storage
from mvcfs.types import MIB, Attributes, Author, DirChange, FileChange, LargeContent, StoredFile
from mvcfs.versions.log.publish import CommitRequest
from mvcfs.versions.store import Store
from mvcfs.vfs.engine import Engine
from mvcfs.vfs.model import OpenModel

MODEL = "m"
PER_DIRECTORY, DIRECTORIES = 100, 10
AUTHOR = Author("Scale", "scale@example.org")
LARGE_BYTES = 100 * 10**9
REAL_BYTES = 8 * MIB
REAL_AT = 0.37


def attributes(mode: int = 0o100644, time_ns: int = 1_700_000_000 * 10**9) -> Attributes:
    return Attributes(mode, os.getuid(), os.getgid(), time_ns)


def directory(changes: dict[bytes, FileChange | DirChange | None], base: str | None = None) -> DirChange:
    return DirChange(attributes(0o040755), base, changes)


def small(path: bytes, version: int = 0) -> FileChange:
    return FileChange(attributes(time_ns=1_700_000_000 * 10**9 + version), b"%s of version %d\n" % (path, version))


def file_at(number: int) -> tuple[bytes, bytes, bytes]:
    """Two directories and the name of a file of the tree."""
    directory = number // PER_DIRECTORY
    return b"d%03d" % (directory // DIRECTORIES), b"e%04d" % directory, b"f%06d" % number


@asynccontextmanager
async def opened(storage: Storage, *, make: bool) -> AsyncIterator[Engine]:
    """The engine of a store, new or there already, with local state of its own."""
    if make:
        await Store.init(storage)
    with TemporaryDirectory(prefix="mvcfs-scale-") as folder:
        config = EngineConfig(Path(folder), "builder", "scale", block_cache_bytes=0)
        async with trio.open_nursery() as nursery:
            engine = await Engine.open(storage, config, nursery)
            try:
                yield engine
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await engine.aclose()


async def publish(
    model: OpenModel,
    change: DirChange,
    message: str,
    manifests: tuple[StoredFile, ...] = (),
    packs: tuple[StoredFile, ...] = (),
) -> None:
    """Makes a version, and afterwards what a mount does after one."""
    repository = model.data.repository
    state = repository.refs.branch("main")
    tree = await repository.build_tree(change)
    request = CommitRequest(state.id, state.tip, tree, AUTHOR, message, "main-conflict", manifests, packs)
    await repository.publish_commit(request)
    await model.housekeeping.keep()


async def root_of(model: OpenModel) -> str | None:
    repository = model.data.repository
    tip = repository.refs.branch("main").tip
    return None if tip is None else (await repository.commit_info(tip)).tree


async def fill_tree(model: OpenModel, files: int) -> None:
    """The first version: so many small files, a hundred a directory."""
    below: dict[bytes, dict[bytes, dict[bytes, FileChange | DirChange | None]]] = {}
    for number in range(files):
        outer, inner, name = file_at(number)
        below.setdefault(outer, {}).setdefault(inner, {})[name] = small(name)
    tops: dict[bytes, FileChange | DirChange | None] = {
        outer: directory({inner: directory(names) for inner, names in inners.items()})
        for outer, inners in below.items()
    }
    await publish(model, directory(tops), "All files")


async def add_versions(
    model: OpenModel, count: int, files: int, large_every: int = 1, told: Callable[[int], None] | None = None
) -> None:
    """So many versions, each with another content of one file, and (each `large_every`-th) of one large file."""
    repository = model.data.repository
    chance = random.Random(repository.refs.number)
    for _ in range(count):
        version = repository.refs.branch("main").version + 1
        root = await root_of(model)
        assert root is not None
        outer, inner, name = file_at(chance.randrange(files))
        bases = [await subtree(model, root, outer)]
        bases.append(await subtree(model, bases[0], inner))
        within = directory({name: small(name, version)}, bases[1])
        changes: dict[bytes, FileChange | DirChange | None] = {outer: directory({inner: within}, bases[0])}
        manifests: tuple[StoredFile, ...] = ()
        if version % large_every == 0:
            content, manifest = await store_large(model, [made_up(64, chance)], chance)
            changes[b"model.safetensors"] = FileChange(attributes(), content[0])
            manifests = (manifest,)
        await publish(model, directory(changes, root), f"Change {name.decode()}", manifests)
        if told is not None:
            told(version)


async def subtree(model: OpenModel, tree: str, name: bytes) -> str:
    entries = await model.data.repository.list_tree(tree)
    return next(entry.tree for entry in entries if entry.name == name and entry.tree is not None)


def made_up(chunks: int, chance: random.Random) -> np.ndarray:
    """Rows of so many chunks of a mebibyte that nobody stored."""
    rows = np.zeros(chunks, dtype=ROW)
    rows["hash"] = np.frombuffer(chance.randbytes(32 * chunks), "S32")
    rows["length"] = MIB
    rows["pack"] = np.arange(chunks) // 127
    rows["offset"] = np.arange(chunks) % 127 * MIB
    return rows


async def store_large(
    model: OpenModel, files: list[np.ndarray], chance: random.Random, packs: list[str] | None = None
) -> tuple[list[LargeContent], StoredFile]:
    """Puts a manifest of files that consist of these chunks into the store."""
    storage, path = model.data.repository._storage, model.data.repository.path
    names = packs or [
        f"packs/{chance.randbytes(16).hex()}" for _ in range(max(int(rows["pack"].max()) for rows in files) + 1)
    ]
    with TemporaryDirectory(prefix="mvcfs-scale-") as folder:
        spool, local = Path(folder) / "spool", Path(folder) / "manifest"
        spooled, first = [], 0
        with spool.open("wb") as out:
            for rows in files:
                rows["start"] = np.cumsum(rows["length"], dtype=np.uint64) - rows["length"]
                rows.tofile(out)
                size = int(rows["length"].sum(dtype=np.uint64))
                spooled.append(SpooledFile(chance.randbytes(32), size, ((first, len(rows)),)))
                first += len(rows)
        await trio.to_thread.run_sync(write_manifest, local, spooled, spool, names)
        manifest = StoredFile(f"manifests/{chance.randbytes(16).hex()}.arrow", local.stat().st_size)
        await storage.write_file(f"{path}/{manifest.name}", local.read_bytes())
    return [LargeContent(file.oid.hex(), file.size_bytes) for file in spooled], manifest


class Bytes:
    """A source of an upload."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)

    async def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


async def fill_terabyte(model: OpenModel, total_bytes: int) -> tuple[int, bytes]:
    """A version of `total_bytes` in files of 100 GB.

    Returns:
        Where in `shard-00.bin` some bytes are really there, and these bytes.
    """
    chance = random.Random(7)
    data = chance.randbytes(REAL_BYTES)
    upload = model.data.content.upload()
    content = await upload.add(Bytes(data))
    manifests, packs = await upload.finish()
    model.data.content.set_live(manifests, packs)
    found = await model.data.content._manifests.find(content.oid)
    assert found is not None
    real = found.refs(0, REAL_BYTES)
    count = LARGE_BYTES // MIB
    files = [made_up(count, chance) for _ in range(max(1, total_bytes // LARGE_BYTES))]
    names = [f"packs/{chance.randbytes(16).hex()}" for _ in range(count // 127 + 1)] + [packs[0].name]
    first = int(count * REAL_AT)
    for row, chunk in enumerate(real, first):
        put_real(files[0], row, chunk, len(names) - 1)
    contents, manifest = await store_large(model, files, chance, names)
    changes: dict[bytes, FileChange | DirChange | None] = {
        b"shard-%02d.bin" % number: FileChange(attributes(), one) for number, one in enumerate(contents)
    }
    changes[b"real.bin"] = FileChange(attributes(), content)
    await publish(model, directory(changes), "A terabyte", (*manifests, manifest), packs)
    return int(files[0]["start"][first]), data


def put_real(rows: np.ndarray, row: int, chunk: ChunkRef, pack: int) -> None:
    rows[row] = (chunk.hash, 0, chunk.offset, chunk.length, pack)


async def count_files(storage: Storage) -> Counter[str]:
    """Files of the model by folder."""
    counts: Counter[str] = Counter()
    for kind in ("log", "git", "manifests", "packs"):
        counts[kind] = len(await storage.list_dir(f"models/{MODEL}/{kind}"))
    return counts
