"""The rows of `.mvcfs-attrs`: what Git can't hold of a directory's entries.

A reader takes rows from anybody who can push with plain Git, so parsing believes nothing: a row of the wrong shape is left
out and counted, never an error. Writing is deterministic, so that equal directories have equal trees. Pure functions, for
any thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import re
import stat
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from mvcfs.types import Attributes
from mvcfs.versions.git.format import (
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_SYMLINK,
    MODE_TREE,
    RawEntry,
)

logger = logging.getLogger(__name__)

SHARD_ABOVE = 1000
"""With more entries than this, the rows of a directory are spread over a tree of blobs."""

_HEADER = '{"mvcfs-attrs":1}'
_MAX_63 = (1 << 63) - 1
_MAX_ID = (1 << 32) - 1
_BATCH = 512
_is_oid = re.compile(r"[0-9a-f]{40}\Z").match
_LFS = re.compile(r"[0-9a-f]{64}")
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


class AttrRow(NamedTuple):
    """One row.

    Attributes:
        name: True name.
        attributes: What it says of the entry.
        content: Git id of the blob that it speaks of; None for a directory.
        size: Bytes a reader of the mount sees.
        lfs: SHA-256 of a large file.
        tree_name: Name in the Git tree where that is an escaped one, else None.
        block: Of `.gitattributes` only: `end` where the blob ends in our block, `only` where it is nothing but that.
    """

    name: bytes
    attributes: Attributes
    content: str | None
    size: int
    lfs: str | None = None
    tree_name: bytes | None = None
    block: str | None = None

    @property
    def entry_name(self) -> bytes:
        """The name in the Git tree."""
        return self.name if self.tree_name is None else self.tree_name


def git_mode(mode: int) -> int:
    """Git's mode of an entry with this st_mode."""
    kind = mode & 0o170000
    if kind == stat.S_IFREG:
        return MODE_EXECUTABLE if mode & 0o100 else MODE_FILE
    return MODE_TREE if kind == stat.S_IFDIR else MODE_SYMLINK


def speaks_of(row: AttrRow, entry: RawEntry) -> bool:
    """Whether a row's content and kind are those of the tree's entry; otherwise somebody changed it with plain Git."""
    if row.content is None:
        return entry.mode == MODE_TREE and row.attributes.is_dir
    return row.content == entry.oid and git_mode(row.attributes.mode) == entry.mode


def shard_of(name: bytes) -> bytes:
    """The name of the blob, `00` to `ff`, that holds this true name's row in a sharded `.mvcfs-attrs`."""
    return hashlib.sha256(name).hexdigest()[:2].encode("ascii")


def _text(data: bytes) -> str:
    return encode_basestring_ascii(data.decode("utf-8", "surrogateescape"))


def _extra(row: AttrRow) -> str:
    """The last column, keys sorted."""
    attributes = row.attributes
    extra: dict[str, Any] = {}
    if row.tree_name is not None:
        extra["as"] = row.tree_name.decode("utf-8", "surrogateescape")
    if row.block is not None:
        extra["block"] = row.block
    if row.lfs is not None:
        extra["lfs"] = row.lfs
    if attributes.link is not None:
        extra["link"] = attributes.link
        extra["nlink"] = attributes.nlink
    if attributes.xattrs:
        extra["xattrs"] = {
            name.decode("utf-8", "surrogateescape"): base64.b64encode(value).decode("ascii")
            for name, value in sorted(attributes.xattrs)
        }
    return json.dumps(extra, separators=(",", ":"), sort_keys=True) if extra else "{}"


def _line(row: AttrRow) -> str:
    a = row.attributes
    content = "null" if row.content is None else f'"{row.content}"'
    return f"[{_text(row.name)},{a.mode},{a.uid},{a.gid},{a.mtime_ns},{content},{row.size},{_extra(row)}]\n"


def serialise_rows(rows: Iterable[AttrRow]) -> bytes:
    """The bytes of a `.mvcfs-attrs` blob, or of one of its shards."""
    ordered = sorted(rows, key=lambda row: row.name)
    return "".join([_HEADER, "\n", *map(_line, ordered)]).encode("ascii")


def _parsed_xattrs(value: object) -> tuple[tuple[bytes, bytes], ...]:
    if not isinstance(value, dict):
        raise ValueError("xattrs is no object")
    return tuple(
        sorted(
            (name.encode("utf-8", "surrogateescape"), base64.b64decode(text, validate=True))
            for name, text in value.items()
        )
    )


def _optional(extra: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str | None:
    value = extra.get(key)
    if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
        raise ValueError(f"bad {key}")
    return value


_LINK = re.compile(r".{1,255}", re.DOTALL)
_BLOCK = re.compile(r"end|only")
_ESCAPED = re.compile(r"\.mvcfs-name-[0-9a-f]{32}")


def _parsed_row(row: Any) -> AttrRow:
    """One row from its JSON value; any of several exceptions if that is not as it must be."""
    name_text, mode, uid, gid, mtime_ns, content, size, extra = row
    name = name_text.encode("utf-8", "surrogateescape")
    # Compared with type() because True is an int, too; spelled out because this runs for every row of a directory.
    if not (
        type(mode) is type(uid) is type(gid) is type(mtime_ns) is type(size) is int
        and 0 <= mode <= 0o177777
        and mode & 0o170000 in _KINDS
        and 0 <= uid <= _MAX_ID
        and 0 <= gid <= _MAX_ID
        and -_MAX_63 <= mtime_ns <= _MAX_63
        and 0 <= size <= _MAX_63
        and type(extra) is dict
        and (content is None if mode & 0o170000 == stat.S_IFDIR else _is_oid(content))
    ):
        raise ValueError("bad column")
    if not extra:
        return AttrRow(name, Attributes(mode, uid, gid, mtime_ns), content, size)
    lfs = _optional(extra, "lfs", _LFS)
    if len(extra) == 1 and lfs is not None:
        return AttrRow(name, Attributes(mode, uid, gid, mtime_ns), content, size, lfs)
    link = _optional(extra, "link", _LINK)
    nlink = extra.get("nlink", 1)
    if type(nlink) is not int or not 1 <= nlink <= _MAX_ID:
        raise ValueError("bad nlink")
    xattrs = _parsed_xattrs(extra["xattrs"]) if "xattrs" in extra else ()
    escaped = _optional(extra, "as", _ESCAPED)
    return AttrRow(
        name,
        Attributes(mode, uid, gid, mtime_ns, nlink if link is not None else 1, link, xattrs),
        content,
        size,
        lfs,
        None if escaped is None else escaped.encode("ascii"),
        _optional(extra, "block", _BLOCK),
    )


def _decoded_lines(lines: list[str]) -> Iterable[Any]:
    """The JSON values of lines; None for one that is no JSON."""
    try:
        values = json.loads("[" + ",".join(lines) + "]")
        if len(values) == len(lines):
            return list(values)
    except (ValueError, RecursionError):
        pass
    return map(_decoded_line, lines)


def _decoded_line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def parse_rows(data: bytes, where: str = "?") -> list[AttrRow]:
    """The rows of a `.mvcfs-attrs` blob or shard that have the right shape; `where` names it in the log."""
    header, *lines = data.decode("utf-8", "surrogateescape").split("\n")
    if header != _HEADER:
        logger.warning("attributes in %s are of an unknown form: left out", where)
        return []
    rows, ignored = [], 0
    # In batches, so that the garbage collector doesn't walk what json made of 100,000 rows again and again.
    for start in range(0, len(lines), _BATCH):
        for value in _decoded_lines([line for line in lines[start : start + _BATCH] if line]):
            try:
                rows.append(_parsed_row(value))
            except (ValueError, TypeError, AttributeError, binascii.Error):
                ignored += 1
    if ignored:
        logger.warning("%d rows of attributes in %s are malformed: left out", ignored, where)
    return rows
