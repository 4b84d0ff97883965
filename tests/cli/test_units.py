import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcfs.cli.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("100", 100),
        ("20G", 20 << 30),
        ("512MiB", 512 << 20),
        ("512m", 512 << 20),
        ("1.5T", 3 << 39),
        ("20GB", 20 * 10**9),
        (" 1 KiB ", 1024),
        ("7b", 7),
    ],
)
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1,5G", "0x10", "1e9", "1G2", "٣", "nan", "inf"])
def test_what_is_no_size_is_refused_by_example(text):
    with pytest.raises(ValueError, match="512MiB"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**70))
def test_a_size_of_many_digits_loses_none(count):
    assert parse_size(str(count)) == count


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2s", 2), ("500ms", 0.5), ("5m", 300), ("1h30m", 5400), ("1h 30m", 5400), ("1d", 86400), ("0", 0), ("2.5", 2.5)],
)
def test_durations(text, expected):
    assert parse_duration(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "s", "-2s", "2x", "1h30", "30 1h", "five", "1:30", "nan"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


def test_sizes_for_people():
    shown = [format_size(count) for count in (0, 999, 1000, 12_400_000_000, 999_960, 5 * 10**15)]
    assert shown == ["0 B", "999 B", "1.0 kB", "12.4 GB", "1.0 MB", "5.0 PB"]


def test_durations_for_people():
    assert [format_duration(seconds) for seconds in (3.21, 250, 7500)] == ["3.2 s", "4m 10s", "2h 5m"]
