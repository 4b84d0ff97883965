"""How much two runs of a tensor's elements differ, for each kind of element that has numbers.

An element that is a number on both sides counts with its absolute difference. NaN equals NaN, and an infinity itself; any
other pair with a NaN or an infinity is counted apart and is in neither the largest nor the mean difference.

Pure functions; numpy releases the GIL in most of them. Threading: any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Converted to float64 and compared at once: temporaries of some MiB, whatever the piece is.
_BLOCK_ELEMENTS = 1 << 18
_LARGEST = sys.float_info.max

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}


@dataclass(slots=True)
class Difference:
    """How much two tensors differ, as far as they were compared.

    Attributes:
        differing: Elements whose numbers differ, those of `not_finite` among them.
        not_finite: Differing elements that are NaN or infinite on one side at least.
        largest: The largest absolute difference of the others.
        total: Its sum.
    """

    differing: int = 0
    not_finite: int = 0
    largest: float = 0.0
    total: float = 0.0

    def add(self, other: Difference) -> None:
        """Joins what was found elsewhere in the same tensor."""
        self.differing += other.differing
        self.not_finite += other.not_finite
        self.largest = max(self.largest, other.largest)
        self.total = min(self.total + other.total, _LARGEST)


def has_numbers(dtype: str) -> bool:
    """Whether elements of a kind can be compared as numbers."""
    return dtype in _READERS


def difference(dtype: str, before: bytes | memoryview, after: bytes | memoryview) -> Difference:
    """Compares two runs of as many elements.

    Args:
        dtype: Their kind, one that `has_numbers`.
        before: The bytes of whole elements.
        after: As many bytes.
    """
    read, distances = _READERS[dtype]
    found = Difference()
    old, new = read(before), read(after)
    for first in range(0, len(old), _BLOCK_ELEMENTS):
        block = slice(first, first + _BLOCK_ELEMENTS)
        found.add(distances(old[block], new[block]))
    return found


def _float_distances(before: Array, after: Array) -> Difference:
    with np.errstate(all="ignore"):
        old, new = before.astype(np.float64), after.astype(np.float64)
        both = np.isfinite(old) & np.isfinite(new)
        alike = (old == new) | (np.isnan(old) & np.isnan(new))
        # Of two float64 that are far apart the difference may be too large for one.
        distance = np.minimum(np.abs(np.where(both, old - new, 0.0)), _LARGEST)
        total = float(distance.sum())
    return Difference(
        int(np.count_nonzero(~alike)),
        int(np.count_nonzero(~alike & ~both)),
        float(distance.max(initial=0.0)),
        min(total, _LARGEST),
    )


def _bfloat_distances(before: Array, after: Array) -> Difference:
    return _float_distances(_widened(before), _widened(after))


def _widened(halves: Array) -> Array:
    """bfloat16 is the upper half of float32."""
    return (halves.astype("<u4") << 16).view("<f4")


def _integer_distances(before: Array, after: Array) -> Difference:
    # Unsigned arithmetic of the same width wraps round to the exact difference, which signed one may not hold.
    unsigned = np.dtype(before.dtype.str.replace("i", "u"))
    low, high = np.minimum(before, after).view(unsigned), np.maximum(before, after).view(unsigned)
    distance = high - low
    return Difference(
        int(np.count_nonzero(distance)), 0, float(distance.max(initial=0)), float(distance.sum(dtype=np.float64))
    )


def _table_distances(table: Array) -> Callable[[Array, Array], Difference]:
    def distances(before: Array, after: Array) -> Difference:
        return _float_distances(table[before], table[after])

    return distances


def _bool_distances(before: Array, after: Array) -> Difference:
    return _integer_distances((before != 0).view("u1"), (after != 0).view("u1"))


def _e4m3() -> Array:
    """The 256 values of F8_E4M3 (OCP's finite one: no infinity, NaN is all ones)."""
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, codes & 7
    size = np.where(exponent == 0, np.ldexp(fraction / 8, -6), np.ldexp(1 + fraction / 8, exponent - 7))
    size[codes & 127 == 127] = np.nan
    return np.where(codes & 128, -size, size)


def _e5m2() -> Array:
    """The 256 values of F8_E5M2, the upper half of float16."""
    return (np.arange(256, dtype="<u2") << 8).view("<f2").astype(np.float64)


def _reader(code: str) -> Callable[[bytes | memoryview], Array]:
    return lambda data: np.frombuffer(data, dtype=code)


_READERS: dict[str, tuple[Callable[[bytes | memoryview], Array], Callable[[Array, Array], Difference]]] = {
    **{dtype: (_reader(code), _float_distances) for dtype, code in _FLOATS.items()},
    **{dtype: (_reader(code), _integer_distances) for dtype, code in _INTEGERS.items()},
    "BF16": (_reader("<u2"), _bfloat_distances),
    "BOOL": (_reader("u1"), _bool_distances),
    "F8_E4M3": (_reader("u1"), _table_distances(_e4m3())),
    "F8_E5M2": (_reader("u1"), _table_distances(_e5m2())),
}
