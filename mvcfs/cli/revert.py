"""`mvcfs revert`: undoes what one version changed, as a new version."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.edits import MessageOptions, SideOptions, report
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.place import locate

HELP = """Undo what one version changed and keep what came after, as a new version.

Where something was changed again since, that is a conflict as for `merge`: ours is the branch, theirs is what was there before
the version. On a mounted branch, what is in no version yet is committed first.

\b
Examples:
  mvcfs revert /models/llama/main 42
  mvcfs revert /models/llama/main main~1 --ours
"""


def revert(
    path: Annotated[str, typer.Argument(metavar="MODEL/BRANCH", help="The branch.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to undo: 42, main@42, a commit.")],
    sides: SideOptions,
    messages: MessageOptions,
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
) -> None:
    """Undoes `version` in the branch at `path`."""
    place = locate(path, target.store)
    args = {
        **place.target(),
        **sides.arguments(),
        "revision": version,
        "message": messages.message,
        "dry_run": messages.dry_run,
        "uid": os.getuid(),
    }
    result = call(place, "revert", args, stores)
    nothing = f"nothing to undo: nothing of version {version} is left in {result['branch']}"
    report(result, output, dry_run=messages.dry_run, done=f"undid {version}", nothing=nothing)
