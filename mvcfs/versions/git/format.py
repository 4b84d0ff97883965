"""The bytes of Git's trees, commits and tags, read and written here.

Why not a library: names in trees are bytes of any encoding, a directory has 100,000 of them, and a commit that
somebody else's tool wrote oddly must still be readable. Everything here is a pure function of its arguments and may be
called in any thread.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mvcfs.errors import CorruptData

MODE_TREE = 0o040000
MODE_FILE = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_SYMLINK = 0o120000
MODE_GITLINK = 0o160000

OID_DIGITS = 40

_ENTRY = re.compile(rb"([0-7]{1,7}) ([^\0]*)\0(.{20})", re.DOTALL)
_SIGNATURE = re.compile(rb"^(?P<name>.*?) ?<(?P<email>[^>]*)> ?(?P<time>-?\d+)? ?(?P<zone>[+-]\d{1,5})?")
_CRUD = " .,:;<>\"\\'\t\r\n\v\f"
_MAX_TIME_S = (1 << 63) - 1


class RawEntry(NamedTuple):
    """One entry of a Git tree as it stands there.

    Attributes:
        name: The name in the tree, which may be an escaped one.
        mode: Git's mode.
        oid: Git id of the blob, tree or (gitlink) commit.
    """

    name: bytes
    mode: int
    oid: str


@dataclass(frozen=True, slots=True)
class Signature:
    """Who did something, and when.

    Attributes:
        name: Decoded; characters that Git forbids are removed where it is written.
        email: The same.
        time_s: Seconds since 1970.
        offset_min: Minutes east of UTC, for show.
    """

    name: str
    email: str
    time_s: int
    offset_min: int = 0


@dataclass(frozen=True, slots=True)
class RawCommit:
    """A commit, decoded."""

    tree: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    message: str


@dataclass(frozen=True, slots=True)
class RawTag:
    """A tag object, decoded. `kind` is the type of its target."""

    target: str
    kind: str
    name: str
    tagger: Signature | None
    message: str


def object_id(kind: str, data: bytes) -> str:
    """Git's id of an object."""
    digest = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


def sort_key(entry: RawEntry) -> bytes:
    """The key Git sorts a tree's entries by: a directory's name counts as if it ended in a slash."""
    return entry.name + b"/" if entry.mode == MODE_TREE else entry.name


def parse_tree(data: bytes, oid: str = "?") -> list[RawEntry]:
    """The entries of a tree object in their order.

    Raises:
        CorruptData: The bytes are no tree; `oid` names it in the message.
    """
    found = _ENTRY.findall(data)
    # Matches don't overlap, so if they are as long as the object together, nothing between them was skipped.
    if sum([len(mode) + len(name) for mode, name, _ in found]) + 22 * len(found) != len(data):
        raise CorruptData(f"Git object {oid} is no valid tree")
    modes = {mode: int(mode, 8) for mode in {mode for mode, _, _ in found}}
    return [RawEntry(name, modes[mode], raw.hex()) for mode, name, raw in found]


def serialise_tree(entries: Iterable[RawEntry]) -> bytes:
    """The bytes of a tree object with these entries, sorted as Git sorts them."""
    fromhex = bytes.fromhex
    return b"".join(
        [b"%o %b\0%b" % (entry.mode, entry.name, fromhex(entry.oid)) for entry in sorted(entries, key=sort_key)]
    )


def _clean(text: str, default: str) -> str:
    """A name or e-mail without what would end its field."""
    kept = "".join(c for c in text if c not in "<>" and ord(c) >= 32 and c != "\x7f")
    kept = kept.encode("utf-8", "replace").decode("utf-8")
    return kept.strip(_CRUD) or default


def _signature_line(signature: Signature) -> bytes:
    sign = "-" if signature.offset_min < 0 else "+"
    hours, minutes = divmod(abs(signature.offset_min), 60)
    time_s = min(max(signature.time_s, 0), _MAX_TIME_S)
    name, email = _clean(signature.name, "unknown"), _clean(signature.email, "").replace(" ", "")
    return f"{name} <{email}> {time_s} {sign}{hours % 100:02d}{minutes:02d}".encode()


def _message_bytes(message: str) -> bytes:
    text = message.replace("\0", "").encode("utf-8", "replace")
    return text if text.endswith(b"\n") or not text else text + b"\n"


def serialise_commit(commit: RawCommit) -> bytes:
    """The bytes of a commit object that `git fsck --strict` accepts, whatever the author is called."""
    lines = [b"tree " + commit.tree.encode()]
    lines += [b"parent " + parent.encode() for parent in commit.parents]
    lines.append(b"author " + _signature_line(commit.author))
    lines.append(b"committer " + _signature_line(commit.committer))
    return b"\n".join(lines) + b"\n\n" + _message_bytes(commit.message)


def serialise_tag(tag: RawTag) -> bytes:
    """The bytes of a tag object."""
    lines = [b"object " + tag.target.encode(), b"type " + tag.kind.encode(), b"tag " + tag.name.encode()]
    if tag.tagger is not None:
        lines.append(b"tagger " + _signature_line(tag.tagger))
    return b"\n".join(lines) + b"\n\n" + _message_bytes(tag.message)


def _parse_signature(line: bytes, encoding: str) -> Signature:
    match = _SIGNATURE.match(line)
    if match is None:
        return Signature(_decode(line, encoding), "", 0)
    zone = match["zone"] or b"+0000"
    number = int(zone[1:])
    minutes = number // 100 * 60 + number % 100
    time_s = min(max(int((match["time"] or b"0")[:20]), 0), _MAX_TIME_S)
    return Signature(
        _decode(match["name"], encoding),
        _decode(match["email"], encoding),
        time_s,
        -minutes if zone[:1] == b"-" else minutes,
    )


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding, "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


def _split_headers(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Header lines as (key, value), continuation lines dropped, and the message."""
    head, _, message = data.partition(b"\n\n")
    headers = []
    for line in head.split(b"\n"):
        if line and not line.startswith(b" "):
            key, _, value = line.partition(b" ")
            headers.append((key, value))
    return headers, message


def _is_oid(value: bytes) -> bool:
    return len(value) == OID_DIGITS and all(c in b"0123456789abcdef" for c in value)


def parse_commit(data: bytes, oid: str = "?") -> RawCommit:
    """A commit, however oddly its people and its message are written.

    Raises:
        CorruptData: It names no tree, or an id in it is none; `oid` names the commit in the message.
    """
    headers, message = _split_headers(data)
    fields = {key: value for key, value in reversed(headers)}
    tree = fields.get(b"tree", b"")
    parents = [value for key, value in headers if key == b"parent"]
    if not all(map(_is_oid, [tree, *parents])):
        raise CorruptData(f"Git object {oid} is no valid commit")
    encoding = fields.get(b"encoding", b"utf-8").decode("ascii", "replace")
    author = _parse_signature(fields.get(b"author", b""), encoding)
    return RawCommit(
        tree=tree.decode(),
        parents=tuple(parent.decode() for parent in parents),
        author=author,
        committer=_parse_signature(fields[b"committer"], encoding) if b"committer" in fields else author,
        message=_decode(message, encoding),
    )


def parse_tag(data: bytes, oid: str = "?") -> RawTag:
    """A tag object.

    Raises:
        CorruptData: It names no target; `oid` names the tag in the message.
    """
    headers, message = _split_headers(data)
    fields = {key: value for key, value in reversed(headers)}
    target = fields.get(b"object", b"")
    if not _is_oid(target):
        raise CorruptData(f"Git object {oid} is no valid tag")
    tagger = fields.get(b"tagger")
    return RawTag(
        target=target.decode(),
        kind=fields.get(b"type", b"commit").decode("ascii", "replace"),
        name=fields.get(b"tag", b"").decode("utf-8", "replace"),
        tagger=None if tagger is None else _parse_signature(tagger, "utf-8"),
        message=message.decode("utf-8", "replace"),
    )
