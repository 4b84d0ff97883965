from __future__ import annotations

from typing import Any

import pytest

from mvcfs.cli.changes import describe_change, describe_totals

ROW = {
    "change": "changed", "kind": "file", "path": "f", "old_path": None, "similarity": None, "size_bytes": 2000, "old_size_bytes": 1000,
    "digest": "git:b", "old_digest": "git:a", "shared_bytes": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({}, "M  f  1.0 kB → 2.0 kB"),
        ({"shared_bytes": 500}, "M  f  1.0 kB → 2.0 kB, 500 B shared"),
        ({"size_bytes": 1000}, "M  f  1.0 kB"),
        ({"change": "added", "old_size_bytes": None, "old_digest": None}, "A  f  2.0 kB"),
        ({"change": "removed", "size_bytes": None, "digest": None}, "D  f  1.0 kB"),
        (
            {"change": "renamed", "old_path": "g", "size_bytes": 1000, "digest": "git:a", "shared_bytes": 1000},
            "R  g → f  1.0 kB",
        ),
        (
            {
                "change": "renamed",
                "kind": "directory",
                "old_path": "g",
                **dict.fromkeys(("size_bytes", "old_size_bytes", "digest", "old_digest", "shared_bytes")),
            },
            "R  g/ → f/",
        ),
        (
            {
                "change": "attributes",
                "digest": "git:a",
                "size_bytes": 1000,
                "attributes": {"mode": [0o100644, 0o100755], "uid": [0, 5], "mtime_ns": [1, 2]},
            },
            "m  f  1.0 kB, mode 100644 → 100755, owner 0 → 5, time",
        ),
    ],
)
def test_a_change_is_a_line(row: dict[str, Any], line: str) -> None:
    assert describe_change({**ROW, **row}) == line


def test_totals() -> None:
    none = dict.fromkeys(
        ("added", "removed", "changed", "renamed", "attributes", "added_bytes", "removed_bytes", "shared_bytes"), 0
    )
    assert describe_totals(none) == "no change"
    some = {**none, "added": 1, "attributes": 2, "added_bytes": 5, "removed_bytes": 7}
    assert describe_totals(some) == "3 changes: 1 added, 2 only in attributes; 5 B new or changed; 7 B removed"
