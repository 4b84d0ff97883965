"""What the commands that edit a branch's tip have in common: how sides are chosen, and how conflicts look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mvcfs.cli import exits
from mvcfs.cli.options import OutputOptions
from mvcfs.cli.output import print_error, print_json, print_line, print_table
from mvcfs.cli.shown import format_time
from mvcfs.cli.units import format_size
from mvcfs.errors import InvalidArgument

_KINDS = {
    "changed": "changed on both sides",
    "added": "added on both sides",
    "deleted-ours": "deleted in ours, changed in theirs",
    "deleted-theirs": "changed in ours, deleted in theirs",
    "kinds": "a file on one side, a directory on the other",
    "renamed": "renamed differently",
}
_SIDES = ("ours", "theirs", "both")


@dataclass(frozen=True, slots=True)
class SideOptions:
    """Which side is taken where both changed the same."""

    ours: Annotated[bool, typer.Option("--ours", help="Keep the branch's own side of every conflict.")] = False
    theirs: Annotated[bool, typer.Option("--theirs", help="Take the other side of every conflict.")] = False
    keep_both: Annotated[
        bool, typer.Option("--keep-both", help="Keep ours, and put theirs beside it: a.bin gives a.BRANCH.bin.")
    ] = False
    choose: Annotated[
        list[str] | None,
        typer.Option("--choose", metavar="PATH=SIDE", help="For one path: ours, theirs or both; may be repeated."),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """The choice as arguments of the engine's commands."""
        if self.ours + self.theirs + self.keep_both > 1:
            raise InvalidArgument("--ours, --theirs and --keep-both exclude each other")
        take = "ours" if self.ours else "theirs" if self.theirs else "both" if self.keep_both else None
        choices = {}
        for each in self.choose or ():
            path, equals, side = each.rpartition("=")
            if not equals or not path or side not in _SIDES:
                raise InvalidArgument(f"--choose {each}: write PATH=ours, PATH=theirs or PATH=both")
            choices[path] = side
        return {"take": take, "choices": choices}


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """What the new version says."""

    message: Annotated[str, typer.Option("-m", "--message", metavar="MSG", help="Say this instead.")] = ""
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False


def report(result: dict[str, Any], output: OutputOptions, *, dry_run: bool, done: str, nothing: str) -> None:
    """Prints what became of an edit, and ends the command with the code for conflicts if any is left.

    Args:
        result: The command's result.
        output: How to show it.
        dry_run: Nothing was to be changed.
        done: What was done, for people.
        nothing: Why there was nothing to do, for people.
    """
    unresolved = result["unresolved"]
    if output.json:
        print_json(result)
    else:
        if result["conflicts"]:
            _print_conflicts(result["conflicts"])
        if not unresolved:
            _print_outcome(result, dry_run, done, nothing)
    if unresolved:
        print_error(
            f"{unresolved} {'conflict' if unresolved == 1 else 'conflicts'}, nothing was changed: choose with --ours, "
            "--theirs or --keep-both, or a path at a time with --choose PATH=ours, PATH=theirs or PATH=both"
        )
        raise typer.Exit(exits.CONFLICT)


def _print_outcome(result: dict[str, Any], dry_run: bool, done: str, nothing: str) -> None:
    if result["published"]:
        print_line(f"{done}: version {result['version']} of {result['branch']}, {str(result['commit'])[:10]}")
    elif dry_run and not result.get("contained"):
        print_line("no conflict is left; nothing was changed, as this is a dry run")
    else:
        print_line(nothing)


def _print_conflicts(conflicts: list[dict[str, Any]]) -> None:
    rows = []
    for each in conflicts:
        path = each["path"] if each["theirs_path"] is None else f"{each['path']} | {each['theirs_path']}"
        kind = _KINDS.get(each["kind"], each["kind"])
        rows.append((path, kind, _side(each["ours"]), _side(each["theirs"]), each["choice"] or ""))
    print_table(("path", "conflict", "ours", "theirs", "taken"), rows)


def _side(side: dict[str, Any] | None) -> str:
    if side is None:
        return "-"
    size = format_size(side["size_bytes"]) if side["kind"] != "directory" else "directory"
    return f"{size}, {format_time(side['time_ns'])}"
