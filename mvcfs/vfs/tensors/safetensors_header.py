"""The header of a safetensors file: which tensors it holds, of what kind, and where their bytes are.

A file is 8 bytes little-endian length of the header, the header (JSON), and the tensors' bytes. A header comes from anybody:
whatever it says is checked against the file's length before it is used, and one that is too long isn't read.

Pure functions of values. Threading: any.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

from mvcfs.errors import CorruptData

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 << 20
"""Some 100,000 tensors. Reading one takes up to some 300 MiB for a moment, whatever it holds."""

_MAX_DIMENSIONS = 64
# The shortest entry of a tensor has three brackets and four colons in 51 bytes.
_MOST_BRACKETS_SHARE = 10

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
"""Bytes of one element of each known kind."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: Its name.
        dtype: Its kind, as the header says it.
        shape: Its dimensions.
        begin: Where its bytes begin in the file.
        end: Where they end.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return self.end - self.begin

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """Bytes of an element; 1 for a kind that isn't known."""
        return ITEM_BYTES.get(self.dtype, 1)


def header_length(start: bytes, file_bytes: int, where: str) -> int:
    """The length of the header.

    Args:
        start: The first 8 bytes of the file, or all of a shorter one.
        file_bytes: The file's length.
        where: The file, for messages.

    Raises:
        CorruptData: It can't be one.
    """
    if len(start) < LENGTH_BYTES:
        raise CorruptData(f"{where} is no safetensors file: it has only {file_bytes} bytes")
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if length > file_bytes - LENGTH_BYTES:
        raise CorruptData(f"{where} is no safetensors file, or cut off: its header of {length} bytes ends past its end")
    if length > MAX_HEADER_BYTES:
        raise CorruptData(f"{where}: its header of {length} bytes is longer than the {MAX_HEADER_BYTES} that are read")
    return length


def parse_header(header: bytes, file_bytes: int, where: str) -> list[Tensor]:
    """The tensors of a file, in the order of their bytes.

    Args:
        header: The header, without its length.
        file_bytes: The file's length.
        where: The file, for messages.

    Raises:
        CorruptData: It isn't JSON, or says what can't be: the message says what.
    """
    brackets = header.count(b"[") + header.count(b"{")
    if brackets > len(header) // _MOST_BRACKETS_SHARE + 16:
        raise CorruptData(f"{where}: its header is no list of tensors")
    try:
        value = json.loads(header.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"{where}: its header is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise CorruptData(f"{where}: its header is no JSON object")
    first = LENGTH_BYTES + len(header)
    tensors = [
        _tensor(name, entry, first, file_bytes, f"{where}: tensor {name!r}")
        for name, entry in value.items()
        if name != "__metadata__"
    ]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_apart(tensors, where)
    return tensors


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _tensor(name: str, entry: Any, first: int, file_bytes: int, where: str) -> Tensor:
    if not isinstance(entry, dict):
        raise CorruptData(f"{where} is described by no object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not dtype:
        raise CorruptData(f"{where} has no dtype")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise CorruptData(f"{where} has no shape that can be")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CorruptData(f"{where} has no data_offsets that can be")
    begin, end = first + offsets[0], first + offsets[1]
    if end > file_bytes:
        raise CorruptData(f"{where} ends at byte {end} of a file of {file_bytes}: it is cut off, or damaged")
    item_bytes = ITEM_BYTES.get(dtype)
    if item_bytes is not None and math.prod(shape) * item_bytes != end - begin:
        raise CorruptData(f"{where} has {end - begin} bytes, which are not {dtype} of shape {shape}")
    return Tensor(name, dtype, tuple(shape), begin, end)


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers from 0 that a length can be."""
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 63 for one in value)


def _check_apart(tensors: Sequence[Tensor], where: str) -> None:
    filled = [tensor for tensor in tensors if tensor.size_bytes]
    for before, after in pairwise(filled):
        if after.begin < before.end:
            raise CorruptData(f"{where}: the tensors {before.name!r} and {after.name!r} overlap")
