from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcfs.errors import CorruptData, UnsupportedFormat
from mvcfs.types import StoredFile
from mvcfs.versions.log.checkpoint import encode_checkpoint, parse_checkpoint
from mvcfs.versions.log.records import (
    AliasChange,
    BranchDrop,
    BranchHide,
    BranchMove,
    Condemned,
    Expired,
    Lease,
    Record,
    TagChange,
    encode_record,
    inline_object,
    parse_record,
)
from mvcfs.versions.log.state import KEPT_TXNS, LogState, StoredRecord, apply

MODEL, TXN, BRANCH, SHA, HASH = "a" * 32, "b" * 32, "c" * 32, "d" * 40, "e" * 64

hex32 = st.text("0123456789abcdef", min_size=32, max_size=32)
hex40 = st.text("0123456789abcdef", min_size=40, max_size=40)
numbers = st.integers(0, 2**63 - 1)
stem = st.text("0123456789abcdef", min_size=1, max_size=32)
names = st.sampled_from(["main", "a/b", "exp-lr3", "v1.0", "ünïcode"])
text = st.text(max_size=20)


def files(folder: str, suffix: str = "") -> st.SearchStrategy[tuple[StoredFile, ...]]:
    one = st.builds(lambda s, n: StoredFile(f"{folder}/{s}{suffix}", n), stem, numbers)
    return st.lists(one, max_size=3).map(tuple)


file_names = files("packs").map(lambda found: tuple(file.name for file in found))
ref_changes = st.one_of(
    st.builds(BranchMove, hex32, names, st.none() | hex40, numbers, st.none() | st.booleans()),
    st.builds(BranchHide, hex32),
    st.builds(BranchDrop, hex32),
    st.builds(TagChange, names, st.none() | hex40),
    st.builds(AliasChange, names, st.none() | hex40, text, text, st.none() | hex40),
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    number = draw(st.integers(0, 10**12))
    first = draw(st.integers(1, 100))
    return Record(
        model=draw(hex32),
        number=number,
        previous=None if number == 0 else HASH,
        txn=draw(hex32),
        time_ns=draw(numbers),
        host=draw(text),
        user=draw(text),
        software=draw(text),
        kind=draw(st.sampled_from(["create", "commit", "join"])),
        refs=tuple(draw(st.lists(ref_changes, max_size=4))),
        objects=tuple(
            inline_object("blob", data, number) for data in draw(st.lists(st.binary(max_size=30), max_size=3))
        ),
        packed=draw(st.none() | numbers),
        git=draw(files("git", ".pack")),
        manifests=draw(files("manifests", ".arrow")),
        packs=draw(files("packs")),
        drop=draw(file_names),
        condemn=tuple(Condemned(name, 7) for name in draw(file_names)),
        rescue=draw(file_names),
        expire=(Expired(draw(hex32), first, first + 3),) if draw(st.booleans()) else (),
        lease=draw(st.none() | st.builds(Lease, text, text, numbers, st.lists(hex40, max_size=2).map(tuple))),
    )


@given(records())
def test_a_record_comes_back_from_its_bytes(record: Record) -> None:
    assert parse_record(encode_record(record), "r") == record


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([SHA, HASH, MODEL]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def loads(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    assert isinstance(value, dict)
    return value


FULL = Record(
    MODEL,
    3,
    HASH,
    TXN,
    9,
    "h",
    "u",
    "s",
    "commit",
    refs=(BranchMove(BRANCH, "main", SHA, 3), TagChange("v1", SHA), AliasChange("a", SHA, "x", "y")),
    objects=(inline_object("blob", b"hello", 3),),
    packed=2,
    git=(StoredFile("git/a.pack", 3),),
    manifests=(StoredFile("manifests/a.arrow", 3),),
    packs=(StoredFile("packs/a", 3),),
    drop=("packs/b",),
    condemn=(Condemned("packs/c", 3),),
    rescue=("packs/d",),
    expire=(Expired(BRANCH, 1, 2),),
    lease=Lease("h", "publish", 3, (SHA,)),
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values inside a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@given(st.data())
def test_any_json_is_a_record_or_corrupt(data: st.DataObject) -> None:
    value: Any = loads(encode_record(FULL))
    where = data.draw(st.sampled_from(places(value)))
    inner = value
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = data.draw(json_values)
    try:
        parse_record(json.dumps(value).encode(), "log/3")
    except (CorruptData, UnsupportedFormat) as error:
        message = str(error)
    else:
        return
    assert "log/3" in message


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_corrupt(data: bytes) -> None:
    for parse in (parse_record, parse_checkpoint):
        with pytest.raises((CorruptData, UnsupportedFormat), match="log/7"):
            parse(data, "log/7")


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"format": 1' + b"0" * 5000 + b"}", b"\xff\xfe"])
def test_hostile_json_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptData):
        parse_record(data, "r")


def test_names_that_lead_elsewhere_are_refused() -> None:
    for name in ("git/../../x.pack", "/etc/passwd", "packs/a/b", "git/a.idx", "tmp/x", "git/a.pack\n"):
        value = loads(encode_record(FULL)) | {"git": [[name, 3]]}
        with pytest.raises(CorruptData):
            parse_record(json.dumps(value).encode(), "r")


def test_a_newer_format_is_refused_by_name() -> None:
    value = loads(encode_record(FULL)) | {"format": 2, "refs": "something new"}
    with pytest.raises(UnsupportedFormat, match="format 2"):
        parse_record(json.dumps(value).encode(), "r")


def test_unknown_keys_are_ignored() -> None:
    value = loads(encode_record(FULL)) | {"future": {"x": 1}}
    assert parse_record(json.dumps(value).encode(), "r") == FULL


# --- states


def stored(record: Record) -> StoredRecord:
    return StoredRecord.of(record, encode_record(record), f"log/{record.number}")


def first_state() -> LogState:
    record = Record(MODEL, 0, None, TXN, 1, "h", "u", "s", "create", refs=(BranchMove(BRANCH, "main", None, 0),))
    return apply(None, [stored(record)])


def following(state: LogState, **changes: Any) -> Record:
    record = Record(MODEL, state.number + 1, state.sha256, TXN, state.time_ns + 1, "h", "u", "s", "commit")
    return replace(record, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 2}, "record 1 is expected|where 1"),
        ({"number": 0, "previous": None}, "holds record 0"),
        ({"previous": HASH}, "doesn't follow"),
        ({"model": "f" * 32}, "belongs to model"),
        ({"time_ns": 1}, "not later"),
        ({"refs": (BranchMove(BRANCH, "main", SHA, 0),)}, "version 0"),
        ({"refs": (BranchMove(BRANCH, "main", None, 1),)}, "version 1"),
        ({"refs": (BranchMove("0" * 32, "main", None, 0),)}, "collides"),
        ({"refs": (BranchMove("0" * 32, "main/x", None, 0),)}, "collides"),
        ({"refs": (BranchMove("0" * 32, "a@b", None, 0),)}, "a@b"),
        ({"refs": (BranchHide("0" * 32),)}, "isn't there"),
        ({"refs": (BranchDrop(BRANCH),)}, "no deleted one"),
    ],
)
def test_records_that_do_not_follow_are_damage(change: dict[str, Any], message: str) -> None:
    state = first_state()
    with pytest.raises(CorruptData, match=message):
        apply(state, [stored(following(state, **change))])


def test_versions_never_fall() -> None:
    state = first_state()
    state = apply(state, [stored(following(state, refs=(BranchMove(BRANCH, "main", SHA, 2),)))])
    for move in (
        BranchMove(BRANCH, "main", "0" * 40, 2),
        BranchMove(BRANCH, "main", "0" * 40, 1),
        BranchMove(BRANCH, "main", SHA, 3),
        BranchMove(BRANCH, "main", None, 0),
    ):
        with pytest.raises(CorruptData, match="goes from version 2"):
            apply(state, [stored(following(state, refs=(move,)))])


def test_all_kinds_of_changes_are_kept_in_a_checkpoint() -> None:
    state = first_state()
    other = "0" * 32
    steps: list[dict[str, Any]] = [
        {"refs": (BranchMove(BRANCH, "main", SHA, 1, True), BranchMove(other, "x/y", SHA, 1))},
        {"refs": (BranchHide(other), TagChange("v1", SHA), AliasChange("champion", SHA, "ada", "better"))},
        {"git": (StoredFile("git/a.pack", 1),), "manifests": (StoredFile("manifests/a.arrow", 2),)},
        {"packs": (StoredFile("packs/a", 1), StoredFile("packs/b", 1)), "objects": (inline_object("blob", b"x", 4),)},
        {"drop": ("packs/a",), "condemn": (Condemned("packs/a", 5), Condemned("packs/q", 5))},
        {"rescue": ("packs/q",), "expire": (Expired(BRANCH, 1, 1),)},
        {"lease": Lease("h", "publish", 2**60, (SHA,)), "objects": (inline_object("blob", b"y", 7),)},
        {"packed": 6},
    ]
    for step in steps:
        state = apply(state, [stored(following(state, **step))])
    assert parse_checkpoint(encode_checkpoint(state), "c") == state
    assert state.refs.branch("main").protected
    assert [branch.name for branch in state.refs.deleted] == ["x/y"]
    assert [file.name for file in state.refs.packs] == ["packs/b"]
    assert [entry.data for entry in state.inline] == [b"y"]
    assert state.condemned == (Condemned("packs/a", 5),)
    assert len(state.leases) == 1
    ended = apply(state, [stored(following(state, lease=Lease("h", "publish", 0)))])
    assert ended.leases == ()
    shown = apply(state, [stored(following(state, refs=(BranchMove(other, "back", SHA, 1),)))])
    assert shown.refs.deleted == ()
    assert shown.refs.branch("back").id == other
    dropped = apply(state, [stored(following(state, refs=(BranchDrop(other),)))])
    assert dropped.refs.deleted == ()


@given(st.data())
def test_any_json_is_a_checkpoint_or_corrupt(data: st.DataObject) -> None:
    state = apply(None, [stored(replace(FULL, number=0, previous=None, objects=(inline_object("blob", b"q", 0),)))])
    value: Any = loads(encode_checkpoint(state))
    where = data.draw(st.sampled_from(places(value)))
    inner = value
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = data.draw(json_values)
    try:
        parse_checkpoint(json.dumps(value).encode(), "log/c")
    except (CorruptData, UnsupportedFormat) as error:
        message = str(error)
    else:
        return
    assert "log/c" in message


def test_txns_are_remembered_for_a_while() -> None:
    state = first_state()
    for number in range(KEPT_TXNS + 5):
        state = apply(state, [stored(following(state, txn=f"{number:032x}"))])
    assert state.txn_of(state.number) == f"{KEPT_TXNS + 4:032x}"
    assert state.txn_of(state.number - KEPT_TXNS + 1) is not None
    assert state.txn_of(state.number - KEPT_TXNS) is None
    assert state.txn_of(state.number + 1) is None
