"""Names that Git refuses stand escaped; models, branches and tags are called by Git's rules and a few of ours."""

import re
import subprocess
from pathlib import Path

import pytest

from mvcfs.errors import InvalidName
from mvcfs.versions.git.format import RawEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.names import (
    check_model_name,
    check_ref_name,
    escape_name,
    is_entry_name,
    is_harmless_gitmodules,
    is_refused,
)

REFUSED = [
    b".git", b".GIT", b".Git", b".git ", b".git.", b".git...", b".git . .", b"git~1", b"GIT~1", b"git~1 .",
    b".git:stream", b".git::$INDEX_ALLOCATION", b"a\\.git", b"a\\git~1", b"\\.git", b".git\\x",
    ".g\u200cit".encode(), "\u200d.git".encode(), "\ufeff.GiT".encode(), ".git\u206f".encode(), b".git\xff", b".git\xffabc",
    b".g\xe2\x80\x8cit\xff",
    b".gitmodules ", b".GITMODULES", b"gitmod~1", b"gitmod~4", b"GI7EBA~1", b"gi7eb~10", b".gitmodules:x", ".gitm\u200codules".encode(),
    b".gitmodules\xff", b"~1000000", b"g~123456", b"a\\.gitmodules",
    b".GitAttributes", b"gitatt~1", b"gi7d29~9", ".gitattributes\u200f".encode(),
    b".mvcfs-attrs", b".mvcfs-name-", b".mvcfs-name-0123",
]  # fmt: skip
TAKEN = [
    b".gitignore", b".github", b".gitx", b"git", b"git~2", b"git~10", b"a.git", b"x.git", b".gi", b".g", b"~", b"~1", b"a~1", b"~12345678",
    b"\xff\xfe", b"a\nb", b" ", b'"', b"\\", b"*", b"con", b".gitkeep", b"..a", b"...", b".git-rewrite", "é.git".encode(), b"\xc3.git",
    b".gitattributes", b".gitmodules", b".mvcfs", b".mvcfsignore", b".mailmap", b"gi7eba~x", b"-", b"#", b"!a", b"a" * 255,
]  # fmt: skip


def fsck_refuses(folder: Path, names: list[bytes]) -> set[bytes]:
    """Which of the names real Git objects to when a symlink is called so."""
    subprocess.run(["git", "init", "-q", "--bare", folder], check=True)
    objects = GitObjects(folder)
    target = objects.write("blob", b"target")
    trees = {objects.write_tree([RawEntry(name, 0o120000, target)]): name for name in names}
    objects.add_pack(*objects.write_pack(objects.memory_objects(), folder, "pack-x"))
    done = subprocess.run(["git", "--git-dir", folder, "fsck", "--strict"], capture_output=True, text=True)
    return {trees[oid] for oid in re.findall(r"^error in tree (\w{40})", done.stderr, re.MULTILINE)}


def test_every_name_that_git_refuses_is_escaped(tmp_path: Path) -> None:
    refused = fsck_refuses(tmp_path / "git", REFUSED + TAKEN)
    assert len(refused) > 20
    assert [name for name in refused if not is_refused(name) and name != b".gitmodules"] == []


@pytest.mark.parametrize("name", REFUSED, ids=repr)
def test_is_escaped(name: bytes) -> None:
    assert is_refused(name)
    assert is_refused(escape_name(name))


@pytest.mark.parametrize("name", TAKEN, ids=repr)
def test_stands_as_it_is(name: bytes) -> None:
    assert not is_refused(name)


def test_an_escaped_name_is_made_of_the_hash_of_the_true_one() -> None:
    assert escape_name(b".git").startswith(b".mvcfs-name-")
    assert len(escape_name(b".git")) == 12 + 32
    assert escape_name(b".git") != escape_name(b".Git")


def test_names_that_no_directory_can_hold() -> None:
    assert not any(map(is_entry_name, [b"", b".", b"..", b"a/b", b"/", b"a\0"]))
    assert all(map(is_entry_name, [b"a", b"...", b"\xff", b"\\"]))


GITMODULES = {
    b'[submodule "a/b"]\n\tpath = a/b\n\turl = https://example.org/x.git\n\tbranch = main\n': True,
    b"": True,
    b"# a comment\n\n": True,
    b'[submodule "x"]\n\turl = git@example.org:a/b.git\n': True,
    b'[submodule "../x"]\n\turl = https://example.org/x\n': False,
    b'[submodule "a/../x"]\n\turl = https://example.org/x\n': False,
    b'[submodule "x"]\n\turl = -u./payload\n': False,
    b'[submodule "x"]\n\tpath = -x\n': False,
    b'[submodule "x"]\n\tupdate = !rm\n': False,
    b"garbage": False,
}


@pytest.mark.parametrize(("text", "harmless"), GITMODULES.items(), ids=repr)
def test_gitmodules_keeps_its_name_only_if_git_surely_accepts_it(text: bytes, harmless: bool, tmp_path: Path) -> None:
    assert is_harmless_gitmodules(text) is harmless
    if not harmless:
        return
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitmodules").write_bytes(text)
    subprocess.run(["git", "-C", tmp_path, "add", "-A"], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", tmp_path, *identity, "commit", "-qm", "x"], check=True)
    done = subprocess.run(["git", "-C", tmp_path, "fsck", "--strict"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


BAD_MODELS = [
    "", ".x", "a/b", "a\\b", "a:b", "a@b", "a~b", "a^", "a?", "a*", "a[", "x.lock", "a\nb", "a\x7f", "a" * 201, "é" * 101, "\udc80",
]  # fmt: skip
BAD_REFS = [
    "", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a..b", "a b", "a.", "a@b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b",
    "-a", "HEAD", "a\tb", "@", "a" * 201, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS, ids=ascii)
def test_no_model_is_called(name: str) -> None:
    with pytest.raises(InvalidName, match="model"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["llama", "Llama 3", "é", "a..b", "a" * 200, "7b", "-x", "a.b"])
def test_a_model_may_be_called(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize("name", BAD_REFS, ids=ascii)
def test_no_branch_is_called(name: str) -> None:
    with pytest.raises(InvalidName, match="branch"):
        check_ref_name(name)


@pytest.mark.parametrize("name", ["main", "feature/x", "exp-lr3", "v1.0", "a/b/c", "é", "a" * 200, "{x}", "a-"])
def test_a_branch_may_be_called(name: str) -> None:
    check_ref_name(name)
    subprocess.run(["git", "check-ref-format", "--branch", name], check=True, capture_output=True)


def test_the_message_names_the_rule() -> None:
    with pytest.raises(InvalidName, match=r"tag name 'a@b' contains '@'; none of"):
        check_ref_name("a@b", "tag")
