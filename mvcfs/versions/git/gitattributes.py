"""The marked block of `.gitattributes` that tells Git which files of a directory are large (filter=lfs).

The block is derived from the directory's large files and stands after what the user wrote, so that it wins; the mount shows
the user's part only, byte for byte. Pure functions, for any thread.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_BEGIN = b"# mvcfs begin\n"
_BEGIN_JOINED = b"# mvcfs begin (the line break above is not part of the file)\n"
_END = b"# mvcfs end\n"
_MARK = re.compile(rb"^# mvcfs begin", re.MULTILINE)
_SUFFIX = b" filter=lfs diff=lfs merge=lfs -text\n"
_MAX_LINE_BYTES = 2048
"""Git ignores longer lines and fsck refuses them."""

_GLOB = re.compile(rb"[*?\[\\]")
_NEEDS_QUOTES = re.compile(rb'[\x00-\x20"\x7f]')
_TO_QUOTE = re.compile(rb'[\x00-\x1f"\\\x7f]')
_QUOTED = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class Split:
    """A `.gitattributes` taken apart.

    Attributes:
        user: What the user wrote.
        large: Names in the tree that the block is for; None if there is no block.
    """

    user: bytes
    large: frozenset[bytes] | None


def _quote(match: re.Match[bytes]) -> bytes:
    byte = match[0]
    return b"\\" + byte if byte in b'"\\' else b"\\%03o" % byte[0]


def _unquote(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else _LETTERS.get(code, code)


def pattern_for(name: bytes) -> bytes:
    """The pattern that matches the entry with this name in the file's own directory, and nothing else."""
    pattern = b"/" + _GLOB.sub(rb"\\\g<0>", name)
    if _NEEDS_QUOTES.search(pattern):
        return b'"' + _TO_QUOTE.sub(_quote, pattern) + b'"'
    return pattern


def unquoted(text: bytes) -> bytes:
    """What a C-quoted text, its quotes included, stands for."""
    return _QUOTED.sub(_unquote, text[1:-1])


def _name_of(pattern: bytes) -> bytes:
    """The name that `pattern_for` made a pattern of."""
    if pattern.startswith(b'"'):
        pattern = unquoted(pattern)
    return re.sub(rb"\\(.)", rb"\1", pattern[1:], flags=re.DOTALL)


def is_composable(user: bytes) -> bool:
    """Whether a file with this content can stand as `.gitattributes`, with a block behind it that Git reads.

    Not with a NUL byte, where Git stops reading; nor with a line that fsck refuses; nor with our own mark.
    """
    return (
        b"\0" not in user
        and _MARK.search(user) is None
        and all(len(line) < _MAX_LINE_BYTES for line in user.split(b"\n"))
    )


def compose(user: bytes, large: Collection[bytes]) -> bytes:
    """The user's part and the block for the large files of the directory, by their names in the tree."""
    if not large:
        return user
    joined = bool(user) and not user.endswith(b"\n")
    lines = [user, b"\n" + _BEGIN_JOINED if joined else _BEGIN]
    lines += [pattern_for(name) + _SUFFIX for name in sorted(large)]
    lines.append(_END)
    return b"".join(lines)


def split(data: bytes) -> Split:
    """Takes apart what `compose` made; any other content is the user's alone.

    A block is one only if it ends the file and every line in it is as we write them: what a user changed is the user's.
    """
    mark = _MARK.search(data)
    if mark is None or not data.endswith(_END):
        return Split(data, None)
    user, block = data[: mark.start()], data[mark.start() : -len(_END)]
    if block.startswith(_BEGIN_JOINED):
        user, block = user[:-1], block[len(_BEGIN_JOINED) :]
    elif block.startswith(_BEGIN):
        block = block[len(_BEGIN) :]
    else:
        return Split(data, None)
    lines = block.split(b"\n")[:-1] if block else []
    tail = _SUFFIX[:-1]
    if not all(line.endswith(tail) and line[:1] in b'/"' for line in lines):
        return Split(data, None)
    return Split(user, frozenset([_name_of(line[: -len(tail)]) for line in lines]))
