"""Finding renames from what a side removed and added."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.types import Attributes, BlobContent, DirChange, FileChange, LargeContent, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.trees import renames
from mvcfs.versions.trees.builder import build_tree
from mvcfs.versions.trees.reader import list_tree
from mvcfs.versions.trees.renames import Rename, find_directory_renames, find_renames, moved_path

TEXT = b"".join(b"line %d of a text\n" % number for number in range(40))


@pytest.fixture
def objects(tmp_path: Path) -> GitObjects:
    return GitObjects(tmp_path / "git")


def entry(objects: GitObjects, what: bytes | LargeContent, mode: int = 0o100644) -> TreeEntry:
    content = what if isinstance(what, LargeContent) else BlobContent(objects.write("blob", what), len(what))
    return TreeEntry(b"", Attributes(mode, 0, 0, 1), content)


def directory(objects: GitObjects, files: dict[bytes, bytes], mtime_ns: int = 1) -> TreeEntry:
    attributes = Attributes(0o040755, 0, 0, mtime_ns)
    changes = {name: FileChange(Attributes(0o100644, 0, 0, 1), data) for name, data in files.items()}
    root = build_tree(objects, DirChange(attributes, None, {b"d": DirChange(attributes, None, dict(changes))}))
    return list_tree(objects, root, default_mtime_ns=0)[0]


def large(number: int) -> LargeContent:
    return LargeContent(f"{number:064x}", number << 20)


def pairs(
    objects: GitObjects, removed: dict[bytes, bytes | LargeContent], added: dict[bytes, bytes | LargeContent]
) -> dict[bytes, bytes]:
    found = find_renames(
        objects,
        {path: entry(objects, what) for path, what in removed.items()},
        {path: entry(objects, what) for path, what in added.items()},
    )
    return {rename.source: rename.target for rename in found}


def test_the_same_content_was_moved(objects: GitObjects) -> None:
    assert pairs(objects, {b"a": b"1", b"l": large(1), b"x": b"2"}, {b"d/b": b"1", b"m": large(1), b"y": b"3"}) == {
        b"a": b"d/b",
        b"l": b"m",
    }


def test_a_link_is_no_file(objects: GitObjects) -> None:
    removed, added = {b"a": entry(objects, b"t")}, {b"b": entry(objects, b"t", 0o120777)}
    assert find_renames(objects, removed, added) == []


def test_of_several_the_closest_path_is_taken(objects: GitObjects) -> None:
    removed: dict[bytes, bytes | LargeContent] = {b"old-1/config": b"same", b"old-2/config": b"same"}
    added: dict[bytes, bytes | LargeContent] = {b"new-2/config": b"same", b"new-1/config": b"same", b"a": b"same"}
    assert pairs(objects, removed, added) == {b"old-1/config": b"new-1/config", b"old-2/config": b"new-2/config"}


def test_very_many_of_the_same_content_are_paired_by_name(objects: GitObjects) -> None:
    removed: dict[bytes, bytes | LargeContent] = {b"a/%03d" % n: b"same" for n in range(100)}
    added: dict[bytes, bytes | LargeContent] = {b"b/%03d" % n: b"same" for n in range(50, 150)}
    by_name = {b"a/%03d" % n: b"b/%03d" % n for n in range(50, 100)}
    assert pairs(objects, removed, added) == by_name | {b"a/%03d" % n: b"b/%03d" % (n + 100) for n in range(50)}


def test_an_empty_file_keeps_its_name(objects: GitObjects) -> None:
    assert pairs(objects, {b"d/__init__.py": b"", b"x": b""}, {b"e/__init__.py": b"", b"y": b""}) == {
        b"d/__init__.py": b"e/__init__.py"
    }


def test_similar_texts(objects: GitObjects) -> None:
    changed = TEXT.replace(b"line 7 ", b"line seven ")
    found = find_renames(
        objects, {b"a.txt": entry(objects, TEXT)}, {b"b.txt": entry(objects, changed), b"c": entry(objects, b"other\n")}
    )
    assert [(rename.source, rename.target) for rename in found] == [(b"a.txt", b"b.txt")]
    assert 90 <= found[0].similarity < 100
    assert pairs(objects, {b"a": TEXT}, {b"b": TEXT[: len(TEXT) // 3]}) == {}
    assert pairs(objects, {b"a": b"\0" + TEXT}, {b"b": b"\0" + changed}) == {}


def test_the_most_similar_is_taken(objects: GitObjects) -> None:
    near, far = TEXT.replace(b"7", b"seven"), TEXT.replace(b"line 1", b"row 1")
    assert pairs(objects, {b"a": TEXT}, {b"a.1": far, b"z": near}) == {b"a": b"z"}


def test_too_many_texts_are_compared_by_name_only(objects: GitObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "_MAX_PAIRS", 3)
    removed: dict[bytes, bytes | LargeContent] = {b"d/a": TEXT + b"1", b"d/b": TEXT + b"2"}
    added: dict[bytes, bytes | LargeContent] = {b"e/b": TEXT + b"3", b"c": TEXT + b"4"}
    assert pairs(objects, removed, added) == {b"d/b": b"e/b"}


def test_too_many_entries_are_not_looked_at(objects: GitObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "MAX_ENTRIES", 1)
    assert pairs(objects, {b"a": b"1", b"b": b"2"}, {b"c": b"1"}) == {}


def test_whole_directories(objects: GitObjects) -> None:
    removed = {b"d": directory(objects, {b"a": b"1"}), b"e": directory(objects, {}, 5), b"f": directory(objects, {}, 6)}
    added = {
        b"x": directory(objects, {b"a": b"1"}, 9),
        b"y": directory(objects, {}, 5),
        b"f2": directory(objects, {}, 7),
    }
    assert find_renames(objects, removed, added) == [Rename(b"d", b"x"), Rename(b"e", b"y")]


def moved_directories(
    objects: GitObjects,
    removed: dict[bytes, bytes | LargeContent],
    added: dict[bytes, bytes | LargeContent],
    stays: frozenset[bytes] = frozenset(),
) -> dict[bytes, bytes]:
    before = {path: entry(objects, what) for path, what in removed.items()}
    found = find_renames(objects, before, {path: entry(objects, what) for path, what in added.items()})
    return find_directory_renames(found, before, lambda path: path not in stays)


def test_a_directory_whose_files_moved_together(objects: GitObjects) -> None:
    removed: dict[bytes, bytes | LargeContent] = {b"tmp/a": large(1), b"tmp/s/b": large(2), b"tmp/s/c": large(3)}
    added: dict[bytes, bytes | LargeContent] = {b"out/a": large(1), b"out/s/b": large(2), b"out/s/c": large(3)}
    assert moved_directories(objects, removed, added) == {b"tmp": b"out"}
    assert moved_directories(objects, removed, added, frozenset({b"tmp"})) == {b"tmp/s": b"out/s"}


def test_a_directory_below_may_have_gone_elsewhere(objects: GitObjects) -> None:
    removed: dict[bytes, bytes | LargeContent] = {b"d/a": b"1", b"d/b": b"2", b"d/s/c": b"3"}
    added: dict[bytes, bytes | LargeContent] = {b"e/a": b"1", b"e/b": b"2", b"f/c": b"3"}
    found = moved_directories(objects, removed, added)
    assert found == {b"d": b"e", b"d/s": b"f"}
    assert moved_path(found, b"d/s/new") == b"f/new"
    assert moved_path(found, b"d/t/new") == b"e/t/new"
    assert moved_path(found, b"dd/new") == b"dd/new"


def test_half_is_no_majority(objects: GitObjects) -> None:
    removed: dict[bytes, bytes | LargeContent] = {b"d/a": b"1", b"d/b": b"2"}
    assert moved_directories(objects, removed, {b"e/a": b"1", b"f/b": b"2"}) == {}
    assert moved_directories(objects, removed, {b"e/a": b"1"}) == {}


def test_an_old_checkpoint_that_gave_way_to_a_new_one_was_not_renamed(objects: GitObjects) -> None:
    small: dict[bytes, bytes] = {b"config": b"{}", b"tokens": b"a b", b"map": b"{1}"}
    removed: dict[bytes, bytes | LargeContent] = {b"c-1/" + name: data for name, data in small.items()}
    added: dict[bytes, bytes | LargeContent] = {b"c-2/" + name: data for name, data in small.items()}
    assert moved_directories(objects, removed, added) == {b"c-1": b"c-2"}
    assert moved_directories(objects, removed | {b"c-1/model": large(1)}, added | {b"c-2/model": large(2)}) == {}


paths = st.lists(st.sampled_from([b"a", b"b", b"cc", b"d"]), min_size=1, max_size=3).map(b"/".join)
sides = st.dictionaries(paths, st.sampled_from([b"", b"1", b"2", TEXT, TEXT + b"more\n", b"\0x"]), max_size=8)


@settings(max_examples=100, deadline=None)
@given(sides, sides, st.randoms())
def test_pairs_are_distinct_and_do_not_depend_on_the_order(
    tmp_path_factory: pytest.TempPathFactory, removed: dict[bytes, bytes], added: dict[bytes, bytes], random: object
) -> None:
    objects = GitObjects(tmp_path_factory.mktemp("r") / "git")
    before = {path: entry(objects, data) for path, data in removed.items()}
    now = {path: entry(objects, data) for path, data in added.items()}
    found = find_renames(objects, before, now)
    assert len({rename.source for rename in found}) == len({rename.target for rename in found}) == len(found)
    assert {rename.source for rename in found} <= removed.keys()
    assert {rename.target for rename in found} <= added.keys()
    for data in set(removed.values()) - {b""}:
        counts = [sum(1 for each in side.values() if each == data) for side in (removed, added)]
        exact = [r for r in found if r.similarity == 100 and removed[r.source] == data]
        assert len(exact) == min(counts)
        assert all(added[rename.target] == data for rename in exact)
    shuffled = [list(side.items()) for side in (before, now)]
    for side in shuffled:
        random.shuffle(side)  # type: ignore[attr-defined]
    assert find_renames(objects, dict(shuffled[0]), dict(shuffled[1])) == found
    for source, target in find_directory_renames(found, before, lambda _path: True).items():
        assert source != target
