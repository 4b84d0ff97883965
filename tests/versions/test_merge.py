"""Merging by path: the rules one by one, against a model of flat paths, and against `git merge-tree`."""

from __future__ import annotations

import hashlib
import random
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.types import Attributes, DirChange, FileChange, LargeContent, TreeEntry
from mvcfs.versions.git.format import RawCommit, RawEntry, Signature
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.walks import merge_base
from mvcfs.versions.merging.line_merge import merge_lines
from mvcfs.versions.merging.merge import (
    ADDED_BOTH,
    CHANGED_BOTH,
    DELETED_BY_OURS,
    DELETED_BY_THEIRS,
    KINDS_DIFFER,
    RENAMED_BOTH,
    MergeResult,
    merge_trees,
)
from mvcfs.versions.names import ATTRS_NAME, GITATTRIBUTES
from mvcfs.versions.trees.builder import build_tree
from mvcfs.versions.trees.reader import list_tree

DIR = Attributes(0o040755, 0, 0, 1)
Tree = dict[str, "bytes | LargeContent | FileChange | Tree"]


@pytest.fixture
def objects(tmp_path: Path) -> GitObjects:
    return GitObjects(tmp_path / "git")


def file(content: bytes | LargeContent = b"x", mode: int = 0o100644, mtime_ns: int = 1, **more: object) -> FileChange:
    return FileChange(Attributes(mode, 0, 0, mtime_ns, **more), content)  # type: ignore[arg-type]


def large(number: int) -> LargeContent:
    return LargeContent(f"{number:064x}", 1 << 20)


def change(tree: Tree) -> DirChange:
    changes: dict[bytes, FileChange | DirChange | None] = {}
    for name, what in tree.items():
        if isinstance(what, dict):
            changes[name.encode()] = change(what)
        else:
            changes[name.encode()] = what if isinstance(what, FileChange) else file(what)
    return DirChange(DIR, None, changes)


def write(objects: GitObjects, tree: Tree) -> str:
    return build_tree(objects, change(tree))


def merge(objects: GitObjects, base: Tree, ours: Tree, theirs: Tree) -> MergeResult:
    return merge_trees(objects, write(objects, base), write(objects, ours), write(objects, theirs))


def entries(objects: GitObjects, tree: str | None) -> dict[bytes, TreeEntry]:
    assert tree is not None
    return {entry.name: entry for entry in list_tree(objects, tree, default_mtime_ns=0)}


CLEAN: dict[str, tuple[Tree, Tree, Tree, Tree]] = {
    "different files": ({}, {"a": b"1"}, {"b": b"2"}, {"a": b"1", "b": b"2"}),
    "different files of one directory": ({"d": {}}, {"d": {"a": b"1"}}, {"d": {"b": b"2"}}, {"d": {"a": b"1", "b": b"2"}}),
    "a directory both made": ({}, {"d": {"a": b"1"}}, {"d": {"b": b"2"}}, {"d": {"a": b"1", "b": b"2"}}),
    "the same file": ({}, {"a": b"1"}, {"a": b"1"}, {"a": b"1"}),
    "the same change": ({"a": b"0"}, {"a": b"1", "o": b""}, {"a": b"1"}, {"a": b"1", "o": b""}),
    "deleted by both": ({"a": b"0", "b": b""}, {"b": b""}, {"b": b"1"}, {"b": b"1"}),
    "deleted here": ({"a": b"0"}, {}, {"a": b"0", "t": b""}, {"t": b""}),
    "deleted there": ({"a": b"0"}, {"a": b"0", "o": b""}, {}, {"o": b""}),
    "a directory deleted here": ({"d": {"a": b"0"}}, {}, {"d": {"a": b"0"}, "t": b""}, {"t": b""}),
    "deleted here, more there": ({"d": {"a": b"0"}}, {}, {"d": {"a": b"0", "b": b"1"}}, {"d": {"b": b"1"}}),
    "deleted there, more here": ({"d": {"a": b"0"}}, {"d": {"a": b"0", "b": b"1"}}, {}, {"d": {"b": b"1"}}),
    "deleted here, less there": ({"d": {"a": b"", "b": b""}}, {}, {"d": {"a": b""}}, {"d": {}}),
    "emptied by halves": ({"d": {"a": b"", "b": b""}}, {"d": {"a": b""}}, {"d": {"b": b""}}, {"d": {}}),
    "an empty directory": ({}, {"d": {}}, {"e": {}}, {"d": {}, "e": {}}),
    "a file becomes a directory": ({"a": b""}, {"a": {"b": b""}}, {"a": b"", "t": b""}, {"a": {"b": b""}, "t": b""}),
    "a directory becomes a file": ({"a": {"b": b""}}, {"a": b"1"}, {"a": {"b": b""}, "t": b""}, {"a": b"1", "t": b""}),
    "a directory deleted here, a file instead there": ({"a": {"b": b""}}, {}, {"a": b"1"}, {"a": b"1"}),
    "a file deleted there, a directory instead here": ({"a": b""}, {"a": {"b": b""}}, {}, {"a": {"b": b""}}),
    "both make a directory of a file": ({"a": b""}, {"a": {"b": b""}}, {"a": {"c": b""}}, {"a": {"b": b"", "c": b""}}),
    "deep": (
        {"x": {"y": {"z": {"a": b""}}}},
        {"x": {"y": {"z": {"a": b"1"}}}},
        {"x": {"y": {"z": {"a": b""}, "t": b""}}},
        {"x": {"y": {"z": {"a": b"1"}, "t": b""}}},
    ),
    "large files": (
        {"l": large(1)},
        {"l": large(1), "o": large(2)},
        {"l": large(1), "t": large(3)},
        {"l": large(1), "o": large(2), "t": large(3)},
    ),
    "large files beside the user's .gitattributes": (
        {".gitattributes": b"*", "l": large(1)},
        {".gitattributes": b"* text", "l": large(1)},
        {".gitattributes": b"*", "t": large(3)},
        {".gitattributes": b"* text", "t": large(3)},
    ),
    "one's bytes, the other's mode": (
        {"a": file(b"0")},
        {"a": file(b"1", mtime_ns=5)},
        {"a": file(b"0", 0o100755, mtime_ns=4)},
        {"a": file(b"1", 0o100755, mtime_ns=5)},
    ),
    "times alone": ({"a": file()}, {"a": file(mtime_ns=9)}, {"a": file(mtime_ns=7)}, {"a": file(mtime_ns=9)}),
    "equal bytes, other times": ({}, {"a": file(mtime_ns=3)}, {"a": file(mtime_ns=7)}, {"a": file(mtime_ns=7)}),
    "touched here, deleted there": ({"a": file()}, {"a": file(mtime_ns=9), "o": b""}, {}, {"o": b""}),
    "deleted here, touched there": ({"a": file()}, {}, {"a": file(mtime_ns=9), "t": b""}, {"t": b""}),
    "touched here, changed there": ({"a": file()}, {"a": file(mtime_ns=9)}, {"a": file(b"1", mtime_ns=5)}, {"a": file(b"1", mtime_ns=9)}),
    "two modes": ({"a": file()}, {"a": file(mode=0o100600)}, {"a": file(mode=0o100640)}, {"a": file(mode=0o100640)}),
    "a name Git refuses": ({}, {".git": {"HEAD": b"1"}}, {".git": {"config": b"2"}}, {".git": {"HEAD": b"1", "config": b"2"}}),
}  # fmt: skip


@pytest.mark.parametrize(("base", "ours", "theirs", "wanted"), CLEAN.values(), ids=CLEAN.keys())
def test_merges_without_conflict(objects: GitObjects, base: Tree, ours: Tree, theirs: Tree, wanted: Tree) -> None:
    merged = merge(objects, base, ours, theirs)
    assert merged.conflicts == ()
    assert merged.tree == write(objects, wanted)


CONFLICTS: dict[str, tuple[Tree, Tree, Tree, bytes, str]] = {
    "bytes": ({"a": b"0"}, {"a": b"1"}, {"a": b"2"}, b"a", CHANGED_BOTH),
    "added": ({}, {"d": {"a": b"1"}}, {"d": {"a": b"2"}}, b"d/a", ADDED_BOTH),
    "large": ({"l": large(1)}, {"l": large(2)}, {"l": large(3)}, b"l", CHANGED_BOTH),
    "deleted here": ({"a": b"0"}, {}, {"a": b"1"}, b"a", DELETED_BY_OURS),
    "deleted there": ({"a": b"0"}, {"a": b"1"}, {}, b"a", DELETED_BY_THEIRS),
    "chmod of what is deleted": ({"a": file()}, {"a": file(mode=0o100600)}, {}, b"a", DELETED_BY_THEIRS),
    "in a directory that is deleted": ({"d": {"a": b"0"}}, {}, {"d": {"a": b"1"}}, b"d/a", DELETED_BY_OURS),
    "kinds": ({}, {"a": {"x": b""}}, {"a": b"1"}, b"a", KINDS_DIFFER),
    "file for a changed directory": ({"d": {"a": b""}}, {"d": b"1"}, {"d": {"a": b"2"}}, b"d", KINDS_DIFFER),
    "link and file": ({}, {"a": file(b"t", 0o120777)}, {"a": b"t"}, b"a", ADDED_BOTH),
    "the user's .gitattributes": (
        {".gitattributes": b"*", "l": large(1)}, {".gitattributes": b"1", "l": large(1)}, {".gitattributes": b"2"},
        b".gitattributes", CHANGED_BOTH,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("base", "ours", "theirs", "path", "kind"), CONFLICTS.values(), ids=CONFLICTS.keys())
def test_conflicts_keep_what_is_published_and_merge_the_rest(
    objects: GitObjects, base: Tree, ours: Tree, theirs: Tree, path: bytes, kind: str
) -> None:
    merged = merge(objects, base, ours | {"other": b"o"}, theirs)
    assert [(conflict.path, conflict.kind) for conflict in merged.conflicts] == [(path, kind)]
    assert merged.tree == write(objects, theirs | {"other": b"o"})


def test_missing_sides_are_empty(objects: GitObjects) -> None:
    a, b = write(objects, {"a": b"1"}), write(objects, {"b": b"2"})
    both = write(objects, {"a": b"1", "b": b"2"})
    assert merge_trees(objects, None, a, b).tree == both
    assert merge_trees(objects, None, None, b).tree == b
    assert merge_trees(objects, None, a, None).tree == a
    assert merge_trees(objects, None, None, None).tree is None
    assert merge_trees(objects, a, both, None).tree == b
    assert merge_trees(objects, a, None, both).tree == b


def test_a_hard_links_group_is_one_attribute(objects: GitObjects) -> None:
    plain, linked = file(b"x"), file(b"x", nlink=2, link="g")
    merged = merge(objects, {"a": plain}, {"a": linked, "b": linked}, {"a": file(b"x", 0o100600)})
    found = entries(objects, merged.tree)
    assert (found[b"a"].attributes.link, found[b"a"].attributes.nlink, found[b"a"].attributes.mode) == (
        "g",
        2,
        0o100600,
    )


def test_what_plain_git_committed_is_merged_too(objects: GitObjects) -> None:
    base = write(objects, {"a": b"0", "b": b"0"})
    new = objects.write("blob", b"by git")
    raw = [e._replace(oid=new) if e.name == b"b" else e for e in objects.read_tree(base)]
    theirs = objects.write_tree([*raw, RawEntry(b"c", 0o100644, new)])
    ours = write(objects, {"a": b"1", "b": b"0"})
    merged = merge_trees(objects, base, ours, theirs, default_mtime_ns=99)
    assert merged.conflicts == ()
    found = {entry.name: entry for entry in list_tree(objects, str(merged.tree), default_mtime_ns=99)}
    assert set(found) == {b"a", b"b", b"c"}
    assert found[b"c"].attributes.mtime_ns == 99
    assert found[b"a"].attributes.mtime_ns == 1


def test_only_directories_that_differ_are_read(objects: GitObjects) -> None:
    same: Tree = {"big": {str(i): b"%d" % i for i in range(50)}}
    base, ours, theirs = (write(objects, {**same, **more}) for more in ({}, {"a": b"1"}, {"b": b"2"}))
    big = next(entry.oid for entry in objects.read_tree(base) if entry.name == b"big")
    objects.discard([big])
    assert merge_trees(objects, base, ours, theirs).conflicts == ()


def test_a_sharded_directory_is_merged_by_what_differs(objects: GitObjects) -> None:
    base: Tree = {str(n): b"%d" % n for n in range(1100)}
    base |= {".git": b"0", ".gitmodules": {}, ".gitattributes": b"*", "l": large(1), "d": {"a": b""}, "e": {"a": b""}}
    ours = {**base, "7": b"seven", ".git": b"1", "l2": large(2), "8": file(b"8", 0o100600), "d": {"a": b"1"}, "e": {}}
    theirs = {**base, "9": b"nine", "8": file(b"8", mtime_ns=9), ".GIT": b"t", "l": large(3), "d": {"a": b"", "b": b""}}
    del ours["10"], theirs["11"]
    wanted = {**theirs, **{name: ours[name] for name in ("7", ".git", "l2", "e")}}
    wanted |= {"8": file(b"8", 0o100600, 9), "d": {"a": b"1", "b": b""}}
    del wanted["10"]
    merged = merge(objects, base, ours, theirs)
    assert merged.conflicts == ()
    assert merged.tree == write(objects, wanted)
    for fewer in (ours, theirs):
        few = {name: what for name, what in fewer.items() if not name.isdigit()}
        assert merge(objects, base, few, base).tree == write(objects, few)
        assert merge(objects, few, {**few, "o": b""}, {**few, "t": b""}).tree == write(
            objects, {**few, "o": b"", "t": b""}
        )


def test_both_sides_cross_the_sharding_bound(objects: GitObjects) -> None:
    base: Tree = {str(n): b"" for n in range(998)}
    merged = merge(objects, base, {**base, "o": b"", "o2": b""}, {**base, "t": b""})
    assert merged.tree == write(objects, {**base, "o": b"", "o2": b"", "t": b""})


# --- lines

POEM = b"".join(b"line %d of the poem\n" % number for number in range(9))


def poem(**changed: bytes) -> bytes:
    """The poem with other lines by number (`l3=…`)."""
    lines = POEM.splitlines(keepends=True)
    for name, line in changed.items():
        lines[int(name[1:])] = line
    return b"".join(lines)


def test_lines_of_a_text_are_merged(objects: GitObjects) -> None:
    merged = merge(objects, {"a": POEM}, {"a": poem(l1=b"ours\n")}, {"a": poem(l7=b"theirs\n")})
    assert merged.conflicts == ()
    assert merged.tree == write(objects, {"a": poem(l1=b"ours\n", l7=b"theirs\n")})
    latin = (b"\xe9\n" + POEM, b"\xe9\n" + poem(l8=b"\xff"), b"\xe8\n" + POEM)
    merged = merge(objects, *({"a": text} for text in latin))
    assert merged.tree == write(objects, {"a": b"\xe8\n" + poem(l8=b"\xff")})
    assert merge_lines(POEM, b"", POEM) == b""


def test_a_merged_text_has_the_attributes_of_both(objects: GitObjects) -> None:
    ours, theirs = file(poem(l1=b"o\n"), 0o100755, mtime_ns=7), file(poem(l7=b"t\n"), mtime_ns=9)
    merged = merge(objects, {"a": file(POEM)}, {"a": ours}, {"a": theirs})
    assert merged.tree == write(objects, {"a": file(poem(l1=b"o\n", l7=b"t\n"), 0o100755, mtime_ns=9)})


def test_the_users_part_of_gitattributes_is_merged(objects: GitObjects) -> None:
    sides = (POEM, poem(l1=b"o\n"), poem(l7=b"t\n"))
    base, ours, theirs = ({".gitattributes": text, "l": large(1)} for text in sides)
    merged = merge(objects, base, ours | {"l2": large(2)}, theirs | {"l3": large(3)})
    assert merged.conflicts == ()
    both = {".gitattributes": poem(l1=b"o\n", l7=b"t\n"), "l": large(1), "l2": large(2), "l3": large(3)}
    assert merged.tree == write(objects, both)


LONG = b"x" * 40_000 + b"\n" + POEM + b"y" * 24_000 + b"\n"
NOT_BY_LINES: dict[str, tuple[bytes, bytes, bytes]] = {
    "one line": (POEM, poem(l3=b"ours\n"), poem(l3=b"theirs\n")),
    "lines side by side": (POEM, poem(l3=b"ours\n"), poem(l4=b"theirs\n")),
    "no text": (b"\0\n" + POEM, b"\0\n" + poem(l1=b"o\n"), b"\0\n" + poem(l7=b"t\n")),
    "too large together": (LONG, b"q" * 900 + b"\n" + LONG, LONG + b"z" * 900),
}  # fmt: skip


@pytest.mark.parametrize("sides", NOT_BY_LINES.values(), ids=NOT_BY_LINES.keys())
def test_what_does_not_merge_clean_by_lines_is_a_conflict(objects: GitObjects, sides: tuple[bytes, ...]) -> None:
    base, ours, theirs = ({"a": text} for text in sides)
    merged = merge(objects, base, ours, theirs)
    assert [(conflict.path, conflict.kind) for conflict in merged.conflicts] == [(b"a", CHANGED_BOTH)]
    assert merged.tree == write(objects, theirs)


# --- renames: each is merged both ways round

RENAMES: dict[str, tuple[Tree, Tree, Tree, Tree]] = {
    "renamed and changed": ({"a": large(1), "k": b""}, {"b": large(1), "k": b""}, {"a": large(2), "k": b""}, {"b": large(2), "k": b""}),
    "renamed into a new directory": ({"a": large(1)}, {"x": {"y": {"b": large(1)}}}, {"a": large(2)}, {"x": {"y": {"b": large(2)}}}),
    "renamed, and the mode changed": ({"a": large(1)}, {"b": large(1)}, {"a": file(large(1), 0o100600)}, {"b": file(large(1), 0o100600)}),
    "a changed text renamed": ({"a": POEM}, {"b": poem(l1=b"o\n")}, {"a": poem(l7=b"t\n")}, {"b": poem(l1=b"o\n", l7=b"t\n")}),
    "renamed, and deleted": ({"a": large(1)}, {"b": large(1)}, {}, {"b": large(1)}),
    "renamed the same way": ({"a": large(1)}, {"b": large(1), "o": b""}, {"b": large(1)}, {"b": large(1), "o": b""}),
    "renamed the same way and changed": ({"a": POEM, "x": b"1"}, {"b": POEM, "x": b"1"}, {"b": poem(l1=b"t\n")}, {"b": poem(l1=b"t\n")}),
    "a directory renamed, a file added": (
        {"tmp": {"1": large(1)}},
        {"end": {"1": large(1)}},
        {"tmp": {"1": large(1), "2": large(2)}},
        {"end": {"1": large(1), "2": large(2)}},
    ),
    "a directory renamed, more added on both sides": (
        {"tmp": {"1": large(1), "s": {"x": b"x"}}},
        {"end": {"1": large(1), "3": b"3", "s": {"x": b"x"}}},
        {"tmp": {"1": large(1), "2": large(2), "s": {"x": b"x", "y": b"y"}, "n": {"z": b"z"}}},
        {"end": {"1": large(1), "2": large(2), "3": b"3", "s": {"x": b"x", "y": b"y"}, "n": {"z": b"z"}}},
    ),
    "a directory renamed, one below renamed on": (
        {"d": {"a": large(1), "s": {"b": large(2)}}},
        {"e": {"a": large(1)}, "f": {"b": large(2)}},
        {"d": {"a": large(1), "o": b"o", "s": {"b": large(2), "p": b"p"}}},
        {"e": {"a": large(1), "o": b"o"}, "f": {"b": large(2), "p": b"p"}},
    ),
    "a directory renamed, a file in it changed, one deleted": (
        {"d": {"a": large(1), "b": large(2), "c": large(3)}},
        {"e": {"a": large(1), "b": large(2), "c": large(3)}},
        {"d": {"a": large(9), "c": large(3)}},
        {"e": {"a": large(9), "c": large(3)}},
    ),
    "a directory renamed, a file in it renamed": (
        {"d": {"a": large(1), "b": large(2)}},
        {"e": {"a": large(1), "b": large(2)}},
        {"d": {"a": large(1), "z": large(2)}},
        {"e": {"a": large(1), "z": large(2)}},
    ),
    "a directory renamed by both": (
        {"d": {"a": large(1)}}, {"e": {"a": large(1), "o": b""}}, {"e": {"a": large(1), "t": b""}}, {"e": {"a": large(1), "o": b"", "t": b""}},
    ),
    "entries moved into a directory that was there": (
        {"d": {"a": large(1), "b": large(2)}, "e": {"x": b"x"}},
        {"e": {"x": b"x", "a": large(1), "b": large(2)}},
        {"d": {"a": large(1), "b": large(2), "n": b"n"}, "e": {"x": b"x"}},
        {"e": {"x": b"x", "a": large(1), "b": large(2), "n": b"n"}},
    ),
    "an empty directory renamed": ({"d": {}}, {"e": {}}, {"d": {"n": b"n"}}, {"e": {"n": b"n"}}),
    "the directory is still there": (
        {"d": {"a": large(1)}}, {"d": {}, "e": {"a": large(1)}}, {"d": {"a": large(1), "n": b"n"}}, {"d": {"n": b"n"}, "e": {"a": large(1)}},
    ),
    "each side renamed another": (
        {"d": {"a": large(1)}, "f": {"a": large(2)}},
        {"e": {"a": large(1)}, "f": {"a": large(2), "o": b"o"}},
        {"d": {"a": large(1), "t": b"t"}, "g": {"a": large(2)}},
        {"e": {"a": large(1), "t": b"t"}, "g": {"a": large(2), "o": b"o"}},
    ),
    "an old checkpoint deleted, a new one added": (
        {"c-1": {"config": b"{}", "model": large(1)}},
        {"c-2": {"config": b"{}", "model": large(2)}},
        {"c-1": {"config": b"{}", "model": large(1), "log": b"late"}},
        {"c-2": {"config": b"{}", "model": large(2)}, "c-1": {"log": b"late"}},
    ),
    "both sides' checkpoints come and go": (
        {"c-1": {"config": b"{}", "model": large(1)}},
        {"c-2": {"config": b"{}", "model": large(2)}},
        {"c-3": {"config": b"{}", "model": large(3)}},
        {"c-2": {"config": b"{}", "model": large(2)}, "c-3": {"config": b"{}", "model": large(3)}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("base", "ours", "theirs", "wanted"), RENAMES.values(), ids=RENAMES.keys())
def test_renames_are_followed(
    objects: GitObjects, base: Tree, ours: Tree, theirs: Tree, wanted: Tree, swapped: bool
) -> None:
    merged = merge(objects, base, *((theirs, ours) if swapped else (ours, theirs)))
    assert merged.conflicts == ()
    assert merged.tree == write(objects, wanted)


def test_two_new_names_are_a_conflict(objects: GitObjects) -> None:
    merged = merge(objects, {"a": large(1)}, {"b": large(1), "o": b""}, {"c": large(1), "t": b""})
    (conflict,) = merged.conflicts
    assert (conflict.kind, conflict.path, conflict.ours_path) == (RENAMED_BOTH, b"c", b"b")
    assert conflict.ours is not None
    assert conflict.ours.content == large(1)
    assert merged.tree == write(objects, {"c": large(1), "o": b"", "t": b""})
    merged = merge(objects, {"d": {"a": large(1)}}, {"e": {"a": large(1), "o": b""}}, {"f": {"a": large(1)}})
    (conflict,) = merged.conflicts
    assert (conflict.kind, conflict.path, conflict.ours_path) == (RENAMED_BOTH, b"f", b"e")
    assert merged.tree == write(objects, {"f": {"a": large(1), "o": b""}})


def test_a_renamed_file_that_both_changed_conflicts_at_its_new_name(objects: GitObjects) -> None:
    base, ours = {"d": {"a": large(1), "b": large(2)}}, {"d": {"a": large(1), "b": large(3)}}
    merged = merge(objects, base, ours, {"e": {"a": large(1), "b": large(4)}, "t": b""})
    assert [(conflict.path, conflict.kind) for conflict in merged.conflicts] == [(b"d/b", DELETED_BY_THEIRS)]
    base, ours = {"d": {"a": large(9), "b": POEM}}, {"d": {"a": large(9), "b": poem(l1=b"o\n")}}
    merged = merge(objects, base, ours, {"e": {"a": large(9), "b": poem(l1=b"t\n")}})
    assert [(conflict.path, conflict.kind) for conflict in merged.conflicts] == [(b"e/b", CHANGED_BOTH)]
    assert merged.tree == write(objects, {"e": {"a": large(9), "b": poem(l1=b"t\n")}})


def test_a_name_that_is_taken_is_left_alone(objects: GitObjects) -> None:
    merged = merge(
        objects, {"d": {"a": large(1)}}, {"d": {"a": large(1), "n": b"n"}, "e": {"n": b"other"}}, {"e": {"a": large(1)}}
    )
    assert merged.conflicts == ()
    assert merged.tree == write(objects, {"d": {"n": b"n"}, "e": {"a": large(1), "n": b"other"}})


def test_a_renamed_directory_of_any_size_is_not_read(objects: GitObjects) -> None:
    big: Tree = {"s": {str(number): b"%d" % number for number in range(50)}}
    base, theirs = write(objects, {"d": big}), write(objects, {"e": big})
    ours = write(objects, {"d": {**big, "n": b"n"}})
    wanted = write(objects, {"e": {**big, "n": b"n"}})
    below = next(entry for entry in entries(objects, base).values()).tree
    objects.discard([entry.oid for entry in objects.read_tree(str(below)) if entry.name == b"s"])
    assert merge_trees(objects, base, ours, theirs).tree == wanted


contents = st.integers(1, 5).map(large)
few_paths = st.lists(st.sampled_from("abd"), min_size=1, max_size=3).map(tuple)
any_files = st.dictionaries(few_paths, contents, max_size=7)


def as_tree(files: dict[tuple[str, ...], LargeContent]) -> Tree:
    """The tree with these files; what would have to be below a file is left out."""
    tree: Tree = {}
    for path, content in sorted(files.items(), key=lambda item: (len(item[0]), item[0])):
        *folders, name = path
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})  # type: ignore[assignment]
            if not isinstance(inner, dict):
                break
        else:
            inner.setdefault(name, content)
    return tree


def held(objects: GitObjects, tree: str | None) -> set[LargeContent]:
    """All large contents of a tree."""
    found: set[LargeContent] = set()
    for entry in entries(objects, tree).values() if tree is not None else ():
        found |= held(objects, entry.tree) if entry.tree is not None else {entry.content}  # type: ignore[arg-type]
    return found


@settings(max_examples=400, deadline=None)
@given(any_files, any_files, any_files)
def test_no_content_is_lost_whatever_is_taken_for_a_rename(
    tmp_path_factory: pytest.TempPathFactory,
    base: dict[tuple[str, ...], LargeContent],
    ours: dict[tuple[str, ...], LargeContent],
    theirs: dict[tuple[str, ...], LargeContent],
) -> None:
    """What one side made anew, or both still have, is in the merged tree or told as a side of a conflict."""
    objects = GitObjects(tmp_path_factory.mktemp("l") / "git")
    b, o, t = (write(objects, as_tree(files)) for files in (base, ours, theirs))
    for one, other in ((o, t), (t, o)):
        merged = merge_trees(objects, b, one, other)
        assert merge_trees(objects, b, one, other) == merged
        kept = held(objects, merged.tree)
        for conflict in merged.conflicts:
            for side in (conflict.ours, conflict.theirs):
                if side is not None:
                    kept |= {side.content} if side.tree is None else held(objects, side.tree)  # type: ignore[arg-type]
        assert (held(objects, one) | held(objects, other)) - held(objects, b) <= kept
        assert held(objects, one) & held(objects, other) <= kept


# --- against a model: flat paths of files in directories that stay

leaf = st.builds(
    file, st.sampled_from([b"0", b"1", b"2"]), st.sampled_from([0o100644, 0o100755]), st.sampled_from([1, 2, 3])
)
flat = st.dictionaries(
    st.tuples(st.sampled_from("def"), st.sampled_from(["a", "b", GITATTRIBUTES.decode(), ".git"])), leaf
)


def nested(paths: dict[tuple[str, str], FileChange]) -> Tree:
    """The tree with these files, whose contents tell their paths: nothing looks renamed."""
    tree: Tree = {"d": {}, "e": {}, "f": {}}
    for (folder, name), what in paths.items():
        assert isinstance(what.content, bytes)
        tree[folder][name] = replace(what, content=f"{folder} {name} ".encode() + what.content)  # type: ignore[index]
    return tree


def modelled(b: FileChange | None, o: FileChange | None, t: FileChange | None) -> tuple[FileChange | None, bool]:
    """What a path merges to, and whether it conflicts."""

    if o is None and t is None:
        return None, False

    def key(x: FileChange | None) -> object:
        return None if x is None else (x.content, x.attributes.mode)

    if o is not None and t is not None:
        bc, bm, bt = (b.content, b.attributes.mode, b.attributes.mtime_ns) if b else (None, None, None)
        if o.content == t.content or o.content == bc:
            content = t.content
        elif t.content == bc:
            content = o.content
        else:
            return t, True
        mode = o.attributes.mode if t.attributes.mode == bm else t.attributes.mode
        times = {o.attributes.mtime_ns, t.attributes.mtime_ns}
        if len(times) > 1:
            times.discard(bt)  # type: ignore[arg-type]
        return file(content, mode, max(times)), False  # type: ignore[arg-type]
    if key(o) == key(b):
        return t, False
    if key(t) == key(b):
        return o, False
    return t, True


@settings(max_examples=200, deadline=None)
@given(base=flat, ours=flat, theirs=flat)
def test_merge_is_what_the_rules_say_path_by_path(
    tmp_path_factory: pytest.TempPathFactory,
    base: dict[tuple[str, str], FileChange],
    ours: dict[tuple[str, str], FileChange],
    theirs: dict[tuple[str, str], FileChange],
) -> None:
    objects = GitObjects(tmp_path_factory.mktemp("m") / "git")
    wanted, conflicts = {}, []
    for path in base.keys() | ours.keys() | theirs.keys():
        result, conflict = modelled(base.get(path), ours.get(path), theirs.get(path))
        if result is not None:
            wanted[path] = result
        if conflict:
            conflicts.append("/".join(path).encode())
    merged = merge(objects, nested(base), nested(ours), nested(theirs))
    assert [conflict.path for conflict in merged.conflicts] == sorted(conflicts)
    assert merged.tree == write(objects, nested(wanted))


# --- against git merge-tree

Nested = st.recursive(
    st.sampled_from([b"0", b"1", b"2"]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=6,
)
top = st.dictionaries(st.sampled_from("abc"), Nested, max_size=3)


def git_tree(objects: GitObjects, tree: Tree) -> str:
    """The same tree as plain Git has it."""
    made = []
    for name, what in tree.items():
        if isinstance(what, dict):
            made.append(RawEntry(name.encode(), 0o040000, git_tree(objects, what)))
        else:
            assert isinstance(what, bytes)
            made.append(RawEntry(name.encode(), 0o100644, objects.write("blob", what)))
    return objects.write_tree(made)


def without_attributes(objects: GitObjects, tree: str) -> dict[bytes, object]:
    """Files only, as Git knows no empty directories."""
    found: dict[bytes, object] = {}
    for entry in objects.read_tree(tree):
        if entry.mode != 0o040000:
            found[entry.name] = entry.oid
        elif entry.name != ATTRS_NAME and (inner := without_attributes(objects, entry.oid)):
            found[entry.name] = inner
    found.pop(ATTRS_NAME, None)
    return found


@settings(max_examples=60, deadline=None)
@given(base=top, ours=top, theirs=top)
def test_agrees_with_git_merge_tree(
    tmp_path_factory: pytest.TempPathFactory, base: Tree, ours: Tree, theirs: Tree
) -> None:
    folder = tmp_path_factory.mktemp("g")
    objects = GitObjects(folder / "git")
    base, ours, theirs = map(told_apart, (base, ours, theirs))
    merged = merge(objects, base, ours, theirs)
    who = Signature("a", "a", 0)
    root = objects.write_commit(RawCommit(git_tree(objects, base), (), who, who, "base"))
    sides = [
        objects.write_commit(RawCommit(git_tree(objects, side), (root,), who, who, "side")) for side in (ours, theirs)
    ]
    objects.add_pack(*objects.write_pack(objects.memory_objects(), folder, "pack-g"))
    git = ["git", "--git-dir", str(objects.git_dir)]
    done = subprocess.run([*git, "merge-tree", "--write-tree", "--no-messages", *sides], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode == 0:
        # Where a side put a file in a directory's place, and the other only deleted in it, Git sees no conflict; we do.
        assert {conflict.kind for conflict in merged.conflicts} <= {KINDS_DIFFER}
    else:
        assert merged.conflicts
    if not merged.conflicts:
        objects.rescan()
        shown = subprocess.run([*git, "ls-tree", "-r", done.stdout.split()[0]], capture_output=True, check=True).stdout
        listed = {line.split(b"\t")[1]: line.split()[2].decode() for line in shown.splitlines()}
        assert flattened(without_attributes(objects, str(merged.tree))) == listed


def told_apart(tree: Tree, path: str = "") -> Tree:
    """The same with contents that no two paths share, as Git would see renames."""
    made: Tree = {}
    for name, what in tree.items():
        here = f"{path}/{name}"
        if isinstance(what, dict):
            made[name] = told_apart(what, here)
        else:
            lines = (hashlib.sha256(f"{here} {what!r} {line}".encode()).hexdigest() for line in range(9))
            made[name] = "\n".join(lines).encode()
    return made


def flattened(tree: dict[bytes, object], prefix: bytes = b"") -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for name, what in tree.items():
        found |= flattened(what, prefix + name + b"/") if isinstance(what, dict) else {prefix + name: what}
    return found


# --- against git merge-tree over histories

Files = dict[str, list[str]]


class GitSide:
    """What plain Git sees: commits of plain trees, in loose objects."""

    def __init__(self, objects: GitObjects) -> None:
        self.objects = objects
        self.written: set[str] = set()

    def commit(self, tree: str, *parents: str) -> str:
        time_s = 1 + max((self.objects.read_commit(parent).committer.time_s for parent in parents), default=0)
        who = Signature("a", "a", time_s)
        made = self.objects.write_commit(RawCommit(tree, parents, who, who, "x"))
        for oid in self.objects.memory_objects() - self.written:
            kind, data = self.objects.read(oid)
            path = self.objects.git_dir / "objects" / oid[:2] / oid[2:]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(b"%s %d\0" % (kind.encode(), len(data)) + data, 1))
            self.written.add(oid)
        return made

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        git = ["git", "--git-dir", str(self.objects.git_dir), "-c", "merge.renames=false"]
        done = subprocess.run([*git, *words], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        return done


def plain(objects: GitObjects, files: Files) -> str:
    tree: Tree = {}
    for path, lines in files.items():
        *folders, name = path.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})  # type: ignore[assignment]
        inner[name] = "".join(lines).encode()
    return git_tree(objects, tree)


def edit(files: Files, rng: random.Random, label: str) -> None:
    """Changes, adds and deletes some files; what two sides add to one path is sometimes the same."""
    for number in range(rng.randint(1, 4)):
        path = f"d{rng.randrange(3)}/{rng.choice(['x', 'y', 's/z'])}{rng.randrange(3)}"
        what = rng.random()
        if path not in files:
            who = label if rng.random() < 0.5 else "both"
            files[path] = [f"{path} {who} {line}\n" for line in range(rng.choice([3, 12]))]
        elif what < 0.2:
            del files[path]
        else:
            at = rng.randrange(len(files[path]) + 1)
            put = [f"{path} {label} {number}\n"] if what < 0.7 else []
            files[path][at : at + (what < 0.9)] = put


@pytest.mark.parametrize("seed", range(10))
def test_histories_merge_as_git_merges_them(objects: GitObjects, seed: int) -> None:
    rng, git = random.Random(seed), GitSide(objects)
    files: list[Files] = [{}, {}]
    edit(files[0], rng, "start")
    files[1] = {path: list(lines) for path, lines in files[0].items()}
    tips = [git.commit(plain(objects, files[0]))] * 2
    clean = conflicts = 0
    for turn in range(40):
        for side in (0, 1):
            for _ in range(rng.randint(1, 2)):
                edit(files[side], rng, f"{side} {turn}")
                tips[side] = git.commit(plain(objects, files[side]), tips[side])
        base = merge_base(objects, *tips)
        assert base == git.run("merge-base", *tips).stdout.strip()
        trees = [objects.read_commit(str(commit)).tree for commit in (base, tips[1], tips[0])]
        merged = merge_trees(objects, *trees)
        done = git.run("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", tips[0], tips[1])
        shown, *names = done.stdout.rstrip("\0").split("\0")
        assert [conflict.path.decode() for conflict in merged.conflicts] == sorted(set(names) - {""})
        found = flattened(without_attributes(objects, str(merged.tree)))
        listed = git.run("ls-tree", "-r", shown).stdout.splitlines()
        theirs = {line.split("\t")[1].encode(): line.split()[2] for line in listed}
        for name in names:
            # Git's file has conflict markers, or what the other side left: ours holds what is published.
            theirs.pop(name.encode(), None)
            found.pop(name.encode(), None)
        assert found == theirs
        clean, conflicts = clean + (not names), conflicts + bool(names)
        files[0] = {
            path.decode(): objects.read_kind(str(oid), "blob").decode().splitlines(keepends=True)
            for path, oid in flattened(without_attributes(objects, str(merged.tree))).items()
        }
        tips[0] = git.commit(plain(objects, files[0]), *tips)
        if rng.random() < 0.7:
            tips[1], files[1] = tips[0], {path: list(lines) for path, lines in files[0].items()}
    assert clean > 3
    assert conflicts > 3
