from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mvcfs.errors import InvalidName
from mvcfs.versions.history.revisions import (
    ByCommit,
    ByName,
    ByNumber,
    ByTime,
    Revision,
    parse_revision,
    parse_time,
    show_time,
)

NOON = int(datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T1200",
        "2026-11-20T12:00",
        "2026-11-20T12",
        "2026-11-20T120000",
        "2026-11-20T12:00:00",
        "2026-11-20T120000Z",
        "2026-11-20T12:00:00z",
        "2026-11-20t12:00Z",
        "2026-11-20 12:00",
        "2026-11-20 12:00:00 UTC",
        "2026-11-20_1200",
        "20261120T1200",
        "20261120T120000Z",
        "2026-11-20T12:00:00.999",
        "2026-11-20T14:00+02:00",
        "2026-11-20T1400+0200",
        "2026-11-20T14+02",
        "2026-11-20T0630-0530",
    ],
)
def test_one_time_in_many_spellings(text: str) -> None:
    assert parse_time(text) == NOON
    assert parse_revision(f"main@{text}") == Revision(ByTime("main", NOON))


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-13-01", "2026-02-30", "2026-1-1", "2026-11-20T25", "2026-11-20T12:60", "2026-11-20T", "x"],
)
def test_what_is_no_time(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("42", Revision(ByName("42", ByNumber(None, 42)))),
        ("@42", Revision(ByNumber(None, 42))),
        ("main@42", Revision(ByNumber("main", 42))),
        ("feature/x@42~1", Revision(ByNumber("feature/x", 42), 1)),
        ("main@00000042", Revision(ByNumber("main", 42))),
        ("main@123456789", Revision(ByNumber("main", 123456789))),
        ("123456789", Revision(ByName("123456789", ByCommit(None, "123456789")))),
        ("main@3f2a91c", Revision(ByCommit("main", "3f2a91c"))),
        ("main@3F2A", Revision(ByCommit("main", "3f2a"))),
        ("3f2a91c", Revision(ByName("3f2a91c", ByCommit(None, "3f2a91c")))),
        ("beef~2", Revision(ByName("beef", ByCommit(None, "beef")), 2)),
        ("main@2026-11-20", Revision(ByTime("main", NOON - 43200))),
        ("2026-11-20", Revision(ByName("2026-11-20", ByTime(None, NOON - 43200)))),
        ("2026-11-20T12:00", Revision(ByTime(None, NOON))),
        ("main", Revision(ByName("main"))),
        ("main~3", Revision(ByName("main"), 3)),
        ("main~", Revision(ByName("main"), 1)),
        ("main~~2", Revision(ByName("main"), 3)),
        ("v1.0", Revision(ByName("v1.0"))),
    ],
)
def test_what_revisions_say(text: str, revision: Revision) -> None:
    assert parse_revision(text) == revision


@pytest.mark.parametrize(
    "text",
    ["", "~", "~3", "@", "main@", "main@x", "main@abc", "main@1@2", "a b", "main^", "main~x", "main@-1", "../x", "a..b",
     "main@" + "1" * 25, "main@" + "a" * 41, "main~1x", "HEAD", "-x", "a\nb", "\ud800"],
)  # fmt: skip
def test_nonsense_says_what_is_possible(text: str) -> None:
    with pytest.raises(InvalidName, match="possible are"):
        parse_revision(text)


@given(st.text(max_size=30) | st.text("main@~0123456789abcdef-:TZ+/.", max_size=30))
@example("main@4294967296~999999999")
def test_any_text_is_a_revision_or_refused(text: str) -> None:
    try:
        revision = parse_revision(text)
    except InvalidName:
        return
    assert revision.back >= 0
    assert isinstance(revision.base, (ByName, ByNumber, ByCommit, ByTime))


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1)).map(lambda t: t.replace(microsecond=0)),
    st.integers(-23 * 60, 23 * 60),
    st.sampled_from(["%Y-%m-%dT%H%M%S%z", "%Y-%m-%dT%H:%M:%S%z", "%Y%m%dT%H%M%S%z", "%Y-%m-%d %H:%M:%S %z"]),
)
def test_times_with_offsets_are_the_instant_they_name(moment: datetime, offset_min: int, spelling: str) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    assert parse_time(aware.strftime(spelling)) == int(aware.timestamp())


@given(st.integers(0, 2**37))
def test_shown_times_read_back(time_s: int) -> None:
    assert parse_time(show_time(time_s)) == time_s
