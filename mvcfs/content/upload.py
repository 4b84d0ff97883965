"""One publish's large files on their way into the store: read, hashed, cut, compared with what is known, packed.

A file is read in pieces; while one is hashed the next is read and those before are written. What is stored already, in
this upload or in live packs, is referred to and not stored again. Nothing becomes visible here: the caller publishes the
manifest and packs that `finish` returns, or calls `abort`.

Invariants: memory of pieces is reserved from the upload's own bound and the mount's budget until it is written. Chunk
lists are spooled to a local file, so a file of any size takes a bounded amount of memory. A source that fails takes its
own `add` with it, nothing else: chunks already packed stay as orphans. A pack that fails takes the upload with it.

Threading: methods on the trio thread; hashing and the spool's and manifest's file work are done in threads.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from mvcfs.content.budget import Budget
from mvcfs.content.chunker import Chunker, Cut, Piece, chunker_name
from mvcfs.content.config import ContentConfig
from mvcfs.content.dedup import DedupIndex, Place
from mvcfs.content.file_upload import store_file
from mvcfs.content.manifest_writing import SpooledFile, write_manifest
from mvcfs.content.manifests import ManifestSet
from mvcfs.content.packs import (
    PackPool,
    Reservation,
    check_stored,
    discard_file,
)
from mvcfs.content.spool import PieceReader, Rows, Source, Spool
from mvcfs.content.tasks import plain_nursery
from mvcfs.errors import Conflict, CorruptData, InvalidArgument, MvcfsError, NotFound, StorageError
from mvcfs.storage.protocol import Storage
from mvcfs.types import LargeContent, StoredFile

_RECENT_CHUNKS = 65_536


@dataclass(frozen=True)
class UploadServices:
    """What an upload works with; one set a model.

    Attributes:
        storage: The store.
        model_path: The model's folder now.
        manifests: The live manifests.
        dedup: The index of known chunks.
        live_packs: The packs that may be referred to, with their lengths.
        budget: The mount's memory.
        config: Sizes.
        directory: Local folder for the spool and the new manifest's copy.
        pack_bytes: Greatest length of a pack.
        hashing: Threads that hash.
        files: Threads for local files.
        start_soon: Starts a task that outlives the caller.
    """

    storage: Storage
    model_path: Callable[[], str]
    manifests: ManifestSet
    dedup: DedupIndex
    live_packs: Callable[[], Mapping[str, int]]
    budget: Budget
    config: ContentConfig
    directory: Path
    pack_bytes: int
    hashing: trio.CapacityLimiter
    files: trio.CapacityLimiter
    start_soon: Callable[..., object]


class Upload:
    """One publish's large files. `add` may run many times at once; then `finish`, or `abort` at any time."""

    def __init__(self, services: UploadServices) -> None:
        """Made by `ModelContent.upload`; nothing is written before the first `add`."""
        self._services = services
        self._config = services.config
        self._memory = Budget(max(services.config.upload_bytes, services.config.reservation_bytes))
        self._slots = trio.Semaphore(services.config.upload_files)
        self._pool = PackPool(
            services.storage,
            services.model_path,
            services.start_soon,
            limit_bytes=services.pack_bytes,
            in_flight=services.config.packs_in_flight,
            chunker=chunker_name(services.config),
        )
        self._spool: Spool | None = None
        self._manifest: StoredFile | None = None
        self._files: dict[str, SpooledFile] = {}
        self._known: set[str] = set()
        self._pack_numbers: dict[str, int] = {}
        self._recent: OrderedDict[bytes, Place] = OrderedDict()
        self._ready = trio.Lock()
        self._adding = 0
        self._to_come = 0
        self._total_bytes = 0
        self._uploaded_bytes = 0
        self._stored_bytes = 0
        self._result: tuple[tuple[StoredFile, ...], tuple[StoredFile, ...]] | None = None
        self._aborted = False

    @property
    def total_bytes(self) -> int:
        """Length of all files given to `add`."""
        return self._total_bytes

    @property
    def uploaded_bytes(self) -> int:
        """How much of that is hashed and either known or handed to packs."""
        return self._uploaded_bytes

    @property
    def stored_bytes(self) -> int:
        """How much of that was new and went to packs."""
        return self._stored_bytes

    async def add(self, source: Source, progress: Callable[[int], None] | None = None) -> LargeContent:
        """Stores a file's content.

        Args:
            source: The content; whatever its `read` raises ends this `add` only.
            progress: Told the number of bytes each time some more are done.

        Returns:
            The name that the content has once this upload's result is published.

        Raises:
            Conflict: The source gave fewer bytes than it has.
            StorageError: A pack of this upload failed; the upload can only be aborted.
        """
        if self._result is not None or self._aborted:
            raise InvalidArgument("nothing can be added to an upload that is finished or aborted")
        size, done = source.size_bytes, 0

        def count(n: int) -> None:
            nonlocal done
            done += n
            self._to_come -= n
            self._uploaded_bytes += n
            if progress is not None:
                progress(n)

        self._adding += 1
        self._total_bytes += size
        self._to_come += size
        try:
            async with self._slots:
                return await self._add(source, size, count)
        except BaseException:
            self._total_bytes -= size
            self._uploaded_bytes -= done
            raise
        finally:
            self._to_come -= size - done
            self._adding -= 1

    async def finish(self) -> tuple[tuple[StoredFile, ...], tuple[StoredFile, ...]]:
        """Closes everything and makes sure that it is there.

        Returns:
            The manifests and the packs to publish; both empty when nothing is new.

        Raises:
            Conflict: A pack or manifest that the upload relied on is live no longer; it has to be done again.
            StorageError: Something couldn't be written; the upload can only be aborted.
        """
        if self._result is not None:
            return self._result
        if self._adding or self._aborted:
            raise InvalidArgument("an upload can't be finished while files are added to it, or once it is aborted")
        for oid in self._known:
            if await self._services.manifests.find(oid) is None:
                raise Conflict(f"large file {oid} was dropped while an upload relied on it")
        if self._files:
            self._result = await self._finish()
        else:
            await self._pool.discard(self._pool.packs)
            self._result = (), ()
        self._drop_spool()
        return self._result

    async def abort(self) -> None:
        """Gives the upload up and removes what it wrote, finished or not. Never raises on account of the store."""
        self._aborted = True
        with trio.CancelScope(shield=True):
            await self._pool.discard(self._pool.packs)
            if self._manifest is not None:
                await discard_file(self._services.storage, f"{self._services.model_path()}/{self._manifest.name}")
            self._drop_spool()

    async def _add(self, source: Source, size: int, count: Callable[[int], None]) -> LargeContent:
        rows = Rows(await self._prepare())
        chunker = Chunker(self._config)
        pieces = PieceReader(source, self._config, (self._memory, self._services.budget))
        async with plain_nursery() as nursery:
            nursery.start_soon(pieces.run)
            async for data, last, reservation in pieces:
                try:
                    piece = await self._hash(chunker, data, last=last)
                    await self._take(piece, reservation, rows)
                finally:
                    reservation.drop()
                count(len(data))
        return await self._name(chunker.digest(), size, rows)

    async def _hash(self, chunker: Chunker, data: bytes | memoryview, *, last: bool) -> Piece:
        """Hashes the whole and cuts chunks, each in a thread."""
        limiter = self._services.hashing
        async with plain_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, chunker.update, data, limiter=limiter))
            return await trio.to_thread.run_sync(partial(chunker.cut, data, last=last), limiter=limiter)

    async def _prepare(self) -> Spool:
        """The spool; before the first file the index learns what the live manifests know."""
        async with self._ready:
            services = self._services
            if self._spool is None:
                await services.manifests.sweep()
                for name in await services.dedup.unlearned(services.manifests.live):
                    with suppress(CorruptData, StorageError, NotFound):  # costs bytes; a reader will complain
                        await services.dedup.learn(await services.manifests.get(name))
                self._spool = await trio.to_thread.run_sync(Spool, services.directory, limiter=services.files)
            return self._spool

    async def _take(self, piece: Piece, reservation: Reservation, rows: Rows) -> None:
        """Finds or makes a place for each chunk of a piece."""
        known = await self._services.dedup.lookup([cut.hash for cut in piece.cuts if cut.hash not in self._recent])
        places: dict[bytes, Place] = {}
        wanted = []
        for cut in piece.cuts:
            place = self._recent.get(cut.hash) or self._usable(known.get(cut.hash), cut)
            wanted.append(place is None and cut.hash not in places)
            places[cut.hash] = place or Place("", 0, cut.length)
        new = [cut for cut, want in zip(piece.cuts, wanted, strict=True) if want]
        where = self._pool.place(piece, wanted, reservation, self._to_come)
        stored = {cut.hash: Place(pack, offset, cut.length) for cut, (pack, offset) in zip(new, where, strict=True)}
        places |= stored
        self._remember(places)
        self._stored_bytes += sum(cut.length for cut in new)
        start = piece.start
        for cut in piece.cuts:
            place = places[cut.hash]
            number = self._pack_numbers.setdefault(place.pack, len(self._pack_numbers))
            rows.append(cut.hash, start, place.offset, cut.length, number)
            start += cut.length
        await self._services.dedup.add(list(stored.items()))

    def _usable(self, place: Place | None, cut: Cut) -> Place | None:
        """A place that the index gave, if it is in a live pack or one of this upload's."""
        if place is None or place.length != cut.length:
            return None
        pack_bytes = self._services.live_packs().get(place.pack)
        if pack_bytes is None:
            pack_bytes = self._pool.written_bytes(place.pack)
        return place if place.offset + place.length <= pack_bytes else None

    def _remember(self, places: Mapping[bytes, Place]) -> None:
        for hash, place in places.items():
            self._recent[hash] = place
            self._recent.move_to_end(hash)
        while len(self._recent) > _RECENT_CHUNKS:
            self._recent.popitem(last=False)

    async def _name(self, oid: str, size: int, rows: Rows) -> LargeContent:
        content = LargeContent(oid, size)
        if oid in self._files:
            return content
        try:
            known = await self._services.manifests.find(oid)
        except MvcfsError:
            known = None  # a manifest that can't be read may have it; another that has it does no harm
        if known is not None:
            self._known.add(oid)
        elif oid not in self._files:
            self._files[oid] = SpooledFile(bytes.fromhex(oid), size, rows.finish())
        return content

    async def _finish(self) -> tuple[tuple[StoredFile, ...], tuple[StoredFile, ...]]:
        services = self._services
        await self._pool.close()
        name = f"manifests/{secrets.token_hex(16)}.arrow"
        local = services.manifests.local_path(name)
        try:
            size, used = await trio.to_thread.run_sync(self._write_manifest, local, limiter=services.files)
            await self._pool.discard([pack for pack in self._pool.packs if pack.name not in used])
            packs = tuple(StoredFile(pack.name, pack.size_bytes) for pack in self._pool.packs)
            live = services.live_packs().keys() | {pack.name for pack in packs}
            gone = used - live
            if gone:
                raise Conflict(f"{min(gone)} was dropped while an upload referred to it")
            self._manifest = StoredFile(name, size)
            await self._store_manifest(local, self._manifest)
        except OSError as error:
            raise StorageError(f"the manifest can't be written in {local.parent}: {error}") from error
        await check_stored(services.storage, services.model_path(), (*packs, self._manifest))
        return (self._manifest,), packs

    def _write_manifest(self, local: Path) -> tuple[int, frozenset[str]]:
        """Writes the local copy, in a thread; nothing is added to the upload meanwhile."""
        assert self._spool is not None
        self._spool.flush()
        local.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return write_manifest(local, list(self._files.values()), self._spool.path, list(self._pack_numbers))

    async def _store_manifest(self, local: Path, manifest: StoredFile) -> None:
        services = self._services
        path = f"{services.model_path()}/{manifest.name}"
        await store_file(services.storage, local, path, manifest.size_bytes, self._config.piece_bytes, services.files)

    def _drop_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
