"""`mvcfs branch`: lists, makes, renames, protects, deletes and brings back branches of a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_error, print_json, print_line, print_table
from mvcfs.cli.place import locate
from mvcfs.cli.units import format_duration, format_size
from mvcfs.errors import InvalidArgument

HELP = """List, make, rename, protect, delete and bring back branches of a model.

Only `mvcfs merge` and `mvcfs commit --override-protection` publish to a protected branch; files in it can't be changed.

\b
Examples:
  mvcfs branch /models/llama
  mvcfs branch /models/llama exp-lr3 --from main@42
  mvcfs branch /models/llama exp-lr3 -m exp-lr4
  mvcfs branch /models/llama main --protect
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
    rename: Annotated[
        str | None, typer.Option("-m", "--rename", metavar="NEW", help="Give the branch another name.")
    ] = None,
    protect: Annotated[bool, typer.Option("--protect", help="Refuse all changes but merges.")] = False,
    unprotect: Annotated[bool, typer.Option("--unprotect", help="Take changes again.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the branch.")] = False,
    undelete: Annotated[bool, typer.Option("--undelete", help="Bring a deleted branch back.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete it even with changes that no version holds.")] = False,
) -> None:
    """Does to the branches of a model what the options say."""
    wishes: dict[str, tuple[bool, str, dict[str, Any], str]] = {
        "--from": (from_revision is not None, "branch_create", {"revision": from_revision}, "made"),
        "--rename": (rename is not None, "branch_rename", {"new_name": rename}, f"renamed to {rename}"),
        "--protect": (protect, "branch_protect", {"protected": True}, "is protected"),
        "--unprotect": (unprotect, "branch_protect", {"protected": False}, "is not protected"),
        "--delete": (delete, "branch_delete", {"force": force}, "deleted"),
        "--undelete": (undelete, "branch_undelete", {}, "brought back"),
    }
    given = [option for option, wish in wishes.items() if wish[0]]
    if len(given) > 1:
        raise InvalidArgument(f"{' and '.join(given)} exclude each other")
    if name is None and given:
        raise InvalidArgument("which branch? name it after the model")
    place = locate(model_path, target.store)
    if name is None:
        _list(call(place, "branches", place.target(), stores), output)
        return
    _, command, args, done = wishes[given[0]] if given else (True, "branch_create", {}, "made")
    result = call(place, command, {**place.target(), **args, "name": name}, stores)
    if output.json:
        print_json(result)
        return
    print_line(f"branch {name} {done}")
    if protect:
        _warn_of_unpublished(name, result)


def _warn_of_unpublished(name: str, result: dict[str, Any]) -> None:
    if result.get("changed_files"):
        where = f"{result['model']}/{name}"
        print_error(
            f"{result['changed_files']} files of {where} are in no version and wait on this host: publish them with "
            "`mvcfs commit --override-protection`, or on a new branch with `mvcfs commit --to-branch NAME`"
        )


def _list(result: dict[str, Any], output: OutputOptions) -> None:
    if output.json:
        print_json(result)
        return
    default = result.get("default")
    rows = [_row(each, default) for each in result["branches"]]
    rows += [(str(name), "", "", "", "", "", "", "deleted") for name in result.get("deleted") or ()]
    print_table(("branch", "version", "commit", "age", "ahead", "behind", "unpublished", ""), rows)


def _row(state: dict[str, Any], default: str | None) -> tuple[str, ...]:
    age_s = state.get("age_s")
    changed = state.get("changed_files") or 0
    notes = [word for word, said in (("default", state["branch"] == default), ("protected", state.get("protected")))
             if said]  # fmt: skip
    return (
        str(state["branch"]),
        str(state.get("version") or 0),
        str(state.get("tip") or "")[:10],
        "" if age_s is None else format_duration(age_s),
        _count(state, "ahead"),
        _count(state, "behind"),
        f"{changed} ({format_size(state.get('changed_bytes') or 0)})" if changed else "",
        ", ".join(notes),
    )


def _count(state: dict[str, Any], key: str) -> str:
    count = state.get(key)
    if count is None:
        return ""
    return str(count) if state.get("ahead_behind_complete", True) else f"{count}+"
