"""Asks the daemon of a mount, synchronously: for command-line programs. Free of pyfuse3 and trio, so it starts fast."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvcfs.errors import MvcfsError, NotFound, NotPermitted, UnknownOutcome
from mvcfs.fuse.wire import REPLY_LIMIT_BYTES, decode_error, decode_line, encode_line

_UCRED = struct.Struct("3i")


def call(
    path: str | Path,
    command: str,
    args: Mapping[str, Any] | None = None,
    *,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    timeout_s: float = 15.0,
    server_uid: int | None = None,
) -> dict[str, Any]:
    """Runs a command in the daemon and returns its result.

    Args:
        path: The daemon's control socket.
        command: Name of the command.
        args: Its arguments, JSON values.
        on_progress: Called with each report of progress, about once a second.
        timeout_s: Longest silence. A daemon that works says so every second, however long the work takes.
        server_uid: Whose daemon it is, if not ours or root's.

    Raises:
        NotFound: No daemon is there.
        NotPermitted: The socket is somebody else's.
        UnknownOutcome: The daemon fell silent or went away; what was asked may or may not have been done.
        MvcfsError: Of the class that the command raised.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotFound(
                f"the mvcfs daemon of this mount isn't running, or was killed (nobody listens on {path}): "
                "`mvcfs mount` it again, which cleans up and finds what was written"
            ) from None
        except OSError as error:
            raise NotPermitted(f"can't reach the daemon by {path}: {error.strerror}") from None
        _check_server(connection, {os.geteuid(), 0, server_uid})
        try:
            # A daemon that refuses may answer before it has read everything.
            with suppress(BrokenPipeError):
                connection.sendall(encode_line({"command": command, "args": dict(args or {})}))
            for line in _lines(connection):
                reply = decode_line(line)
                if "result" in reply:
                    return dict(reply["result"])
                if "error" in reply:
                    raise decode_error(reply["error"])
                if on_progress is not None and "progress" in reply:
                    on_progress(reply["progress"])
        except TimeoutError:
            raise UnknownOutcome(f"the daemon has been silent for {timeout_s:g} s; `{command}` may go on") from None
        except OSError as error:
            raise UnknownOutcome(f"lost the daemon in the middle of `{command}`: {error.strerror}") from None
    raise UnknownOutcome(f"the daemon went away in the middle of `{command}`; see its log")


def _check_server(connection: socket.socket, allowed: set[int | None]) -> None:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(data)
    if uid not in allowed:
        raise NotPermitted(f"the control socket is served by user {uid}, whose mount this isn't")


def _lines(connection: socket.socket) -> Iterator[bytes]:
    buffer = bytearray()
    while True:
        chunk = connection.recv(1 << 16)
        if not chunk:
            return
        buffer += chunk
        if len(buffer) > REPLY_LIMIT_BYTES:
            raise MvcfsError("the daemon's answer is too long")
        if b"\n" in chunk:
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest)
            yield from (bytes(line) for line in lines)
