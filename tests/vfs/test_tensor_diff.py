"""Comparing tensors: headers, numbers, and what is read for it."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Sequence
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from mvcfs.errors import CorruptData
from mvcfs.vfs.tensors import diff as tensor_diff
from mvcfs.vfs.tensors.diff import Piece, Placed, compare_bytes, match_tensors, read_tensors, unequal_spans
from mvcfs.vfs.tensors.numbers import difference, has_numbers
from mvcfs.vfs.tensors.safetensors_header import MAX_HEADER_BYTES, header_length, parse_header

# -- headers ---------------------------------------------------------------------------------------------------------


def header(value: object) -> bytes:
    return json.dumps(value).encode()


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_as_the_library_writes_it() -> None:
    arrays = {
        "b": np.zeros((2, 3), np.float32),
        "a": np.arange(5, dtype=np.int64),
        "empty": np.zeros((0, 4), np.float16),
    }
    data = save(arrays, metadata={"format": "pt"})
    length = header_length(data[:8], len(data), "f")
    found = {one.name: one for one in parse_header(data[8 : 8 + length], len(data), "f")}
    assert {name: (one.dtype, one.shape) for name, one in found.items()} == {
        "b": ("F32", (2, 3)), "a": ("I64", (5,)), "empty": ("F16", (0, 4)),
    }  # fmt: skip
    for name, one in found.items():
        assert data[one.begin : one.end] == arrays[name].tobytes()


@pytest.mark.parametrize(
    ("start", "size", "said"),
    [
        (b"", 0, "only 0 bytes"),
        (b"1234567", 7, "only 7 bytes"),
        (struct.pack("<Q", 100), 50, "ends past its end"),
        (struct.pack("<Q", (1 << 64) - 1), 1 << 40, "ends past its end"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1), 1 << 40, "longer than"),
    ],
)
def test_a_length_that_cant_be_is_refused_unread(start: bytes, size: int, said: str) -> None:
    with pytest.raises(CorruptData, match=said):
        header_length(start, size, "f")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x00\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no list of tensors"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "no JSON|no list"),
        (b'"text"', "no JSON object"),
        (b'{"a": 1}', "no object"),
        (b'{"a": 1, "a": 1}', "twice"),
        (header({"a": {"shape": [1], "data_offsets": [0, 4]}}), "no dtype"),
        (header({"a": tensor("F32", [-1], 0, 4)}), "no shape"),
        (header({"a": tensor("F32", [True], 0, 4)}), "no shape"),
        (header({"a": tensor("F32", [1 << 70], 0, 4)}), "no shape"),
        (header({"a": tensor("F32", [1], 4, 0)}), "no data_offsets"),
        (header({"a": tensor("F32", [1], 0, 1 << 50)}), "cut off, or damaged"),
        (header({"a": tensor("F32", [2], 0, 4)}), "4 bytes, which are not F32"),
        (header({"a": tensor("F32", [1 << 62] * 60, 0, 4)}), "which are not"),
        (header({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [1], 4, 8)}), "'a' and 'b' overlap"),
        (b"9" * 10_000, "no JSON"),
    ],
)
def test_a_header_that_cant_be_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(CorruptData, match=said):
        parse_header(data, 8 + len(data) + 16, "f")


@given(st.binary(max_size=300) | st.text('{}[]":,0123456789adtypesh_ofsF', max_size=200).map(str.encode))
def test_no_header_does_more_than_be_refused(data: bytes) -> None:
    with contextlib.suppress(CorruptData):
        for one in parse_header(data, 8 + len(data) + 100, "f"):
            assert 8 + len(data) <= one.begin <= one.end <= 8 + len(data) + 100


# -- numbers ---------------------------------------------------------------------------------------------------------

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2, "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U64": np.uint64,
    "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40)
@given(data=st.data())
def test_differences_are_those_of_exact_arithmetic(dtype: str, data: st.DataObject) -> None:
    kind = np.dtype(DTYPES[dtype])
    count = data.draw(st.integers(1, 40))
    raw = [data.draw(st.binary(min_size=count * kind.itemsize, max_size=count * kind.itemsize)) for _ in "ab"]
    if dtype == "BOOL":
        raw = [bytes(byte & 1 for byte in one) for one in raw]
    found = difference(dtype, *raw)
    old, new = ([float(x) if kind.kind in "fV" else int(x) for x in np.frombuffer(one, kind)] for one in raw)
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if not (a == b or (a != a and b != b))]
    finite = [(a, b) for a, b in pairs if np.isfinite(float(a)) and np.isfinite(float(b))]
    assert found.differing == len(pairs)
    assert found.not_finite == len(pairs) - len(finite)
    distances = [min(float(abs(a - b)), 1.7976931348623157e308) for a, b in finite]
    assert found.largest == max(distances, default=0.0)
    assert found.total == pytest.approx(min(sum(distances), 1.7976931348623157e308), rel=1e-9)


def test_blocks_add_up() -> None:
    old = np.random.default_rng(1).normal(size=1_000_001).astype(np.float32)
    new = old.copy()
    new[::1000] += 0.5
    found = difference("F32", old.tobytes(), new.tobytes())
    exact = np.abs(old.astype(np.float64) - new.astype(np.float64))
    assert (found.differing, found.largest) == (1001, exact.max())
    assert found.total == pytest.approx(exact.sum(), rel=1e-12)


def test_kinds_without_numbers() -> None:
    assert not any(has_numbers(dtype) for dtype in ("F4", "F8_E8M0", "C64", "whatever"))


# -- what is read ----------------------------------------------------------------------------------------------------


class Recorded:
    """A stored file in memory that notes what is read of it."""

    def __init__(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        self.data = data
        bounds = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
        self._pieces = [Piece(data[a:b], a, b - a) for a, b in pairwise(bounds) if b > a]
        self.reads: list[tuple[int, int]] = []

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, offset + length))
        return self.data[offset : offset + length]

    async def pieces(self, begin: int, end: int) -> Sequence[Piece]:
        return [one for one in self._pieces if one.start < end and one.start + one.length > begin]


async def placed(file: Recorded, path: str = "f") -> dict[str, Placed]:
    found = {one.tensor.name: one for one in await read_tensors(file, path, path)}
    file.reads.clear()
    return found


async def test_only_pieces_that_differ_are_read() -> None:
    old = {"a": np.arange(10_000, dtype=np.float32), "b": np.arange(10_000, dtype=np.float32)}
    new = {name: array.copy() for name, array in old.items()}
    new["b"][5000] += 2
    first, second = (Recorded(save(arrays), range(0, 90_000, 1000)) for arrays in (old, new))
    before, after = await placed(first), await placed(second)
    same = await compare_bytes(before["a"], after["a"])
    assert (same.same, same.read_bytes, first.reads, second.reads) == (True, 0, [], [])
    other = await compare_bytes(before["b"], after["b"])
    assert other.numbers is not None
    assert (other.same, other.numbers.differing, other.numbers.largest) == (False, 1, 2.0)
    assert other.read_bytes <= 1008
    ((begin, end),) = first.reads
    changed = before["b"].tensor.begin + 4 * 5000
    assert begin <= changed < end
    assert ((begin - before["b"].tensor.begin) % 4, (end - begin) % 4) == (0, 0)


async def test_large_tensors_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_diff, "PIECE_BYTES", 4096)
    monkeypatch.setattr(tensor_diff, "_WINDOW_BYTES", 16384)
    old = np.random.default_rng(2).normal(size=30_000)
    new = old + 1.0
    first, second = Recorded(save({"a": old})), Recorded(save({"a": new}))
    found = await compare_bytes((await placed(first))["a"], (await placed(second))["a"])
    assert found.numbers is not None
    assert (found.read_bytes, found.numbers.differing) == (240_000, 30_000)
    assert found.numbers.total == pytest.approx(30_000, rel=1e-9)
    assert max(end - begin for begin, end in first.reads) <= 4096


async def test_without_numbers_reading_stops_at_the_first_difference() -> None:
    data = bytearray(64 << 20)
    value = header({"a": tensor("F8_E8M0", [len(data)], 0, len(data))})
    start = struct.pack("<Q", len(value)) + value
    other = bytearray(data)
    other[0] = 1
    first, second = Recorded(start + bytes(data)), Recorded(start + bytes(other))
    found = await compare_bytes((await placed(first))["a"], (await placed(second))["a"])
    assert (found.same, found.numbers, len(first.reads)) == (False, None, 1)


@settings(max_examples=300)
@given(st.data())
def test_spans_leave_out_only_what_is_equal(data: st.DataObject) -> None:
    item = data.draw(st.sampled_from([1, 2, 4, 8]))
    size = item * data.draw(st.integers(1, 40))
    old = data.draw(st.binary(min_size=size, max_size=size).map(lambda raw: bytes(byte % 2 for byte in raw)))
    new = bytearray(old)
    for at in data.draw(st.lists(st.integers(0, size - 1), max_size=4)):
        new[at] ^= 1
    pads = [data.draw(st.integers(0, 9)) for _ in "ab"]
    cuts = [data.draw(st.lists(st.integers(0, size + 9), max_size=12)) for _ in "ab"]
    files = [
        Recorded(bytes(pad) + bytes(raw) + bytes(3), cut) for raw, pad, cut in zip((old, new), pads, cuts, strict=True)
    ]
    first = item * data.draw(st.integers(0, size // item - 1))
    window = (first, data.draw(st.integers(first // item + 1, size // item)) * item)
    pieces = [
        [one for one in file._pieces if one.start < pad + window[1] and one.start + one.length > pad + window[0]]
        for file, pad in zip(files, pads, strict=True)
    ]
    spans = unequal_spans(pieces[0], pieces[1], pads[0], pads[1], window, item)
    covered = {at for begin, end in spans for at in range(begin, end)}
    assert sum(end - begin for begin, end in spans) == len(covered)
    assert all(window[0] <= begin < end <= window[1] and begin % item == 0 == end % item for begin, end in spans)
    assert all(old[at] == new[at] for at in range(*window) if at not in covered)


# -- matching --------------------------------------------------------------------------------------------------------


async def test_a_tensor_is_found_in_another_shard() -> None:
    one, two = np.ones(4, np.float32), np.full(4, 2, np.float32)
    before = [
        *await read_tensors(Recorded(save({"a": one, "b": two})), "1", "1"),
        *await read_tensors(Recorded(save({"c": one})), "2", "2"),
    ]
    after = [
        *await read_tensors(Recorded(save({"a": one})), "1", "1"),
        *await read_tensors(Recorded(save({"b": two, "d": one})), "3", "3"),
    ]
    pairs = {
        (old and (old.path, old.tensor.name), new and (new.path, new.tensor.name))
        for old, new in match_tensors(before, after)
    }
    assert pairs == {
        (("1", "a"), ("1", "a")), (("1", "b"), ("3", "b")), (("2", "c"), None), (None, ("3", "d")),
    }  # fmt: skip


async def test_one_name_in_several_files_stays_with_its_file() -> None:
    files = [Recorded(save({"a": np.full(4, value, np.float32)})) for value in (1, 2)]
    before = [one for path, file in zip("xy", files, strict=True) for one in await read_tensors(file, path, path)]
    pairs = match_tensors(before, list(reversed(before)))
    assert all(old is not None and new is not None and old.path == new.path for old, new in pairs)
