"""Git objects in memory and in packs, and walks over them; real Git reads what was written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcfs.errors import CorruptData, NotFound
from mvcfs.types import LargeContent
from mvcfs.versions.git import walks
from mvcfs.versions.git.format import (
    RawCommit,
    RawEntry,
    RawTag,
    Signature,
    object_id,
    parse_commit,
    parse_tag,
    parse_tree,
    serialise_commit,
    serialise_tag,
    serialise_tree,
)
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pointer import make_pointer

WHO = Signature("A U Thor", "author@example.org", 1700000000, 90)


@pytest.fixture
def objects(tmp_path: Path) -> GitObjects:
    return GitObjects(tmp_path / "git")


def git(objects: GitObjects, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--git-dir", str(objects.git_dir), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def pack_all(objects: GitObjects, directory: Path, name: str = "pack-x") -> None:
    objects.add_pack(*objects.write_pack(objects.memory_objects(), directory, name))
    objects.forget(objects.memory_objects())


def commit(objects: GitObjects, *parents: str, time_s: int = 0, tree: str | None = None) -> str:
    who = Signature("a", "a@example.org", time_s)
    return objects.write_commit(RawCommit(tree or objects.write_tree([]), parents, who, who, f"commit at {time_s}"))


def test_objects_are_the_same_in_memory_and_in_a_pack(objects: GitObjects, tmp_path: Path) -> None:
    blob = objects.write("blob", b"hello\n")
    tree = objects.write_tree([RawEntry(b"b\xff", 0o100644, blob), RawEntry(b"a", 0o100755, blob)])
    made = RawCommit(tree, (), WHO, Signature("Ö", "", 5, -210), "subject\n\nbody\n")
    tip = objects.write_commit(made)
    tag = objects.write_tag(RawTag(tip, "commit", "v1", WHO, "a tag\n"))
    for _ in range(2):
        assert objects.read(blob) == ("blob", b"hello\n")
        assert objects.header(blob) == ("blob", 6)
        assert objects.read_tree(tree) == [RawEntry(b"a", 0o100755, blob), RawEntry(b"b\xff", 0o100644, blob)]
        assert objects.read_commit(tip) == made
        assert objects.read_tag(tag).target == tip
        assert objects.peel(tag) == objects.peel(tip) == tip
        assert objects.has(tag)
        assert objects.find_prefix(tip[:8].upper()) == [tip]
        if objects.memory_objects():
            assert objects.memory_bytes > 6
            pack_all(objects, tmp_path)
    assert objects.memory_objects() == set()
    assert objects.in_packs(blob)
    assert set(objects.packed_objects()) == {blob, tree, tip, tag}
    assert git(objects, "cat-file", "-p", tip).endswith("subject\n\nbody\n")
    assert "error" not in git(objects, "fsck", "--strict", "--full")


def test_what_a_pack_has_is_not_kept_again(objects: GitObjects, tmp_path: Path) -> None:
    blob = objects.write("blob", b"x")
    pack_all(objects, tmp_path)
    assert objects.write("blob", b"x") == blob
    assert objects.memory_objects() == set()


def test_forget_keeps_what_no_pack_has(objects: GitObjects) -> None:
    blob = objects.write("blob", b"x")
    objects.forget([blob, "1" * 40])
    assert objects.has(blob)
    objects.discard([blob, "1" * 40])
    assert not objects.has(blob)


def test_packs_put_there_and_taken_away_are_noticed(objects: GitObjects, tmp_path: Path) -> None:
    other = GitObjects(tmp_path / "other")
    blob = other.write("blob", b"from elsewhere")
    pack, index = other.write_pack([blob], tmp_path, "pack-y")
    assert not objects.has(blob)
    os.rename(pack, objects.pack_dir / "pack-y.pack")
    os.rename(index, objects.pack_dir / "pack-y.idx")
    objects.rescan()
    assert objects.read(blob) == ("blob", b"from elsewhere")
    for path in list(objects.pack_dir.iterdir()):
        path.unlink()
    objects.rescan()
    assert not objects.has(blob)


def test_reading_goes_on_while_another_thread_rescans(objects: GitObjects, tmp_path: Path) -> None:
    blobs = [objects.write("blob", b"%d" % n) for n in range(500)]
    pack_all(objects, tmp_path)
    done = threading.Event()

    def rescan() -> None:
        while not done.is_set():
            objects.rescan()

    thread = threading.Thread(target=rescan)
    thread.start()
    try:
        for _ in range(5):
            assert [objects.read(blob)[1] for blob in blobs] == [b"%d" % n for n in range(500)]
    finally:
        done.set()
        thread.join()


def test_packs_are_joined(objects: GitObjects, tmp_path: Path) -> None:
    blobs = []
    for n in range(3):
        blobs.append(objects.write("blob", b"%d" % n))
        pack_all(objects, tmp_path, f"pack-{n}")
    blobs.append(objects.write("blob", b"in memory"))
    pack, index = objects.write_pack(blobs, tmp_path, "pack-joined")
    for path in list(objects.pack_dir.iterdir()):
        path.unlink()
    objects.add_pack(pack, index)
    objects.rescan()
    assert set(objects.packed_objects()) == set(blobs)


def test_missing_objects_are_named(objects: GitObjects, tmp_path: Path) -> None:
    for call in (objects.read, objects.header, objects.read_tree, objects.read_commit, objects.peel):
        with pytest.raises(NotFound, match="1" * 40):
            call("1" * 40)
    with pytest.raises(NotFound, match="1" * 40):
        objects.write_pack(["1" * 40], tmp_path, "pack-z")
    with pytest.raises(NotFound, match="no id"):
        objects.read("main")
    with pytest.raises(ValueError, match="needs"):
        objects.write_pack([], tmp_path, "pack-z")


def test_an_object_of_another_type_is_damage(objects: GitObjects) -> None:
    blob = objects.write("blob", b"x")
    with pytest.raises(CorruptData, match="is a blob, not a tree"):
        objects.read_tree(blob)
    with pytest.raises(CorruptData, match="no commit"):
        objects.peel(blob)


def test_a_damaged_pack_gives_no_wrong_bytes(objects: GitObjects, tmp_path: Path) -> None:
    blob = objects.write("blob", os.urandom(5000))
    pack, index = objects.write_pack([blob], tmp_path, "pack-d")
    data = bytearray(pack.read_bytes())
    data[2500] ^= 0x55
    pack.chmod(0o600)
    pack.write_bytes(data)
    objects.add_pack(pack, index)
    objects.discard([blob])
    with pytest.raises(CorruptData, match=blob):
        objects.read(blob)


def test_threads_read_write_and_pack_at_once(objects: GitObjects, tmp_path: Path) -> None:
    blobs = [objects.write("blob", b"%d" % n) for n in range(2000)]
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            if number == 0:
                objects.add_pack(*objects.write_pack(blobs, tmp_path, "pack-t"))
                objects.forget(blobs)
            for n, blob in enumerate(blobs):
                assert objects.read(blob) == ("blob", b"%d" % n)
                objects.write("blob", b"%d %d" % (number, n))
        except BaseException as error:  # noqa: BLE001 - the main thread looks at it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not set(blobs) & objects.memory_objects()


# --- the bytes


@given(st.lists(st.tuples(st.binary(max_size=9).map(lambda n: n.replace(b"\0", b"0")), st.sampled_from([0o40000, 0o100644])), unique_by=lambda e: e[0]))  # fmt: skip
def test_trees_come_back(made: list[tuple[bytes, int]]) -> None:
    entries = [RawEntry(name, mode, "ab" * 20) for name, mode in made]
    assert sorted(parse_tree(serialise_tree(entries))) == sorted(entries)


@pytest.mark.parametrize(
    "data", [b"x", b"100644 a\0" + b"1" * 19, b"100644 a" + b"1" * 21, b"junk100644 a\0" + b"1" * 20 + b"x"]
)
def test_what_is_no_tree_is_damage(data: bytes) -> None:
    with pytest.raises(CorruptData, match="valid tree"):
        parse_tree(data)


ODD_PEOPLE = [
    Signature("", "", 0), Signature("<>", "<>", -5), Signature("a\nb\0c", "a b@c>\n", 1 << 70, 14 * 60), Signature(" . ", ",", 1, -1),
    Signature("\udc80", "\ud800", 1), Signature("Müller", "m@é", 1, -720),
]  # fmt: skip


@pytest.mark.parametrize("who", ODD_PEOPLE, ids=ascii)
def test_git_accepts_whoever_writes(objects: GitObjects, tmp_path: Path, who: Signature) -> None:
    made = RawCommit(objects.write_tree([]), (), who, who, "odd\0 \udc80 message")
    tip = objects.write_commit(made)
    objects.write_tag(RawTag(tip, "commit", "v1", who, "x"))
    pack_all(objects, tmp_path)
    done = subprocess.run(["git", "--git-dir", objects.git_dir, "fsck", "--strict"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert objects.read_commit(tip).message == "odd ? message\n"


@given(st.text(max_size=9), st.text(max_size=9), st.integers(0, 1 << 40), st.integers(-720, 840), st.text(max_size=9))
def test_commits_come_back(name: str, email: str, time_s: int, offset: int, message: str) -> None:
    who = Signature(name, email, time_s, offset)
    once = parse_commit(serialise_commit(RawCommit("a" * 40, ("b" * 40,), who, WHO, message)))
    assert (once.tree, once.parents, once.committer) == ("a" * 40, ("b" * 40,), WHO)
    assert (once.author.time_s, once.author.offset_min) == (time_s, offset)
    assert parse_commit(serialise_commit(once)) == once


HEAD = b"tree " + b"a" * 40 + b"\n"
ODD_COMMITS = {
    HEAD + b"\n": ("", ""),
    HEAD + b"author nobody\ncommitter x\n\nm": ("nobody", "m"),
    HEAD + b"author A <a> 99999999999999999999999 +99999999\ncommitter A <a>\n\nm": ("A", "m"),
    HEAD + b"author A <a> -5 -0130\ncommitter A <a> 1 +0000\ngpgsig -----BEGIN\n tree " + b"b" * 40 + b"\n -----END\n\nm": ("A", "m"),
    HEAD + b"author \xe9 <a> 1 +0000\ncommitter A <a> 1 +0000\nencoding latin-1\n\n\xe9": ("é", "é"),
    HEAD + b"author \xe9 <a> 1 +0000\ncommitter A <a> 1 +0000\nencoding \xffwhat\n\n\xe9": ("\ufffd", "\ufffd"),
    HEAD + b"author A <b <a> 1 +0000\ncommitter A <a> 1 +0000\n\nm": ("A", "m"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "wanted"), ODD_COMMITS.items(), ids=range(len(ODD_COMMITS)))
def test_odd_commits_are_read(data: bytes, wanted: tuple[str, str]) -> None:
    read = parse_commit(data)
    assert (read.tree, read.author.name, read.message) == ("a" * 40, *wanted)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_commit_or_damage(data: bytes) -> None:
    with contextlib.suppress(CorruptData):
        parse_commit(HEAD + data)
    for parse in (parse_commit, parse_tag, parse_tree):
        with contextlib.suppress(CorruptData):
            parse(data)


def test_tags_come_back() -> None:
    tag = RawTag("a" * 40, "commit", "v1", WHO, "message\n")
    assert parse_tag(serialise_tag(tag)) == tag
    assert parse_tag(b"object " + b"a" * 40 + b"\n").tagger is None


def test_ids_are_gits() -> None:
    assert object_id("blob", b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


# --- walks


def test_first_parents(objects: GitObjects) -> None:
    line = [commit(objects, time_s=0)]
    for n in range(1, 50):
        side = commit(objects, line[0], time_s=1000 + n)
        line.append(commit(objects, line[-1], side, time_s=n))
    line.reverse()
    assert list(walks.first_parents(objects, line[0])) == line
    assert list(walks.first_parents(objects, line[0], 3)) == line[:3]
    assert walks.is_first_parent_ancestor(objects, line[30], line[0])
    assert walks.is_first_parent_ancestor(objects, line[0], line[0])
    assert not walks.is_first_parent_ancestor(objects, line[0], line[1])
    assert not walks.is_first_parent_ancestor(objects, side, line[0])
    assert not walks.is_first_parent_ancestor(objects, line[30], line[0], 10)


@given(graph=st.lists(st.lists(st.integers(0, 30), max_size=2), min_size=2, max_size=14))
def test_a_merge_base_is_one_of_gits(tmp_path_factory: pytest.TempPathFactory, graph: list[list[int]]) -> None:
    objects = GitObjects(tmp_path_factory.mktemp("b") / "git")
    made: list[str] = []
    above: dict[str, set[str]] = {}
    for n, wanted in enumerate(graph):
        parents = list(dict.fromkeys(made[p % n] for p in wanted)) if n else []
        made.append(commit(objects, *parents, time_s=n))
        above[made[-1]] = {made[-1]}.union(*(above[p] for p in parents))
    left, right = made[-1], made[len(made) // 2]
    common = above[left] & above[right]
    best = {c for c in common if not any(c in above[d] for d in common - {c})}
    found = walks.merge_base(objects, left, right)
    assert found in best if best else found is None
    assert walks.merge_base(objects, right, left) == found


def history(objects: GitObjects) -> tuple[str, dict[str, str]]:
    blob, pointer = objects.write("blob", b"x"), objects.write("blob", make_pointer(LargeContent("c" * 64, 5)))
    sub = objects.write_tree([RawEntry(b"p", 0o100644, pointer)])
    module = RawEntry(b"module", 0o160000, "9" * 40)
    tree = objects.write_tree([RawEntry(b"f", 0o100644, blob), RawEntry(b"d", 0o40000, sub), module])
    first = commit(objects, tree=objects.write_tree([]), time_s=1)
    second = commit(objects, first, tree=tree, time_s=2)
    tag = objects.write_tag(RawTag(second, "commit", "v1", None, "x"))
    return tag, {"blob": blob, "pointer": pointer, "sub": sub, "tree": tree, "first": first, "second": second}


def test_everything_reachable_is_checked(objects: GitObjects) -> None:
    tag, parts = history(objects)
    assert walks.walk_missing(objects, [tag]) == []
    assert {oid for _, oid in walks.reachable(objects, [tag])} == objects.memory_objects()
    objects.discard([parts["sub"], parts["first"]])
    assert {oid for oid, _ in walks.walk_missing(objects, [tag])} == {parts["sub"], parts["first"]}


def test_an_object_named_as_another_type_is_reported(objects: GitObjects) -> None:
    blob = objects.write("blob", b"x")
    tree = objects.write_tree([RawEntry(b"d", 0o40000, blob)])
    assert walks.walk_missing(objects, [commit(objects, tree=tree)]) == [
        (blob, f"Git object {blob} is a blob, but is named as a tree")
    ]


def test_large_contents_are_found(objects: GitObjects) -> None:
    tag, _ = history(objects)
    assert walks.large_contents(objects, [tag]) == {LargeContent("c" * 64, 5)}


def test_a_publishs_pack_takes_what_no_pack_has(objects: GitObjects, tmp_path: Path) -> None:
    tag, parts = history(objects)
    objects.write("blob", b"of a build that came to nothing")
    everything = walks.memory_closure(objects, [tag])
    assert everything == set(parts.values()) | {tag, object_id("tree", b"")}
    objects.add_pack(*objects.write_pack(everything, tmp_path, "pack-1"))
    objects.forget(everything)
    new = commit(objects, parts["second"], tree=parts["tree"], time_s=3)
    assert walks.memory_closure(objects, [new]) == {new}
    with pytest.raises(NotFound):
        walks.memory_closure(objects, ["1" * 40])
