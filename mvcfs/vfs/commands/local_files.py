"""What goes wrong with the files of this host that a command reads or writes, in the words of `mvcfs.errors`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from mvcfs.errors import LimitExceeded, MvcfsError, NotFound, NotPermitted

_KINDS: dict[int, type[MvcfsError]] = {
    errno.ENOENT: NotFound,
    errno.ENOSPC: LimitExceeded,
    errno.EDQUOT: LimitExceeded,
    errno.EFBIG: LimitExceeded,
    errno.EACCES: NotPermitted,
    errno.EPERM: NotPermitted,
    errno.EROFS: NotPermitted,
}


@contextmanager
def local_errors() -> Iterator[None]:
    """Turns an OSError into the error that says the same, naming the file."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise _KINDS.get(error.errno or 0, MvcfsError)(f"{where}{error.strerror or error}") from error
