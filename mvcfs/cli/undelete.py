"""`mvcfs undelete`: brings a removed model back."""

from __future__ import annotations

from typing import Annotated

import typer

from mvcfs.cli.dispatch import call
from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions, TargetOptions
from mvcfs.cli.output import print_json, print_line
from mvcfs.cli.place import locate

HELP = """Bring back the newest removed model of a name.

\b
Examples:
  mvcfs undelete /models/llama
  mvcfs undelete --store hdfs://namenode:8020/models llama
"""


def undelete(
    model_path: Annotated[str, typer.Argument(metavar="MODEL", help="Where the model's directory was.")],
    target: TargetOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
) -> None:
    """Brings the model back that had the name of `model_path`."""
    place = locate(model_path, target.store)
    result = call(place, "undelete", {"model": place.model()}, stores)
    if output.json:
        print_json(result)
    else:
        print_line(f"model {place.model()} brought back")
