"""`mvcfs alias`: lists, makes, moves and deletes aliases of a model, and shows their moves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mvcfs.cli.alias_moves import move_row, show_moves
from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_line, print_table
from mvcfs.cli.place import Place, locate
from mvcfs.cli.shown import show_version
from mvcfs.errors import InvalidArgument

HELP = """List, make, move and delete aliases of a model: names such as `champion` that move from version to version.

Every move is kept, with who, when and why; `mvcfs log --alias NAME MODEL` shows them. A name that shall never move is a
tag.

\b
Examples:
  mvcfs alias /models/llama
  mvcfs alias /models/llama champion main@42 -m "Best on the evaluation of May"
  mvcfs alias /models/llama champion
  mvcfs alias /models/llama champion --delete
"""


def alias(
    model_path: Annotated[str, typer.Argument(metavar="MODEL", help="The model's directory.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="An alias; without it, all are listed.")] = None,
    revision: Annotated[
        str | None,
        typer.Argument(metavar="REV", help="Where to: main@42, main~1, a tag, a commit; without it, moves are shown."),
    ] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", metavar="WHY", help="Why it moves.")] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="'NAME <EMAIL>'", help="Attribute the move to somebody else.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias; its moves are kept.")] = False,
) -> None:
    """Does to the aliases of a model what the options say."""
    if delete and (name is None or revision is not None):
        raise InvalidArgument("--delete takes the name of an alias and no revision")
    if message is not None and not delete and revision is None:
        raise InvalidArgument("where to? name the alias and a revision after the model")
    if revision is not None and not (message or "").strip():
        raise InvalidArgument("a move of an alias says why: -m MESSAGE")
    place = locate(model_path, target.store)
    if name is None:
        _list(call(place, "aliases", place.target(), stores), output)
        return
    if revision is None and not delete:
        show_moves(place, name, None, stores, output)
        return
    args: dict[str, Any] = {**place.target(), "name": name, "message": message, "uid": os.getuid()}
    if author is not None:
        args["author"] = author
    result = call(place, "alias_delete", args, stores) if delete else _set(place, args, str(revision), stores)
    if output.json:
        print_json(result)
    elif delete:
        print_line(f"alias {name} of {place.model()} deleted")
    else:
        print_line(f"alias {name} of {place.model()} is {show_version(result) or str(result.get('commit'))[:10]}")


def _set(place: Place, args: dict[str, Any], revision: str, stores: StoreOptions) -> dict[str, Any]:
    return call(place, "alias_set", {**args, "revision": revision}, stores)


def _list(result: Mapping[str, Any], output: OutputOptions) -> None:
    if output.json:
        print_json(result)
        return
    rows = [(str(each["alias"]), *move_row(each)) for each in result["aliases"]]
    print_table(("alias", "version", "commit", "moved (UTC)", "who", "why"), rows)
