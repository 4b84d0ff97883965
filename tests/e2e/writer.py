"""A program that writes into a folder for ever and notes each system call before and after it.

Notes are JSON lines in a file outside the mount: the intent with all that is needed to repeat it, then `"done"`. Ends when a system call
fails because the mount is gone (exit code 0) or for another reason (code 1). Run as
`writer.py FOLDER NOTES SEED BIG`, BIG being the most bytes that one write call has.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

GENERATION_FILES = 5
RENAME_EXCHANGE = 2
_GONE = (errno.ENOTCONN, errno.ECONNABORTED)
_libc = ctypes.CDLL(None, use_errno=True)


def content(seed: int, length: int) -> bytes:
    """The bytes that a note stands for."""
    return random.Random(seed).randbytes(length)


def exchange(one: Path, other: Path) -> None:
    """Swaps two names in one step."""
    if _libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Program:
    """The writer."""

    def __init__(self, folder: Path, notes: int, seed: int, big: int) -> None:
        self.folder = folder
        self.notes = notes
        self.random = random.Random(seed)
        self.big = big

    def note(self, **what: object) -> None:
        os.write(self.notes, json.dumps(what).encode() + b"\n")

    def do(self, call: Callable[[], object], **what: object) -> object:
        """Makes one system call, with its notes."""
        self.note(**what)
        result = call()
        self.note(done=True)
        return result

    def step(self) -> None:
        """A few system calls on one file."""
        scratch = self.folder / "scratch"
        names = sorted(entry.name for entry in os.scandir(scratch))
        kind = self.random.choice(
            ("make", "make", "change", "change", "append", "cut", "rename", "unlink", "link", "mode")
        )
        if len(names) < 4 or (kind == "make" and len(names) < 16):
            self.write(scratch, f"f{self.random.randrange(10**9)}", os.O_CREAT | os.O_EXCL, 0)
            return
        name = self.random.choice(names)
        path, other = scratch / name, f"r{self.random.randrange(10**9)}"
        size = path.stat().st_size
        match kind:
            case "append":
                self.write(scratch, name, os.O_APPEND, size)
            case "cut":
                length = self.random.randrange(size + 1000)
                self.do(lambda: os.truncate(path, length), op="cut", name=name, length=length)
            case "rename":
                target = self.random.choice([other, *names])
                self.do(lambda: os.rename(path, scratch / target), op="rename", name=name, target=target)
            case "unlink":
                self.do(lambda: os.unlink(path), op="unlink", name=name)
            case "link":
                self.do(lambda: os.link(path, scratch / other), op="link", name=name, target=other)
            case "mode":
                mode = self.random.choice((0o600, 0o644, 0o755))
                self.do(lambda: os.chmod(path, mode), op="mode", name=name, mode=mode)
            case _:
                self.write(scratch, name, 0, self.random.randrange(size + 1))

    def write(self, scratch: Path, name: str, flags: int, offset: int) -> None:
        """Opens, writes once or twice, closes."""
        fd = self.do(lambda: os.open(scratch / name, os.O_WRONLY | flags, 0o644), op="open", name=name)
        assert isinstance(fd, int)
        try:
            for _ in range(self.random.randrange(1, 3)):
                seed, length = self.random.randrange(1 << 32), self.length()
                data, at = content(seed, length), offset
                self.note(op="write", name=name, offset=at, length=length, seed=seed)
                written = os.write(fd, data) if flags & os.O_APPEND else os.pwrite(fd, data, at)
                assert written == length
                self.note(done=True)
                offset += length
        finally:
            os.close(fd)

    def length(self) -> int:
        return self.random.choice((self.random.randrange(1, 5000), self.random.randrange(1, self.big)))

    def generation(self, number: int) -> None:
        """Writes a set of files that belong together and puts it in the place of the last one."""
        made, current = self.folder / f"tmp-checkpoint-{number}", self.folder / "current"
        made.mkdir()
        for index in range(GENERATION_FILES):
            size = 70_000 if index == 0 else 100
            (made / f"part-{index}").write_bytes(f"{number}\n".encode().ljust(size, b"."))
        if not current.exists():
            self.do(lambda: os.rename(made, current), op="generation", number=number)
            return
        self.do(lambda: exchange(made, current), op="generation", number=number)
        for entry in os.listdir(made):
            os.unlink(made / entry)
        os.rmdir(made)

    def run(self, number: int) -> None:
        """Works until the mount is gone."""
        while True:
            for _ in range(self.random.randrange(2, 7)):
                self.step()
            self.generation(number)
            number += 1


def main() -> int:
    folder, notes, seed, big = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    program = Program(folder, os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT), seed, big)
    try:
        program.run(seed * 1_000_000)
    except OSError as error:
        if error.errno in _GONE:
            return 0
        raise


if __name__ == "__main__":
    sys.exit(main())
