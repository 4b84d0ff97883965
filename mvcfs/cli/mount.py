"""`mvcfs mount`: mounts a store, in the background unless told otherwise. Also what mount(8) calls for fuse.mvcfs.

Nothing here opens the store or starts a thread before the daemon has forked: clients of stores don't survive that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mvcfs.cli import exits
from mvcfs.cli.localstate import log_path, runtime_dir
from mvcfs.cli.options import CommonOptions, EngineOptions, OutputOptions, StoreOptions, duration
from mvcfs.cli.output import print_error, print_json, print_line
from mvcfs.cli.stores import absolute_url, cache_dir, engine_config
from mvcfs.config import MountRoot
from mvcfs.errors import InvalidArgument
from mvcfs.fuse.options import parse_options

HELP = """Mount a store on an empty directory.

Goes to the background and returns once the mount answers. Any option may stand after -o as well, so that
/etc/fstab and mount -t fuse.mvcfs work.

\b
Examples:
  mvcfs mount ./store ~/models
  mvcfs mount hdfs://namenode:8020/models /models --memory 2G
  mvcfs mount hdfs://nameservice/models /models -o ro,allow_other
  mvcfs mount hdfs://namenode:8020/models /llama --model llama --revision v1.0
"""

_NOT_AFTER_O = frozenset({"options", "help", "json", "foreground"})


class MountCommand(TyperCommand):
    """Reads what `-o` says of mvcfs's own options as if they had been given as flags; the kernel's stay behind `-o`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the command line."""
        rest, groups = split_options(args)
        if groups:
            rest = [*self._flags(groups), *rest]
        return super().parse_args(ctx, rest)

    def _flags(self, groups: list[str]) -> list[str]:
        own = [p for p in self.params if p.param_type_name == "option" and p.name not in _NOT_AFTER_O]
        names = {str(p.name): max(p.opts, key=len) for p in own}
        flags = {str(p.name) for p in own if getattr(p, "is_flag", False)}
        parsed = parse_options(groups, flags=flags, values=set(names) - flags)
        given: list[str] = []
        for key, value in parsed.settings.items():
            given.append(names[key] if value is True else f"{names[key]}={value}")
        return [*given, "-o", ",".join(sorted(parsed.kernel))] if parsed.kernel else given


def split_options(args: Iterable[str]) -> tuple[list[str], list[str]]:
    """Takes `-o X`, `-oX`, `--options X` and `--options=X` out of a command line.

    Args:
        args: The command line.

    Returns:
        What is left, and the X of each.
    """
    rest: list[str] = []
    groups: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            return [*rest, word, *words], groups
        if word in ("-o", "--options"):
            value = next(words, None)
            if value is None:
                raise InvalidArgument(f"{word} needs a value")
            groups.append(value)
        elif word.startswith("--options="):
            groups.append(word.partition("=")[2])
        elif word.startswith("-o"):
            groups.append(word[2:])
        else:
            rest.append(word)
    return rest, groups


def mount(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="hdfs://HOST:PORT/PATH, hdfs://NAMESERVICE/PATH or a local path.")
    ],
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="An empty directory.")],
    engine: EngineOptions,
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
    foreground: Annotated[bool, typer.Option("-f", "--foreground", help="Stay here, and log to stderr.")] = False,
    drain_timeout: Annotated[
        float,
        typer.Option(
            parser=duration,
            metavar="TIME",
            help="At the end, commit and upload for at most so long.",
            show_default="5m",
        ),
    ] = 300.0,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", metavar="FILE", help="Its log.", show_default="in the cache directory")
    ] = None,
    writeback: Annotated[
        bool, typer.Option("--writeback/--no-writeback", help="Faster small writes; a crash of mvcfs loses some.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Show this model only: its branches are the root.")
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="REV",
            help="Of --model: show this branch, or this version for good (v1.0, main@42, a commit).",
        ),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("-o", "--options", metavar="OPT,…", help="Options as mount(8) has them.")
    ] = None,
) -> None:
    """Mounts `store` on `mountpoint`."""
    parsed = parse_options(options or ())
    strange = [name for name in parsed.settings if name != "read_only"]
    if strange:
        raise InvalidArgument(f"{strange[0]} is an option of its own, not one of `options`")
    url = absolute_url(store)
    folder = cache_dir(stores)
    config = engine_config(folder, engine, _root(model, revision))
    # pyfuse3 and the engine are loaded only here: every other command does without them and starts faster.
    from mvcfs.cli.serving import open_mounted
    from mvcfs.fuse.session import MountOptions, run_mount

    report = run_mount(
        open_mounted(url, stores, config),
        MountOptions(
            mountpoint=Path(mountpoint),
            source=url,
            runtime_dir=runtime_dir(),
            log_file=Path(os.path.abspath(log_file)) if log_file else log_path(folder, os.path.abspath(mountpoint)),
            foreground=foreground,
            kernel_options=parsed.kernel | ({"ro"} if config.read_only else set()),
            xattr=config.xattr,
            writeback=writeback,
            drain_timeout_s=drain_timeout,
            left_status=exits.WORK_LEFT,
        ),
    )
    if report is not None and not report.complete:
        print_error(f"{report.left_files} files wait in the overlay for the next mount {report.reason}")
        raise typer.Exit(exits.WORK_LEFT)
    if output.json:
        print_json({"store": url, "mountpoint": os.path.abspath(mountpoint)})
    elif not foreground:
        print_line(f"{url} is mounted on {mountpoint}")


def _root(model: str | None, revision: str | None) -> MountRoot | None:
    """What the options say that the mount shows."""
    if model is None:
        if revision is not None:
            raise InvalidArgument(f"of which model? name it with --model, beside --revision {revision}")
        return None
    if not model or revision == "":
        raise InvalidArgument("--model and --revision need a name")
    return MountRoot(model, revision)
