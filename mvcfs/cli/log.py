"""`mvcfs log`: the versions of a branch, or those in which a path changed, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mvcfs.cli.alias_moves import show_moves
from mvcfs.cli.dispatch import call
from mvcfs.cli.graph import draw_graph
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_line, print_table
from mvcfs.cli.place import locate
from mvcfs.cli.shown import first_line, format_time
from mvcfs.cli.units import format_size

HELP = """List versions, newest first: all of a branch, or those in which a file or directory of it changed.

A path is followed over renames, and past the branch's beginning. With --stat each version shows what it added: bytes of
files that are new or changed, and the bytes of large files that it brought to the store.

\b
Examples:
  mvcfs log /models/llama/main
  mvcfs log -n 5 --stat /models/llama/main
  mvcfs log /models/llama/main/checkpoint-500/model.safetensors
  mvcfs log --graph -n 30 /models/llama/main
  mvcfs log --since 2026-11-01 --author ann /models/llama/main
  mvcfs log --alias champion /models/llama
  mvcfs log --store hdfs://namenode:8020/models llama/main
"""


def log(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A branch or a version, and maybe a path in it.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, metavar="N", help="At most so many.")] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="NAME", help="The moves of an alias of the model instead.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only from this time on: 2026-11-20T1200, UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only up to this time.")] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="TEXT", help="Only where NAME <EMAIL> has TEXT, in any case.")
    ] = None,
    graph: Annotated[
        bool, typer.Option("--graph", help="Draw the lines of descent, with the versions that were merged in.")
    ] = False,
    stat: Annotated[bool, typer.Option("--stat", help="Show what each version added and stored.")] = False,
) -> None:
    """Prints the versions that `path` names."""
    place = locate(path, target.store)
    if alias is not None:
        show_moves(place, alias, limit, stores, output)
        return
    args: dict[str, Any] = {**place.target(), "limit": limit}
    chosen = {"since": since, "until": until, "author": author, "stat": stat, "graph": graph}
    result = call(place, "log", args | {key: value for key, value in chosen.items() if value}, stores)
    if output.json:
        print_json(result)
        return
    versions = result["versions"]
    if not versions:
        print_line("no such versions" if since or until or author else "no versions yet")
        return
    if graph:
        _print_graph(versions, stat)
        return
    columns = [
        "version",
        "commit",
        "time (UTC)",
        "author",
        *(["changes", "added", "stored"] if stat else []),
        "message",
    ]
    print_table(columns, [_row(version, stat) for version in versions])


def _print_graph(versions: Sequence[Mapping[str, Any]], stat: bool) -> None:
    for drawing, number in draw_graph([(version["commit"], version["parents"]) for version in versions]):
        if number is None:
            print_line(drawing)
            continue
        version, row = versions[number], _row(versions[number], stat)
        tips = f" [{', '.join(version['branches'])}]" if version["branches"] else ""
        print_line(f"{drawing}  {'  '.join(cell for cell in row if cell)}{tips}")


def _row(version: Mapping[str, Any], stat: bool) -> list[str]:
    tags = ", ".join(version.get("tags") or ())
    message = first_line(version.get("message"))
    if version.get("old_path") is not None:
        message += f" (renamed from {version['old_path']})"
    elif version.get("change") in ("added", "removed"):
        message += f" ({version['change']})"
    return [
        str(version.get("place") or "") if version.get("version") is None else str(version["version"]),
        str(version["commit"])[:10],
        format_time(version["time_ns"]),
        str(version.get("author") or ""),
        *(_stat(version) if stat else ()),
        f"{message} ({tags})" if tags else message,
    ]


def _stat(version: Mapping[str, Any]) -> tuple[str, str, str]:
    totals, stored = version["stat"], version["stored_bytes"]
    number = sum(totals[key] for key in ("added", "removed", "changed", "renamed", "attributes"))
    return str(number), format_size(totals["added_bytes"]), "" if stored is None else format_size(stored)
