from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.versions.git.format import RawCommit, Signature
from mvcfs.versions.history.graph_walk import newest_commits


class Commits:
    """Commits by number; a parent has a smaller number, and is not younger."""

    def __init__(self, history: list[tuple[list[int], int]]) -> None:
        self.read: list[str] = []
        self._commits = {}
        for number, (parents, time_s) in enumerate(history):
            who = Signature("A", "a@x", 0)
            names = tuple(map(str, parents))
            self._commits[str(number)] = RawCommit("0" * 40, names, who, Signature("A", "a@x", time_s), str(number))

    def read_commit(self, oid: str) -> RawCommit:
        self.read.append(oid)
        return self._commits[oid]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[int], int]]:
    found: list[tuple[list[int], int]] = [([], 0)]
    for number in range(1, draw(st.integers(1, 25))):
        parents = draw(st.lists(st.integers(max(0, number - 5), number - 1), min_size=1, max_size=3, unique=True))
        later = draw(st.integers(0, 2))
        found.append((parents, max(found[parent][1] for parent in parents) + later))
    return found


@settings(deadline=None)
@given(histories(), st.integers(1, 30))
def test_children_come_first_and_the_newest_are_there(history: list[tuple[list[int], int]], count: int) -> None:
    commits = Commits(history)
    start = len(history) - 1
    reachable, todo = set(), [start]
    while todo:
        number = todo.pop()
        if number not in reachable:
            reachable.add(number)
            todo += history[number][0]
    order = [int(oid) for oid in newest_commits(commits, str(start), count)]  # type: ignore[arg-type]
    assert len(order) == len(set(order)) == min(count, len(reachable))
    place = {number: at for at, number in enumerate(order)}
    for number in order:
        for parent in history[number][0]:
            assert place.get(parent, len(order)) > place[number]
    left = reachable - set(order)
    if left:
        assert max(history[number][1] for number in left) <= min(history[number][1] for number in order)
    assert len(commits.read) <= 1 + 3 * len(order)


def test_a_merged_line_stands_below_its_merge() -> None:
    # 0 - 1 - 3 - 5 on the line, 2 - 4 merged in by 5
    history = [([], 0), ([0], 1), ([0], 2), ([1], 3), ([2], 4), ([3, 4], 5)]
    assert list(newest_commits(Commits(history), "5", 10)) == ["5", "4", "2", "3", "1", "0"]  # type: ignore[arg-type]
