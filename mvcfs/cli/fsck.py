"""`mvcfs fsck`: checks a store, changing nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mvcfs.cli import exits
from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions
from mvcfs.cli.output import Progress, print_error, print_json, print_line
from mvcfs.cli.place import store_place
from mvcfs.cli.units import format_size

HELP = """Check a store and change nothing.

Every model's log is unbroken, every file that it names is there with its size, Git objects and
manifests are complete. With --data every chunk is read and compared with its checksum.

\b
Examples:
  mvcfs fsck hdfs://namenode:8020/models
  mvcfs fsck --data --json ./store
"""


def fsck(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="The store's address, or a directory it is mounted on.")
    ],
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    data: Annotated[bool, typer.Option("--data", help="Read and check all data, too.")] = False,
) -> None:
    """Checks `store` and prints what is wrong with it."""
    with Progress("fsck", quiet=output.json) as progress:
        result = call(store_place(store), "fsck", {"data": data}, stores, on_progress=progress.update)
    problems: list[Any] = list(result.get("problems") or ())
    if output.json:
        print_json(result)
    else:
        counts = ", ".join(_count(key, value) for key, value in (result.get("counts") or {}).items())
        print_line(f"checked {counts}" if counts else "checked")
        for problem in problems:
            print_line(_describe(problem), style="red")
        if not problems:
            print_line("no problems")
    if problems:
        print_error(f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in {store}")
        raise typer.Exit(exits.DAMAGED)


def _count(key: str, value: int) -> str:
    if key.endswith("_bytes"):
        return f"{format_size(value)} of {key.removesuffix('_bytes').replace('_', ' ')}s"
    return f"{value} {key.replace('_', ' ')}"


def _describe(problem: Any) -> str:
    if not isinstance(problem, dict):
        return str(problem)
    where = ": ".join(str(problem[key]) for key in ("model", "file") if problem.get(key))
    touched = ", ".join(problem.get("versions") or ())
    return f"{where}: {problem.get('text')}" + (f" (needed by {touched})" if touched else "")
