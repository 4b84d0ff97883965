"""Rows of attributes: what is written is read, and nothing that anybody writes there does harm."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcfs.types import Attributes
from mvcfs.versions.git.format import RawEntry
from mvcfs.versions.trees.attributes import AttrRow, git_mode, parse_rows, serialise_rows, shard_of, speaks_of

OID = "a" * 40
ROW = ["name", 0o100644, 1, 2, 3, OID, 4, {}]

ids = st.integers(0, (1 << 32) - 1)
xattrs = st.dictionaries(st.binary(max_size=5), st.binary(max_size=5), max_size=2).map(
    lambda d: tuple(sorted(d.items()))
)


@st.composite
def rows(draw: st.DrawFn) -> AttrRow:
    kind = draw(st.sampled_from([0o100000, 0o040000, 0o120000]))
    link = draw(st.none() | st.text(st.characters(codec="ascii"), min_size=1, max_size=9))
    attributes = Attributes(
        kind | draw(st.integers(0, 0o7777)), draw(ids), draw(ids), draw(st.integers(-(1 << 62), 1 << 62)),
        draw(st.integers(1, 9)) if link else 1, link, draw(xattrs),
    )  # fmt: skip
    return AttrRow(
        draw(st.binary(min_size=1, max_size=8)),
        attributes,
        None if kind == 0o040000 else draw(st.sampled_from([OID, "0" * 40])),
        draw(st.integers(0, 1 << 50)),
        draw(st.none() | st.just("b" * 64)),
        draw(st.none() | st.just(b".mvcfs-name-" + b"0" * 32)),
        draw(st.sampled_from([None, "end", "only"])),
    )


@given(st.lists(rows(), max_size=6, unique_by=lambda row: row.name))
def test_what_is_written_is_read(made: list[AttrRow]) -> None:
    data = serialise_rows(made)
    assert parse_rows(data) == sorted(made, key=lambda row: row.name)
    assert data == serialise_rows(reversed(made))
    assert data.isascii()


def test_the_text_is_as_the_format_says() -> None:
    row = AttrRow(b"a\xff\xc3\xa9\n", Attributes(0o100644, 1, 2, 3, 2, "g", ((b"user.x", b"\0"),)), OID, 4, "b" * 64)
    assert serialise_rows([row, AttrRow(b"d", Attributes(0o040755, 0, 0, -1), None, 0)]) == (
        b'{"mvcfs-attrs":1}\n'
        b'["a\\udcff\\u00e9\\n",33188,1,2,3,"' + b"a" * 40 + b'",4,{"lfs":"' + b"b" * 64
        + b'","link":"g","nlink":2,"xattrs":{"user.x":"AA=="}}]\n["d",16877,0,0,-1,null,0,{}]\n'
    )  # fmt: skip


def parsed(*lines: str) -> list[AttrRow]:
    return parse_rows("\n".join(['{"mvcfs-attrs":1}', *lines, ""]).encode("utf-8", "surrogateescape"))


BAD = [
    "", "x", "{}", "[]", "1", "null", '"x"', "[[]]", "[1,2,3,4,5,6,7,8]", "[" * 100_000, "]", "1],[1", '{"a":' * 50_000,
    "9" * 5000, "NaN", '["\\ud800",33188,1,2,3,"' + OID + '",4,{}]',
]  # fmt: skip
WRONG_COLUMNS = [
    (0, 7), (0, None), (1, True), (1, 0o010644), (1, 1 << 20), (1, -1), (1, 33188.0), (2, -1), (2, 1 << 32), (3, "0"), (3, None), (4, 1e300), (4, 1 << 63),
    (5, None), (5, OID.upper()), (5, OID + "\n"), (5, 7), (5, []), (6, -1), (6, 1 << 63), (6, False), (7, None), (7, []), (7, {"link": 7}), (7, {"link": ""}),
    (7, {"nlink": 0, "link": "x"}), (7, {"xattrs": []}), (7, {"xattrs": {"a": "?"}}), (7, {"xattrs": {"a": 1}}), (7, {"xattrs": {"a": "é"}}), (7, {"as": ".."}),
    (7, {"as": 1}), (7, {"lfs": "x"}), (7, {"lfs": ["b" * 64]}), (7, {"block": "all"}),
]  # fmt: skip


@pytest.mark.parametrize("line", BAD, ids=lambda line: ascii(line[:20]))
def test_a_line_that_is_no_row_is_left_out(line: str) -> None:
    good = json.dumps(ROW)
    assert len(parsed(good, line, good.replace("name", "other"))) == 2


@pytest.mark.parametrize(("column", "value"), WRONG_COLUMNS, ids=repr)
def test_a_row_with_a_wrong_column_is_left_out(column: int, value: object, caplog: pytest.LogCaptureFixture) -> None:
    row = [*ROW]
    row[column] = value
    with caplog.at_level(logging.WARNING):
        assert len(parsed(json.dumps(ROW), json.dumps(row))) == 1
    assert "1 rows" in caplog.text


def test_unknown_keys_are_ignored() -> None:
    assert len(parsed(json.dumps([*ROW[:7], {"later": 1}]))) == 1


@pytest.mark.parametrize("data", [b"", b"\n", b'{"mvcfs-attrs":2}\n', b"\xff" * 9, json.dumps(ROW).encode()], ids=repr)
def test_another_form_has_no_rows(data: bytes) -> None:
    assert parse_rows(data) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["as", "link", "xattrs", "x"]), inner),
    max_leaves=12,
)


@given(st.lists(st.lists(json_values, min_size=8, max_size=8) | json_values, max_size=4))
def test_any_json_is_read_without_harm(values: list[object]) -> None:
    parsed(*map(json.dumps, values))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_harm(data: bytes) -> None:
    parse_rows(b'{"mvcfs-attrs":1}\n' + data)


def test_a_row_speaks_of_an_entry_of_its_kind_and_content() -> None:
    row = AttrRow(b"x", Attributes(0o100744, 0, 0, 0), OID, 0)
    assert speaks_of(row, RawEntry(b"x", 0o100755, OID))
    assert not speaks_of(row, RawEntry(b"x", 0o100644, OID))
    assert not speaks_of(row, RawEntry(b"x", 0o100755, "b" * 40))
    folder = AttrRow(b"x", Attributes(0o040700, 0, 0, 0), None, 0)
    assert speaks_of(folder, RawEntry(b"x", 0o040000, OID))
    assert not speaks_of(folder, RawEntry(b"x", 0o160000, OID))


def test_modes_and_shards() -> None:
    assert [oct(git_mode(mode)) for mode in (0o100600, 0o100711, 0o100011, 0o120777, 0o041777)] == [
        "0o100644", "0o100755", "0o100644", "0o120000", "0o40000",
    ]  # fmt: skip
    assert shard_of(b"") == b"e3"
