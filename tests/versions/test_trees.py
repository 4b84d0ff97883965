"""Directories written are directories read; the id of a tree depends on what it holds only; real Git takes them all."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.errors import CorruptData
from mvcfs.types import Attributes, BlobContent, DirChange, FileChange, LargeContent, TreeEntry
from mvcfs.versions.git.format import RawCommit, RawEntry, Signature
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pointer import make_pointer
from mvcfs.versions.names import ATTRS_NAME, GITATTRIBUTES, escape_name
from mvcfs.versions.trees.attributes import AttrRow, serialise_rows
from mvcfs.versions.trees.builder import build_tree
from mvcfs.versions.trees.reader import EMPTY_TREE_OID, TreeReader, list_tree, root_attributes

DIR = Attributes(0o040755, 1000, 1000, 5)
FILE = Attributes(0o100644, 1000, 1000, 123456789)
EXECUTABLE = Attributes(0o100755, 0, 0, -5)
LINK = Attributes(0o120777, 1000, 1000, 7)
LARGE = LargeContent(hashlib.sha256(b"large").hexdigest(), 1 << 30)


@pytest.fixture
def objects(tmp_path: Path) -> GitObjects:
    return GitObjects(tmp_path / "git")


def root(changes: dict[bytes, FileChange | DirChange | None], base: str | None = None) -> DirChange:
    return DirChange(DIR, base, changes)


def file(content: bytes | LargeContent | BlobContent = b"x", attributes: Attributes = FILE) -> FileChange:
    return FileChange(attributes, content)


def listed(objects: GitObjects, tree: str) -> dict[bytes, TreeEntry]:
    return {entry.name: entry for entry in list_tree(objects, tree, default_mtime_ns=77)}


def content_of(objects: GitObjects, entry: TreeEntry) -> bytes:
    from mvcfs.versions.git import gitattributes

    assert isinstance(entry.content, BlobContent)
    data = objects.read_kind(entry.content.oid, "blob")
    if entry.content.stripped:
        data = gitattributes.split(data).user
    assert len(data) == entry.content.size_bytes
    return data


class NoBlobs(GitObjects):
    """Objects of which only `.mvcfs-attrs` may be read."""

    allowed: frozenset[str] = frozenset()

    def read(self, oid: str) -> tuple[str, bytes]:
        kind, data = super().read(oid)
        assert kind == "tree" or data.startswith(b'{"mvcfs-attrs"'), "a file's blob was read"
        return kind, data

    def header(self, oid: str) -> tuple[str, int]:
        raise AssertionError("a file's blob was looked at")


# --- what is written is read


def test_a_directory_of_every_kind_of_thing(objects: GitObjects) -> None:
    xattrs = ((b"user.a", b"\0\xff"), (b"user.\xff", b""))
    changes: dict[bytes, FileChange | DirChange | None] = {
        b"file": file(b"hello"),
        b"empty": file(b""),
        b"run": file(b"#!", EXECUTABLE),
        b"link": file(b"target/\xff", LINK),
        b"large": file(LARGE),
        b"dir": DirChange(Attributes(0o041777, 3, 4, 9), None, {b"sub": DirChange(DIR)}),
        b"hard": file(b"h", Attributes(0o100600, 1, 2, 3, 2, "group-1")),
        b"x": file(b"h", Attributes(0o104755, 1, 2, 3, xattrs=xattrs)),
    }
    tree = build_tree(objects, root(changes))
    found = listed(objects, tree)
    assert set(found) == set(changes)
    for name, change in changes.items():
        assert change is not None
        assert found[name].attributes == change.attributes
    assert content_of(objects, found[b"link"]) == b"target/\xff"
    assert found[b"large"].content == LARGE
    assert found[b"dir"].tree is not None
    (sub,) = list_tree(objects, found[b"dir"].tree, default_mtime_ns=0)
    assert sub.tree is not None
    assert sub.name == b"sub"
    assert list_tree(objects, sub.tree, default_mtime_ns=0) == ()
    assert root_attributes(objects, tree) == DIR


def test_an_empty_root_and_an_empty_directory_have_trees(objects: GitObjects) -> None:
    tree = build_tree(objects, root({b"d": DirChange(DIR)}))
    empty = build_tree(objects, root({}))
    assert [entry.name for entry in objects.read_tree(empty)] == [ATTRS_NAME]
    assert build_tree(objects, root({b"d": None}, tree)) == empty
    assert list_tree(objects, empty, default_mtime_ns=0) == ()


NASTY = [
    b".git", b".GIT", b"git~1", b".gitmodules", b".mvcfs-attrs", b".mvcfs-name-00000000000000000000000000000000", b"\xff\xfe",
    b"a\nb", b'"', b"\\", b"*", b" ", b"-", b"#x", "\u200c.git".encode(), b".git\xff", b"~", b"a" * 255, b"[x]", b".gitattributes",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY, ids=repr)
def test_any_name_for_anything(objects: GitObjects, name: bytes) -> None:
    things: list[FileChange | DirChange] = [
        file(b"data"), file(b"data", EXECUTABLE), file(b"target", LINK), file(LARGE), DirChange(DIR, None, {b"f": file()}),
    ]  # fmt: skip
    for thing in things:
        tree = build_tree(objects, root({name: thing, b"other": file(LARGE)}))
        found = listed(objects, tree)
        assert set(found) == {name, b"other"}
        assert found[name].attributes == thing.attributes
        # Nobody touches it; it is replaced; it goes.
        again = build_tree(objects, root({b"more": file()}, tree))
        assert build_tree(objects, root({b"more": None}, again)) == tree
        assert build_tree(objects, root({name: thing}, tree)) == tree
        without = build_tree(objects, root({name: None}, tree))
        assert without == build_tree(objects, root({b"other": file(LARGE)}))


def test_real_git_is_content_with_nasty_names(objects: GitObjects, tmp_path: Path) -> None:
    changes: dict[bytes, FileChange | DirChange | None] = {name: file(b"data of " + name) for name in NASTY}
    changes[b"large"] = file(LARGE)
    changes[b"larg e*"] = file(LargeContent("0" * 64, 70000))
    links: dict[bytes, FileChange | DirChange | None] = {name: file(b"x", LINK) for name in NASTY}
    folders: dict[bytes, FileChange | DirChange | None] = {name: DirChange(DIR) for name in NASTY}
    larges: dict[bytes, FileChange | DirChange | None] = {name: file(LARGE) for name in NASTY}
    tree = build_tree(
        objects,
        root(changes | {b"1": DirChange(DIR, None, links), b"2": DirChange(DIR, None, folders), b"3": DirChange(DIR, None, larges)}),
    )  # fmt: skip
    who = Signature("Müller <x>\n", "a b", 1700000000, 60)
    commit = objects.write_commit(RawCommit(tree, (), who, who, "subject"))
    objects.add_pack(*objects.write_pack(objects.memory_objects(), tmp_path, "pack-a"))
    git = ["git", "--git-dir", str(objects.git_dir)]
    subprocess.run([*git, "update-ref", "refs/heads/main", commit], check=True)
    done = subprocess.run([*git, "fsck", "--strict", "--full"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    work = tmp_path / "work"
    environment = {**os.environ, "GIT_LFS_SKIP_SMUDGE": "1"}
    subprocess.run(["git", "clone", "-q", objects.git_dir, work], check=True, env=environment)
    assert subprocess.run(["git", "-C", work, "status", "--porcelain"], capture_output=True, check=True).stdout == b""
    assert (work / "a\nb").read_bytes() == b"data of a\nb"
    files = subprocess.run(["git", "-C", work, "lfs", "ls-files", "-n"], capture_output=True, check=True).stdout
    assert {b"large", b"larg e*", b"3/*"} <= set(files.split(b"\n"))
    names = [b"large", b"larg e*", b"3/\\", b'3/"', b"3/a\nb", b"3/\xff\xfe", b"file", b"1/*"]
    checked = subprocess.run(
        ["git", "-C", work, "check-attr", "-z", "--stdin", "filter"], input=b"\0".join(names), capture_output=True, check=True
    ).stdout.split(b"\0")[2::3]  # fmt: skip
    assert checked == [b"lfs"] * 6 + [b"unspecified"] * 2


def test_bytes_that_read_as_a_pointer_are_refused(objects: GitObjects) -> None:
    with pytest.raises(ValueError, match="pointer"):
        build_tree(objects, root({b"x": file(make_pointer(LARGE))}))
    build_tree(objects, root({b"x": file(make_pointer(LARGE), LINK)}))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0"], ids=repr)
def test_names_that_no_directory_can_hold_are_refused(objects: GitObjects, name: bytes) -> None:
    with pytest.raises(ValueError, match="called"):
        build_tree(objects, root({name: file()}))


def test_kinds_that_versions_dont_hold_are_refused(objects: GitObjects) -> None:
    with pytest.raises(ValueError, match="neither"):
        build_tree(objects, root({b"fifo": file(b"", Attributes(stat.S_IFIFO | 0o644, 0, 0, 0))}))
    with pytest.raises(ValueError, match="directory"):
        build_tree(objects, root({b"d": DirChange(FILE)}))


def test_a_very_deep_tree(objects: GitObjects) -> None:
    change = DirChange(DIR, None, {b"f": file()})
    for _ in range(3000):
        change = DirChange(DIR, None, {b"d": change})
    assert build_tree(objects, change)


# --- no blob is read where rows say it all


def test_listing_reads_rows_only(tmp_path: Path) -> None:
    objects = NoBlobs(tmp_path / "git")
    changes: dict[bytes, FileChange | DirChange | None] = {b"s%d" % i: file(b"%d" % i) for i in range(1500)}
    changes |= {b"l%d" % i: file(LargeContent(f"{i:064x}", 65536 + i)) for i in range(50)}
    changes |= {GITATTRIBUTES: file(b"* text"), b"d": DirChange(DIR, None, {b"only": file(LARGE)})}
    tree = build_tree(objects, root(changes))
    found = listed(objects, tree)
    assert set(found) == set(changes)
    assert found[b"l3"].content == LargeContent(f"{3:064x}", 65539)
    assert found[GITATTRIBUTES].content == BlobContent(objects.read_tree(tree)[0].oid, 6, True)
    assert set(listed(objects, str(found[b"d"].tree))) == {b"only"}


# --- .gitattributes


@pytest.mark.parametrize(
    "user", [b"", b"* text\n", b"no line break", b"a\0b", b"x" * 3000, b"# mvcfs begin\n# mvcfs end\n"], ids=len
)
def test_the_users_gitattributes_come_back_byte_for_byte(objects: GitObjects, user: bytes) -> None:
    tree = build_tree(objects, root({GITATTRIBUTES: file(user)}))
    small = listed(objects, tree)[GITATTRIBUTES]
    assert content_of(objects, small) == user
    with_large = build_tree(objects, root({b"l": file(LARGE)}, tree))
    entry = listed(objects, with_large)[GITATTRIBUTES]
    assert content_of(objects, entry) == user
    assert entry.attributes == FILE
    assert build_tree(objects, root({b"l": None}, with_large)) == tree
    # Passed back as it was read, and moved to other names.
    assert isinstance(entry.content, BlobContent)
    assert build_tree(objects, root({GITATTRIBUTES: file(entry.content)}, with_large)) == with_large
    assert isinstance(small.content, BlobContent)
    assert build_tree(objects, root({GITATTRIBUTES: file(small.content)}, with_large)) == with_large
    moved = build_tree(objects, root({GITATTRIBUTES: None, b"copy": file(entry.content)}, with_large))
    assert moved == build_tree(objects, root({b"l": file(LARGE), b"copy": file(user)}))


def test_a_directory_without_the_users_gitattributes_shows_none(objects: GitObjects) -> None:
    tree = build_tree(objects, root({b"l": file(LARGE)}))
    assert set(listed(objects, tree)) == {b"l"}
    with_user = build_tree(objects, root({GITATTRIBUTES: file(b"x\n")}, tree))
    assert set(listed(objects, with_user)) == {b"l", GITATTRIBUTES}
    assert build_tree(objects, root({GITATTRIBUTES: None}, with_user)) == tree
    assert build_tree(objects, root({b"l": file(b"small now")}, tree)) == build_tree(
        objects, root({b"l": file(b"small now")})
    )


def test_a_foreign_gitattributes_keeps_its_content_beside_a_block(objects: GitObjects) -> None:
    for data, mode in ((b"*.bin filter=lfs\n", 0o100644), (b"a\0b", 0o100644), (b"target", 0o120000)):
        base = objects.write_tree([RawEntry(GITATTRIBUTES, mode, objects.write("blob", data))])
        tree = build_tree(objects, root({b"l": file(LARGE)}, base))
        found = listed(objects, tree)
        assert set(found) == {b"l", GITATTRIBUTES}
        assert content_of(objects, found[GITATTRIBUTES]) == data


# --- sharding


def test_shards_appear_and_go_with_the_number_of_entries(objects: GitObjects) -> None:
    def names(count: int) -> dict[bytes, FileChange | DirChange | None]:
        return {b"%d" % i: file(b"%d" % i) for i in range(count)}

    def is_sharded(tree: str) -> bool:
        return next(entry for entry in objects.read_tree(tree) if entry.name == ATTRS_NAME).mode == 0o040000

    thousand = build_tree(objects, root(names(1000)))
    assert not is_sharded(thousand)
    more = build_tree(objects, root({b"1000": file(b"1000")}, thousand))
    assert is_sharded(more)
    assert more == build_tree(objects, root(names(1001)))
    assert build_tree(objects, root({b"1000": None}, more)) == thousand
    before = objects.memory_objects()
    touched = build_tree(objects, root({b"7": file(b"seven")}, more))
    # The file, its shard, the tree of shards, the tree.
    assert len(objects.memory_objects() - before) == 4
    assert root_attributes(objects, touched) == DIR
    assert len(listed(objects, touched)) == 1001


# --- the id depends on the content only

names = st.sampled_from([b"a", b"b", b".git", GITATTRIBUTES, b".gitmodules", b"l", b".mvcfs-name-1", b"\xff"])
attributes = st.builds(
    Attributes, st.sampled_from([0o100644, 0o100755, 0o100600]), st.integers(0, 2), st.just(0), st.integers(-3, 3)
)
files = st.builds(FileChange, attributes, st.sampled_from([b"", b"1", b"* text", b"z\0", LARGE]))
symlinks = st.builds(FileChange, st.just(LINK), st.sampled_from([b"t", b"u"]))
Model = dict  # name -> FileChange or Model
steps = st.lists(
    st.tuples(st.lists(st.sampled_from([b"d", b"e", GITATTRIBUTES]), max_size=2), names, st.none() | files | symlinks | st.just("dir")),
    max_size=4,
)  # fmt: skip


def as_change(model: dict[bytes, object]) -> DirChange:
    return DirChange(
        DIR, None, {name: as_change(v) if isinstance(v, dict) else v for name, v in model.items()}  # type: ignore[misc]
    )  # fmt: skip


def apply(model: dict[bytes, object], step: tuple[list[bytes], bytes, object]) -> None:
    path, name, what = step
    for part in path:
        if not isinstance(model.get(part), dict):
            model[part] = {}
        model = model[part]  # type: ignore[assignment]
    if what is None:
        model.pop(name, None)
    else:
        model[name] = {} if what == "dir" else what


def difference(objects: GitObjects, tree: str | None, old: dict[bytes, object], new: dict[bytes, object]) -> DirChange:
    entries = {} if tree is None else listed(objects, tree)
    changes: dict[bytes, FileChange | DirChange | None] = {}
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(after, dict):
            if isinstance(before, dict):
                changes[name] = difference(objects, entries[name].tree, before, after)
            else:
                changes[name] = as_change(after)
        else:
            changes[name] = after  # type: ignore[assignment]
    return DirChange(DIR, tree, changes)


@settings(max_examples=150, deadline=None)
@given(commits=st.lists(steps, max_size=5))
def test_the_id_of_a_tree_is_a_function_of_what_it_holds(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[tuple[list[bytes], bytes, object]]]
) -> None:
    import copy

    objects = GitObjects(tmp_path_factory.mktemp("h") / "git")
    model: dict[bytes, object] = {}
    tree = build_tree(objects, root({}))
    for commit in commits:
        old = copy.deepcopy(model)
        for step in commit:
            apply(model, step)
        tree = build_tree(objects, difference(objects, tree, old, model))
        assert tree == build_tree(objects, as_change(model))
        check_same(objects, tree, model)


def check_same(objects: GitObjects, tree: str, model: dict[bytes, object]) -> None:
    found = listed(objects, tree)
    assert set(found) == set(model)
    for name, wanted in model.items():
        if isinstance(wanted, dict):
            check_same(objects, str(found[name].tree), wanted)
        else:
            assert isinstance(wanted, FileChange)
            assert found[name].attributes == wanted.attributes
            if isinstance(wanted.content, bytes):
                assert content_of(objects, found[name]) == wanted.content
            else:
                assert found[name].content == wanted.content


# --- trees that others made


def test_entries_without_rows_have_gits_modes_and_the_commits_time(objects: GitObjects) -> None:
    blob, pointer = objects.write("blob", b"hello"), objects.write("blob", make_pointer(LARGE))
    sub = objects.write_tree([RawEntry(b"x", 0o100644, blob)])
    tree = objects.write_tree(
        [
            RawEntry(b"f", 0o100644, blob), RawEntry(b"old", 0o100664, blob), RawEntry(b"x", 0o100755, blob),
            RawEntry(b"l", 0o120000, blob), RawEntry(b"p", 0o100644, pointer), RawEntry(b"d", 0o040000, sub),
            RawEntry(b"module", 0o160000, "1" * 40),
        ]
    )  # fmt: skip
    found = listed(objects, tree)
    assert {name: oct(entry.attributes.mode) for name, entry in found.items()} == {
        b"f": "0o100644", b"old": "0o100644", b"x": "0o100755", b"l": "0o120777", b"p": "0o100644", b"d": "0o40755", b"module": "0o40755",
    }  # fmt: skip
    assert {entry.attributes.mtime_ns for entry in found.values()} == {77}
    assert found[b"p"].content == LARGE
    assert found[b"module"].tree == EMPTY_TREE_OID
    assert list_tree(objects, EMPTY_TREE_OID, default_mtime_ns=0) == ()
    # A change elsewhere leaves them as they stand, the gitlink too.
    after = objects.read_tree(build_tree(objects, root({b"new": file()}, tree)))
    assert {entry for entry in objects.read_tree(tree) if entry.name != b"old"} <= set(after)


def hostile_tree(objects: GitObjects, rows: list[AttrRow], entries: list[RawEntry]) -> str:
    attrs = RawEntry(ATTRS_NAME, 0o100644, objects.write("blob", serialise_rows(rows)))
    return objects.write_tree([attrs, *entries])


def test_a_row_that_lies_is_ignored(objects: GitObjects) -> None:
    blob, pointer = objects.write("blob", b"hello"), objects.write("blob", make_pointer(LARGE))
    entry = RawEntry(b"f", 0o100644, blob)
    lies = [
        AttrRow(b"f", FILE, "0" * 40, 1),
        AttrRow(b"f", EXECUTABLE, blob, 1),
        AttrRow(b"f", LINK, blob, 1),
        AttrRow(b"f", DIR, None, 1),
        AttrRow(b"f", FILE, blob, LARGE.size_bytes, LARGE.oid),
        AttrRow(b"f", FILE, blob, 5, block="only"),
        AttrRow(b"wrong", FILE, blob, 5, tree_name=escape_name(b"other")),
    ]
    for lie in lies:
        (found,) = listed(objects, hostile_tree(objects, [lie], [entry])).values()
        assert found == TreeEntry(b"f", Attributes(0o100644, 0, 0, 77), BlobContent(blob, 5))
    # Another hash, or another size, isn't what the pointer says.
    for oid, size in (("0" * 64, LARGE.size_bytes), (LARGE.oid, 65536)):
        tree = hostile_tree(objects, [AttrRow(b"p", FILE, pointer, size, oid)], [RawEntry(b"p", 0o100644, pointer)])
        assert listed(objects, tree)[b"p"].content == LARGE


def test_an_escaped_entry_needs_a_row_with_its_true_name(objects: GitObjects) -> None:
    blob = objects.write("blob", b"hello")
    name = escape_name(b".git")
    entry = RawEntry(name, 0o100644, blob)
    row = AttrRow(b".git", FILE, blob, 5, tree_name=name)
    assert set(listed(objects, hostile_tree(objects, [row], [entry]))) == {b".git"}
    assert set(listed(objects, hostile_tree(objects, [], [entry]))) == {name}
    for bad in (b"..", b"", b"a/b"):
        escaped = escape_name(bad)
        lie = AttrRow(bad, FILE, blob, 5, tree_name=escaped)
        assert set(listed(objects, hostile_tree(objects, [lie], [RawEntry(escaped, 0o100644, blob)]))) == {escaped}


def test_names_that_no_directory_can_hold_are_left_out(objects: GitObjects, caplog: pytest.LogCaptureFixture) -> None:
    blob = objects.write("blob", b"hello")
    entries = [RawEntry(name, 0o100644, blob) for name in (b"", b".", b"..", b"a/b", b"ok", b"ok")]
    entries.append(RawEntry(b"odd", 0o020000, blob))
    tree = objects.write_tree(entries)
    with caplog.at_level(logging.WARNING):
        assert [entry.name for entry in list_tree(objects, tree, default_mtime_ns=0)] == [b"ok"]
    assert len(caplog.records) == 6
    rebuilt = build_tree(objects, root({b"new": file()}, tree))
    assert [entry.name for entry in objects.read_tree(rebuilt)] == [ATTRS_NAME, b"new", b"ok"]


def test_a_missing_object_is_named(objects: GitObjects) -> None:
    tree = objects.write_tree([RawEntry(b"f", 0o100644, "1" * 40)])
    with pytest.raises(CorruptData, match="1" * 40):
        list_tree(objects, tree, default_mtime_ns=0)
    with pytest.raises(CorruptData, match="2" * 40):
        list_tree(objects, "2" * 40, default_mtime_ns=0)


def test_the_cache_is_bounded_by_entries(objects: GitObjects) -> None:
    reader = TreeReader(objects, max_entries=25)
    trees = [build_tree(objects, root({b"%d" % i: file(b"%d" % n) for i in range(10)})) for n in range(5)]
    for tree in trees:
        assert len(reader.list(tree, default_mtime_ns=0)) == 10
        assert reader.cached_entries <= 25
    assert reader.list(trees[-1], default_mtime_ns=1) is reader.list(trees[-1], default_mtime_ns=2)
    big = build_tree(objects, root({b"%d" % i: file() for i in range(100)}))
    assert reader.list(big, default_mtime_ns=0) is reader.list(big, default_mtime_ns=0)
    foreign = objects.write_tree([RawEntry(b"f", 0o100644, objects.write("blob", b""))])
    assert reader.list(foreign, default_mtime_ns=1)[0].attributes.mtime_ns == 1
    assert reader.list(foreign, default_mtime_ns=2)[0].attributes.mtime_ns == 2
