"""The program `git`, run on repositories that others made: it packs, checks and lists them faster than any library would.

Only commands that read are run on such a repository, none of which runs its hooks; it can make Git fetch nothing, neither
missing objects nor submodules. Threading: trio thread; a cancelled call ends its process.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

from mvcfs.errors import MvcfsError, NotSupported

_LINE_BYTES = 1 << 16
_SHOWN_LINES = 4
# These would lead Git to another repository than the one that is named.
_PLACES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE",
)  # fmt: skip


class GitFailed(MvcfsError):
    """Git refused; the message is what it said.

    Attributes:
        output: All it said, on both channels.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def environment(**more: str) -> dict[str, str]:
    """The environment that Git is run in: this process's, but for what names another repository."""
    kept = {name: value for name, value in os.environ.items() if name not in _PLACES}
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **more}


def _reading() -> dict[str, str]:
    # An empty list of protocols allows none, so that a partial clone can't make Git fetch.
    return environment(
        GIT_NO_REPLACE_OBJECTS="1", GIT_NO_LAZY_FETCH="1", GIT_ALLOW_PROTOCOL="", GIT_TERMINAL_PROMPT="0"
    )


def missing_git() -> NotSupported:
    """The error of a machine without Git."""
    return NotSupported("git isn't installed here: apt-get install git git-lfs (see: mvcfs doctor)")


async def run_git(directory: Path, *words: str, stdin: bytes = b"") -> bytes:
    """Runs a reading Git command in a repository; gives its output, which must be short.

    Raises:
        NotSupported: There is no Git.
        GitFailed: It failed.
    """
    try:
        done = await trio.run_process(
            ["git", "-C", str(directory), *words],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=_reading(),
        )
    except FileNotFoundError:
        raise missing_git() from None
    if done.returncode:
        raise _failure(words, done.stderr + done.stdout)
    return done.stdout


async def each_line(directory: Path, *words: str, take: Callable[[bytes], None]) -> None:
    """Runs a reading Git command whose output may be long, and hands on its lines without their ends, as they come.

    Raises:
        NotSupported: There is no Git.
        GitFailed: It failed.
    """
    command = ["git", "-C", str(directory), *words]
    try:
        async with trio.open_nursery() as nursery:
            open_it = functools.partial(
                trio.run_process, command, stdout=subprocess.PIPE, capture_stderr=True, check=False, env=_reading()
            )
            process: trio.Process = await nursery.start(open_it)
            assert process.stdout is not None
            rest = b""
            async with process.stdout:
                while data := await process.stdout.receive_some(_LINE_BYTES):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        take(line)
            if rest:
                take(rest)
    except* FileNotFoundError:
        raise missing_git() from None
    if process.returncode:
        raise GitFailed(f"git {words[0]} failed in {directory}")


def _failure(words: tuple[str, ...], output: bytes) -> GitFailed:
    text = output.decode("utf-8", "replace")
    name = next((word for word in words if not word.startswith("-")), "")
    return GitFailed(f"git {name}: {'; '.join(_telling(text)) or 'failed'}", text)


def _telling(text: str) -> Iterator[str]:
    """The first lines that say something."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("hint:", "notice:"))]
    yield from lines[:_SHOWN_LINES]
    if len(lines) > _SHOWN_LINES:
        yield f"and {len(lines) - _SHOWN_LINES} more lines"
