"""What commands print: tables and colour on a terminal, plain lines elsewhere, JSON where asked.

Nothing that came from a store or a file name reaches the terminal with control characters in it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mvcfs.cli.units import format_size

_PLAIN_INTERVAL_S = 3.0


def printable(text: str) -> str:
    """Gives `text` with control characters written as escapes, so that it can't move the cursor or change colours."""
    return "".join(char if char.isprintable() or "\udc80" <= char <= "\udcff" else ascii(char)[1:-1] for char in text)


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one JSON document, undecodable bytes of names as escapes."""
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=False) + "\n")


def print_line(text: str, *, style: str = "") -> None:
    """Prints one line of result."""
    if sys.stdout.isatty():
        _console().print(Text(_encodable(printable(text)), style=style))
    else:
        sys.stdout.write(printable(text) + "\n")


def print_error(text: str) -> None:
    """Prints one line on stderr, as all errors and notes of mvcfs look."""
    line = printable(" ".join(text.split()))
    if sys.stderr.isatty():
        _console(stderr=True).print(Text.assemble(("mvcfs: ", "bold red"), _encodable(line)))
    else:
        sys.stderr.write(f"mvcfs: {line}\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows: a rich table on a terminal, aligned columns with a header elsewhere, never wrapped."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*(Text(_encodable(cell)) for cell in row))
        _console().print(table)
        return
    everything = [[column.upper() for column in columns], *cells]
    widths = [max(len(row[index]) for row in everything) for index in range(len(columns))]
    for row in everything:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Prints `name: value` lines, the names aligned."""
    width = max((len(name) for name, _ in fields), default=0)
    for name, value in fields:
        print_line(f"{name + ':':<{width + 1}} {value}")


def _console(*, stderr: bool = False) -> Console:
    return Console(file=sys.stderr if stderr else sys.stdout, soft_wrap=True, highlight=False)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Progress:
    """Shows how a long command goes on, on stderr: one live line on a terminal, a line every few seconds elsewhere.

    A context manager; `update` takes the mappings that the engine streams, whose keys are `step`, `phase`, `done`, `total`,
    `done_bytes`, `total_bytes` and `item`, each of them optional.
    """

    def __init__(self, verb: str, *, quiet: bool = False) -> None:
        """Starts silent.

        Args:
            verb: What goes on, e.g. `commit`.
            quiet: Show nothing.
        """
        self._verb = verb
        self._quiet = quiet
        self._last_s = time.monotonic()
        self._last_line = ""
        self._live: Any = None

    def __enter__(self) -> Progress:
        """Starts the live line where there is a terminal."""
        if not self._quiet and sys.stderr.isatty():
            self._live = _console(stderr=True).status(Text(f"{self._verb} …"))
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the live line away."""
        if self._live is not None:
            self._live.stop()

    def update(self, progress: Mapping[str, Any]) -> None:
        """Takes in one report of progress."""
        if self._quiet:
            return
        line = f"{self._verb}: {describe_progress(progress)}"
        if self._live is not None:
            self._live.update(Text(_encodable(printable(line))))
            return
        now = time.monotonic()
        if line != self._last_line and now - self._last_s >= _PLAIN_INTERVAL_S:
            self._last_s, self._last_line = now, line
            sys.stderr.write(f"mvcfs: {printable(line)}\n")
            sys.stderr.flush()


def describe_progress(progress: Mapping[str, Any]) -> str:
    """Puts a report of progress into words: `uploading 3 of 64 files, 1.2 GB of 12.4 GB (10%)`."""
    parts = [str(progress.get("step") or progress.get("phase") or "working")]
    done, total = progress.get("done"), progress.get("total")
    if isinstance(done, int):
        parts.append(f"{done} of {total}" if isinstance(total, int) else str(done))
    done_bytes, total_bytes = progress.get("done_bytes"), progress.get("total_bytes")
    if isinstance(done_bytes, int):
        text = format_size(done_bytes)
        if isinstance(total_bytes, int) and total_bytes > 0:
            text += f" of {format_size(total_bytes)} ({min(100, done_bytes * 100 // total_bytes)}%)"
        parts.append(text)
    if progress.get("item"):
        parts.append(str(progress["item"]))
    return " ".join(parts[:1]) + (" " + ", ".join(parts[1:]) if len(parts) > 1 else "")
