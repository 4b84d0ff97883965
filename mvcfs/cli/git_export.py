"""`mvcfs git-export`: a model as a plain Git + LFS repository."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import Progress, print_error, print_json, print_line
from mvcfs.cli.place import locate
from mvcfs.cli.units import format_size
from mvcfs.errors import InvalidArgument
from mvcfs.fuse.mounts import find_mount

HELP = """Write a model into a bare Git repository that git and git-lfs read: all versions, branches, tags.

Large files go into DIR/lfs/objects, where git-lfs finds them when DIR is cloned by its path.
Into the folder of an earlier export only what is new is written. What is in no version yet is left out.

\b
Examples:
  mvcfs git-export /models/llama /backup/llama.git
  mvcfs git-export --store hdfs://namenode:8020/models llama llama.git --lfs tips
  git clone /backup/llama.git
"""


def git_export(
    model_path: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="New, empty, or an earlier export of this model.")],
    output: OutputOptions,
    target: TargetOptions,
    stores: StoreOptions,
    common: CommonOptions,
    lfs: Annotated[
        str,
        typer.Option(
            "--lfs", metavar="all|tips|none", help="Large files of all versions, of branch tips and tags, or none."
        ),
    ] = "all",
    branches: Annotated[
        list[str] | None,
        typer.Option("--branch", metavar="NAME", help="Only this branch (may be repeated) and what is tagged in it."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite refs that somebody else has changed in DIR.")
    ] = False,
) -> None:
    """Exports the model and prints what was written."""
    place = locate(model_path, target.store)
    folder = os.path.realpath(directory)
    if place.mount is not None and find_mount(folder) == place.mount:
        raise InvalidArgument(f"{directory} is in the mount of the model itself: export to a folder outside of it")
    args: dict[str, Any] = {
        **place.target(),
        "directory": folder,
        "lfs": lfs,
        "branches": list(branches or ()),
        "force": force,
    }
    with Progress("git-export", quiet=output.json) as progress:
        result = call(place, "git_export", args, stores, on_progress=progress.update)
    if output.json:
        print_json(result)
    else:
        _print(result)
    if result["missing_lfs"]:
        oids = ", ".join(each["oid"][:12] for each in result["missing_lfs"][:10])
        print_error(f"the data of {len(result['missing_lfs'])} large files is not in the store any more: {oids}")


def _print(result: dict[str, Any]) -> None:
    print_line(
        f"{result['directory']}: {result['refs']} refs ({result['moved_refs']} moved, {result['removed_refs']} removed), "
        f"{format_size(result['new_pack_bytes'])} of new Git objects"
    )
    print_line(
        f"large files: {result['lfs_files']} ({format_size(result['lfs_bytes'])}), "
        f"{result['new_lfs_files']} of them new ({format_size(result['new_lfs_bytes'])})"
    )
