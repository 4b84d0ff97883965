"""`mvcfs sync`: publishes what is closed and takes in what others published, now."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mvcfs.cli import exits
from mvcfs.cli.dispatch import call, need_mount
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions
from mvcfs.cli.output import Progress, print_error, print_json, print_line
from mvcfs.cli.place import locate

HELP = """Publish the closed files of a branch and take in what other hosts published, now.

Waits neither for quiet nor for the next look at the store. Files that are open stay for a later version.

\b
Examples:
  mvcfs sync /models/llama/main
  mvcfs sync . --json
"""


def sync(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A branch, or any path in one.")],
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
) -> None:
    """Syncs the branch that `path` is in."""
    place = locate(path, None)
    need_mount(place, "sync")
    with Progress("sync", quiet=output.json) as progress:
        result = call(place, "sync", {**place.target(), "uid": os.getuid()}, stores, on_progress=progress.update)
    if output.json:
        print_json(result)
    elif not result.get("conflict"):
        verb = "published" if result.get("published") else "nothing to publish"
        print_line(f"{result['branch']} is at version {result['version']} ({verb})")
    if not output.json:
        for one in result.get("came") or ():
            subject = str(one["message"]).partition("\n")[0]
            print_line(f"  came: version {one['version']} {str(one['commit'])[:10]} by {one['author']}: {subject}")
        if result.get("left_out_files"):
            print_error(f"{result['left_out_files']} files are open and wait for a later version")
        if result.get("waits_for"):
            print_error(
                f"{result['waits_for']} was changed here and on another host: its newest versions show here once ours "
                "is published"
            )
    if result.get("conflict"):
        print_error(
            f"another host changed the same path: published to branch {result.get('branch')} instead, "
            f"as its version {result.get('version')}"
        )
        raise typer.Exit(exits.CONFLICT)
