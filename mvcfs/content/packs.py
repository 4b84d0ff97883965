"""The writing of packs, several at once.

A pack is filled in the order in which `append` was called; where a chunk will stand is known at that moment, so that
whoever needs its place doesn't wait for the store. One task a pack writes the queue out. The pool opens another pack
only when what is still to come doesn't fit into the open ones: a version adds as few files as it can.

Invariants: a pack is never longer than its limit, footer included. A piece's memory stays reserved until all of it is
written, or the pack is given up.

Threading: trio thread only.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from mvcfs.content.budget import Budget
from mvcfs.content.chunker import Cut, Piece
from mvcfs.content.pack_file import FOOTER_BASE_BYTES, FOOTER_ROW_BYTES, encode_footer
from mvcfs.content.tasks import plain_nursery
from mvcfs.errors import InvalidArgument, MvcfsError, NotFound, StorageError, UnknownOutcome
from mvcfs.storage.protocol import Storage, Writer
from mvcfs.types import StoredFile

logger = logging.getLogger(__name__)

CLEANUP_S = 60.0


class Reservation:
    """Reserved memory with several holders; the last to let go gives it back."""

    def __init__(self, budgets: Sequence[Budget], n_bytes: int) -> None:
        """Takes over `n_bytes` that the caller has reserved from each of `budgets`."""
        self._budgets = budgets
        self._n = n_bytes
        self._holders = 1

    def share(self) -> Reservation:
        """Adds a holder."""
        self._holders += 1
        return self

    def drop(self) -> None:
        """Takes one holder away."""
        self._holders -= 1
        if self._holders == 0:
            for budget in self._budgets:
                budget.release(self._n)


class PackWriter:
    """One pack on its way to the store."""

    def __init__(self, storage: Storage, path: str, name: str, limit_bytes: int, chunker: str) -> None:
        """Describes a pack; nothing is written before `run`.

        Args:
            storage: Where it goes.
            path: Its whole path.
            name: Its name within the model, `packs/…`.
            limit_bytes: Its greatest length.
            chunker: What its footer says of the chunker.
        """
        self.name = name
        self.path = path
        self.error: Exception | None = None
        self.closed = False
        self.size_bytes = 0
        self.done = trio.Event()
        self._storage = storage
        self._limit = limit_bytes
        self._chunker = chunker
        self._cuts: list[Cut] = []
        self._queue: deque[tuple[bytes, Reservation]] = deque()
        self._queued_bytes = 0
        self._sealed = False
        self._more = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def queued_bytes(self) -> int:
        """Bytes that were appended and not yet written."""
        return self._queued_bytes

    @property
    def room_bytes(self) -> int:
        """How much one more chunk may have; 0 once sealed or failed."""
        if self._sealed or self.done.is_set():
            return 0
        footer = FOOTER_BASE_BYTES + FOOTER_ROW_BYTES * (len(self._cuts) + 1)
        return max(0, self._limit - self.size_bytes - footer)

    def fitting(self, cuts: Sequence[Cut]) -> int:
        """How many of `cuts`, from the first on, this pack has room for."""
        room = self.room_bytes
        for count, cut in enumerate(cuts):
            room -= cut.length
            if room < 0:
                return count
            room -= FOOTER_ROW_BYTES
        return len(cuts)

    def append(self, data: bytes, cuts: Sequence[Cut], reservation: Reservation) -> int:
        """Queues chunks that fit; returns where the first of them stands.

        Args:
            data: The chunks' bytes.
            cuts: The chunks.
            reservation: Memory that `data` is part of; held until it is written.
        """
        offset = self.size_bytes
        self._cuts += cuts
        self.size_bytes += len(data)
        self._queued_bytes += len(data)
        self._queue.append((data, reservation.share()))
        self._more.set()
        return offset

    def seal(self) -> None:
        """Nothing more is appended: the footer is written and the pack closed."""
        self._sealed = True
        self._more.set()

    async def run(self) -> None:
        """Writes the pack until it is sealed and closed. Errors are kept in `error`, for those who wait for `done`."""
        try:
            with self._scope:
                await self._write()
        except Exception as error:  # noqa: BLE001 - every waiter raises it; the mount's nursery must not end by it
            self.error = error
        finally:
            if not self.closed and self.error is None:
                self.error = StorageError(f"writing {self.path} was given up")
            while self._queue:
                self._queue.popleft()[1].drop()
            self._queued_bytes = 0
            self.done.set()

    async def discard(self) -> None:
        """Gives the pack up and removes it from the store, as far as the store answers."""
        self._scope.cancel()
        await self.done.wait()
        if self.closed:
            await discard_file(self._storage, self.path)

    async def _write(self) -> None:
        writer = await create_checked(self._storage, self.path)
        try:
            while self._queue or not self._sealed:
                if not self._queue:
                    self._more = trio.Event()
                    await self._more.wait()
                    continue
                data, reservation = self._queue[0]
                await writer.write(data)
                self._queue.popleft()
                self._queued_bytes -= len(data)
                reservation.drop()
            footer = encode_footer(self._chunker, self._cuts)
            self.size_bytes += len(footer)
            await writer.write(footer)
            await close_checked(self._storage, writer, self.path, self.size_bytes)
            self.closed = True
            self._cuts = []
        except BaseException:
            with trio.move_on_after(CLEANUP_S, shield=True):
                await writer.abort()
            raise


class PackPool:
    """The packs of one upload."""

    def __init__(
        self,
        storage: Storage,
        model_path: Callable[[], str],
        start_soon: Callable[..., object],
        *,
        limit_bytes: int,
        in_flight: int,
        chunker: str,
    ) -> None:
        """Starts with no pack.

        Args:
            storage: Where packs go.
            model_path: The model's folder now.
            start_soon: Starts a task that outlives the caller.
            limit_bytes: Greatest length of a pack.
            in_flight: How many packs may be open at once.
            chunker: What footers say of the chunker.
        """
        self._storage = storage
        self._model_path = model_path
        self._start_soon = start_soon
        self._limit = limit_bytes
        self._in_flight = in_flight
        self._chunker = chunker
        self._by_name: dict[str, PackWriter] = {}
        self._open: list[PackWriter] = []
        self._unfinished: list[PackWriter] = []

    @property
    def packs(self) -> Sequence[PackWriter]:
        """All packs, in the order in which they were begun."""
        return list(self._by_name.values())

    def place(
        self, piece: Piece, wanted: Sequence[bool], reservation: Reservation, to_come: int
    ) -> list[tuple[str, int]]:
        """Queues the wanted chunks of a piece for writing.

        Args:
            piece: The piece.
            wanted: For each of its chunks, whether it shall be stored.
            reservation: The piece's memory.
            to_come: How many bytes may still follow, this piece included; says whether another pack is worth it.

        Returns:
            Pack name and offset of each wanted chunk, in order.

        Raises:
            StorageError: A pack of this upload failed before; so has the upload.
        """
        self.check()
        places: list[tuple[str, int]] = []
        for first, last in _runs(wanted):
            while first < last:
                pack = self._choose(piece.cuts[first], to_come)
                count = pack.fitting(piece.cuts[first:last])
                begin = sum(cut.length for cut in piece.cuts[:first])
                cuts = piece.cuts[first : first + count]
                length = sum(cut.length for cut in cuts)
                data = piece.data if length == len(piece.data) else piece.data[begin : begin + length]
                offset = pack.append(data, cuts, reservation)
                for cut in cuts:
                    places.append((pack.name, offset))
                    offset += cut.length
                first += count
        return places

    def written_bytes(self, name: str) -> int:
        """How far the pack of that name is filled; 0 for one that isn't of this pool."""
        pack = self._by_name.get(name)
        return 0 if pack is None else pack.size_bytes

    def check(self) -> None:
        """Raises the error of a pack that failed."""
        self._unfinished = [pack for pack in self._unfinished if not pack.closed]
        for pack in self._unfinished:
            if pack.error is not None:
                raise StorageError(f"upload of {pack.name} failed: {pack.error}") from pack.error

    async def close(self) -> None:
        """Closes all packs, durably; raises if one failed."""
        for pack in self._open:
            pack.seal()
        self._open = []
        for pack in self.packs:
            await pack.done.wait()
        self.check()

    async def discard(self, packs: Sequence[PackWriter]) -> None:
        """Gives up some of the packs and removes them."""
        async with plain_nursery() as nursery:
            for pack in packs:
                nursery.start_soon(pack.discard)
        self._open = [pack for pack in self._open if pack not in packs]
        for pack in packs:
            self._by_name.pop(pack.name, None)

    def _choose(self, cut: Cut, to_come: int) -> PackWriter:
        for pack in [pack for pack in self._open if pack.room_bytes < cut.length]:
            pack.seal()
            self._open.remove(pack)
        idlest = min(self._open, key=lambda pack: pack.queued_bytes, default=None)
        if idlest is not None:
            busy = idlest.queued_bytes > 0 and len(self._open) < self._in_flight
            if not (busy and to_come > sum(pack.room_bytes for pack in self._open)):
                return idlest
        return self._begin(cut)

    def _begin(self, cut: Cut) -> PackWriter:
        name = f"packs/{secrets.token_hex(16)}"
        pack = PackWriter(self._storage, f"{self._model_path()}/{name}", name, self._limit, self._chunker)
        if pack.room_bytes < cut.length:
            raise InvalidArgument(f"a chunk of {cut.length} bytes doesn't fit a pack of {self._limit}")
        self._by_name[name] = pack
        self._unfinished.append(pack)
        self._open.append(pack)
        self._start_soon(pack.run)
        return pack


async def close_checked(storage: Storage, writer: Writer, path: str, size_bytes: int) -> None:
    """Closes a file; where the answer got lost, looks whether it is there whole. What can't be closed is removed."""
    try:
        try:
            await writer.close()
        except UnknownOutcome:
            if not await _is_whole(storage, path, size_bytes):
                raise
    except BaseException:
        await discard_file(storage, path)
        raise


async def create_checked(storage: Storage, path: str) -> Writer:
    """Starts a file of a random name; where the answer got lost, what may have been begun is removed."""
    try:
        return await storage.create(path)
    except UnknownOutcome:
        await discard_file(storage, path)
        raise


async def _is_whole(storage: Storage, path: str, size_bytes: int) -> bool:
    try:
        return (await storage.stat(path)).size_bytes == size_bytes
    except NotFound:
        return False


async def check_stored(storage: Storage, model_path: str, files: Sequence[StoredFile]) -> None:
    """Makes sure that files are in the store at their lengths; StorageError names one that isn't."""
    for file in files:
        try:
            entry = await storage.stat(f"{model_path}/{file.name}")
        except NotFound as error:
            raise StorageError(f"{model_path}/{file.name} was written and is gone") from error
        if entry.is_dir or entry.size_bytes != file.size_bytes:
            raise StorageError(f"{model_path}/{file.name} has {entry.size_bytes} bytes, {file.size_bytes} were written")


async def discard_file(storage: Storage, path: str) -> None:
    """Removes a file nobody refers to; where that fails it stays as an orphan, with a log line."""
    with trio.move_on_after(CLEANUP_S, shield=True), suppress(NotFound):
        try:
            await storage.delete(path)
        except NotFound:
            raise
        except MvcfsError as error:
            logger.warning("%s stays behind as an orphan: %s", path, error)


def _runs(wanted: Sequence[bool]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for index, want in enumerate(wanted):
        if want and runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        elif want:
            runs.append((index, index + 1))
    return runs
