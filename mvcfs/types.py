"""Values that several layers speak of. Immutable, so that they cross threads freely."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

NS_PER_S = 1_000_000_000
MIB = 1 << 20

EMPTY_BLOB_OID = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
"""Git's id of the empty blob."""


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a storage call is made. `user` None is the daemon's own user."""

    user: str | None = None


SELF = Identity()


@dataclass(frozen=True, slots=True)
class BlobContent:
    """Content held by a Git blob.

    Attributes:
        oid: The blob's Git id, 40 hex digits.
        size_bytes: Length as a reader of the mount sees it, the marked block of `.gitattributes` left out.
        stripped: True for a `.gitattributes` whose blob carries mvcfs's marked block, which readers don't see.
    """

    oid: str
    size_bytes: int
    stripped: bool = False


@dataclass(frozen=True, slots=True)
class LargeContent:
    """Content held in packs and named by a Git LFS pointer.

    Attributes:
        oid: SHA-256 of the content, 64 hex digits (the LFS oid).
        size_bytes: Length of the content.
    """

    oid: str
    size_bytes: int


Content = BlobContent | LargeContent
EMPTY_CONTENT = BlobContent(EMPTY_BLOB_OID, 0)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a version keeps of a file beside its bytes.

    Attributes:
        mode: Full st_mode, type bits included.
        uid: Owner's number.
        gid: Group's number.
        mtime_ns: Last modification, ns since 1970.
        nlink: Number of names of this file in its version (1 unless `link` is set).
        link: Hard-link group: names of one version with equal `link` are one file. None for a file with one name.
        xattrs: User extended attributes, sorted by name.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    nlink: int = 1
    link: str | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def is_dir(self) -> bool:
        """Whether this describes a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether this describes a symbolic link."""
        return stat.S_ISLNK(self.mode)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One name of a directory of a version.

    Attributes:
        name: The true name, as a reader of the mount sees it (bytes, any encoding).
        attributes: Its attributes.
        content: Content of a regular file, or the blob of a symlink's target; None for a directory.
        tree: Git id of the tree of a directory (40 hex digits); None for anything else.
    """

    name: bytes
    attributes: Attributes
    content: Content | None = None
    tree: str | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """A regular file or symlink as a commit shall hold it.

    Attributes:
        attributes: Its attributes, type bits say which of the two it is.
        content: Bytes for a small file or a symlink's target (versions makes the blob); a `Content` for what is already
            stored (unchanged content, or a large file whose chunks are in packs).
    """

    attributes: Attributes
    content: bytes | Content


@dataclass(frozen=True, slots=True)
class DirChange:
    """A directory as a commit shall hold it: a base tree, and the names that differ from it.

    Attributes:
        attributes: The directory's own attributes.
        base_tree: Git tree that unchanged names come from; None for an empty start.
        changes: By true name; None removes the name.
    """

    attributes: Attributes
    base_tree: str | None = None
    changes: Mapping[bytes, FileChange | DirChange | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store as a ref-log record names it.

    Attributes:
        name: Path relative to the model's directory, e.g. `packs/6f2c…`.
        size_bytes: Exact length.
    """

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Author:
    """Who a version is attributed to. Strings, decoded; Git's forbidden characters are removed where it is written."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a file system request.

    Attributes:
        uid: User number.
        gid: Primary group number.
        pid: Process id, 0 where the kernel does it on its own.
        umask: The process's umask.
    """

    uid: int
    gid: int
    pid: int = 0
    umask: int = 0o022
