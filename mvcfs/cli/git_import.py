"""`mvcfs git-import`: a Git repository, with its Git LFS files, as a model."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import Progress, print_error, print_json, print_line
from mvcfs.cli.place import locate
from mvcfs.cli.stores import cache_dir
from mvcfs.cli.units import format_size
from mvcfs.errors import InvalidArgument, MvcfsError, NotFound, NotSupported

HELP = """Bring a Git repository in as a new model: branches, tags, authors, dates and Git LFS files.

Commits stay what they are, so `mvcfs git-export` gives the same commit ids back. SOURCE is a folder (bare
or with a working tree) or anything that `git clone` takes. With --update the branches of a model that was
imported before move on, if the repository goes on from where they are.

\b
Examples:
  mvcfs git-import ~/src/llama /models/llama
  mvcfs git-import https://example.com/llama.git llama --store hdfs://namenode:8020/models
  mvcfs git-import ~/src/llama /models/llama --rename feature@2=feature-2
"""


def git_import(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, or an address for git clone.")],
    model_path: Annotated[str, typer.Argument(metavar="MODEL", help="The model to make: new, or without a version.")],
    output: OutputOptions,
    target: TargetOptions,
    stores: StoreOptions,
    common: CommonOptions,
    lfs: Annotated[
        str, typer.Option("--lfs", metavar="all|tips", help="Large files of all versions, or of branch tips and tags.")
    ] = "all",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without large files that SOURCE lacks; reading them fails.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Bring a model that was imported before up to date.")
    ] = False,
    renames: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Call a branch or tag NEW; empty: leave it out. Repeatable."),
    ] = None,
    no_fsck: Annotated[
        bool, typer.Option("--no-fsck", help="Take objects that git fsck objects to, if they are whole.")
    ] = False,
) -> None:
    """Imports the repository and prints what became of it."""
    place = locate(model_path, target.store)
    model = place.model()
    if "/" in place.path:
        raise InvalidArgument(f"{model_path} is in the model {model}: name the model itself")
    args: dict[str, Any] = {
        "model": model,
        "lfs": lfs,
        "allow_missing": allow_missing,
        "update": update,
        "renames": list(renames or ()),
        "no_fsck": no_fsck,
    }
    with _folder(source, stores, need_lfs=not allow_missing, quiet=output.json) as folder:
        args["source"] = str(folder)
        with Progress("git-import", quiet=output.json) as progress:
            result = call(place, "git_import", args, stores, on_progress=progress.update)
    if output.json:
        print_json(result)
    else:
        _print(result)
    for each in result["missing_lfs"]:
        print_error(
            f"not in the repository: {each['path'] or '?'} ({each['oid'][:12]}, {format_size(each['size_bytes'])})"
        )


def _print(result: dict[str, Any]) -> None:
    for branch in result["branches"]:
        moved = "" if branch["moved"] else " (as it was)"
        print_line(f"{result['model']}/{branch['branch']}: version {branch['version']}, {branch['tip'][:10]}{moved}")
    print_line(
        f"{result['tags']} tags, {format_size(result['git_bytes'])} of new Git objects, "
        f"{result['new_lfs_files']} new large files ({format_size(result['new_lfs_bytes'])}, "
        f"{format_size(result['stored_bytes'])} stored)"
    )
    if result["left_out_refs"]:
        refs = ", ".join(result["left_out_refs"][:5])
        more = f" and {len(result['left_out_refs']) - 5} more" if len(result["left_out_refs"]) > 5 else ""
        print_line(f"left out: {refs}{more}")


@contextmanager
def _folder(source: str, stores: StoreOptions, *, need_lfs: bool, quiet: bool) -> Iterator[Path]:
    """The repository as a folder of this host: itself, or a mirror for the time of the command."""
    if os.path.isdir(source):
        yield Path(os.path.realpath(source))
        return
    if ":" not in source:
        raise NotFound(f"{source} is neither a folder nor an address that git could clone")
    with tempfile.TemporaryDirectory(prefix=f"clone-{os.getpid()}-", dir=cache_dir(stores)) as folder:
        mirror = Path(folder) / "mirror.git"
        _git("clone", "--mirror", *(("-q",) if quiet else ()), "--", source, str(mirror))
        _fetch_large(mirror, need=need_lfs)
        yield mirror


def _fetch_large(mirror: Path, *, need: bool) -> None:
    """Has git-lfs fetch the large files of a mirror, if it has any."""
    from mvcfs.versions.plain_git.git_source import has_pointers

    if not has_pointers(mirror):
        return
    if shutil.which("git-lfs") is None:
        if need:
            raise NotSupported(
                "the repository has Git LFS files, and git-lfs isn't installed here: apt-get install git-lfs"
            )
        return
    try:
        _git("-C", str(mirror), "lfs", "fetch", "--all", "origin")
    except MvcfsError:
        # Some may have come; what is missing is named by the import.
        if need:
            raise


def _git(*words: str) -> None:
    """Runs Git as the user would, who sees its progress and may be asked for a password."""
    try:
        # Its results go nowhere: stdout is for those of this command.
        done = subprocess.run(["git", *words], stdout=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise NotSupported("git isn't installed here: apt-get install git git-lfs (see: mvcfs doctor)") from None
    if done.returncode:
        raise MvcfsError(f"git {' '.join(words[:3])} … failed with exit code {done.returncode}")
