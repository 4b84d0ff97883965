"""`mvcfs commit`: makes a version of a branch as it stands now."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from mvcfs.cli import exits
from mvcfs.cli.dispatch import call, need_mount
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions
from mvcfs.cli.output import Progress, print_error, print_json, print_line
from mvcfs.cli.place import locate

HELP = """Make a version of a branch as it stands at this instant, open files included.

Returns when the version is durable in the store. With --to-branch the changes become the first version of a new
branch, and leave the one they were made in.

\b
Examples:
  mvcfs commit /models/llama/main -m "Best run so far"
  mvcfs commit . -m "Fix the tokenizer" --json
  mvcfs commit /models/llama/main -m "Try this" --to-branch exp
"""


def commit(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A branch, or any path in one.")],
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    message: Annotated[str, typer.Option("-m", "--message", metavar="MSG", help="What changed.")],
    author: Annotated[
        str | None, typer.Option("--author", metavar="'NAME <EMAIL>'", help="Attribute it to somebody else.")
    ] = None,
    override_protection: Annotated[
        bool, typer.Option("--override-protection", help="Publish even to a protected branch.")
    ] = False,
    to_branch: Annotated[
        str | None, typer.Option("--to-branch", metavar="NAME", help="Move the changes to a new branch.")
    ] = None,
) -> None:
    """Commits the branch that `path` is in."""
    place = locate(path, None)
    need_mount(place, "commit")
    args: dict[str, Any] = {**place.target(), "message": message, "uid": os.getuid()}
    if author is not None:
        args["author"] = author
    if override_protection:
        args["override_protection"] = True
    if to_branch is not None:
        args["to_branch"] = to_branch
    with Progress("commit", quiet=output.json) as progress:
        result = call(place, "commit", args, stores, on_progress=progress.update)
    if output.json:
        print_json(result)
    elif result.get("unchanged"):
        print_line(f"nothing to commit: {result.get('branch')} is at version {result.get('version')}")
    elif not result.get("conflict"):
        print_line(f"version {result['version']} of {result['branch']}: {str(result['commit'])[:10]}")
    if result.get("left_out_files") and not output.json:
        print_error(f"{result['left_out_files']} files could not be taken into the version")
    if result.get("conflict"):
        print_error(
            f"another host changed the same path: committed to branch {result.get('branch')} instead, "
            f"as its version {result.get('version')}"
        )
        raise typer.Exit(exits.CONFLICT)
