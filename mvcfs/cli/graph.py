"""A history with merges drawn by characters, as `git log --graph` does: a line a commit, its lines of descent left of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def draw_graph(commits: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[str, int | None]]:
    """Draws commits.

    Args:
        commits: Id and parents of each, children before parents.

    Yields:
        A line's drawing, and which commit stands on it; None for a line that only joins or parts others.
    """
    columns: list[str] = []
    for number, (commit, parents) in enumerate(commits):
        if commit not in columns:
            columns.append(commit)
        at = columns.index(commit)
        while columns.count(commit) > 1:
            other = columns.index(commit, at + 1)
            yield _joining(len(columns), at, other), None
            del columns[other]
        yield " ".join("*" if column == at else "|" for column in range(len(columns))), number
        if not parents:
            if at < len(columns) - 1:
                yield _ending(len(columns), at), None
            del columns[at]
            continue
        columns[at] = parents[0]
        for extra, parent in enumerate(parents[1:]):
            yield _parting(len(columns), at + extra), None
            columns.insert(at + extra + 1, parent)


def _joining(width: int, at: int, other: int) -> str:
    """Column `other` runs into column `at`, over those between; those right of it move left."""
    line = [" "] * (2 * width)
    for column in range(other):
        line[2 * column] = "|"
    for gap in range(at, other - 1):
        line[2 * gap + 1] = "_"
    for column in range(other, width):
        line[2 * column - 1] = "/"
    return "".join(line).rstrip()


def _parting(width: int, at: int) -> str:
    """A column comes out of column `at`; those right of it move right."""
    return " ".join("|" * (at + 1)) + "\\" + " \\" * (width - at - 1)


def _ending(width: int, at: int) -> str:
    """Column `at` ends; those right of it move left."""
    return "".join("| " if column < at else " " if column == at else "/ " for column in range(width)).rstrip()
