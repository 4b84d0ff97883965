"""How commands print changes between versions: a line a file, and a line of totals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvcfs.cli.output import print_line
from mvcfs.cli.units import format_size

_LETTERS = {"added": "A", "removed": "D", "changed": "M", "renamed": "R", "attributes": "m"}
_STYLES = {"added": "green", "removed": "red", "renamed": "cyan"}
_WORDS = {"attributes": "only in attributes"}
_ATTRIBUTE_WORDS = {"mode": "mode", "uid": "owner", "gid": "group", "mtime_ns": "time", "xattrs": "xattrs"}


def print_changes(result: Mapping[str, Any]) -> None:
    """Prints `changes`, `totals` and `not_listed` of a result."""
    for row in result["changes"]:
        print_line(describe_change(row), style=_STYLES.get(row["change"], ""))
        for line in str(row.get("text") or "").splitlines():
            print_line(line, style=_line_style(line))
    if result["not_listed"]:
        print_line(f"… and {result['not_listed']} more")
    print_line(describe_totals(result["totals"]))


def describe_change(row: Mapping[str, Any]) -> str:
    """One change: `M  model.safetensors  12.4 GB → 12.5 GB, 12.1 GB shared`."""
    slash = "/" if row["kind"] == "directory" else ""
    name = row["path"] + slash
    if row["old_path"] is not None:
        name = f"{row['old_path']}{slash} → {name}"
    details = [text for text in (_sizes(row), _shared(row), _attributes(row)) if text]
    return f"{_LETTERS[row['change']]}  {name}" + ("  " + ", ".join(details) if details else "")


def describe_totals(totals: Mapping[str, int]) -> str:
    """The line under all changes: `3 files: 1 added, 2 changed; 12.4 GB new or changed, 12.1 GB of it shared`."""
    counts = [f"{totals[key]} {_WORDS.get(key, key)}" for key in _LETTERS if totals[key]]
    number = sum(totals[key] for key in _LETTERS)
    text = f"{number} {'change' if number == 1 else 'changes'}: {', '.join(counts)}" if number else "no change"
    if totals["added_bytes"]:
        text += f"; {format_size(totals['added_bytes'])} new or changed"
    if totals["removed_bytes"]:
        text += f"; {format_size(totals['removed_bytes'])} removed"
    return text


def _sizes(row: Mapping[str, Any]) -> str:
    old, new = row["old_size_bytes"], row["size_bytes"]
    if old is None or new is None or row["digest"] == row["old_digest"]:
        size = new if new is not None else old
        return "" if size is None else format_size(size)
    return f"{format_size(old)} → {format_size(new)}" if old != new else format_size(new)


def _shared(row: Mapping[str, Any]) -> str:
    if row["old_digest"] == row["digest"] or not row["shared_bytes"]:
        return ""
    return f"{format_size(row['shared_bytes'])} shared"


def _attributes(row: Mapping[str, Any]) -> str:
    shown = []
    for key, (old, new) in (row.get("attributes") or {}).items():
        word = _ATTRIBUTE_WORDS.get(key, key)
        shown.append(f"{word} {old:o} → {new:o}" if key == "mode" else f"{word} {old} → {new}" if "id" in key else word)
    return ", ".join(shown)


def _line_style(line: str) -> str:
    if line.startswith("@@"):
        return "cyan"
    return "green" if line.startswith("+") else "red" if line.startswith("-") else ""
