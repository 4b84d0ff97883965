"""Drawings of small histories, and that lines of any history lead from each commit to its parents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcfs.cli.graph import draw_graph


def drawn(*commits: tuple[str, str]) -> str:
    """`("m", "ab")` is a commit m with the parents a and b."""
    history = [(name, list(parents)) for name, parents in commits]
    return "\n".join(line if number is None else f"{line} {history[number][0]}" for line, number in draw_graph(history))


@pytest.mark.parametrize(
    ("commits", "drawing"),
    [
        ((), ""),
        ((("c", "b"), ("b", "a"), ("a", "")), "* c\n* b\n* a"),
        (
            (("m", "bs"), ("s", "r"), ("b", "a"), ("a", "r"), ("r", "")),
            "* m\n|\\\n| * s\n* | b\n* | a\n|/\n* r",
        ),
        (
            (("m", "lt"), ("t", "a"), ("l", "bs"), ("s", "a"), ("b", "a"), ("a", "")),
            "* m\n|\\\n| * t\n* | l\n|\\ \\\n| * | s\n* | | b\n|/ /\n|/\n* a",
        ),
        ((("o", "abc"), ("c", "r"), ("b", "r"), ("a", "r")), "* o\n|\\\n| |\\\n| | * c\n| * | b\n* | | a"),
        ((("m", "ax"), ("x", ""), ("a", "")), "* m\n|\\\n| * x\n* a"),
        (
            (("m", "ax"), ("n", "by"), ("a", ""), ("x", "")),
            "* m\n|\\\n| | * n\n| | |\\\n* | | | a\n / / /\n* | | x\n / /",
        ),
    ],
)
def test_drawings(commits: tuple[tuple[str, str], ...], drawing: str) -> None:
    assert drawn(*commits) == drawing


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, list[str]]]:
    count = draw(st.integers(1, 12))
    found = []
    for number in range(count):
        later = range(number + 1, count + 2)
        parents = draw(st.lists(st.sampled_from(later), max_size=3, unique=True)) if number < count else []
        found.append((str(number), [str(parent) for parent in parents]))
    return found


def targets(line: str, column: int) -> set[int]:
    """Where the line of descent at a column goes on after a row that joins or parts lines."""
    line = f"{line:<200}"
    found = {column} if line[2 * column] == "|" else set()
    if line[2 * column + 1] == "\\":
        found.add(column + 1)
    if column and line[2 * column - 1] == "/":
        to = column - 1
        while to and line[2 * to - 1] == "_":
            to -= 1
        found.add(to)
    return found


@given(histories())
def test_lines_lead_from_each_commit_to_its_parents(history: list[tuple[str, list[str]]]) -> None:
    """Reads the drawing: whose lines come to each commit."""
    lines = list(draw_graph(history))
    assert [number for _, number in lines if number is not None] == list(range(len(history)))
    comes: dict[int, set[str]] = {}
    edges = set()
    for line, number in lines:
        assert line == line.rstrip()
        if number is None:
            below: dict[int, set[str]] = {}
            for column, sources in comes.items():
                for to in targets(line, column):
                    below.setdefault(to, set()).update(sources)
            comes = below
            continue
        name, parents = history[number]
        column = line.index("*") // 2
        assert set(line[::2]) <= {"|", "*"}
        assert set(line[1::2]) <= {" "}
        edges |= {(source, name) for source in comes.get(column, ())}
        comes[column] = {name} if parents else set()
    shown = {name for name, _ in history}
    assert edges == {(name, parent) for name, parents in history for parent in parents if parent in shown}
