"""Git LFS pointers: the text that stands in Git for a large file.

What git-lfs would take for a pointer must never be an ordinary blob of ours, or a checkout would try to fetch it; so
recognising is as tolerant as git-lfs, while writing gives the one canonical text. Pure functions, for any thread.
"""

from __future__ import annotations

import re

from mvcfs.types import LargeContent
from mvcfs.versions.git.format import object_id

POINTER_MAX_BYTES = 1024
"""git-lfs takes nothing of this length or more for a pointer."""

_VERSIONS = (b"https://git-lfs.github.com/spec/v1", b"https://hawser.github.com/spec/v1", b"http://git-media.io/v/2")
_VERSION_WORD = re.compile(rb"git-media|hawser|git-lfs")
_OID_START = re.compile(rb"sha256:[0-9A-Za-z]{64}")
_OID = re.compile(rb"sha256:([0-9a-f]{64})")
_SIZE = re.compile(rb"[+]?[0-9]{1,30}|-0+")
_EXTENSION = re.compile(rb"ext-[0-9][-]\w+")
_KEYS = (b"version", b"oid", b"size")
_MAX_SIZE = (1 << 63) - 1


def make_pointer(content: LargeContent) -> bytes:
    """The pointer of a large file, exactly as the LFS specification has it."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (
        content.oid.encode("ascii"),
        content.size_bytes,
    )


def pointer_blob_oid(content: LargeContent) -> str:
    """The Git id of a large file's pointer."""
    return object_id("blob", make_pointer(content))


def _fields(data: bytes) -> dict[bytes, bytes] | None:
    """The three fields of a pointer as git-lfs reads them: in order, extensions between, blank lines anywhere."""
    head = data[:POINTER_MAX_BYTES].strip()
    if not _VERSION_WORD.search(head):
        return None
    fields: dict[bytes, bytes] = {}
    for raw_line in head.split(b"\n"):
        line = raw_line.removesuffix(b"\r")
        if not line:
            continue
        key, space, value = line.partition(b" ")
        if not space or len(fields) == len(_KEYS):
            return None
        if key == _KEYS[len(fields)]:
            fields[key] = value
        elif not _EXTENSION.match(key):
            return None
    return fields if len(fields) == len(_KEYS) else None


def is_pointer(data: bytes) -> bool:
    """Whether git-lfs could take a file with this content for a pointer.

    True a little more often than git-lfs says so (whose versions differ, too): such a file is stored as a large one,
    which is always right. `data` may be just the first `POINTER_MAX_BYTES` of the file.
    """
    fields = _fields(data)
    return (
        fields is not None
        and fields[b"version"] in _VERSIONS
        and _OID_START.match(fields[b"oid"]) is not None
        and _SIZE.fullmatch(fields[b"size"]) is not None
    )


def parse_pointer(data: bytes) -> LargeContent | None:
    """The large file that a blob stands for, None if the blob is no pointer. Its SHA-256 must really be one."""
    if len(data) >= POINTER_MAX_BYTES:
        return None
    fields = _fields(data)
    if fields is None or fields[b"version"] not in _VERSIONS:
        return None
    oid, size = _OID.fullmatch(fields[b"oid"]), _SIZE.fullmatch(fields[b"size"])
    if oid is None or size is None or int(size[0]) > _MAX_SIZE:
        return None
    return LargeContent(oid[1].decode("ascii"), int(size[0]))
