"""`mvcfs restore`: gives a path what it had in a past version, as a new version."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.edits import MessageOptions, report
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.place import locate

HELP = """Give a file, a directory or a whole branch what it had in a past version, as a new version.

No data moves, whatever the size. A directory is then exactly what it was; what was added to it since is gone from the new
version, and still in those before. On a mounted branch, what is in no version yet is committed first.

\b
Examples:
  mvcfs restore /models/llama/main/model.safetensors --from main@3
  mvcfs restore /models/llama/main/checkpoint-500 --from main@2026-11-20T1200
  mvcfs restore /models/llama/main --from v1.0
"""


def restore(
    path: Annotated[str, typer.Argument(metavar="PATH", help="What to restore: a path in a branch, or a branch.")],
    from_revision: Annotated[
        str, typer.Option("--from", metavar="REV", help="Where to take it from: main@42, a tag, a branch, a commit.")
    ],
    messages: MessageOptions,
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
) -> None:
    """Restores `path` from a revision."""
    place = locate(path, target.store)
    args = {
        **place.target(),
        "revision": from_revision,
        "message": messages.message,
        "dry_run": messages.dry_run,
        "uid": os.getuid(),
    }
    result = call(place, "restore", args, stores)
    nothing = f"nothing to restore: {path} is as it was in {from_revision}"
    report(result, output, dry_run=messages.dry_run, done=f"restored from {from_revision}", nothing=nothing)
