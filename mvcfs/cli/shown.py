"""How versions and times look in what commands print."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mvcfs.types import NS_PER_S


def format_time(time_ns: int) -> str:
    """Writes a time as people and `branch@TIME` do: `2026-11-20 12:00:00`, UTC."""
    return datetime.fromtimestamp(time_ns // NS_PER_S, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def show_version(row: Mapping[str, Any]) -> str:
    """A version as people write it: `main@42`; nothing for a commit that is none."""
    return "" if row.get("version") is None else f"{row['branch']}@{row['version']}"


def first_line(text: object) -> str:
    """The first line of a message, nothing for none."""
    return (str(text or "").splitlines() or [""])[0]
