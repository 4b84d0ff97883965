"""Merging by path: the rules one by one, against a model of flat paths, and against `git merge-tree`."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.types import Attributes, DirChange, FileChange, LargeContent, TreeEntry
from mvcfs.versions.git_format import RawCommit, RawEntry, Signature
from mvcfs.versions.merge import (
    ADDED_BOTH,
    CHANGED_BOTH,
    DELETED_BY_OURS,
    DELETED_BY_THEIRS,
    KINDS_DIFFER,
    MergeResult,
    merge_trees,
)
from mvcfs.versions.names import ATTRS_NAME, GITATTRIBUTES
from mvcfs.versions.objects import GitObjects
from mvcfs.versions.tree_builder import build_tree
from mvcfs.versions.tree_reader import list_tree

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


# --- against a model: flat paths of files in directories that stay

leaf = st.builds(
    file, st.sampled_from([b"0", b"1", b"2"]), st.sampled_from([0o100644, 0o100755]), st.sampled_from([1, 2, 3])
)
flat = st.dictionaries(
    st.tuples(st.sampled_from("def"), st.sampled_from(["a", "b", GITATTRIBUTES.decode(), ".git"])), leaf
)


def nested(paths: dict[tuple[str, str], FileChange]) -> Tree:
    tree: Tree = {"d": {}, "e": {}, "f": {}}
    for (folder, name), what in paths.items():
        tree[folder][name] = what  # type: ignore[index]
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
