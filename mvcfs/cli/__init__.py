"""The command line: the only place that reads the environment; builds the objects and passes them down."""

from __future__ import annotations


def main() -> None:
    """Runs the `mvcfs` program and ends the process with its exit code."""
    from mvcfs.cli.app import run

    raise SystemExit(run())
