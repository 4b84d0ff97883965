"""What a `.gitattributes` asks Git LFS to keep, held against what `git check-attr` says."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mvcfs.versions.git.lfs_patterns import LfsPatterns
from tests.e2e.tools import git

PATHS = [
    b"a.bin", b"b.txt", b"d/a.bin", b"d/e/a.bin", b"d/e/f/x.pt", b"data/x", b"x[1].bin", b"sp ace.bin", b'q"uote', b"A.BIN",
    b"d/data/y.bin", b"star*", b"back\\slash", b".hidden.bin", b"d/.bin",
]  # fmt: skip

pieces = st.sampled_from(
    [
        "*",
        "**",
        "/",
        "?",
        "a",
        "bin",
        ".",
        ".bin",
        "d",
        "e",
        "x",
        "data",
        "[a-c]",
        "[!a]",
        "[[:digit:]]",
        "\\*",
        "**/",
        "/**",
        "pt",
    ]
)
patterns = st.one_of(
    st.sampled_from(
        [
            "*.bin",
            "/a.bin",
            "d/*.bin",
            "d/**",
            "**/a.bin",
            "data",
            "data/",
            '"sp ace.bin"',
            '"q\\"uote"',
            "*",
            "[attr]x",
        ]
    ),
    st.lists(pieces, min_size=1, max_size=4).map("".join),
)
attributes = st.sampled_from(
    ["filter=lfs diff=lfs merge=lfs -text", "filter=lfs", "-filter", "!filter", "filter=other", "text", "filter"]
)
lines = st.one_of(
    st.tuples(patterns, attributes).map(" ".join), st.sampled_from(["# comment filter=lfs", "", "  *.pt filter=lfs"])
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(lines, max_size=4))
@example(["*.bin filter=lfs", "a.bin -filter"])
@example(["d/**/a.bin filter=lfs"])
def test_as_git_says(repository: Path, texts: list[str]) -> None:
    data = "\n".join(texts).encode()
    (repository / ".gitattributes").write_bytes(data)
    told = subprocess.run(
        ["git", "-C", repository, "check-attr", "-z", "--stdin", "filter"],
        input=b"\0".join(PATHS) + b"\0", capture_output=True, check=True,
    ).stdout.split(b"\0")  # fmt: skip
    expected = dict(zip(told[0::3], [value == b"lfs" for value in told[2::3]], strict=False))
    found = LfsPatterns(data)
    assert {path: bool(found.asks(path)) for path in PATHS} == {path: expected[path] for path in PATHS}


@pytest.fixture(scope="module")
def repository():
    with tempfile.TemporaryDirectory() as folder:
        git(Path(folder), "init", "-q")
        yield Path(folder)
