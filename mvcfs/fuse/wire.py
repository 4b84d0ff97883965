"""The lines that cross the control socket and the pipe of a starting daemon: JSON, one value a line.

Errors travel as the name of their class and their message, and arrive as the same class of `mvcfs.errors`. Pure
functions without pyfuse3, so that a command-line program that only asks a daemon starts fast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mvcfs import errors

REQUEST_LIMIT_BYTES = 1 << 20
REPLY_LIMIT_BYTES = 256 << 20
"""Longest line each way. A reply may list every version of a branch or every problem of a store."""


def encode_line(value: Mapping[str, Any]) -> bytes:
    """Returns a line with its end. Names that aren't UTF-8 are surrogate-escaped text and cross as such."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """Returns the object on a line.

    Raises:
        InvalidArgument: It isn't a JSON object.
    """
    try:
        value = json.loads(line)
    except ValueError:
        raise errors.InvalidArgument("a line of the control protocol isn't JSON") from None
    if not isinstance(value, dict):
        raise errors.InvalidArgument("a line of the control protocol isn't a JSON object")
    return value


def encode_error(error: BaseException) -> dict[str, str]:
    """Returns an error as it travels. One that isn't of mvcfs's tree arrives as the root of that tree."""
    if isinstance(error, errors.MvcfsError):
        return {"type": type(error).__name__, "message": str(error)}
    return {
        "type": "MvcfsError",
        "message": f"unexpected {type(error).__name__}: {error} (its traceback is in the log)",
    }


def decode_error(value: Mapping[str, Any]) -> errors.MvcfsError:
    """Returns the error that travelled; of a class that this side doesn't know, the root of the tree."""
    kind = getattr(errors, str(value.get("type")), errors.MvcfsError)
    message = str(value.get("message", "the daemon gave no reason"))
    if isinstance(kind, type) and issubclass(kind, errors.MvcfsError):
        return kind(message)
    return errors.MvcfsError(message)
