"""Names: which of them Git would refuse in a tree and what stands there instead, and how models, branches and tags are called.

The refused ones are those that `git fsck --strict` objects to, on HFS+ and NTFS as well, plus the few that mvcfs needs for
itself; being a little stricter than Git costs nothing, as the true name stands in the attributes. Pure functions, for any
thread.
"""

from __future__ import annotations

import hashlib
import re

from mvcfs.errors import InvalidName

ATTRS_NAME = b".mvcfs-attrs"
ESCAPE_PREFIX = b".mvcfs-name-"
GITATTRIBUTES = b".gitattributes"
GITMODULES = b".gitmodules"
ROOT_ROW = b"."
"""The row that a root directory's own attributes stand in; no entry can be called so."""

MAX_NAME_BYTES = 200

MAX_ENTRY_BYTES = 255
"""A longer name can stand in a Git tree, but no directory of Linux shows it."""

# A name that fits none of these can't be a disguise of `.git` and the like, whatever the file system.
_SUSPECT = re.compile(rb"\A\.|[~\\]|\xe2[\x80\x81]|\xef\xbb\xbf|\A[\x80-\xff]")
# What HFS+ leaves out when it compares names.
_HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_NTFS_GIT = re.compile(rb"(?:\A|\\)(?:\.git|git~1)[. ]*(?:\Z|[\\/:])", re.IGNORECASE)
_NTFS_SHORT = re.compile(rb"\A([^~]{0,6})~[1-9][0-9]*\Z")


def escape_name(name: bytes) -> bytes:
    """What stands in a tree for a name that can't."""
    return ESCAPE_PREFIX + hashlib.sha256(name).hexdigest()[:32].encode("ascii")


def is_entry_name(name: bytes) -> bool:
    """Whether a directory entry can have this name at all."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


def _hfs_folded(name: bytes) -> str:
    """A name as HFS+ compares it; Git stops reading at the first byte that is no UTF-8, so this does too."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError as error:
        text = name[: error.start].decode("utf-8")
    return _HFS_IGNORED.sub("", text).lower()


def _is_ntfs_like(part: bytes, wanted: bytes, short: bytes) -> bool:
    """Whether NTFS could find the file `wanted` (`.gitmodules`) under `part`; `short` begins its hashed short name."""
    stem = re.split(rb":", part, maxsplit=1)[0].rstrip(b" .").lower()
    if stem == wanted:
        return True
    match = _NTFS_SHORT.match(stem)
    if match is None:
        return False
    if match[1] == wanted[1:7]:
        return True
    return len(stem) == 8 and short.startswith(match[1])


def _is_like(name: bytes, wanted: bytes, short: bytes) -> bool:
    """Whether some file system would find `wanted` under this name; spelled exactly so doesn't count."""
    if name == wanted:
        return False
    if _hfs_folded(name) == wanted.decode("ascii"):
        return True
    return any(_is_ntfs_like(part, wanted, short) for part in name.split(b"\\"))


def is_refused(name: bytes) -> bool:
    """Whether no entry of a tree may have this name, whatever it is.

    `.gitattributes` and `.gitmodules`, spelled so, are not: Git takes them if they are well-behaved files, which
    `mvcfs.versions.git.gitattributes.is_composable` and `is_harmless_gitmodules` say.
    """
    if not _SUSPECT.search(name):
        return False
    return (
        name == ATTRS_NAME
        or name.startswith(ESCAPE_PREFIX)
        or _NTFS_GIT.search(name) is not None
        or _hfs_folded(name) == ".git"
        or _is_like(name, GITMODULES, b"gi7eba")
        or _is_like(name, GITATTRIBUTES, b"gi7d29")
    )


_MODULES_LINE = re.compile(
    rb"""\s*(?:[#;].*
    |\[submodule\ "(?!\.\./)(?!(?:[^"]*/)?\.\.(?:/|"))[\w./ -]+"\]
    |path\s*=\s*\w[\w./ -]*
    |branch\s*=\s*\w[\w./-]*
    |url\s*=\s*(?:https?|ssh|git)://[\w.][\w.@:/~+-]*
    |url\s*=\s*git@[\w.][\w.-]*:\w[\w./~+-]*
    )?\s*""",
    re.VERBOSE,
)


def is_harmless_gitmodules(data: bytes) -> bool:
    """Whether `git fsck` surely accepts a `.gitmodules` with this content: plain names, paths and addresses only."""
    return all(_MODULES_LINE.fullmatch(line) for line in data.split(b"\n"))


def _checked_text(name: str, what: str) -> None:
    """Raises InvalidName for what no model, branch or tag may be called."""
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidName(f"{what} name {name!r} is not valid UTF-8") from None
    if not encoded:
        raise InvalidName(f"a {what} name can't be empty")
    if len(encoded) > MAX_NAME_BYTES:
        raise InvalidName(
            f"{what} name {name[:40]!r}… is {len(encoded)} bytes long; at most {MAX_NAME_BYTES} are allowed"
        )
    for character in name:
        if ord(character) < 32 or 127 <= ord(character) < 160:
            raise InvalidName(f"{what} name {name!r} contains a control character")
        if character in "\\:@~^?*[":
            raise InvalidName(f"{what} name {name!r} contains {character!r}; none of \\ : @ ~ ^ ? * [ are allowed")


def _check_segment(segment: str, name: str, what: str) -> None:
    if segment.startswith("."):
        raise InvalidName(f"{what} name {name!r} has a part that starts with '.'")
    if segment.endswith(".lock"):
        raise InvalidName(f"{what} name {name!r} has a part that ends in '.lock'")


def check_model_name(name: str) -> None:
    """Checks what a model shall be called.

    Raises:
        InvalidName: It can't be; the message says which rule it breaks.
    """
    _checked_text(name, "model")
    if "/" in name:
        raise InvalidName(f"model name {name!r} contains '/'")
    _check_segment(name, name, "model")


def check_ref_name(name: str, what: str = "branch") -> None:
    """Checks what a branch, tag or alias (`what`, for the message) shall be called.

    Raises:
        InvalidName: It can't be; the message says which rule it breaks.
    """
    _checked_text(name, what)
    segments = name.split("/")
    if "" in segments:
        raise InvalidName(f"{what} name {name!r} has an empty part: no '/' at either end and no '//'")
    for segment in segments:
        _check_segment(segment, name, what)
    if " " in name:
        raise InvalidName(f"{what} name {name!r} contains a space")
    if ".." in name:
        raise InvalidName(f"{what} name {name!r} contains '..'")
    if name.endswith("."):
        raise InvalidName(f"{what} name {name!r} ends in '.'")
    if name.startswith("-"):
        raise InvalidName(f"{what} name {name!r} starts with '-'")
    if name == "HEAD":
        raise InvalidName(f"a {what} can't be called HEAD")
