"""The index beside a Git pack: which objects the pack holds, without opening the pack.

Version 2 of the format, which is all that libgit2 writes: a table of 256 counts by first byte, then the ids, sorted.
Any thread; everything returned is a copy or keeps its mapping alive.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from mvcfs.errors import CorruptData

Array = np.ndarray[Any, Any]

_MAGIC = b"\xfftOc\x00\x00\x00\x02"
_TABLE = len(_MAGIC)
_IDS = _TABLE + 256 * 4
_ID_BYTES = 20
_ID_DIGITS = 2 * _ID_BYTES


def count_objects(index: Path) -> int:
    """How many objects a pack holds. OSError, CorruptData."""
    with index.open("rb") as file:
        head = file.read(_IDS)
    if len(head) < _IDS or not head.startswith(_MAGIC):
        raise CorruptData(f"{index}: no index of a Git pack")
    return int.from_bytes(head[-4:], "big")


def read_ids(index: Path) -> Array:
    """The ids in a pack, sorted, as an array of 20 bytes each, mapped. OSError, CorruptData."""
    count = count_objects(index)
    if count == 0:
        return np.empty(0, f"S{_ID_BYTES}")
    with index.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) < _IDS + count * _ID_BYTES:
        raise CorruptData(f"{index}: the index of a Git pack is cut off")
    return np.frombuffer(mapped, dtype=f"S{_ID_BYTES}", count=count, offset=_IDS)


def ids_with_prefix(index: Path, prefix: str) -> list[str]:
    """The ids in a pack that start with these hex digits, sorted: two binary searches. OSError, CorruptData."""
    ids = read_ids(index)
    low, high = (bytes.fromhex(prefix.ljust(_ID_DIGITS, digit)) for digit in "0f")
    first, last = int(np.searchsorted(ids, np.bytes_(low), "left")), int(np.searchsorted(ids, np.bytes_(high), "right"))
    raw = ids[first:last].tobytes()
    return [raw[at : at + _ID_BYTES].hex() for at in range(0, len(raw), _ID_BYTES)]
