"""The block of `.gitattributes` says of the large files, and of nothing else, that they are LFS's; real Git is asked."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.versions.git.gitattributes import Split, compose, is_composable, pattern_for, split

NAMES = [
    b"plain", b"a b", b" lead", b"trail ", b"tab\tx", b"line\nbreak", b'"quoted"', b'a"b', b"back\\slash", b"end\\", b"\\\\",
    b"*", b"?", b"[a]", b"a*b?c[d]", b"[", b"]", b"#hash", b"!bang", b"-dash", b"[attr]x", b"\xff\xfe", "é ü".encode(), b"\x01\x7f",
    b"\r", b"a\\*b", b"{a,b}", b"~", b"$x", b"a=b", b"' '", b"\x0b\x0c",
]  # fmt: skip


def check_attr(folder: Path, names: list[bytes]) -> dict[bytes, bytes]:
    done = subprocess.run(
        ["git", "-C", folder, "check-attr", "-z", "--stdin", "filter"],
        input=b"".join(name + b"\0" for name in names),
        capture_output=True,
        check=True,
    )
    fields = done.stdout.split(b"\0")
    return dict(zip(fields[0::3], fields[2::3], strict=False))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_git_reads_the_pattern_as_this_name_and_no_other(name: bytes, repository: Path) -> None:
    (repository / ".gitattributes").write_bytes(compose(b"", [name]))
    others = [other for other in NAMES if other != name]
    for folder in (b"", b"sub/"):
        found = check_attr(repository, [folder + each for each in [name, *others]])
        assert found[folder + name] == (b"unspecified" if folder else b"lfs")
        assert {found[folder + other] for other in others} == {b"unspecified"}


def test_git_reads_a_block_of_all_odd_names_behind_what_the_user_wrote(repository: Path) -> None:
    (repository / ".gitattributes").write_bytes(compose(b"*.txt text\n* -filter", NAMES))
    assert set(check_attr(repository, NAMES).values()) == {b"lfs"}
    assert check_attr(repository, [b"other"]) == {b"other": b"unset"}


@given(
    st.binary(max_size=80).filter(is_composable),
    st.sets(st.binary(min_size=1, max_size=20).map(lambda n: n.replace(b"\0", b"").replace(b"/", b"") or b"x")),
)
def test_split_gives_back_what_was_composed(user: bytes, names: set[bytes]) -> None:
    assert split(compose(user, names)) == Split(user, frozenset(names) if names else None)


@settings(max_examples=30, deadline=None)
@given(
    st.sets(
        st.binary(min_size=1, max_size=12).filter(lambda n: not set(n) & {0, 47} and n not in (b".", b"..")), max_size=8
    )
)
def test_git_reads_any_name(names: set[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "-q", folder], check=True)
        Path(folder, ".gitattributes").write_bytes(compose(b"", names))
        assert check_attr(Path(folder), sorted(names)) == dict.fromkeys(names, b"lfs")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"* text\n",
        b"# mvcfs begin\n/x filter=lfs diff=lfs merge=lfs -text\n",
        b"# mvcfs begin\n/x filter=lfs diff=lfs merge=lfs -text\n# mvcfs end\nmore\n",
        b"# mvcfs begin\n* text\n# mvcfs end\n",
        b"# mvcfs begin of mine\n# mvcfs end\n",
    ],
    ids=repr,
)
def test_what_is_no_block_of_ours_is_the_users(data: bytes) -> None:
    assert split(data) == Split(data, None)


def test_what_cant_stand_before_a_block() -> None:
    assert not is_composable(b"a\0b")
    assert not is_composable(b"x" * 2048)
    assert not is_composable(b"a\n# mvcfs begin\n")
    assert is_composable(b"x" * 2047 + b"\nno line break at the end")


def test_a_pattern_is_readable_where_it_can_be() -> None:
    assert pattern_for(b"model-00001-of-00002.safetensors") == b"/model-00001-of-00002.safetensors"
    assert pattern_for(b"a b") == b'"/a b"'
    assert os.fsencode("é") in pattern_for("é".encode())
