"""Addresses of stores, as users write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from mvcfs.errors import InvalidArgument

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_AUTHORITY = re.compile(r"[A-Za-z0-9._-]+(:(?P<port>[0-9]{1,5}))?|\[[0-9A-Fa-f:.]+\]:(?P<port6>[0-9]{1,5})")
FORMS = "a store is written hdfs://host:port/path, hdfs://nameservice/path, file:///path or a plain path"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where a store is.

    Attributes:
        scheme: `file` or `hdfs`.
        authority: NameNode `host:port` or nameservice; empty for `file`.
        path: Absolute path, without a trailing slash unless it is `/`.
    """

    scheme: str
    authority: str
    path: str

    @property
    def url(self) -> str:
        """The address in its one canonical form."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_store_url(text: str) -> StoreAddress:
    """The address that `text` means; relative paths are taken from the working directory.

    Raises:
        InvalidArgument: It is no address of a store. The message quotes it and says what one looks like.
    """
    if not text.strip() or "\0" in text:
        raise InvalidArgument(f"{text!r} is no store; {FORMS}")
    match = _SCHEME.match(text)
    if match is None:
        return StoreAddress("file", "", str(Path(text).expanduser().absolute()))
    scheme = match[1].lower()
    if scheme not in ("file", "hdfs"):
        raise InvalidArgument(f"{text!r}: stores of kind {scheme}:// are not supported; {FORMS}")
    if not text[match.end() :].startswith("/"):
        raise InvalidArgument(f"{text!r} lacks a slash after {match[0]}; {FORMS}")
    authority, slash, path = text[match.end() + 1 :].partition("/")
    if scheme == "file":
        return _file_address(text, authority, slash + path)
    return _hdfs_address(text, authority, path)


def _file_address(text: str, authority: str, path: str) -> StoreAddress:
    if authority not in ("", "localhost"):
        raise InvalidArgument(f"{text!r} names the host {authority}; for a local path write file:///path")
    if not path:
        raise InvalidArgument(f"{text!r} has no path; {FORMS}")
    return StoreAddress("file", "", str(Path(unquote(path))))


def _hdfs_address(text: str, authority: str, path: str) -> StoreAddress:
    if not authority:
        raise InvalidArgument(f"{text!r} names no NameNode; {FORMS}")
    match = _AUTHORITY.fullmatch(authority)
    if match is None or int(match["port"] or match["port6"] or "0") > 65535:
        raise InvalidArgument(f"{text!r}: {authority!r} is neither host:port nor a nameservice; {FORMS}")
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") or ":" in segment for segment in segments):
        raise InvalidArgument(f"{text!r}: a path of HDFS can't hold '.', '..' or ':'")
    return StoreAddress("hdfs", authority, "/" + "/".join(segments))
