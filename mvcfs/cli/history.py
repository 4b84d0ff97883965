"""`mvcfs history`: the versions in which a file or directory changed, and what it was in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_table
from mvcfs.cli.place import locate
from mvcfs.cli.shown import first_line, format_time
from mvcfs.cli.units import format_size

HELP = """List the versions in which a file changed, newest first: its size, digest and name then, who changed it and when.

\b
Examples:
  mvcfs history /models/llama/main/model.safetensors
  mvcfs history -n 3 --json /models/llama/main@42/config.json
"""


def history(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or directory of a branch or version.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, metavar="N", help="At most so many.")] = None,
) -> None:
    """Prints what `path` was in each version that changed it."""
    place = locate(path, target.store)
    result = call(place, "history", {**place.target(), "limit": limit}, stores)
    if output.json:
        print_json(result)
        return
    columns = ("version", "commit", "time (UTC)", "author", "change", "size", "digest", "name", "message")
    print_table(columns, [_row(version) for version in result["versions"]])


def _row(version: Mapping[str, Any]) -> tuple[str, ...]:
    size, digest = version["size_bytes"], str(version["digest"] or "")
    kind, _, number = digest.partition(":")
    return (
        str(version.get("place") or "") if version["version"] is None else str(version["version"]),
        str(version["commit"])[:10],
        format_time(version["time_ns"]),
        str(version["author"]),
        str(version["change"]),
        "" if size is None else format_size(size),
        f"{kind}:{number[:10]}" if digest else "",
        str(version["path"]),
        first_line(version["message"]),
    )
