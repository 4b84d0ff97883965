"""`mvcfs log`: the versions of a branch, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mvcfs.cli.alias_moves import show_moves
from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_line, print_table
from mvcfs.cli.place import locate
from mvcfs.cli.shown import format_time

HELP = """List the versions of a branch, newest first.

\b
Examples:
  mvcfs log /models/llama/main
  mvcfs log -n 5 /models/llama/main
  mvcfs log --alias champion /models/llama
  mvcfs log --store hdfs://namenode:8020/models llama/main
"""


def log(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A branch, or any path in one.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, metavar="N", help="At most so many.")] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="NAME", help="The moves of an alias of the model instead.")
    ] = None,
) -> None:
    """Prints the versions of the branch that `path` names."""
    place = locate(path, target.store)
    if alias is not None:
        show_moves(place, alias, limit, stores, output)
        return
    result = call(place, "log", {**place.target(), "limit": limit}, stores)
    if output.json:
        print_json(result)
        return
    versions = result["versions"]
    if not versions:
        print_line("no versions yet")
        return
    print_table(("version", "commit", "time (UTC)", "author", "message"), [_row(version) for version in versions])


def _row(version: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    tags = ", ".join(version.get("tags") or ())
    subject = (str(version.get("message") or "").splitlines() or [""])[0]
    return (
        "" if version.get("version") is None else str(version["version"]),
        str(version["commit"])[:10],
        format_time(version["time_ns"]),
        str(version.get("author") or ""),
        f"{subject} ({tags})" if tags else subject,
    )
