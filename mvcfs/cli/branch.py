"""`mvcfs branch`: lists, makes, deletes and brings back branches of a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.log import format_time
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_line, print_table
from mvcfs.cli.place import locate
from mvcfs.errors import InvalidArgument

HELP = """List, make, delete and bring back branches of a model.

\b
Examples:
  mvcfs branch /models/llama
  mvcfs branch /models/llama exp-lr3 --from main@42
  mvcfs branch /models/llama exp-lr3 --delete
  mvcfs branch /models/llama exp-lr3 --undelete
"""


def branch(
    model_path: Annotated[str, typer.Argument(metavar="MODEL", help="The model's directory.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A branch; without it, all are listed.")] = None,
    from_revision: Annotated[
        str | None,
        typer.Option("--from", metavar="REV", help="Start at a revision: main, main@42, a tag, a commit. Else empty."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the branch.")] = False,
    undelete: Annotated[bool, typer.Option("--undelete", help="Bring a deleted branch back.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete it even with changes that no version holds.")] = False,
) -> None:
    """Does to the branches of a model what the options say."""
    if delete + undelete + (from_revision is not None) > 1:
        raise InvalidArgument("--from, --delete and --undelete exclude each other")
    if name is None and (delete or undelete or from_revision is not None):
        raise InvalidArgument("which branch? name it after the model")
    place = locate(model_path, target.store)
    args: dict[str, Any] = dict(place.target())
    if name is None:
        _list(call(place, "branches", args, stores), output)
        return
    command, done = "branch_create", "made"
    if delete:
        command, done = "branch_delete", "deleted"
        args["force"] = force
    elif undelete:
        command, done = "branch_undelete", "brought back"
    args["name"] = name
    if from_revision is not None:
        args["revision"] = from_revision
    result = call(place, command, args, stores)
    if output.json:
        print_json(result)
    else:
        print_line(f"branch {name} of {place.model()} {done}")


def _list(result: dict[str, Any], output: OutputOptions) -> None:
    if output.json:
        print_json(result)
        return
    rows = [_row(each) for each in result["branches"]]
    rows += [(str(name), "", "", "", "deleted") for name in result.get("deleted") or ()]
    print_table(("branch", "version", "commit", "time (UTC)", ""), rows)


def _row(branch_state: dict[str, Any]) -> tuple[str, str, str, str, str]:
    time_ns = branch_state.get("time_ns")
    return (
        str(branch_state["branch"]),
        str(branch_state.get("version") or 0),
        str(branch_state.get("tip") or "")[:10],
        "" if time_ns is None else format_time(time_ns),
        "protected" if branch_state.get("protected") else "",
    )
