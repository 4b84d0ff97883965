"""What a user's `.gitattributes` asks Git LFS to keep: a file that it asks for is stored as a large one, however small.

Otherwise a clone would find a blob where git-lfs expects a pointer, and call the file changed. Only the attribute `filter`
is looked at; macros that set it aren't known. Pure functions, for any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mvcfs.versions.git.gitattributes import unquoted

_LINE = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*"|[^ \t\r\n]+)(.*)', re.DOTALL)
_CLASSES = {
    b"alnum": b"0-9A-Za-z", b"alpha": b"A-Za-z", b"digit": b"0-9", b"lower": b"a-z", b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f", b"space": b"\\s", b"punct": b"!-/:-@\\[-`{-~",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[bytes]
    whole_path: bool
    lfs: bool


class LfsPatterns:
    """The lines of one `.gitattributes` that set or take away the filter `lfs`."""

    def __init__(self, data: bytes) -> None:
        """Reads the file's content; what Git would not understand is left out."""
        rules = [_rule(line) for line in data.split(b"\n")] if b"filter" in data else []
        # The last line that fits wins.
        self._rules = tuple([rule for rule in reversed(rules) if rule is not None])

    def __bool__(self) -> bool:
        return bool(self._rules)

    def asks(self, path: bytes) -> bool | None:
        """Whether a path, relative to the file's directory, is to be in Git LFS; None if no line speaks of it."""
        name = path.rpartition(b"/")[2]
        for rule in self._rules:
            if rule.pattern.fullmatch(path if rule.whole_path else name):
                return rule.lfs
        return None


def _rule(line: bytes) -> _Rule | None:
    match = _LINE.match(line)
    if match is None or match[1].startswith((b"#", b"[attr]", b"!")):
        return None
    lfs: bool | None = None
    for word in match[2].split():
        if word.lstrip(b"-!").partition(b"=")[0] == b"filter":
            lfs = word == b"filter=lfs"
    pattern = match[1]
    if lfs is None:
        return None
    if pattern.startswith(b'"'):
        pattern = unquoted(pattern)
    if pattern.endswith(b"/"):
        return None  # Git matches directories only, and those have no content
    whole_path = b"/" in pattern
    expression = _expression(pattern.removeprefix(b"/"), whole_path=whole_path)
    return None if expression is None else _Rule(expression, whole_path, lfs)


def _expression(pattern: bytes, *, whole_path: bool) -> re.Pattern[bytes] | None:
    """A glob as Git's wildmatch reads it."""
    out: list[bytes] = []
    at = 0
    while at < len(pattern):
        rest = pattern[at:]
        char = rest[:1]
        stars = re.match(rb"\*+", rest)
        if stars is not None:
            count = len(stars[0])
            begins, follows = at == 0 or pattern[at - 1 : at] == b"/", rest[count : count + 1]
            if whole_path and count == 2 and begins and follows == b"/":
                out.append(rb"(?:[^/]+/)*")
                at += 3
                continue
            out.append(rb".*" if whole_path and count == 2 and begins and not follows else rb"[^/]*")
            at += count
        elif char == b"?":
            out.append(rb"[^/]")
            at += 1
        elif char == b"[":
            found = _bracket(rest)
            if found is None:
                return None
            out.append(found[0])
            at += found[1]
        elif char == b"\\":
            if len(rest) < 2:
                return None
            out.append(re.escape(rest[1:2]))
            at += 2
        else:
            out.append(re.escape(char))
            at += 1
    try:
        return re.compile(b"".join(out), re.DOTALL)
    except re.error:
        return None


def _bracket(text: bytes) -> tuple[bytes, int] | None:
    """A character class and its length; None where it isn't closed."""
    match = re.match(rb"\[([!^]?)(\]?(?:\[:\w+:\]|\\.|[^\]\\])*)\]", text, re.DOTALL)
    if match is None:
        return None
    body = match[2]
    parts = re.sub(
        rb"\[:(\w+):\]|\\(.)|([\[\]^\\])",
        lambda m: _CLASSES.get(m[1], b"") if m[1] else re.escape(m[2] or m[3]),
        body,
        flags=re.DOTALL,
    )
    if not parts:
        return None
    return (rb"(?!/)[" + (b"^" if match[1] else b"") + parts + b"]", match.end())
