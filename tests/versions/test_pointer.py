"""Pointers: the exact text we write, and that we recognise whatever git-lfs recognises."""

import subprocess
from pathlib import Path

import pytest

from mvcfs.types import LargeContent
from mvcfs.versions.git.pointer import is_pointer, make_pointer, parse_pointer, pointer_blob_oid

OID = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
V1 = "version https://git-lfs.github.com/spec/v1\n"

POINTERS = {
    "canonical": f"{V1}oid sha256:{OID}\nsize 12345\n",
    "no newline at the end": f"{V1}oid sha256:{OID}\nsize 12345",
    "blank lines": f"\n\n{V1}\noid sha256:{OID}\n\nsize 12345\n\n  \n",
    "carriage returns": f"{V1}oid sha256:{OID}\nsize 12345\n".replace("\n", "\r\n"),
    "hawser": f"version https://hawser.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n",
    "git-media": f"version http://git-media.io/v/2\noid sha256:{OID}\nsize 12345\n",
    "extension": f"{V1}ext-0-foo sha256:{OID}\next-1-bar sha256:{OID}\noid sha256:{OID}\nsize 12345\n",
    "size zero": f"{V1}oid sha256:{OID}\nsize 0\n",
    "plus": f"{V1}oid sha256:{OID}\nsize +1\n",
}
SOME_GIT_LFS = {
    "capitals": f"{V1}oid sha256:{OID.upper()}\nsize 12345\n",
    "no digits of hex": f"{V1}oid sha256:{'z' * 64}\nsize 12345\n",
    "longer oid": f"{V1}oid sha256:{OID}0\nsize 12345\n",
}
OTHERS = {
    "empty": "",
    "text": "hello\n",
    "no size": f"{V1}oid sha256:{OID}\n",
    "wrong order": f"oid sha256:{OID}\n{V1}size 12345\n",
    "unknown version": f"version https://git-lfs.github.com/spec/v9\noid sha256:{OID}\nsize 12345\n",
    "extra key": f"{V1}colour red\noid sha256:{OID}\nsize 12345\n",
    "line after the end": f"{V1}oid sha256:{OID}\nsize 12345\nmore text\n",
    "negative": f"{V1}oid sha256:{OID}\nsize -1\n",
    "short oid": f"{V1}oid sha256:{OID[:-1]}\nsize 1\n",
    "md5": f"{V1}oid md5:{OID}\nsize 1\n",
}


def test_a_pointer_is_exactly_what_the_specification_says() -> None:
    content = LargeContent(OID, 12345)
    assert make_pointer(content).decode() == POINTERS["canonical"]
    assert parse_pointer(make_pointer(content)) == content


def test_the_id_of_a_pointer_is_gits() -> None:
    made = subprocess.run(
        ["git", "hash-object", "--stdin"], input=make_pointer(LargeContent(OID, 7)), capture_output=True, check=True
    )
    assert pointer_blob_oid(LargeContent(OID, 7)) == made.stdout.decode().strip()


def says_git_lfs(data: bytes, folder: Path) -> bool:
    path = folder / "file"
    path.write_bytes(data)
    return subprocess.run(["git", "lfs", "pointer", "--check", "--file", path], capture_output=True).returncode == 0


@pytest.mark.parametrize("text", POINTERS.values(), ids=POINTERS.keys())
def test_what_git_lfs_takes_for_a_pointer_is_one(text: str, tmp_path: Path) -> None:
    assert says_git_lfs(text.encode(), tmp_path)
    assert is_pointer(text.encode())


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS.keys())
def test_what_git_lfs_does_not_take_for_a_pointer_is_none(text: str, tmp_path: Path) -> None:
    assert not text or not says_git_lfs(text.encode(), tmp_path)
    assert not is_pointer(text.encode())
    assert parse_pointer(text.encode()) is None


def test_a_pointer_padded_past_its_limit_still_counts_as_confusable() -> None:
    data = POINTERS["canonical"].encode() + b"\n" * 2000
    assert is_pointer(data)
    assert parse_pointer(data) is None


def test_a_pointer_without_a_real_hash_names_no_content() -> None:
    for text in SOME_GIT_LFS.values():
        assert is_pointer(text.encode())
        assert parse_pointer(text.encode()) is None
    assert parse_pointer(f"{V1}oid sha256:{OID}\nsize {1 << 63}\n".encode()) is None
