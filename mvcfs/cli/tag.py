"""`mvcfs tag`: lists, makes and deletes tags of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_line, print_table
from mvcfs.cli.place import locate
from mvcfs.cli.shown import first_line, format_time, show_version
from mvcfs.errors import InvalidArgument

HELP = """List, make and delete tags of a model.

\b
Examples:
  mvcfs tag /models/llama
  mvcfs tag /models/llama v1.0 main@42 -m "First release"
  mvcfs tag /models/llama v1.0 --delete
"""


def tag(
    model_path: Annotated[str, typer.Argument(metavar="MODEL", help="The model's directory.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A tag; without it, all are listed.")] = None,
    revision: Annotated[
        str | None, typer.Argument(metavar="REV", help="What it names: main@42, main~1, a commit, a time.")
    ] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", metavar="MSG", help="A message for it.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the tag.")] = False,
) -> None:
    """Does to the tags of a model what the options say."""
    if delete and (name is None or revision is not None or message is not None):
        raise InvalidArgument("--delete takes the name of a tag and nothing else")
    if name is None and message is not None:
        raise InvalidArgument("which tag? name it after the model")
    place = locate(model_path, target.store)
    args: dict[str, Any] = dict(place.target())
    if name is None:
        _list(call(place, "tags", args, stores), output)
        return
    args["name"] = name
    if not delete:
        args |= {"revision": revision, "message": message, "uid": os.getuid()}
    result = call(place, "tag_delete" if delete else "tag_create", args, stores)
    if output.json:
        print_json(result)
    else:
        print_line(f"tag {name} {'deleted' if delete else 'made'}")


def _list(result: dict[str, Any], output: OutputOptions) -> None:
    if output.json:
        print_json(result)
        return
    print_table(
        ("tag", "version", "commit", "time (UTC)", "tagger", "message"), [_row(each) for each in result["tags"]]
    )


def _row(tag: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(tag["tag"]),
        show_version(tag),
        str(tag["commit"])[:10],
        format_time(tag.get("tagged_ns") or tag["time_ns"]),
        str(tag.get("tagger") or ""),
        first_line(tag.get("message")),
    )
