"""The control socket of a mount: one JSON request a connection, reports of progress, then a result or an error.

Request: `{"command": NAME, "args": {…}}`. Replies: any number of `{"progress": {…}}`, about one a second while the
command runs, then one `{"result": {…}}` or `{"error": {"type": …, "message": …}}`.

Only the user of the mount and root are served, by the kernel's word for who is at the other end. A client that goes
away, or stops reading, cancels nothing: a commit that was asked for is finished. Connections, the length of a request
and the time to send it are bounded. Everything runs on the trio thread.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from mvcfs.errors import Busy, InvalidArgument, MvcfsError, NotPermitted, NotSupported
from mvcfs.fuse.errnos import leaves, must_pass
from mvcfs.fuse.served import Command
from mvcfs.fuse.wire import REQUEST_LIMIT_BYTES, decode_line, encode_error, encode_line
from mvcfs.vfs.command_progress import CommandProgress, watched

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
PROGRESS_INTERVAL_S = 1.0
REQUEST_TIMEOUT_S = 10.0
REPLY_TIMEOUT_S = 30.0

_UCRED = struct.Struct("3i")


class ControlServer:
    """Serves commands on a Unix socket.

    Args:
        path: Where the socket is made, in a folder that only this user may enter. One that is there is replaced.
        commands: What is served.
        progress: Says how far things are, for commands that take more than a second.
    """

    def __init__(self, path: Path, commands: Mapping[str, Command], progress: Callable[[], Mapping[str, Any]]) -> None:
        self._path = path
        self._commands = commands
        self._progress = progress
        self._active = 0
        self._idle = trio.Event()
        self._idle.set()
        self._accepting = trio.CancelScope()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens until `finish`, then answers what is still being worked on."""
        listener = await self._bind()
        identity = os.lstat(self._path).st_ino
        try:
            async with trio.open_nursery() as connections:
                task_status.started()
                with listener, self._accepting:
                    while True:
                        try:
                            peer, _ = await listener.accept()
                        except OSError as error:
                            _log.warning("The control socket can't take a connection: %s", error)
                            await trio.sleep(PROGRESS_INTERVAL_S)
                            continue
                        connections.start_soon(self._connection, peer)
        finally:
            self._unlink(identity)

    async def finish(self, timeout_s: float) -> None:
        """Takes no more connections and waits, at most so long, until all answers are out."""
        self._accepting.cancel()
        with trio.move_on_after(timeout_s):
            await self._idle.wait()

    async def _bind(self) -> trio.socket.SocketType:
        """Makes the socket beside its place and moves it there, so that it never is there without somebody behind."""
        fresh = self._path.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await listener.bind(os.fspath(fresh))
        os.chmod(fresh, 0o600)
        listener.listen(MAX_CONNECTIONS)
        os.rename(fresh, self._path)
        return listener

    def _unlink(self, identity: int) -> None:
        """Removes the socket unless a later mount has put its own there."""
        try:
            if os.lstat(self._path).st_ino == identity:
                os.unlink(self._path)
        except FileNotFoundError:
            _log.debug("%s is gone already", self._path)

    async def _connection(self, peer: trio.socket.SocketType) -> None:
        if self._active == 0:
            self._idle = trio.Event()
        self._active += 1
        try:
            async with trio.SocketStream(peer) as stream:
                replies = _Replies(stream)
                await replies.send(await self._answer(stream, replies))
        finally:
            self._active -= 1
            if self._active == 0:
                self._idle.set()

    async def _answer(self, stream: trio.SocketStream, replies: _Replies) -> dict[str, Any]:
        try:
            with trio.move_on_after(REQUEST_TIMEOUT_S) as patience:
                line = await _read_line(stream)
            if patience.cancelled_caught:
                raise InvalidArgument(f"no request came within {REQUEST_TIMEOUT_S:g} s")
            _check_peer(stream.socket)
            if self._active > MAX_CONNECTIONS:
                raise Busy(f"{MAX_CONNECTIONS} commands are being worked on; try again")
            return {"result": await self._run(decode_line(line), replies)}
        except BaseException as error:  # a panic of a Rust extension is a BaseException
            if must_pass(error):
                raise
            return {"error": encode_error(_reason(error))}

    async def _run(self, request: dict[str, Any], replies: _Replies) -> dict[str, Any]:
        """Runs a command, reporting progress beside it."""
        name, args = request.get("command"), request.get("args", {})
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            raise NotSupported(f"this mount has no command {name!r}")
        if not isinstance(args, dict):
            raise InvalidArgument(f"the arguments of {name} must be an object")
        with watched() as progress:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report, replies, progress)
                result = await command(args)
                nursery.cancel_scope.cancel()
        return result

    async def _report(self, replies: _Replies, progress: CommandProgress) -> None:
        while True:
            await trio.sleep(PROGRESS_INTERVAL_S)
            await replies.send({"progress": progress.report() or dict(self._progress())})


class _Replies:
    """The lines that go back to a client, until it goes away or stops reading."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._gone = False

    async def send(self, value: Mapping[str, Any]) -> None:
        """Sends a line whole, even if the one who sends is cancelled meanwhile."""
        if self._gone:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REPLY_TIMEOUT_S) as scope:
            try:
                await self._stream.send_all(encode_line(value))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._gone = True
        if scope.cancelled_caught:
            self._gone = True


def _check_peer(peer: trio.socket.SocketType) -> None:
    _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in (os.geteuid(), 0):
        raise NotPermitted("only the user of the mount and root may command it")


async def _read_line(stream: trio.SocketStream) -> bytes:
    buffer = bytearray()
    while b"\n" not in buffer:
        chunk = await stream.receive_some(1 << 16)
        if not chunk:
            raise InvalidArgument("the request was cut short")
        buffer += chunk
        if len(buffer) > REQUEST_LIMIT_BYTES:
            raise InvalidArgument(f"the request is longer than {REQUEST_LIMIT_BYTES} bytes")
    return bytes(buffer.partition(b"\n")[0])


def _reason(error: BaseException) -> BaseException:
    """Returns what to tell the client, and logs a bug."""
    found = list(leaves(error))
    for leaf in found:
        if not isinstance(leaf, MvcfsError):
            _log.error("A command failed with an unexpected error", exc_info=error)
            return leaf
    return found[0]
