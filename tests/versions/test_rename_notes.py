"""Notes of renamed directories: written, read, joined over versions, and used in merges only where the trees agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcfs.types import Author
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.merging.merge import merge_trees
from mvcfs.versions.merging.rename_alignment import Known
from mvcfs.versions.merging.rename_notes import MAX_NOTES, in_one_go, read_notes, renamed_since, write_notes
from mvcfs.versions.publishing.commits import write_commit
from tests.versions.test_merge import Tree, write

name = st.binary(min_size=1, max_size=6).filter(lambda each: each not in (b".", b"..") and not set(each) & set(b"/\0"))
path = st.lists(name, min_size=1, max_size=3).map(b"/".join)


@given(st.dictionaries(path, path, max_size=5))
def test_what_is_written_is_read(renames: dict[bytes, bytes]) -> None:
    wanted = {old: new for old, new in renames.items() if old != new}
    assert read_notes("Subject\n\nMvcfs-Host: x\n" + write_notes(wanted)) == wanted


@pytest.mark.parametrize(
    "line",
    [
        "[1, 2]",
        '["a"]',
        '["a", "a"]',
        '["../a", "b"]',
        '["a", "/b"]',
        '["a//c", "b"]',
        '["a", "\\ud800"]',
        '["a", ""]',
        "x",
    ],
)
def test_what_is_no_note_is_passed_over(line: str) -> None:
    assert read_notes(f"S\n\nMvcfs-Renamed: {line}\n") == {}


def test_very_many_are_not_noted() -> None:
    assert write_notes({b"%d" % number: b"x%d" % number for number in range(MAX_NOTES + 1)}) == ""


def test_renames_one_after_another() -> None:
    steps = [{b"a": b"b"}, {b"b": b"c", b"x": b"y"}, {b"y": b"x", b"c": b"d/c"}, {b"d": b"e"}]
    assert in_one_go(steps) == {b"a": b"e/c", b"b": b"e/c", b"c": b"e/c", b"d": b"e", b"y": b"x"}
    assert in_one_go([{b"a": b"b"}, {b"a": b"c"}]) == {b"a": b"b"}


def test_notes_of_the_versions_since_a_base(tmp_path: Path) -> None:
    objects = GitObjects(tmp_path / "git")
    who, tree = Author("a", "a"), write(objects, {})
    tips: list[str] = []
    for step in ({b"0": b"1"}, {b"a": b"b"}, {}, {b"b": b"c"}):
        tips.append(write_commit(objects, tree, tuple(tips[-1:]), who, "x\n\n" + write_notes(step), 0))
    assert renamed_since(objects, tips[0], tips[3]) == {b"a": b"c", b"b": b"c"}
    assert renamed_since(objects, tips[3], tips[3]) == {}
    assert renamed_since(objects, None, tips[1]) == {b"0": b"1", b"a": b"b"}


KNOWN = Known({}, {b"d": b"e"})
CASES: dict[str, tuple[Tree, Tree, Tree, Tree]] = {
    "all of it is another one now": ({"d": {"a": b"1"}}, {"d": {"a": b"1", "o": b"o"}}, {"e": {"b": b"2"}}, {"e": {"b": b"2", "o": b"o"}}),
    "empty before": ({"d": {}}, {"d": {"o": b"o"}}, {"e": {"t": b"t"}}, {"e": {"o": b"o", "t": b"t"}}),
    "not there before": ({}, {"d": {"o": b"o"}}, {"e": {"t": b"t"}}, {"e": {"o": b"o", "t": b"t"}}),
    "not there any more": ({"d": {}}, {"d": {"o": b"o"}}, {"t": b""}, {"d": {"o": b"o"}, "t": b""}),
    "there again": ({"d": {"a": b"1"}}, {"d": {"a": b"1", "o": b"o"}}, {"d": {"n": b""}, "e": {"a": b"1"}}, {"d": {"n": b"", "o": b"o"}, "e": {"a": b"1"}}),
    "a file there": ({"d": {"a": b"1"}}, {"d": {"a": b"1"}, "o": b""}, {"e": b"1"}, {"e": b"1", "o": b""}),
    "removed here": ({"d": {"a": b"1"}}, {"o": b""}, {"e": {"a": b"1"}}, {"e": {"a": b"1"}, "o": b""}),
    "a name taken": ({"d": {}}, {"d": {"t": b"o"}, "e": {"t": b"x"}}, {"e": {}}, {"d": {"t": b"o"}, "e": {"t": b"x"}}),
}  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("base", "ours", "theirs", "wanted"), CASES.values(), ids=CASES.keys())
def test_known_renames_in_a_merge(
    tmp_path: Path, base: Tree, ours: Tree, theirs: Tree, wanted: Tree, swapped: bool
) -> None:
    objects = GitObjects(tmp_path / "git")
    trees = [write(objects, side) for side in (base, ours, theirs)]
    if swapped:
        merged = merge_trees(objects, trees[0], trees[2], trees[1], known=Known(KNOWN.theirs, {}))
    else:
        merged = merge_trees(objects, *trees, known=KNOWN)
    assert merged.conflicts == ()
    assert merged.tree == write(objects, wanted)
