"""`mvcfs info`: what any path is: model, branch, version, commit, digest, state."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_fields, print_json
from mvcfs.cli.place import locate
from mvcfs.cli.units import format_size

HELP = """Say what a path is: model, branch, version, commit, digest, state.

\b
Examples:
  mvcfs info /models/llama/main/model.safetensors
  mvcfs info --json /models/llama/main@42
"""

_LABELS = {"size_bytes": "size"}


def info(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Any path below a mount; snapshots too.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
) -> None:
    """Prints what the engine knows of `path`."""
    place = locate(path, target.store)
    result = call(place, "info", place.target(), stores)
    if output.json:
        print_json(result)
        return
    fields = []
    for key, value in result.items():
        if value is None or value == "":
            continue
        fields.append((_LABELS.get(key, key.replace("_", " ")), _shown(key, value)))
    print_fields(fields)


def _shown(key: str, value: Any) -> str:
    if key == "size_bytes":
        return f"{value} ({format_size(value)})"
    if key == "mode":
        return f"{value:o}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
