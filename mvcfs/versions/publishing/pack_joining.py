"""Joining Git packs and other small files of a store: which to join, and the joined Git pack.

As in a log-structured merge tree, files are in levels by size, each a few times the one below; a level that has filled up
is joined into one file. So a model of n publishes has some files a level, and each byte is written anew once a
level: log n times.

`plan_join` is pure; the others are for threads, and depend on nothing that another thread changes: packs are linked into a
folder of the join's own first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pygit2

from mvcfs.errors import CorruptData, NotFound
from mvcfs.types import MIB, StoredFile
from mvcfs.versions.git.pack_index import read_ids

FAN = 8
"""So many files of a level are joined into one, and a level is so many times as large as the one below."""

MOST = 64
"""No more files than this are joined at once."""

_LEVEL_UNITS = 16
_LARGEST_BYTES = 256 * MIB
"""A file of this size is left alone: by then there are few for what they hold, and joining them costs most."""

_DELTA_CACHE = 16 * MIB
_WINDOW_MEMORY = 32 * MIB


@dataclass(frozen=True, slots=True)
class Joinable:
    """A file that may be joined with others.

    Attributes:
        file: The file.
        units: How much work it is to join it: objects of a pack, or KiB of a manifest.
    """

    file: StoredFile
    units: int


def _level(units: int) -> int:
    level = 0
    while units > _LEVEL_UNITS:
        units //= FAN
        level += 1
    return level


def plan_join(files: Iterable[Joinable]) -> list[StoredFile]:
    """The files to join next; none while no level has filled up.

    The lowest full level goes first, and takes all levels below it along: what they would come to is joined then and
    not once more a little later.
    """
    levels: dict[int, list[StoredFile]] = {}
    for entry in files:
        if entry.file.size_bytes < _LARGEST_BYTES:
            levels.setdefault(_level(entry.units), []).append(entry.file)
    full = next((level for level in sorted(levels) if len(levels[level]) >= FAN), None)
    if full is None:
        return []
    chosen: list[StoredFile] = []
    for level in sorted(levels, reverse=True):
        if level <= full:
            chosen += levels[level]
    total, within = 0, []
    for file in chosen[:MOST]:
        total += file.size_bytes
        if total > 2 * _LARGEST_BYTES:
            break
        within.append(file)
    return within if len(within) > 1 else []


def write_joined_pack(packs: Sequence[Path], directory: Path, name: str) -> tuple[Path, Path]:
    """Writes all objects of some packs into `directory/name.pack` and `name.idx`.

    Objects are stored as differences from each other where that is shorter, across all of the packs: trees of
    consecutive versions differ little. Memory: some 200 bytes an object, and caches of a fixed size.

    Raises:
        NotFound: One of the packs isn't here any more.
        CorruptData: A pack is damaged, or the result lacks an object.
    """
    work = directory / f"{name}.tmp"
    try:
        repository = pygit2.init_repository(str(work), bare=True)
        repository.config["pack.deltaCacheSize"] = _DELTA_CACHE
        repository.config["pack.windowMemory"] = _WINDOW_MEMORY
        folder, made = work / "objects" / "pack", work / "made"
        folder.mkdir(exist_ok=True)
        made.mkdir()
        indexes = [_link(pack, folder) for pack in packs]
        repository = pygit2.Repository(str(work))
        builder = pygit2.PackBuilder(repository)
        for oid in repository.odb:
            builder.add(oid)
        builder.write(str(made))
        (joined,) = made.glob("*.pack")
        _check_complete(indexes, joined.with_suffix(".idx"))
        pack, index = directory / f"{name}.pack", directory / f"{name}.idx"
        os.replace(joined, pack)
        os.replace(joined.with_suffix(".idx"), index)
        return pack, index
    except FileNotFoundError as error:
        raise NotFound(f"a Git pack to be joined is not here any more: {error}") from error
    except (pygit2.GitError, KeyError, ValueError) as error:
        raise CorruptData(f"Git packs can't be joined: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _link(pack: Path, folder: Path) -> Path:
    """Makes a pack stay in a folder, whoever removes it elsewhere; returns its index there."""
    for path in (pack, pack.with_suffix(".idx")):
        os.link(path, folder / path.name)
    return folder / pack.with_suffix(".idx").name


def _check_complete(inputs: Sequence[Path], result: Path) -> None:
    """The index of the result was made from what the result holds, so that its ids are all there is to compare."""
    wanted = np.unique(np.concatenate([read_ids(index) for index in inputs]))
    if not np.array_equal(wanted, np.unique(read_ids(result))):
        raise CorruptData("a joined Git pack lacks objects of the packs it was made of")
