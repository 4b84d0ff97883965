"""The local index of known chunks, so that what a model's packs already hold isn't uploaded again.

It may forget, and may be deleted: that costs bytes, never correctness. What it says is used to write manifests, so it
must not lie: it keeps SQLite's durability (WAL), each row carries a check value over all of it, and a pack it names
counts only if the caller knows that pack.

Threading: methods on the trio thread; SQLite is used in threads, one at a time.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import trio

from mvcfs.content.manifest_file import Manifest

logger = logging.getLogger(__name__)

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA busy_timeout = 5000;
CREATE TABLE IF NOT EXISTS packs (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS learned (manifest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (
    hash BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    mark INTEGER NOT NULL) WITHOUT ROWID;
"""
_LOOKUP_ROWS = 500
_LEARN_ROWS = 8192
_MASK = (1 << 63) - 1
_PRIMES = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)

T = TypeVar("T")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is.

    Attributes:
        pack: The pack's name, `packs/…`.
        offset: Where it stands in the pack.
        length: How long it is.
    """

    pack: str
    offset: int
    length: int


class DedupIndex:
    """Hash → place, for one model."""

    def __init__(self, path: Path, max_rows: int) -> None:
        """Opens nothing yet.

        Args:
            path: The SQLite file; made, and made anew if it is damaged.
            max_rows: Bound of the chunks kept.
        """
        self._path = path
        self._max_rows = max_rows
        self._connection: sqlite3.Connection | None = None
        self._limiter = trio.CapacityLimiter(1)
        self._off = False

    async def lookup(self, hashes: Sequence[bytes]) -> dict[bytes, Place]:
        """The places of those chunks that are known."""
        if not hashes:
            return {}
        return await self._run(lambda db: _lookup(db, hashes), {})

    async def add(self, chunks: Sequence[tuple[bytes, Place]]) -> None:
        """Makes chunks known."""
        if chunks:
            await self._run(lambda db: _add(db, chunks, self._max_rows), None)

    async def unlearned(self, manifests: Iterable[str]) -> list[str]:
        """Which of `manifests` were never given to `learn`."""
        names = list(manifests)
        known = await self._run(_learned, set(names))
        return [name for name in names if name not in known]

    async def learn(self, manifest: Manifest) -> None:
        """Makes all chunks of a manifest known."""
        await self._run(lambda db: _learn(db, manifest, self._max_rows), None)

    async def learn_joined(self, joined: str, inputs: Iterable[str]) -> None:
        """Takes a manifest for learned if all are that it was made of."""
        names = list(inputs)
        await self._run(lambda db: _learn_joined(db, joined, names), None)

    async def aclose(self) -> None:
        """Closes the file."""
        self._off = True
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close, limiter=self._limiter)

    async def _run(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if self._off:
            return otherwise
        return await trio.to_thread.run_sync(self._try, work, otherwise, limiter=self._limiter)

    def _try(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        for attempt in (1, 2):
            try:
                if self._connection is None:
                    self._connection = _connect(self._path)
                with self._connection:
                    return work(self._connection)
            except sqlite3.DatabaseError as error:
                logger.warning("index of known chunks %s: %s%s", self._path, error, "; made anew" * (attempt == 1))
                self._close()
                if attempt == 1 and not isinstance(error, sqlite3.OperationalError):
                    _remove(self._path)
            except OSError as error:
                logger.warning("no index of known chunks: %s", error)
                break
        self._off = True
        return otherwise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _lookup(db: sqlite3.Connection, hashes: Sequence[bytes]) -> dict[bytes, Place]:
    found: dict[bytes, Place] = {}
    for first in range(0, len(hashes), _LOOKUP_ROWS):
        some = hashes[first : first + _LOOKUP_ROWS]
        marks = ",".join("?" * len(some))
        query = f"SELECT hash, name, offset, length, mark FROM chunks JOIN packs ON pack = id WHERE hash IN ({marks})"
        for hash, name, offset, length, mark in db.execute(query, some):
            if mark == _mark(hash, name, offset, length):
                found[hash] = Place(name, offset, length)
    return found


def _add(db: sqlite3.Connection, chunks: Sequence[tuple[bytes, Place]], max_rows: int) -> None:
    ids = _pack_ids(db, {place.pack for _, place in chunks})
    db.executemany(
        "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)",
        [
            (hash, ids[place.pack], place.offset, place.length, _mark(hash, place.pack, place.offset, place.length))
            for hash, place in chunks
        ],
    )
    _bound(db, max_rows)


def _learned(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT manifest FROM learned")}


def _learn(db: sqlite3.Connection, manifest: Manifest, max_rows: int) -> None:
    ids = _pack_ids(db, set(manifest.packs))
    pack_ids = np.array([ids[name] for name in manifest.packs], dtype=np.int64)
    seeds = np.array([zlib.crc32(name.encode()) for name in manifest.packs], dtype=np.uint64)
    for hashes, lengths, packs, offsets in manifest.chunk_columns():
        for first in range(0, len(hashes), _LEARN_ROWS):
            part = slice(first, first + _LEARN_ROWS)
            marks = _mark_columns(hashes[part], seeds[packs[part]], offsets[part], lengths[part])
            raw = hashes[part].tobytes()
            db.executemany(
                "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)",
                zip(
                    [raw[at : at + 32] for at in range(0, len(raw), 32)],
                    pack_ids[packs[part]].tolist(),
                    offsets[part].tolist(),
                    lengths[part].tolist(),
                    marks.tolist(),
                    strict=True,
                ),
            )
            db.commit()
    db.execute("INSERT OR IGNORE INTO learned VALUES (?)", (manifest.name,))
    _bound(db, max_rows)


def _learn_joined(db: sqlite3.Connection, joined: str, inputs: list[str]) -> None:
    if _learned(db).issuperset(inputs):
        db.execute("INSERT OR IGNORE INTO learned VALUES (?)", (joined,))
        db.executemany("DELETE FROM learned WHERE manifest = ?", [(name,) for name in inputs])


def _pack_ids(db: sqlite3.Connection, names: set[str]) -> dict[str, int]:
    db.executemany("INSERT OR IGNORE INTO packs (name) VALUES (?)", [(name,) for name in sorted(names)])
    return {name: db.execute("SELECT id FROM packs WHERE name = ?", (name,)).fetchone()[0] for name in names}


def _bound(db: sqlite3.Connection, max_rows: int) -> None:
    """Forgets the packs known longest when there are too many rows, down to seven eighths."""
    (estimate,) = db.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    if estimate * page_bytes < max_rows * 48:
        return  # a row takes more than that: counting them all each time would cost more than they do
    (rows,) = db.execute("SELECT count(*) FROM chunks").fetchone()
    if rows <= max_rows:
        return
    excess = rows - max_rows * 7 // 8
    for pack, count in db.execute("SELECT pack, count(*) FROM chunks GROUP BY pack ORDER BY pack").fetchall():
        if excess <= 0:
            break
        db.execute("DELETE FROM chunks WHERE pack = ?", (pack,))
        db.execute("DELETE FROM packs WHERE id = ?", (pack,))
        excess -= count


def _mark(hash: bytes, pack: str, offset: int, length: int) -> int:
    seed = zlib.crc32(pack.encode())
    value = int.from_bytes(hash[:8], "little")
    for prime, part in zip(_PRIMES, (seed, offset, length), strict=False):
        value ^= (part * prime) & ((1 << 64) - 1)
    return (value * _PRIMES[3]) & _MASK


def _mark_columns(hashes: Array, seeds: Array, offsets: Array, lengths: Array) -> Array:
    """`_mark`, for columns."""
    value = np.ascontiguousarray(hashes).view("<u8").reshape(-1, 4)[:, 0].copy()
    for prime, part in zip(_PRIMES, (seeds, offsets, lengths), strict=False):
        value ^= part.astype(np.uint64) * np.uint64(prime)
    return value * np.uint64(_PRIMES[3]) & np.uint64(_MASK)
