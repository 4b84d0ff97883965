"""How `mvcfs alias` and `mvcfs log --alias` show the moves of an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import OutputOptions, StoreOptions
from mvcfs.cli.output import print_json, print_table
from mvcfs.cli.place import Place
from mvcfs.cli.shown import first_line, format_time, show_version


def show_moves(place: Place, name: str, limit: int | None, stores: StoreOptions, output: OutputOptions) -> None:
    """Prints the moves of an alias, newest first."""
    result = call(place, "alias_log", {**place.target(), "name": name, "limit": limit}, stores)
    if output.json:
        print_json(result)
        return
    print_table(("version", "commit", "time (UTC)", "who", "why"), [move_row(each) for each in result["moves"]])


def move_row(move: Mapping[str, Any]) -> tuple[str, ...]:
    """A move as a row of a table: version, commit, time, who, why."""
    return (
        "deleted" if move.get("deleted") else show_version(move),
        str(move.get("commit") or "")[:10],
        format_time(move["time_ns"]) if move.get("time_ns") else "",
        str(move.get("who") or ""),
        first_line(move.get("why")),
    )
