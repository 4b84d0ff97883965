"""`mvcfs show`: a version with what it changed, or what a path in it is."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mvcfs.cli.changes import print_changes
from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_fields, print_json, print_line
from mvcfs.cli.place import locate
from mvcfs.cli.shown import first_line, format_time, show_version
from mvcfs.cli.units import format_size

HELP = """Show a version: who made it and when, its message, and what it changed. Of a path in a version: what it is.

\b
Examples:
  mvcfs show /models/llama/main@42
  mvcfs show /models/llama v1.0
  mvcfs show /models/llama/main@42/model.safetensors
"""


def show(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A version, a branch's newest, or a path in one.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    revision: Annotated[str | None, typer.Argument(metavar="REV", help="A version of the model that PATH is.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Show changed lines of small text files.")] = False,
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Show which modes, owners and times changed, of directories as well.")
    ] = False,
) -> None:
    """Prints the version or the path."""
    place = locate(path, target.store)
    args: dict[str, Any] = {**place.target(), "text": text, "attributes": attributes}
    if revision is not None:
        args["revision"] = revision
    result = call(place, "show", args, stores)
    if output.json:
        print_json(result)
    elif "entry" in result:
        print_fields(_entry_fields(result))
    else:
        _print_version(result)


def _print_version(result: Mapping[str, Any]) -> None:
    fields = [
        ("version", show_version(result)),
        ("commit", result["commit"]),
        ("merges", ", ".join(parent[:10] for parent in result["parents"][1:])),
        ("tags", ", ".join(result["tags"])),
        ("author", f"{result['author']} <{result['email']}>"),
        ("time", f"{format_time(result['time_ns'])} UTC"),
        ("stored", "" if result["stored_bytes"] is None else format_size(result["stored_bytes"])),
    ]
    print_fields([field for field in fields if field[1]])
    print_line("")
    for line in str(result["message"]).rstrip().splitlines():
        print_line(f"    {line}" if line else "")
    print_line("")
    print_changes(result)


def _entry_fields(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    entry = result["entry"]
    last = entry["last_change"]
    fields = [
        ("path", entry["path"]),
        ("version", show_version(result)),
        ("commit", result["commit"]),
        ("kind", entry["kind"]),
        ("size", "" if entry["size_bytes"] is None else f"{entry['size_bytes']} ({format_size(entry['size_bytes'])})"),
        ("entries", str(entry.get("entries", ""))),
        ("target", str(entry.get("target", ""))),
        ("digest", str(entry["digest"])),
        ("mode", stat.filemode(entry["mode"])),
        ("owner", f"{entry['uid']}:{entry['gid']}"),
        ("modified", f"{format_time(entry['mtime_ns'])} UTC"),
    ]
    if last is not None:
        number = "" if last["version"] is None else f"version {last['version']}, "
        who = f"{last['author']}, {format_time(last['time_ns'])} UTC"
        fields.append((last["change"], f"{number}{last['commit'][:10]}, {who}: {first_line(last['message'])}"))
    return [field for field in fields if field[1]]
