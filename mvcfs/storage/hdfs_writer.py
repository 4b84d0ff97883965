"""Writing a file of HDFS: hidden, then durable, then named.

Durable means: held by every DataNode of the pipeline. Whether they have it on disk when they say so is the cluster's
choice (`dfs.datanode.synconclose`); the client's own hsync isn't used, since it may hang when a DataNode dies.

Threading: an `Unfinished` holds no state and its methods are called in worker threads. An `HdfsWriter` belongs to one
task; while a call of it runs in a thread (abandoned ones included) the client's writer is used by nothing else, so after
a call that didn't end well only `abort` is left, which goes by the name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio
from hdfs_native import Client, FileWriter, WriteOptions

from mvcfs.errors import AlreadyExists, MvcfsError, NotFound, StorageError, Transient, UnknownOutcome
from mvcfs.storage.hdfs_errors import translate
from mvcfs.types import MIB

_BUFFER_BYTES = MIB
_ABORT_S = 10.0


class CallRunner(Protocol):
    """How calls are made: in a thread, with their errors translated."""

    async def __call__(
        self, path: str, function: Callable[[Client], Any], *, mutates: bool = False, bulk: bool = False
    ) -> Any:
        """The result of `function`."""
        ...


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A file on its way.

    Attributes:
        about: Store and path, for messages.
        path: Where it shall be.
        temporary: Where it is until then; nobody else knows that name.
        options: How it is made.
    """

    about: str
    path: str
    temporary: str
    options: WriteOptions

    def start(self, client: Client) -> FileWriter:
        """Makes the hidden file, unless its name is taken already or its directory is missing. Nobody sees it yet."""
        try:
            with contextlib.suppress(FileNotFoundError):
                client.get_file_info(self.path)
                raise AlreadyExists(f"{self.about} is there already")
            return client.create(self.temporary, self.options)
        except (OSError, RuntimeError) as error:
            raise translate(error, self.about, mutates=False) from error

    def finish(self, client: Client, raw: FileWriter, rest: bytes | bytearray, size_bytes: int) -> None:
        """Writes the rest, makes all of it durable and gives it its name. A failure leaves nothing, if the store answers."""
        try:
            if rest:
                raw.write(rest)
            raw.close()
        except (OSError, RuntimeError) as error:
            self.discard(client)
            raise translate(error, self.about, mutates=False) from error
        self._publish(client, size_bytes)

    def _publish(self, client: Client, size_bytes: int) -> None:
        try:
            client.rename(self.temporary, self.path)
        except FileExistsError as error:
            self.discard(client)
            raise AlreadyExists(f"{self.about} is there already") from error
        except FileNotFoundError as error:
            # The client repeats a call that broke off, so "no such source" may be the answer to a second one.
            if not self._is_there(client, size_bytes):
                raise NotFound(f"{self.about}: its directory is gone") from error
        except (OSError, RuntimeError) as error:
            found = translate(error, self.about, mutates=True)
            if not isinstance(found, UnknownOutcome):
                self.discard(client)
                raise found from error
            self._settle(client, found)

    def _is_there(self, client: Client, size_bytes: int) -> bool:
        try:
            return client.get_file_info(self.path).length == size_bytes
        except FileNotFoundError:
            return False

    def _settle(self, client: Client, unknown: MvcfsError) -> None:
        """Finds out whether a rename that broke off took place: after it the hidden name is free, else it is now."""
        try:
            removed = client.delete(self.temporary)
        except (OSError, RuntimeError):
            raise unknown from None
        if removed:
            raise Transient(str(unknown)) from None

    def discard(self, client: Client) -> None:
        """Removes the hidden file, as far as the store answers."""
        with contextlib.suppress(OSError, RuntimeError):
            client.delete(self.temporary)


class HdfsWriter:
    """The protocol's writer. Small writes are collected, since each call of the client costs a thread hop."""

    def __init__(self, unfinished: Unfinished, raw: FileWriter, call: CallRunner):
        self._unfinished = unfinished
        self._raw: FileWriter | None = raw
        self._call = call
        self._buffer = bytearray()
        self._size_bytes = 0

    async def write(self, data: bytes | bytearray) -> None:
        """Appends `data`."""
        raw = self._take()
        self._size_bytes += len(data)
        if self._buffer or len(data) < _BUFFER_BYTES:
            self._buffer += data
            data = self._buffer
        if len(data) >= _BUFFER_BYTES:
            self._buffer = bytearray()
            await self._call(self._unfinished.about, lambda _: raw.write(data), bulk=True)
        else:
            await trio.lowlevel.checkpoint()
        self._raw = raw

    async def close(self) -> None:
        """Makes the file durable and visible."""
        raw, buffer, size = self._take(), self._buffer, self._size_bytes
        self._buffer = bytearray()
        finish = self._unfinished.finish
        await self._call(
            self._unfinished.about, lambda client: finish(client, raw, buffer, size), mutates=True, bulk=True
        )

    async def abort(self) -> None:
        """Removes the hidden file; waits for the store a bounded time only."""
        self._raw = None
        self._buffer = bytearray()
        with trio.move_on_after(_ABORT_S, shield=True), contextlib.suppress(MvcfsError):
            await self._call(self._unfinished.about, self._unfinished.discard)

    def _take(self) -> FileWriter:
        """The client's writer, out of reach of the next call until this one has ended well."""
        raw, self._raw = self._raw, None
        if raw is None:
            raise StorageError(f"{self._unfinished.about}: the writer is closed or has failed")
        return raw
