"""The values that cross between the file system and whoever shows it (the FUSE adapter, tests). Plain and immutable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attr:
    """What `stat` shows of an inode, with how long the kernel may keep it.

    Attributes:
        ino: Inode number, never used for another file while a store is mounted.
        mode: st_mode with type bits.
        nlink: Number of names.
        uid: Owner.
        gid: Group.
        rdev: Device number of a device file.
        size_bytes: Length.
        atime_ns: Last access, as far as it is kept (set by utimens; reads do not move it).
        mtime_ns: Last change of content.
        ctime_ns: Last change of anything.
        entry_timeout_s: How long the name may be taken for this inode without asking.
        attr_timeout_s: How long these attributes may be shown without asking.
    """

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size_bytes: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    entry_timeout_s: float
    attr_timeout_s: float


@dataclass(frozen=True, slots=True)
class SetAttr:
    """A change of attributes; None keeps."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file.

    Attributes:
        fh: Handle number.
        keep_cache: The kernel may keep pages it has of this inode.
        direct_io: Reads and writes go past the kernel's page cache.
    """

    fh: int
    keep_cache: bool = False
    direct_io: bool = False


@dataclass(frozen=True, slots=True)
class Statfs:
    """What `statfs` shows. Sizes in units of `block_bytes`."""

    block_bytes: int
    blocks: int
    free: int
    files: int
    files_free: int
    name_max: int
