"""The exit codes of `mvcfs`: one table, so that scripts can tell what happened without reading messages."""

from __future__ import annotations

from typing import Final

from mvcfs import errors

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
DAMAGED: Final = 5
WORK_LEFT: Final = 6
UNREACHABLE: Final = 7
PERMISSION: Final = 8
EXISTS: Final = 9
LIMIT: Final = 10
BUSY: Final = 11
FORMAT: Final = 12
INTERRUPTED: Final = 130

MEANINGS: Final[tuple[tuple[int, str], ...]] = (
    (OK, "done"),
    (FAILED, "failed for another reason; of doctor: something needed is missing"),
    (USAGE, "wrong usage: an unknown option, a bad value, a name or revision that can't be one"),
    (NOT_FOUND, "a store, model, branch, revision or mount isn't there"),
    (CONFLICT, "both sides changed the same: a commit went to a conflict branch, or a merge waits for a choice"),
    (DAMAGED, "damaged data was found"),
    (WORK_LEFT, "unmounted with work left, which waits in the overlay for the next mount"),
    (UNREACHABLE, "the store does not answer or refuses the connection"),
    (PERMISSION, "not permitted, or read-only"),
    (EXISTS, "the name is taken already"),
    (LIMIT, "a limit was reached: disk full, quota, size"),
    (BUSY, "in use by another mount or process"),
    (FORMAT, "the store has a format that this mvcfs does not know"),
    (INTERRUPTED, "interrupted by Ctrl-C"),
)
"""Code and meaning, in order, as `mvcfs --help` and docs/cli.md show them."""

_BY_ERROR: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.NotFound, NOT_FOUND),
    (errors.AlreadyExists, EXISTS),
    (errors.NotEmpty, EXISTS),
    (errors.ReadOnly, PERMISSION),
    (errors.NotPermitted, PERMISSION),
    (errors.PermissionDenied, PERMISSION),
    (errors.Conflict, CONFLICT),
    (errors.InvalidName, USAGE),
    (errors.InvalidArgument, USAGE),
    (errors.LimitExceeded, LIMIT),
    (errors.Busy, BUSY),
    (errors.CorruptData, DAMAGED),
    (errors.UnsupportedFormat, FORMAT),
    (errors.StorageError, UNREACHABLE),
    (errors.MvcfsError, FAILED),
    (KeyboardInterrupt, INTERRUPTED),
)
"""First match wins: subclasses stand before their bases."""


class WorkLeft(errors.MvcfsError):
    """A mount was left although not all of its work is in the store yet."""


def exit_code(error: BaseException) -> int:
    """Gives the exit code that tells of `error`."""
    if isinstance(error, WorkLeft):
        return WORK_LEFT
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)
