"""The one tree of errors, by what a caller would do about them.

Every layer raises these; the errno of each appears in one table in `mvcfs.fuse.errnos`, the exit code in one table in
`mvcfs.cli.exits`. A message names the thing that is wrong and, where there is one, the way out.
"""

from __future__ import annotations


class MvcfsError(Exception):
    """The root of all errors that mvcfs raises on purpose."""


class NotFound(MvcfsError):
    """Something that was named isn't there."""


class NoAttribute(NotFound):
    """A file has no extended attribute of that name (ENODATA)."""


class Stale(MvcfsError):
    """A file that is open here was replaced by another host (ESTALE; by a path the kernel looks it up again)."""


class AlreadyExists(MvcfsError):
    """A name that must be new is taken."""


class ReadOnly(MvcfsError):
    """The thing can't be changed: a snapshot, a protected branch."""


class Conflict(MvcfsError):
    """Two sides changed the same thing, or a ref moved under a caller who asked for its old value."""


class InvalidName(MvcfsError):
    """A model, branch, tag or revision is written in a way that can't name one."""


class LimitExceeded(MvcfsError):
    """A bound was reached: staging, quota, size of a name."""


class NameTooLong(LimitExceeded):
    """A name of a file is longer than a directory entry can be (ENAMETOOLONG)."""


class NotPermitted(MvcfsError):
    """The operation exists, but not here or not for this caller (EPERM)."""


class Busy(MvcfsError):
    """The thing is held by somebody else, who is named: an overlay in use, a mount with open files."""


class NotADirectory(MvcfsError):
    """A path goes through something that is no directory."""


class IsADirectory(MvcfsError):
    """A file operation was asked of a directory."""


class NotEmpty(MvcfsError):
    """A directory, branch or model that must be empty isn't."""


class CrossDevice(MvcfsError):
    """A rename or link between trees that share no data: `mv` copies instead."""


class NotSupported(MvcfsError):
    """An operation that this file system doesn't have."""


class InvalidArgument(MvcfsError):
    """A value that no such operation takes (EINVAL)."""


class StorageError(MvcfsError):
    """The store failed."""


class Transient(StorageError):
    """The call failed and did nothing: it may be tried again."""


class UnknownOutcome(StorageError):
    """A changing call failed and may or may not have happened: look before trying again."""


class PermissionDenied(StorageError):
    """The store refuses the identity that a call was made as."""


class CorruptData(MvcfsError):
    """Bytes that aren't what their name or their checksum says. Never handed on."""


class UnsupportedFormat(MvcfsError):
    """A store of a newer format version, or one that needs a feature this mvcfs hasn't."""
