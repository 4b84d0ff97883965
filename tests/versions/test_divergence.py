"""Ahead and behind, against what Git counts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.versions.git.format import RawCommit, Signature
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.history.divergence import divergence

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def history(objects: GitObjects, shape: list[tuple[int, int, int]]) -> list[str]:
    """Commits; each has one or two earlier ones as parents, and a time that doesn't fall from its first parent on."""
    made: list[str] = []
    times: list[int] = []
    for number, (first, second, step) in enumerate(shape):
        parents = dict.fromkeys(made[-1 - choice % len(made)] for choice in (first, second)) if made else {}
        time_s = (max(times[made.index(parent)] for parent in parents) if parents else 1_700_000_000) + step
        who = Signature("Ada", "ada@example.org", time_s)
        made.append(objects.write_commit(RawCommit(EMPTY_TREE, tuple(parents), who, who, f"{number}")))
        times.append(time_s)
    return made


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 2)), min_size=2, max_size=25),
    st.integers(0, 24),
    st.integers(0, 24),
)
def test_counts_are_those_of_sets(tmp_path_factory, shape, left, right) -> None:
    objects = GitObjects(tmp_path_factory.mktemp("git"))
    commits = history(objects, shape)

    def reached(oid: str) -> set[str]:
        found, todo = set(), [oid]
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo.extend(objects.read_commit(one).parents)
        return found

    a, b = commits[left % len(commits)], commits[right % len(commits)]
    found = divergence(objects, a, b, {})
    assert (found.ahead, found.behind) == (len(reached(a) - reached(b)), len(reached(b) - reached(a)))
    assert found.complete


def test_git_counts_the_same(tmp_path: Path) -> None:
    objects = GitObjects(tmp_path / "git")
    commits = history(objects, [(number % 3, number % 5, number % 2) for number in range(60)])
    objects.write_pack(objects.memory_objects(), objects.pack_dir, "pack-test")
    for a, b in ((59, 40), (58, 59), (10, 59), (30, 30)):
        command = ["git", "-C", tmp_path / "git", "rev-list", "--left-right", "--count", f"{commits[a]}...{commits[b]}"]
        counted = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        found = divergence(objects, commits[a], commits[b], {})
        assert [str(found.ahead), str(found.behind)] == counted


def test_a_long_way_is_cut(tmp_path: Path) -> None:
    objects = GitObjects(tmp_path / "git")
    commits = history(objects, [(0, 0, 1)] * 300)
    found = divergence(objects, commits[0], commits[-1], {}, 100)
    assert (found.ahead, found.behind, found.complete) == (0, 100, False)
    assert divergence(objects, commits[0], commits[-1], {}).behind == 299
