"""Merging small text files by lines, with libgit2's merge, which is Git's.

Only what merges clean is taken: no file ever gets a conflict marker. A file with a NUL byte is no text, one of more than
`MAX_BYTES` is not looked at, and a result that is no small file any more, or that Git LFS would take for a pointer, counts
as not clean.

Pure functions, for any thread; libgit2 takes some milliseconds for the longest.
"""

from __future__ import annotations

import pygit2

from mvcfs.versions.git.pointer import is_pointer

MAX_BYTES = 1 << 20
"""Longer files, which only plain Git commits, count as changed on both sides."""

_SMALL_FILE_BYTES = 65_536
"""The format keeps files from this size on in chunks."""

_FIRST_LINE = b"\x01mvcfs\n"
"""Stands before each of the texts, as pygit2 fails on an empty result."""


def merge_lines(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """A text with the changes of both sides.

    Args:
        base: What both started from.
        ours: One side's text.
        theirs: The other's.

    Returns:
        None if both changed the same lines or lines next to each other, or if one of the three is no text to merge.
    """
    sides = (base, ours, theirs)
    if any(b"\0" in side or len(side) > MAX_BYTES for side in sides):
        return None
    repository = pygit2.Repository()
    odb = pygit2.Odb()
    odb.add_backend(_Texts(sides), 1)
    repository.set_odb(odb)
    before, here, there = [pygit2.IndexEntry("text", _text_id(side), pygit2.enums.FileMode.BLOB) for side in sides]
    result = repository.merge_file_from_index(before, here, there)
    if not result.automergeable:
        return None
    merged = result.contents.encode("latin-1")[len(_FIRST_LINE) :]
    return None if len(merged) >= _SMALL_FILE_BYTES or is_pointer(merged) else merged


def _encoded(text: bytes) -> bytes:
    """Any bytes as UTF-8, byte for character, since pygit2 decodes what libgit2 gives; lines stay lines."""
    return (_FIRST_LINE + text).decode("latin-1").encode("utf-8")


def _text_id(text: bytes) -> pygit2.Oid:
    return pygit2.hash(_encoded(text))


class _Texts(pygit2.OdbBackend):
    """The three texts, as libgit2 reads them."""

    def __init__(self, texts: tuple[bytes, ...]) -> None:
        super().__init__()
        self._texts = {str(_text_id(text)): _encoded(text) for text in texts}

    def read_cb(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        return int(pygit2.enums.ObjectType.BLOB), self._texts[str(oid)]

    def read_header_cb(self, oid: pygit2.Oid) -> tuple[int, int]:
        return int(pygit2.enums.ObjectType.BLOB), len(self._texts[str(oid)])

    def exists_cb(self, oid: pygit2.Oid) -> bool:
        return str(oid) in self._texts

    def refresh_cb(self) -> None:
        """libgit2 calls this before it says that an object is missing: nothing can have come."""
