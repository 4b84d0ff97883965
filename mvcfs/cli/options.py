"""Options that several commands share, as frozen dataclasses whose fields are flags.

`flatten` turns a command function that takes such dataclasses into one whose signature has their fields, which is what
Typer reads; so a flag is declared once, has one help text, and arrives as part of one immutable object.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from mvcfs.cli.configfile import load_config
from mvcfs.cli.units import parse_duration, parse_size
from mvcfs.config import GIB
from mvcfs.types import MIB


class Fsync(StrEnum):
    """What fsync promises."""

    LOCAL = "local"
    PUBLISH = "publish"


@dataclass
class RunState:
    """What the group's options leave for the commands and for the printing of errors. One object a run of the program."""

    debug: bool = False
    config: Path | None = None


def size(text: str) -> int:
    """Option parser of sizes."""
    try:
        return parse_size(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def duration(text: str) -> float:
    """Option parser of durations."""
    try:
        return parse_duration(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _set_debug(ctx: typer.Context, value: bool) -> bool:
    state = ctx.find_root().obj
    if isinstance(state, RunState) and value:
        state.debug = True
    return value


def _set_config(ctx: typer.Context, value: Path | None) -> Path | None:
    state = ctx.find_root().obj
    if ctx.resilient_parsing or not isinstance(state, RunState):
        return value
    if ctx.parent is None:
        state.config = value
        return value
    path = value or state.config
    options = {
        name: {
            p.name: f"--{p.name.replace('_', '-')}" for p in command.params if p.param_type_name == "option" and p.name
        }
        for name, command in getattr(ctx.parent.command, "commands", {}).items()
    }
    ctx.default_map = load_config(path, ctx.info_name or "", options)
    return path


Debug = Annotated[bool, typer.Option("--debug", is_eager=True, callback=_set_debug, help="Show tracebacks of errors.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=_set_config,
        metavar="FILE",
        help="TOML file with defaults of options (else ~/.config/mvcfs/config.toml or /etc/mvcfs.toml).",
    ),
]


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """What every command takes."""

    config: Config = None
    debug: Debug = False


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a command shows its result."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How the store and this host's local state are reached."""

    cache_dir: Annotated[
        Path | None,
        typer.Option(
            "--cache-dir",
            metavar="DIR",
            help="Local state: overlay, staging files, caches.",
            show_default="/var/cache/mvcfs for root, else ~/.cache/mvcfs",
        ),
    ] = None
    hadoop_conf_dir: Annotated[
        Path | None,
        typer.Option(
            "--hadoop-conf-dir",
            metavar="DIR",
            help="Hadoop's configuration, for hdfs://NAMESERVICE stores.",
            show_default="$HADOOP_CONF_DIR",
        ),
    ] = None
    metadata_timeout: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="Deadline of one metadata call to the store.", show_default="10s"
        ),
    ] = 10.0
    data_timeout: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="Deadline of one read or write of data.", show_default="60s"
        ),
    ] = 60.0
    block_size: Annotated[
        int, typer.Option(parser=size, metavar="SIZE", help="HDFS block size of new files.", show_default="128MiB")
    ] = 128 * MIB
    replication: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="HDFS replication of new files.", show_default="the cluster's"),
    ] = None


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """Where the thing that a command speaks of is looked for."""

    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="STORE",
            help="Take the path as MODEL/BRANCH of this store, which needn't be mounted.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a mount may use, and when its writes become versions."""

    memory: Annotated[
        int,
        typer.Option(
            parser=size,
            metavar="SIZE",
            help="Memory of read windows and upload buffers together.",
            show_default="512MiB",
        ),
    ] = 512 * MIB
    block_cache: Annotated[
        int,
        typer.Option(
            parser=size,
            metavar="SIZE",
            help="Bound of the block cache on local disk; 0 turns it off.",
            show_default="20GiB",
        ),
    ] = 20 * GIB
    staging: Annotated[
        int,
        typer.Option(
            parser=size,
            metavar="SIZE",
            help="Bound of written data that is not in the store yet.",
            show_default="100GiB",
        ),
    ] = 100 * GIB
    staging_min_free: Annotated[
        int,
        typer.Option(
            parser=size, metavar="SIZE", help="Space of the local disk that is left alone.", show_default="1GiB"
        ),
    ] = GIB
    settle: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="Closed files quiet for so long become a version.", show_default="5s"
        ),
    ] = 5.0
    max_settle: Annotated[
        float,
        typer.Option(
            parser=duration,
            metavar="TIME",
            help="After so long unrest, the quiet files become one.",
            show_default="60s",
        ),
    ] = 60.0
    live_interval: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="At least so often, log-like files become one.", show_default="10m"
        ),
    ] = 600.0
    refresh: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="How often other hosts' versions are looked for.", show_default="2s"
        ),
    ] = 2.0
    entry_timeout: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="How long the kernel keeps names and attributes.", show_default="60s"
        ),
    ] = 60.0
    xattr: Annotated[bool, typer.Option("--xattr/--no-xattr", help="Keep user xattrs; `ls -l` gets slower.")] = False
    show_history: Annotated[bool, typer.Option("--show-history/--no-show-history", help="List .history in models.")] = (
        False
    )
    shared: Annotated[
        bool,
        typer.Option(
            "--shared/--no-shared", help="Hosts see each other's closes and renames at once; calls get slower."
        ),
    ] = False
    fsync: Annotated[
        Fsync,
        typer.Option(
            "--fsync", help="What fsync makes sure of: durable on this host, or in a published version in the store."
        ),
    ] = Fsync.LOCAL
    read_only: Annotated[bool, typer.Option("--read-only/--read-write", help="Refuse all changes.")] = False


def flatten(function: Callable[..., Any]) -> Callable[..., Any]:
    """Spreads the fields of `function`'s dataclass parameters into its signature, and gathers them again in the call.

    Args:
        function: A command; parameters annotated with a dataclass become that dataclass's flags.

    Returns:
        The function for Typer to register.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if not dataclasses.is_dataclass(hint) or not isinstance(hint, type):
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[name] = hint
        field_hints = get_type_hints(hint, include_extras=True)
        parameters.extend(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field_hints[field.name]
            )
            for field in dataclasses.fields(hint)
        )

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        return function(**values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command
