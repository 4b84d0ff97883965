"""The one table from errors to errno, and the decorator that applies it to every request handler.

Everything below this package speaks `mvcfs.errors`; the kernel wants a number. pyfuse3 ends the whole mount when
anything but its own FUSEError leaves a handler, so the decorator lets nothing through but what must end a task:
cancellation and the interpreter's own exits. An exception that isn't in the table is a bug: its traceback is logged
and the caller gets EIO. Runs on the trio thread only, and holds no state.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from mvcfs import errors

_log = logging.getLogger(__name__)

ERRNOS: dict[type[errors.MvcfsError], int] = {
    errors.NotFound: errno.ENOENT,
    errors.Stale: errno.ESTALE,
    errors.AlreadyExists: errno.EEXIST,
    errors.ReadOnly: errno.EROFS,
    # No call of a program can resolve a conflict, and waiting may: the same as for a thing that is in use.
    errors.Conflict: errno.EBUSY,
    errors.InvalidName: errno.EINVAL,
    errors.LimitExceeded: errno.ENOSPC,
    errors.NotPermitted: errno.EPERM,
    errors.Busy: errno.EBUSY,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.CrossDevice: errno.EXDEV,
    # Not ENOSYS: the kernel takes that as "never ask again" for the whole mount.
    errors.NotSupported: errno.EOPNOTSUPP,
    errors.InvalidArgument: errno.EINVAL,
    errors.PermissionDenied: errno.EACCES,
    errors.StorageError: errno.EIO,
    errors.CorruptData: errno.EIO,
    errors.UnsupportedFormat: errno.EIO,
    errors.MvcfsError: errno.EIO,
}
"""The errno of each error; a subclass that isn't named has that of its nearest named parent."""

_WORTH_A_LOG_LINE = (errors.StorageError, errors.CorruptData, errors.UnsupportedFormat, errors.LimitExceeded)
"""Listed errors that an operator wants to read about: the program that met them sees only a number."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_MUST_PASS = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S")


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yields the exceptions inside a group, however deep, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def must_pass(error: BaseException) -> bool:
    """Whether an exception ends a task on purpose, alone or in a group, and may not be turned into an errno."""
    return any(isinstance(leaf, _MUST_PASS) for leaf in leaves(error))


def listed_errno(error: BaseException) -> int | None:
    """Returns the errno of an error of the table, None for an exception that nobody raises on purpose."""
    if isinstance(error, pyfuse3.FUSEError):
        return error.errno
    if isinstance(error, errors.MvcfsError):
        return next(ERRNOS[kind] for kind in type(error).__mro__ if kind in ERRNOS)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return errno.ENOSPC
    return None


def errno_of(error: BaseException, operation: str) -> int:
    """Returns the errno for what a handler raised, and logs what deserves it.

    Args:
        error: What left the handler. Of a group, the first leaf decides unless another leaf is a bug.
        operation: The handler's name, for the log.
    """
    answer: int | None = None
    for leaf in leaves(error):
        number = listed_errno(leaf)
        if number is None:
            _log.error("%s failed with an unexpected error", operation, exc_info=error)
            return errno.EIO
        if isinstance(leaf, (*_WORTH_A_LOG_LINE, OSError)):
            _log.warning("%s: %s", operation, leaf)
        if answer is None:
            answer = number
    return errno.EIO if answer is None else answer


def answers_errno(
    handler: Callable[Concatenate[_S, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[_S, _P], Coroutine[Any, Any, _R]]:
    """Makes a request handler raise nothing but FUSEError and what must end its task."""

    @functools.wraps(handler)
    async def guarded(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except BaseException as error:  # a panic of a Rust extension is a BaseException
            if must_pass(error):
                raise
            raise pyfuse3.FUSEError(errno_of(error, handler.__name__)) from None

    return guarded
