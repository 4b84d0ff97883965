"""`mvcfs diff`: what changed between two versions, or between a version and what is not published yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mvcfs.cli import exits
from mvcfs.cli.changes import print_changes
from mvcfs.cli.diff_tensors import show_tensors
from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_line
from mvcfs.cli.place import Place, locate
from mvcfs.errors import InvalidArgument, NotFound

HELP = """Show what changed from A to B: paths of a mount, or revisions of the model that A is in.

A alone, a version, is compared with the one before it. Files, sizes, renames and bytes shared come from Git trees and
chunk lists: no data of large files is read. With --tensors that is read which differs of safetensors files.

\b
Examples:
  mvcfs diff /models/llama/main@1 /models/llama/main@2
  mvcfs diff /models/llama main@1 v2.0 -- checkpoint-500
  mvcfs diff --tensors /models/llama/main@1 /models/llama/main@2
  mvcfs diff --text /models/llama/main~1/config.json /models/llama/main/config.json
  mvcfs diff --store hdfs://namenode:8020/models llama main@1 main@2
"""


class DiffCommand(TyperCommand):
    """Reads what stands behind `--` as paths."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line."""
        if "--" in args:
            at = args.index("--")
            args = [*args[:at], *(f"--path={path}" for path in args[at + 1 :])]
        return super().parse_args(ctx, args)


def diff(
    words: Annotated[list[str], typer.Argument(metavar="A [B] [-- PATH…]", help="A model comes before two revisions.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    path: Annotated[
        list[str] | None, typer.Option("--path", metavar="PATH", help="Only what is there, as after `--`.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Show changed lines of small text files.")] = False,
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Show which modes, owners and times changed, of directories as well.")
    ] = False,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Show which tensors of safetensors files changed, and by how much.")
    ] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Return 1 if anything differs.")] = False,
) -> int:
    """Prints the changes."""
    place, args = _what(words, target.store)
    args["paths"] = path or []
    if tensors:
        if text or attributes:
            raise InvalidArgument("--tensors shows tensors alone: leave --text and --attributes out")
        return show_tensors(place, args, stores, output, exit_code=exit_code)
    args |= {"text": text, "attributes": attributes}
    result = call(place, "diff", args, stores)
    if output.json:
        print_json(result)
    elif not result["changes"] and not result["not_listed"]:
        print_line("nothing differs")
    else:
        print_changes(result)
    return exits.FAILED if exit_code and (result["changes"] or result["not_listed"]) else exits.OK


def _what(words: list[str], store: str | None) -> tuple[Place, dict[str, Any]]:
    """The place of A and the arguments that say what it is compared with."""
    place = locate(words[0], store)
    args: dict[str, Any] = dict(place.target())
    if len(words) == 3:
        return place, args | {"revision": words[1], "other": words[2]}
    if len(words) > 3:
        raise InvalidArgument("at most a model and two revisions can be named; paths in them stand after --")
    if len(words) == 2:
        args |= _other(place, words[1], store)
    return place, args


def _other(place: Place, word: str, store: str | None) -> Mapping[str, str]:
    """What a second word may name: a revision of the model, a path, or either; the engine knows which there is."""
    found = {} if word.startswith(("/", "./", "../")) or word in {".", ".."} else {"other": word}
    try:
        second = locate(word, store)
    except NotFound:
        if not found:
            raise
        return found
    if (second.mount, second.store) == (place.mount, place.store):
        return found | {"other_path": second.path}
    if not found:
        raise InvalidArgument(f"{os.path.abspath(word)} is in another mount: name versions of one model, by one mount")
    return found
