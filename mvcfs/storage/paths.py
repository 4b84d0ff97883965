"""Paths inside a store, checked once and the same for every kind of store.

A temporary name (`.tmp-…`) is what a file or directory has until it is whole. Stores hide such names from `list_dir`;
callers may not use them.
"""

from __future__ import annotations

import re
import secrets

from mvcfs.errors import InvalidArgument, NameTooLong, NotSupported
from mvcfs.types import Identity

TEMPORARY_PREFIX = ".tmp-"
MAX_NAME_BYTES = 255
_FORBIDDEN = re.compile(r"[:\x00-\x1f\x7f\ud800-\udfff]")


def split(path: str) -> tuple[str, ...]:
    """The segments of a store path, none for the root; InvalidArgument for a path that isn't one."""
    if path == "":
        return ()
    segments = tuple(path.split("/"))
    for segment in segments:
        if segment in ("", ".", "..") or _FORBIDDEN.search(segment):
            raise InvalidArgument(f"{path!r} is no path inside a store")
        if segment.startswith(TEMPORARY_PREFIX):
            raise InvalidArgument(f"{path!r}: names that start with {TEMPORARY_PREFIX} are the store's own")
        if len(segment.encode()) > MAX_NAME_BYTES:
            raise NameTooLong(f"{path!r}: a name is longer than {MAX_NAME_BYTES} bytes")
    return segments


def split_child(path: str) -> tuple[str, ...]:
    """The segments of a path that may not be the root."""
    segments = split(path)
    if not segments:
        raise InvalidArgument("the root of a store can't be created, moved or removed")
    return segments


def is_temporary(name: str) -> bool:
    """Whether a name is one that a store hides."""
    return name.startswith(TEMPORARY_PREFIX)


def temporary_name() -> str:
    """A name that nobody else uses."""
    return TEMPORARY_PREFIX + secrets.token_hex(16)


def check_range(path: str, offset: int, length: int) -> None:
    """InvalidArgument for a range that no file can have."""
    if offset < 0 or length < 0:
        raise InvalidArgument(f"{path}: offset {offset}, length {length} is no range")


def check_identity(identity: Identity, url: str) -> None:
    """NotSupported unless the call is made as the daemon's own user, the only one that stores know today."""
    if identity.user is not None:
        raise NotSupported(f"{url}: calls as another user ({identity.user}) are not supported by this store")
