"""How far a long command is, told by the command and shown by whoever runs it.

The runner (a mount's control socket, or the command line without a mount) opens one for each command; the command finds it by
`command_progress` without being handed it. Threading: trio thread, or any thread that the command waits for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class CommandProgress:
    """One command's progress.

    Attributes:
        step: What it does now, in words; "" before it says anything.
        done: How many things are done.
        total: Of how many, None where that isn't known.
        done_bytes: How many bytes are done.
        total_bytes: Of how many.
        item: The thing that is worked on.
    """

    step: str = ""
    done: int | None = None
    total: int | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None
    item: str = ""

    def start(
        self, step: str, *, total: int | None = None, total_bytes: int | None = None, done: int | None = None
    ) -> None:
        """Begins another step; counts start again."""
        self.step, self.item = step, ""
        self.total, self.done = total, done if total is None else done or 0
        self.total_bytes, self.done_bytes = total_bytes, None if total_bytes is None else 0

    def add(self, *, things: int = 0, size_bytes: int = 0) -> None:
        """Some more is done."""
        self.done = (self.done or 0) + things if things or self.done is not None else None
        self.done_bytes = (self.done_bytes or 0) + size_bytes if size_bytes or self.done_bytes is not None else None

    def report(self) -> dict[str, Any]:
        """What is known, as it goes to the client; empty before the command said anything."""
        if not self.step:
            return {}
        fields = ("step", "done", "total", "done_bytes", "total_bytes", "item")
        return {name: value for name in fields if (value := getattr(self, name)) not in (None, "")}


_current: ContextVar[CommandProgress | None] = ContextVar("command_progress", default=None)


def command_progress() -> CommandProgress:
    """The progress of the command that runs here; one that nobody looks at where nobody runs one."""
    return _current.get() or CommandProgress()


@contextmanager
def watched() -> Iterator[CommandProgress]:
    """A command begins: what it tells inside is in the object given."""
    progress = CommandProgress()
    token = _current.set(progress)
    try:
        yield progress
    finally:
        _current.reset(token)
