"""A model's Git packs: fetched from the store into the local repository, and put into the store by a publish.

Every pack is checked as it arrives: its length against the ref log, its bytes and its index's against the checksums that
Git ends them with. A local pack that went bad is fetched again; a bad one in the store is `CorruptData` that names it.

Only live packs stand in the local repository's `objects/pack`: a pack of ours enters it after its record was published,
so "a local pack holds it" always means "the store holds it". Temporary files are in `<git dir>/fetch`, which a start
empties. All on the trio thread, files are read and hashed in threads of their own limit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import trio

from mvcfs.errors import CorruptData, MvcfsError, NotFound, Transient, UnknownOutcome
from mvcfs.storage.protocol import Storage
from mvcfs.types import MIB, StoredFile
from mvcfs.versions.gather import gather
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pack_index import count_objects
from mvcfs.versions.log.refs import new_id
from mvcfs.versions.publishing.pack_joining import Joinable, write_joined_pack

log = logging.getLogger(__name__)

_RANGE_BYTES = 8 * MIB
_TRAILER_BYTES = 20
_UPLOAD_TRIES = 3
_REPAIR_PAUSE_S = 60.0


def _checksum_fits(path: Path) -> bool:
    """Whether a pack or an index ends in the SHA-1 of what is before."""
    left = path.stat().st_size - _TRAILER_BYTES
    if left < 0:
        return False
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while left > 0:
            data = file.read(min(left, MIB))
            if not data:
                return False
            digest.update(data)
            left -= len(data)
        return file.read() == digest.digest()


def _tail(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(-length, os.SEEK_END)
        return file.read()


def _is_sound(pack: Path, index: Path) -> bool:
    """Whether both files are whole and belong together. For a thread."""
    try:
        return (
            _checksum_fits(pack)
            and _checksum_fits(index)
            and _tail(index, 2 * _TRAILER_BYTES)[:_TRAILER_BYTES] == _tail(pack, _TRAILER_BYTES)
        )
    except OSError:
        return False


def _size(path: Path) -> int:
    return path.stat().st_size


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _read_part(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(_RANGE_BYTES)


class GitFiles:
    """The packs of one model, here and in the store."""

    def __init__(self, storage: Storage, model_path: Callable[[], str], objects: GitObjects) -> None:
        self._storage = storage
        self._model_path = model_path
        self._objects = objects
        self._limiter = trio.CapacityLimiter(2)
        self._lock = trio.Lock()
        self._repaired_at: float | None = None
        self._scratch = objects.git_dir / "fetch"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()

    def _local(self, name: str) -> tuple[Path, Path]:
        """Where a pack of the store and its index stand here."""
        stem = "pack-" + name.removeprefix("git/").removesuffix(".pack")
        return self._objects.pack_dir / f"{stem}.pack", self._objects.pack_dir / f"{stem}.idx"

    def _is_here(self, file: StoredFile) -> bool:
        pack, index = self._local(file.name)
        try:
            return pack.stat().st_size == file.size_bytes and index.exists()
        except OSError:
            return False

    # --- from the store

    async def ensure(self, live: Collection[StoredFile]) -> None:
        """Fetches the live packs that aren't here, and lets go of those that are live no longer.

        Raises:
            NotFound: The model was renamed or removed.
            CorruptData: A pack in the store is damaged or gone.
            Transient: The store failed.
        """
        async with self._lock:
            await self._ensure(live)

    async def _ensure(self, live: Collection[StoredFile]) -> None:
        missing = [file for file in live if not self._is_here(file)]
        try:
            await gather([functools.partial(self._fetch, file) for file in missing], at_once=8)
        finally:
            others = self._others(live)
            if missing or others:
                self._objects.rescan(others)

    def _others(self, live: Iterable[StoredFile]) -> list[Path]:
        keep = {path.name for file in live for path in self._local(file.name)}
        return [path for path in self._objects.pack_dir.iterdir() if path.name not in keep]

    async def _fetch(self, file: StoredFile) -> None:
        """One pack with its index, checked, put in place index last: Git looks for indexes."""
        for _ in range(2):
            pack, index = self._scratch / f"{new_id()}.pack", self._scratch / f"{new_id()}.idx"
            try:
                index_name = file.name.removesuffix(".pack") + ".idx"
                await self._download(file.name, pack, file.size_bytes)
                await self._download(index_name, index, None)
                if await trio.to_thread.run_sync(_is_sound, pack, index, limiter=self._limiter):
                    for source, target in zip((pack, index), self._local(file.name), strict=True):
                        os.replace(source, target)
                    return
            finally:
                pack.unlink(missing_ok=True)
                index.unlink(missing_ok=True)
        raise CorruptData(f"{self._model_path()}/{file.name}: the Git pack or its index is damaged in the store")

    async def _download(self, name: str, target: Path, size_bytes: int | None) -> None:
        path = f"{self._model_path()}/{name}"
        try:
            found = (await self._storage.stat(path)).size_bytes
        except NotFound as error:
            # With its folder the model has gone elsewhere; without, it must not pass for a model that isn't there.
            await self._storage.stat(path.rpartition("/")[0])
            raise CorruptData(f"{path}: the log names this file, but it is not in the store") from error
        if size_bytes is not None and found != size_bytes:
            raise CorruptData(f"{path}: has {found} bytes, {size_bytes} are recorded")
        for offset in range(0, found, _RANGE_BYTES):
            data = await self._storage.read_range(path, offset, min(_RANGE_BYTES, found - offset))
            await trio.to_thread.run_sync(_append, target, data, limiter=self._limiter)

    async def repair(self, live: Collection[StoredFile]) -> bool:
        """Looks for damage in the local packs, and fetches what is damaged or missing anew.

        Returns:
            Whether there was any, so that reading again may help. Not more than once a minute: else False.
        """
        async with self._lock:
            if self._repaired_at is not None and trio.current_time() - self._repaired_at < _REPAIR_PAUSE_S:
                return False
            self._repaired_at = trio.current_time()
            damaged = [file for file in live if not await self._is_sound_here(file)]
            for file in damaged:
                log.warning("local copy of %s is damaged: it is fetched again", file.name)
                for path in self._local(file.name):
                    path.unlink(missing_ok=True)
            if damaged:
                await self._ensure(live)
            return bool(damaged)

    async def _is_sound_here(self, file: StoredFile) -> bool:
        return self._is_here(file) and await trio.to_thread.run_sync(
            _is_sound, *self._local(file.name), limiter=self._limiter
        )

    # --- to the store

    async def upload(self, oids: Collection[str]) -> StoredFile:
        """Makes a pack of these objects and puts it into the store; `adopt` takes it in once it is published.

        Raises:
            NotFound: The model was renamed or removed, or an object isn't here.
            Transient: The store failed.
        """
        return await self._upload(functools.partial(self._objects.write_pack, oids))

    async def upload_joined(self, files: Iterable[StoredFile]) -> StoredFile:
        """Makes one pack of what several live packs hold, and puts it into the store; for the rest as `upload`.

        Raises:
            NotFound: The model was renamed or removed, or a pack isn't here any more.
            CorruptData: A pack is damaged here.
            Transient: The store failed.
        """
        return await self._upload(functools.partial(write_joined_pack, [self._local(file.name)[0] for file in files]))

    async def upload_pack(self, pack: Path) -> StoredFile:
        """Puts a pack into the store that is there with its index beside it, on the disk of this model's local folder.

        Raises:
            NotFound: The model was renamed or removed.
            Transient: The store failed.
        """

        def link(folder: Path, name: str) -> tuple[Path, Path]:
            made, index = folder / f"{name}.pack", folder / f"{name}.idx"
            os.link(pack, made)
            os.link(pack.with_suffix(".idx"), index)
            return made, index

        return await self._upload(link)

    def joinable(self, live: Iterable[StoredFile]) -> list[Joinable]:
        """The live packs that are here, by the number of their objects. For a thread."""
        found = []
        for file in live:
            with contextlib.suppress(OSError, CorruptData):
                found.append(Joinable(file, count_objects(self._local(file.name)[1])))
        return found

    async def _upload(self, write: Callable[[Path, str], tuple[Path, Path]]) -> StoredFile:
        last: MvcfsError | None = None
        for _ in range(_UPLOAD_TRIES):
            name = new_id()
            make = functools.partial(write, self._scratch, f"pack-{name}")
            pack, index = await trio.to_thread.run_sync(make, limiter=self._limiter)
            try:
                await self._send(index, f"git/{name}.idx")
                await self._send(pack, f"git/{name}.pack")
            except (Transient, UnknownOutcome) as error:
                last = error
                self.abandon([StoredFile(f"git/{name}.pack", 0)])
            else:
                return StoredFile(f"git/{name}.pack", _size(pack))
        raise Transient(f"{self._model_path()}/git: no Git pack could be stored: {last}") from last

    async def _send(self, source: Path, name: str) -> None:
        path = f"{self._model_path()}/{name}"
        try:
            writer = await self._storage.create(path)
        except NotFound as error:
            raise NotFound(f"{self._model_path()} was renamed or removed") from error
        try:
            offset = 0
            while data := await trio.to_thread.run_sync(_read_part, source, offset, limiter=self._limiter):
                await writer.write(data)
                offset += len(data)
            await writer.close()
        except BaseException:
            with trio.CancelScope(shield=True):
                await writer.abort()
            raise

    def adopt(self, files: Iterable[StoredFile]) -> None:
        """Takes uploaded packs, published now, into the local repository."""
        for file in files:
            pack, index = (self._scratch / path.name for path in self._local(file.name))
            if pack.exists():
                self._objects.add_pack(pack, index)

    def abandon(self, files: Iterable[StoredFile]) -> None:
        """Removes the local copies of uploaded packs that weren't published."""
        for file in files:
            for path in self._local(file.name):
                (self._scratch / path.name).unlink(missing_ok=True)
