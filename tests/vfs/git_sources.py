"""Git repositories made by real Git, for imports."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st

from tests.e2e.tools import git

NAMES = [
    b"a", b"b.txt", b"run.sh", b"d/a", b"d/e/f", b"d/.gitattributes", b" spaced ", b"tab\there", b'q"uote', b"back\\slash",
    b"new\nline", "naïve \u4e16".encode(), b"latin-\xe9", b"-dash", b".gitignore", b"x.mvcfs-attrs", b".mvcfs-attrs",
    b"d/.mvcfs-name-00", b"k*?[",
]  # fmt: skip
"""Paths; those that would be a file and a directory at once aren't among them."""


@dataclass(frozen=True)
class Step:
    """A commit: on which branch, merging which others, changing which files (None removes)."""

    branch: int
    merged: tuple[int, ...]
    changes: tuple[tuple[bytes, bytes, bytes | None], ...]
    message: bytes
    zone: bytes
    time_s: int


@dataclass
class History:
    steps: list[Step] = field(default_factory=list)
    tags: list[tuple[int, bool]] = field(default_factory=list)


LARGE = b"large"
"""Stands for contents that are too long for a failure's message."""

contents = st.one_of(st.binary(max_size=20), st.sampled_from([b"", LARGE, b"../target", b"* text=auto\n"]))
# `git fsck` takes a .gitattributes of very long lines for an error.
files = st.tuples(st.sampled_from(NAMES), st.sampled_from([b"100644", b"100755", b"120000"]), contents).filter(
    lambda file: not (file[0].endswith(b".gitattributes") and file[2] == LARGE)
)
removals = st.tuples(st.sampled_from(NAMES), st.just(b""), st.none())
# Git takes a submodule named .gitattributes for the file.
submodules = st.tuples(st.sampled_from([b"a", b"d/a", b"d/e/f"]), st.just(b"160000"), st.just(b""))
changes = st.one_of(files, files, files, removals, submodules)
steps = st.builds(
    Step,
    branch=st.integers(0, 2),
    merged=st.lists(st.integers(0, 2), max_size=2).map(tuple),
    changes=st.lists(changes, max_size=5).map(tuple),
    message=st.sampled_from(
        [b"", b"one line", b"subject\n\nbody\n", b"latin \xe9\n", b"\n\nleading", "\u4e16".encode()]
    ),
    zone=st.sampled_from([b"+0000", b"-0730", b"+1400"]),
    time_s=st.integers(0, 2_000_000_000),
)
histories = st.builds(
    History,
    steps=st.lists(steps, min_size=1, max_size=12),
    tags=st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=3),
)

BRANCHES = [b"main", b"exp/lr-3", "ünï".encode()]


def quoted(path: bytes) -> bytes:
    return b'"' + b"".join(b"\\%03o" % c if c < 32 or c > 126 or c in b'"\\' else bytes([c]) for c in path) + b'"'


def stream(history: History) -> bytes:
    """What `git fast-import` makes the history of."""
    out: list[bytes] = []
    made: list[int] = []
    tips: dict[int, int] = {}
    for number, step in enumerate(history.steps, 1):
        person = b"N\xc3\xa4me %d <a%d@example.com> %d %s" % (step.branch, step.branch, step.time_s, step.zone)
        out.append(
            b"commit refs/heads/%s\nmark :%d\nauthor %s\ncommitter %s\n"
            % (BRANCHES[step.branch], number, person, person)
        )
        out.append(b"data %d\n%s\n" % (len(step.message), step.message))
        if step.branch in tips:
            out.append(b"from :%d\n" % tips[step.branch])
        parents = {tips.get(step.branch)}
        for other in step.merged:
            if tips.get(other) not in (None, *parents):
                out.append(b"merge :%d\n" % tips[other])
                parents.add(tips[other])
        for path, mode, content in step.changes:
            if content is None:
                out.append(b"D %s\n" % quoted(path))
            elif mode == b"160000":
                out.append(b"M 160000 %s %s\n" % (b"1234567890" * 4, quoted(path)))
            else:
                data = (content or b"x") if mode == b"120000" else content * 20_000 if content == LARGE else content
                out.append(b"M %s inline %s\ndata %d\n%s\n" % (mode, quoted(path), len(data), data))
        tips[step.branch] = number
        made.append(number)
    for index, (target, annotated) in enumerate(history.tags):
        mark = made[target % len(made)]
        if annotated:
            out.append(b"tag t%d\nfrom :%d\ntagger T <t@x> %d +0100\ndata 4\ntext\n" % (index, mark, index))
        else:
            out.append(b"reset refs/tags/light%d\nfrom :%d\n\n" % (index, mark))
    return b"".join(out)


def make(folder: Path, history: History) -> Path:
    """A bare repository with a history."""
    git(folder.parent, "init", "-q", "--bare", "-b", "main", str(folder))
    subprocess.run(
        ["git", "-C", str(folder), "fast-import", "--quiet"], input=stream(history), check=True, capture_output=True
    )
    return folder


def refs_of(repository: Path) -> list[str]:
    return git(repository, "for-each-ref").stdout.splitlines()


def objects_of(repository: Path) -> list[str]:
    return sorted(git(repository, "rev-list", "--objects", "--all").stdout.splitlines())


def commit_files(repository: Path, files: dict[str, bytes], message: str = "m", *words: str, **variables: str) -> str:
    """Commits files in a working tree; gives the commit."""
    for name, data in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    git(repository, "add", "-A", **variables)
    git(repository, "commit", "-q", "-m", message, *words, **variables)
    return git(repository, "rev-parse", "HEAD").stdout.strip()


def working_repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    return folder


def lfs_repository(folder: Path, settings: dict[str, str], sizes: Sequence[int] = (200_000, 10_000)) -> Path:
    """A repository whose `.bin` files are in Git LFS."""
    working_repository(folder)
    git(folder, "lfs", "track", "*.bin", **settings)
    commit_files(folder, {"a.txt": b"one\n", "w/model.bin": os.urandom(sizes[0])}, "first", **settings)
    commit_files(
        folder, {"w/model.bin": os.urandom(sizes[0] + 1), "small.bin": os.urandom(sizes[1])}, "second", **settings
    )
    return folder
