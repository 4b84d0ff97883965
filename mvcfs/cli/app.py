"""The `mvcfs` program: its commands, the environment's names of their options, and how errors look.

`run` is the whole life of the process: it never lets an exception out, and what it prints of one is a line on stderr.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from mvcfs import __version__
from mvcfs.cli import (
    alias,
    branch,
    commit,
    diff,
    doctor,
    exits,
    fsck,
    git_export,
    git_import,
    history,
    info,
    init,
    log,
    merge,
    mount,
    restore,
    revert,
    show,
    status,
    sync,
    tag,
    umount,
    undelete,
)
from mvcfs.cli.options import Config, Debug, RunState, flatten
from mvcfs.cli.output import print_error
from mvcfs.errors import MvcfsError

_INTRO = """A versioned file system for models: ordinary files in a mount, every finished write a Git commit.

\b
Start with:
  mvcfs init ./store
  mvcfs mount ./store ~/models
  mkdir ~/models/llama; cp -r checkpoint ~/models/llama/main/
  mvcfs log ~/models/llama/main
"""

_SETTINGS = """Every option can be given as MVCFS_OPTION in the environment and as `option = value` in a TOML file, too;
an option wins over the environment, and the environment over the file."""

_PANELS: tuple[tuple[str, tuple[tuple[Callable[..., Any], str, type[Any] | None], ...]], ...] = (
    (
        "Stores and mounts",
        (
            (init.init, init.HELP, None),
            (mount.mount, mount.HELP, mount.MountCommand),
            (umount.umount, umount.HELP, None),
            (status.status, status.HELP, None),
        ),
    ),
    (
        "Versions",
        (
            (commit.commit, commit.HELP, None),
            (sync.sync, sync.HELP, None),
            (log.log, log.HELP, None),
            (history.history, history.HELP, None),
            (show.show, show.HELP, None),
            (diff.diff, diff.HELP, diff.DiffCommand),
            (info.info, info.HELP, None),
            (branch.branch, branch.HELP, None),
            (tag.tag, tag.HELP, None),
            (alias.alias, alias.HELP, None),
            (merge.merge, merge.HELP, None),
            (restore.restore, restore.HELP, None),
            (revert.revert, revert.HELP, None),
            (undelete.undelete, undelete.HELP, None),
        ),
    ),
    (
        "Exchange with Git",
        ((git_import.git_import, git_import.HELP, None), (git_export.git_export, git_export.HELP, None)),
    ),
    ("Checks", ((fsck.fsck, fsck.HELP, None), (doctor.doctor, doctor.HELP, None))),
)


def _show_version(value: bool) -> None:
    if value:
        print(f"mvcfs {__version__}")
        raise typer.Exit


def _group(
    config: Config = None,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Takes the options that stand before a command; their callbacks do all there is to do."""


def exit_table() -> str:
    """The exit codes as `--help` shows them."""
    lines = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in exits.MEANINGS)
    return f"\b\nExit codes:\n{lines}\n"


def build_app(*, fancy: bool) -> typer.Typer:
    """Makes the Typer application.

    Args:
        fancy: Help with colours and panels, for a terminal.
    """
    app = typer.Typer(
        name="mvcfs",
        help=f"{_INTRO}\n{_SETTINGS}\n\n{exit_table()}",
        rich_markup_mode="rich" if fancy else None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_group)
    for panel, commands in _PANELS:
        for function, text, kind in commands:
            name = function.__name__.replace("_", "-")
            app.command(name, cls=kind, help=text, rich_help_panel=panel)(flatten(function))
    return app


def build_command(*, fancy: bool) -> Any:
    """Makes the command tree, each of whose options can be given in the environment under its own name."""
    root = get_command(build_app(fancy=fancy))
    for command in root.commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                parameter.envvar = environment_name(parameter.opts)
                parameter.show_envvar = True
    return root


def environment_name(flags: Sequence[str]) -> str:
    """Gives the environment's name of an option: `--cache-dir` is `MVCFS_CACHE_DIR`."""
    return "MVCFS_" + max(flags, key=len).lstrip("-").replace("-", "_").upper()


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Without the program's name; None takes the process's.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    state = RunState(debug="--debug" in (sys.argv if arguments is None else arguments))
    root = build_command(fancy=sys.stdout.isatty())
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = root.main(args=as_command(given, root.commands), prog_name="mvcfs", standalone_mode=False, obj=state)
        sys.stdout.flush()
        return result if isinstance(result, int) else exits.OK
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except (typer.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return exits.INTERRUPTED
    except TyperException as error:
        return _usage_error(error)
    except Exception as error:  # noqa: BLE001 - the outermost frame of the program
        return _failed(error, state)


def as_command(arguments: Sequence[str], commands: Any) -> list[str]:
    """Reads `mvcfs STORE MOUNTPOINT -o OPTIONS`, which is how mount(8) calls its helpers, as `mvcfs mount …`.

    Args:
        arguments: Of the program.
        commands: The names that are commands.
    """
    given = list(arguments)
    is_helper = len(given) >= 2 and given[0] not in commands and ("/" in given[0]) and not given[1].startswith("-")
    return ["mount", *given] if is_helper and not given[0].startswith("-") else given


def _usage_error(error: TyperException) -> int:
    ctx = getattr(error, "ctx", None)
    message = error.format_message().strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n")
        return exits.USAGE
    if ctx is None:
        print_error(message)
        return exits.USAGE
    print_error(f"{message} (see: {ctx.command_path} --help)")
    return exits.USAGE


def _failed(error: Exception, state: RunState) -> int:
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    if state.debug:
        traceback.print_exception(error)
    if isinstance(cause, KeyboardInterrupt):
        print_error("interrupted")
        return exits.INTERRUPTED
    known = isinstance(cause, (MvcfsError, OSError))
    hint = "" if known or state.debug else " (--debug shows where)"
    print_error((str(cause) if known else f"{type(cause).__name__}: {cause}") + hint)
    return exits.exit_code(cause)
