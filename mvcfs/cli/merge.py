"""`mvcfs merge`: merges a branch, version or tag into a branch."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.edits import MessageOptions, SideOptions, report
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.place import locate

HELP = """Merge another branch, a version or a tag into a branch, as a new version of it.

Paths that one side changed are taken from it, renames are followed, small text files are merged by lines. What both changed
otherwise is a conflict: it is listed with sizes and times, the exit code is 4, and nothing changes until you choose a side.
On a mounted branch, what is in no version yet is committed first.

\b
Examples:
  mvcfs merge /models/llama/main exp-lr3
  mvcfs merge /models/llama/main exp-lr3@12 --dry-run
  mvcfs merge /models/llama/main exp-lr3 --theirs --choose config.json=ours
  mvcfs merge --store hdfs://namenode:8020/models llama/main exp-lr3 --keep-both
"""


def merge(
    path: Annotated[str, typer.Argument(metavar="MODEL/BRANCH", help="The branch to merge into.")],
    revision: Annotated[str, typer.Argument(metavar="REV", help="A branch, BRANCH@VERSION, a tag, a commit.")],
    sides: SideOptions,
    messages: MessageOptions,
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
) -> None:
    """Merges `revision` into the branch at `path`."""
    place = locate(path, target.store)
    args = {
        **place.target(),
        **sides.arguments(),
        "revision": revision,
        "message": messages.message,
        "dry_run": messages.dry_run,
        "uid": os.getuid(),
    }
    result = call(place, "merge", args, stores)
    nothing = f"nothing to merge: {result['branch']} has all of {revision}"
    report(result, output, dry_run=messages.dry_run, done=f"merged {revision}", nothing=nothing)
