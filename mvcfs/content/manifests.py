"""The manifests of a model: which are live, their local copies, and which of them has a file.

Live manifests are fetched whole when something is first looked up after they became live; a damaged local copy is
fetched again. In memory stays 40 bytes a large file (its oid and where it is), nothing a chunk.

Invariants: a local copy appears by a rename, after it was checked. A manifest that can't be had doesn't hide what others
hold; only a lookup that finds nothing elsewhere fails with its error.

Threading: methods on the trio thread; files are written, mapped and checked in threads.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import trio

from mvcfs.content.config import ContentConfig
from mvcfs.content.manifest_file import FileChunks, Manifest
from mvcfs.content.tasks import plain_nursery
from mvcfs.errors import CorruptData, MvcfsError, NotFound, StorageError
from mvcfs.storage.protocol import Storage
from mvcfs.types import StoredFile

logger = logging.getLogger(__name__)

_PARALLEL_FETCHES = 8

Array = np.ndarray[Any, Any]


class ManifestSet:
    """The live manifests of one model."""

    def __init__(
        self,
        storage: Storage,
        model_path: Callable[[], str],
        directory: Path,
        config: ContentConfig,
        limiter: trio.CapacityLimiter,
        reread: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Starts with none.

        Args:
            storage: The store.
            model_path: The model's folder now.
            directory: Folder of the local copies; made if need be.
            config: Sizes.
            limiter: Threads that write and check local copies.
            reread: Has whoever follows the ref log read it again, and call `set_live` with what it says now.
        """
        self._storage = storage
        self._model_path = model_path
        self._directory = directory
        self._config = config
        self._limiter = limiter
        self._reread = reread
        self._live: dict[str, int] = {}
        self._indexed: set[str] = set()
        self._failed: dict[str, MvcfsError] = {}
        self._open: OrderedDict[str, Manifest] = OrderedDict()
        self._names: list[str] = []  # what the numbers in _where mean; None of them is reused
        self._oids: Array = np.empty(0, "S32")
        self._where: Array = np.empty(0, np.uint32)
        self._doubted: set[str] = set()
        self._stale: set[str] = set()
        self._lock = trio.Lock()
        self._swept = False

    @property
    def live(self) -> Sequence[str]:
        """Names of the live manifests."""
        return list(self._live)

    def set_live(self, manifests: Iterable[StoredFile]) -> None:
        """Says which manifests count from now on. Nothing is fetched yet."""
        before, self._live = self._live, {file.name: file.size_bytes for file in manifests}
        self._failed = {}
        gone = before.keys() - self._live.keys()
        if gone:
            self._forget(gone)
            for name in gone:
                # What is mapped stays readable.
                with suppress(OSError):
                    self.local_path(name).unlink(missing_ok=True)

    async def find(self, oid: str) -> FileChunks | None:
        """The chunks of a file, or None when no live manifest has it.

        Raises:
            CorruptData: A manifest is damaged, and no other has the file.
            StorageError: A manifest couldn't be fetched, and no other has the file.
        """
        key = bytes.fromhex(oid)
        reread = self._reread
        while True:
            before = self._live.keys()
            chunks, failed = await self._look(key)
            if chunks is not None:
                return chunks
            if isinstance(failed, (CorruptData, NotFound)) and reread is not None and self._live.keys() == before:
                # A manifest that is gone may have been joined into another.
                with suppress(MvcfsError):
                    await reread()
                reread = None
            if self._live.keys() == before:
                break
        if failed is not None:
            raise type(failed)(
                f"large file {oid} is in no manifest that could be read; one could not: {failed}"
            ) from failed
        return None

    async def _look(self, key: bytes) -> tuple[FileChunks | None, MvcfsError | None]:
        """The chunks of a file; else why a manifest that may have it can't be read, if there is such a one."""
        failed: MvcfsError | None = None
        try:
            chunks = await self._find_indexed(key)
            if chunks is None and self._live.keys() - self._indexed:
                await self._index_missing()
                chunks = await self._find_indexed(key)
        except (CorruptData, StorageError, NotFound) as error:
            chunks, failed = None, error
        if chunks is None and failed is None:
            failed = next(iter(self._failed.values()), None)
        return chunks, failed

    async def get(self, name: str) -> Manifest:
        """A manifest, mapped; NotFound, CorruptData, StorageError."""
        manifest = self._open.get(name)
        if manifest is None:
            manifest = await self._load(name)
            self._open[name] = manifest
            while len(self._open) > self._config.manifests_open:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(name)
        return manifest

    def local_path(self, name: str) -> Path:
        """Where the local copy of a manifest is."""
        return self._directory / name.rpartition("/")[2]

    def doubt(self, name: str) -> None:
        """Says that what a manifest says of the store was not so: perhaps its local copy rotted. Fetches it once more."""
        if name in self._live and name not in self._doubted:
            self._doubted.add(name)
            self._stale.add(name)
            self._forget({name})

    async def sweep(self) -> None:
        """Once after a start: removes local copies of manifests that are live no longer, and remains of a killed run."""
        if not self._swept:
            self._swept = True
            keep = {self.local_path(name).name for name in self._live}
            await trio.to_thread.run_sync(_sweep, self._directory, keep, limiter=self._limiter)

    async def _find_indexed(self, key: bytes) -> FileChunks | None:
        for name in self._holders(key):
            manifest = await self.get(name)
            chunks = manifest.find(key)
            if chunks is not None:
                return chunks
        return None

    async def _index_missing(self) -> None:
        async with self._lock:
            await self.sweep()
            missing = [name for name in self._live if name not in self._indexed]
            found: dict[str, Array] = {}
            slots = trio.CapacityLimiter(_PARALLEL_FETCHES)

            async def index(name: str) -> None:
                async with slots:
                    try:
                        manifest = await self.get(name)
                        found[name] = (await trio.to_thread.run_sync(manifest.files, limiter=self._limiter))[0]
                        self._failed.pop(name, None)
                    except (CorruptData, StorageError, NotFound) as error:
                        logger.error("manifest %s/%s can't be used: %s", self._model_path(), name, error)
                        self._failed[name] = error

            async with plain_nursery() as nursery:
                for name in missing:
                    nursery.start_soon(index, name)
            self._add({name: oids for name, oids in found.items() if name in self._live})

    def _add(self, found: dict[str, Array]) -> None:
        if not found:
            return
        numbers = []
        for name, oids in found.items():
            numbers.append(np.full(len(oids), len(self._names), np.uint32))
            self._names.append(name)
            self._indexed.add(name)
        oids, where = np.concatenate(list(found.values())), np.concatenate(numbers)
        order = np.argsort(oids, kind="stable")
        oids, where = oids[order], where[order]
        at = np.searchsorted(self._oids, oids)
        self._oids, self._where = np.insert(self._oids, at, oids), np.insert(self._where, at, where)

    def _forget(self, names: set[str]) -> None:
        for name in names:
            self._open.pop(name, None)
        self._indexed -= names
        numbers = [number for number, name in enumerate(self._names) if name in names]
        keep = ~np.isin(self._where, numbers)
        self._oids, self._where = self._oids[keep], self._where[keep]

    def _holders(self, oid: bytes) -> list[str]:
        first, last = (int(np.searchsorted(self._oids, np.bytes_(oid), side)) for side in ("left", "right"))
        return [self._names[number] for number in self._where[first:last].tolist()]

    async def _load(self, name: str) -> Manifest:
        path, size = self.local_path(name), self._live.get(name)
        if size is None:
            raise NotFound(f"manifest {name} is live no longer")
        trusted = name in self._indexed
        if name in self._stale:
            await self._renew(name, path, size)
        try:
            return await trio.to_thread.run_sync(_load_copy, path, name, size, not trusted, limiter=self._limiter)
        except FileNotFoundError:
            pass
        except (CorruptData, OSError) as error:
            logger.warning("local copy of manifest %s is fetched again: %s", name, error)
        await self._fetch(name, path, size)
        return await trio.to_thread.run_sync(_load_copy, path, name, size, False, limiter=self._limiter)

    async def _renew(self, name: str, path: Path, size: int) -> None:
        """Fetches a manifest anew whose copy is in doubt. With the store gone the copy serves on: its chunks may be cached."""
        logger.warning("local copy of manifest %s is fetched again: it doesn't fit the store", name)
        try:
            await self._fetch(name, path, size)
        except (CorruptData, StorageError) as error:
            logger.warning("manifest %s can't be fetched again, its local copy stays: %s", name, error)
            self._doubted.discard(name)
        finally:
            self._stale.discard(name)

    async def _fetch(self, name: str, path: Path, size: int) -> None:
        source = f"{self._model_path()}/{name}"
        temporary = path.with_name(f"tmp-{path.name}")
        try:
            await trio.to_thread.run_sync(_start_copy, temporary, limiter=self._limiter)
            for offset in range(0, size, self._config.range_bytes):
                length = min(self._config.range_bytes, size - offset)
                data = await self._storage.read_range(source, offset, length)
                await trio.to_thread.run_sync(_append_copy, temporary, data, limiter=self._limiter)
            await trio.to_thread.run_sync(_finish_copy, temporary, path, name, size, limiter=self._limiter)
        except NotFound as error:
            raise CorruptData(f"manifest {source} is not in the store") from error
        except OSError as error:
            raise StorageError(f"manifest {name} can't be kept in {self._directory}: {error}") from error


def _start_copy(temporary: Path) -> None:
    temporary.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary.write_bytes(b"")


def _append_copy(temporary: Path, data: bytes) -> None:
    with temporary.open("ab") as file:
        file.write(data)


def _finish_copy(temporary: Path, path: Path, name: str, size: int) -> None:
    try:
        _load_copy(temporary, name, size, True)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _load_copy(path: Path, name: str, size: int, check: bool) -> Manifest:
    found = path.stat().st_size
    if found != size:
        raise CorruptData(f"manifest {name} has {found} bytes, not {size}")
    return Manifest.load(path, name, check=check)


def _sweep(directory: Path, keep: set[str]) -> None:
    """Removes copies of manifests that are live no longer, and what was being fetched when mvcfs was killed."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name not in keep and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(entry.path)
