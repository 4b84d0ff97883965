"""What the wrappers around a storage have in common: every call, the writers' too, goes through one method.

A wrapper is a class with a single `around`. It sees which call it is and decides when, whether and how often it runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from mvcfs.storage.protocol import Space, Storage, StoreEntry, Writer
from mvcfs.types import SELF, Identity

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the protocol.

    Attributes:
        op: The method's name; a writer's are `writer.write`, `writer.close`, `writer.abort`.
        path: What it is about.
        target: The second path of a rename, else empty.
        mutates: Whether it changes what others see, so that its outcome matters when it fails.
        bulk: Whether it moves data, or may take long for another reason.
        repeatable: Whether it may be made again after it failed and did nothing. A writer's calls may not: the bytes of
            the first try may be in the file.
    """

    op: str
    path: str
    target: str = ""
    mutates: bool = False
    bulk: bool = False
    repeatable: bool = True

    def __str__(self) -> str:
        """As messages name it."""
        return f"{self.op} {self.path or '/'}" + (f" -> {self.target}" if self.target else "")


class StorageWrapper(ABC):
    """A storage whose calls go through `around`."""

    def __init__(self, inner: Storage):
        self.inner = inner

    @abstractmethod
    async def around(self, call: Call, run: Callable[[], Awaitable[T]]) -> T:
        """Makes `call` by `run`, in the wrapper's way."""

    @property
    def url(self) -> str:
        """The store's address."""
        return self.inner.url

    @property
    def block_bytes(self) -> int:
        """The store's block size."""
        return self.inner.block_bytes

    async def stat(self, path: str, *, identity: Identity = SELF) -> StoreEntry:
        """What is at `path`."""
        return await self.around(Call("stat", path), lambda: self.inner.stat(path, identity=identity))

    async def list_dir(self, path: str, *, identity: Identity = SELF) -> list[StoreEntry]:
        """The names in a directory, sorted."""
        return await self.around(Call("list_dir", path), lambda: self.inner.list_dir(path, identity=identity))

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        """The bytes of a range."""
        call = Call("read_range", path, bulk=True)
        return await self.around(call, lambda: self.inner.read_range(path, offset, length, identity=identity))

    async def read_file(self, path: str, *, max_bytes: int, identity: Identity = SELF) -> bytes:
        """A whole file. Such files are small and mounts wait for them: a silent store shall be noticed soon."""
        call = Call("read_file", path)
        return await self.around(call, lambda: self.inner.read_file(path, max_bytes=max_bytes, identity=identity))

    async def create(self, path: str, *, identity: Identity = SELF) -> Writer:
        """Starts a new file. Nobody sees it before its `close`, so the call itself changes nothing."""
        call = Call("create", path)
        return WrappedWriter(self, path, await self.around(call, lambda: self.inner.create(path, identity=identity)))

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        """Makes a new file with `data`."""
        call = Call("write_file", path, mutates=True, bulk=True)
        await self.around(call, lambda: self.inner.write_file(path, data, identity=identity))

    async def rename(self, source: str, target: str, *, identity: Identity = SELF) -> None:
        """Moves a file or directory to a free name."""
        call = Call("rename", source, target, mutates=True)
        await self.around(call, lambda: self.inner.rename(source, target, identity=identity))

    async def mkdir(self, path: str, *, parents: bool = False, identity: Identity = SELF) -> None:
        """Makes a directory."""
        call = Call("mkdir", path, mutates=True)
        await self.around(call, lambda: self.inner.mkdir(path, parents=parents, identity=identity))

    async def delete(self, path: str, *, recursive: bool = False, identity: Identity = SELF) -> None:
        """Removes a file or directory."""
        call = Call("delete", path, mutates=True, bulk=recursive)
        await self.around(call, lambda: self.inner.delete(path, recursive=recursive, identity=identity))

    async def space(self, *, identity: Identity = SELF) -> Space:
        """Room in the store."""
        return await self.around(Call("space", "", bulk=True), lambda: self.inner.space(identity=identity))

    async def aclose(self) -> None:
        """Closes the storage inside."""
        await self.inner.aclose()


class WrappedWriter:
    """A writer whose calls go through `around` of the storage that made it."""

    def __init__(self, owner: StorageWrapper, path: str, inner: Writer):
        self._owner = owner
        self._path = path
        self._inner = inner

    async def write(self, data: bytes | bytearray) -> None:
        """Appends `data`."""
        call = Call("writer.write", self._path, bulk=True, repeatable=False)
        await self._owner.around(call, lambda: self._inner.write(data))

    async def close(self) -> None:
        """Makes the file durable and visible."""
        call = Call("writer.close", self._path, mutates=True, bulk=True, repeatable=False)
        await self._owner.around(call, self._inner.close)

    async def abort(self) -> None:
        """Gives the file up. Not for wrappers to hinder: an abort has its own bound and never raises."""
        await self._inner.abort()
