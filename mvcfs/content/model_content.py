"""All large-file content of one model: the door to this layer.

It doesn't know refs or commits: whoever follows the ref log says which manifests and packs are live.

Threading: trio thread only. Tasks run in the nursery given at the start, which has to outlive `aclose`; no error of a
task gets into that nursery.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import trio

from mvcfs.content.block_cache import BlockCache
from mvcfs.content.budget import Budget
from mvcfs.content.check import PackProblem, check_manifest, check_pack
from mvcfs.content.chunk_store import ChunkStore
from mvcfs.content.config import ContentConfig
from mvcfs.content.dedup import DedupIndex
from mvcfs.content.file_upload import store_file
from mvcfs.content.manifest_file import FileChunks
from mvcfs.content.manifest_join import write_joined_manifest
from mvcfs.content.manifests import ManifestSet
from mvcfs.content.pack_file import FOOTER_BASE_BYTES, FOOTER_ROW_BYTES
from mvcfs.content.packs import check_stored, discard_file
from mvcfs.content.reader import LargeReader
from mvcfs.content.upload import Upload, UploadServices
from mvcfs.errors import CorruptData, InvalidArgument, NotFound, StorageError
from mvcfs.storage.protocol import Storage
from mvcfs.types import LargeContent, StoredFile

_FILE_THREADS = 4


class ModelContent:
    """The large files of one model."""

    def __init__(
        self,
        storage: Storage,
        *,
        model_path: Callable[[], str],
        local_dir: Path,
        cache: BlockCache,
        budget: Budget,
        config: ContentConfig,
        nursery: trio.Nursery,
        reread: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Reads and writes nothing yet.

        Args:
            storage: The store.
            model_path: The model's folder in the store, now; it may be renamed.
            local_dir: Folder of this model's local copies of manifests and index of known chunks; one process only.
            cache: Chunks on local disk.
            budget: The mount's memory.
            config: Sizes.
            nursery: Where tasks run that outlive a call.
            reread: Has the ref log read again and `set_live` called; asked for when a manifest is missing, which may
                have been joined into another.

        Raises:
            InvalidArgument: The store's blocks are too small for a chunk.
        """
        self._pack_bytes = min(config.pack_bytes, storage.block_bytes)
        if self._pack_bytes < config.chunk_max_bytes + FOOTER_BASE_BYTES + FOOTER_ROW_BYTES:
            raise InvalidArgument(f"blocks of {self._pack_bytes} bytes don't hold chunks of {config.chunk_max_bytes}")
        self._files = files = trio.CapacityLimiter(_FILE_THREADS)
        self._storage = storage
        self._model_path = model_path
        self._config = config
        self._manifests = ManifestSet(storage, model_path, local_dir / "manifests", config, files, reread)
        self._files = files
        self._live_packs: dict[str, int] = {}
        self._store = ChunkStore(storage, model_path, cache, budget, config, nursery.start_soon)
        self._dedup = DedupIndex(local_dir / "chunks.sqlite", config.dedup_rows)
        self._services = UploadServices(
            storage=storage,
            model_path=model_path,
            manifests=self._manifests,
            dedup=self._dedup,
            live_packs=lambda: self._live_packs,
            budget=budget,
            config=config,
            directory=local_dir / "uploads",
            pack_bytes=self._pack_bytes,
            hashing=trio.CapacityLimiter(config.hash_threads),
            files=files,
            start_soon=nursery.start_soon,
        )

    def set_live(self, manifests: Iterable[StoredFile], packs: Iterable[StoredFile]) -> None:
        """Says what the ref log holds now. Cheap: manifests are fetched when something is looked up in them."""
        self._manifests.set_live(manifests)
        self._live_packs = {file.name: file.size_bytes for file in packs}

    async def find(self, oid: str) -> bool:
        """Whether a live manifest has the large file.

        Args:
            oid: Its SHA-256, 64 hex digits.

        Raises:
            CorruptData: No readable manifest has it, and one is damaged.
            StorageError: No readable manifest has it, and one couldn't be fetched.
        """
        return await self._manifests.find(oid) is not None

    async def open(self, content: LargeContent) -> LargeReader:
        """A reader of a large file.

        Raises:
            NotFound: No live manifest has it.
            CorruptData: The manifest that has it says another length, or one that may have it is damaged.
            StorageError: A manifest that may have it couldn't be fetched.
        """
        chunks = await self._manifests.find(content.oid)
        if chunks is None:
            raise NotFound(f"{self._model_path()}: large file {content.oid} is in no manifest")
        if chunks.size_bytes != content.size_bytes:
            raise CorruptData(
                f"{self._model_path()}: large file {content.oid} has {content.size_bytes} bytes, "
                f"but manifest {chunks.manifest} says {chunks.size_bytes}"
            )
        return LargeReader(content, chunks, self._store, self._config, self._model_path, self._manifests.doubt)

    async def shared_bytes(self, old: LargeContent, new: LargeContent) -> int | None:
        """How many bytes of a large file are in chunks that another one has, too; no data is read.

        Returns:
            None if no manifest has one of them: its version has expired.

        Raises:
            CorruptData, StorageError: As `find`.
        """
        if old == new:
            return new.size_bytes
        before, after = await self._manifests.find(old.oid), await self._manifests.find(new.oid)
        if before is None or after is None:
            return None
        return await trio.to_thread.run_sync(_shared_bytes, before, after, limiter=self._files)

    def upload(self) -> Upload:
        """A new upload, for one publish."""
        return Upload(self._services)

    async def join_manifests(self, names: Sequence[str]) -> StoredFile:
        """Makes one manifest of all that some live ones hold, here and in the store; nothing refers to it yet.

        Raises:
            NotFound: One is live no longer, or the model was renamed or removed.
            CorruptData: One is damaged.
            StorageError: The store or the local disk failed.
        """
        await self._manifests.sweep()
        manifests = [await self._manifests.get(name) for name in names]
        name = f"manifests/{secrets.token_hex(16)}.arrow"
        local = self._manifests.local_path(name)
        write = partial(write_joined_manifest, local, manifests)
        path = f"{self._model_path()}/{name}"
        try:
            size = await trio.to_thread.run_sync(write, limiter=self._files)
            joined = StoredFile(name, size)
            await store_file(self._storage, local, path, size, self._config.piece_bytes, self._files)
            await check_stored(self._storage, self._model_path(), [joined])
        except BaseException as error:
            local.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise StorageError(f"no joined manifest can be written in {local.parent}: {error}") from error
            raise
        await self._dedup.learn_joined(name, names)
        return joined

    async def discard_joined(self, joined: StoredFile) -> None:
        """Removes a manifest that `join_manifests` made and that was not published."""
        self._manifests.local_path(joined.name).unlink(missing_ok=True)
        await discard_file(self._storage, f"{self._model_path()}/{joined.name}")

    async def check_manifest(self, name: str) -> list[PackProblem]:
        """What is wrong with a live manifest or the packs it names, data not read; see `mvcfs.content.check`."""
        return await check_manifest(self._manifests, self._live_packs, name)

    async def check_pack(self, name: str, data: bool) -> list[PackProblem]:
        """What is wrong with a live pack; with `data` every chunk is read and hashed; see `mvcfs.content.check`."""
        return await check_pack(
            self._storage, self._model_path(), self._manifests, self._live_packs, name, self._config, data=data
        )

    async def aclose(self) -> None:
        """Cancels reading ahead, gives memory back and closes local files. Uploads are the caller's to end first."""
        await self._store.aclose()
        await self._dedup.aclose()


def _shared_bytes(before: FileChunks, after: FileChunks) -> int:
    known, _ = before.fingerprints()
    hashes, lengths = after.fingerprints()
    return int(lengths[np.isin(hashes, known)].sum(dtype=np.uint64))
