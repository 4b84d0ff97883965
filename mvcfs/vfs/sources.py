"""What a working tree and a snapshot read of a model: trees and small files from Git, large files from packs.

The one place where the two halves of a store, `versions` and `content`, meet for reading. Threading: trio thread.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

import trio

from mvcfs.content.model_content import ModelContent
from mvcfs.content.reader import LargeReader
from mvcfs.content.window import ReadWindow
from mvcfs.errors import CorruptData, NotFound
from mvcfs.types import MIB, NS_PER_S, BlobContent, Content, LargeContent, TreeEntry
from mvcfs.versions.log.leases import MountLease
from mvcfs.versions.repository import ModelRepository

_BIG_BLOB_BYTES = MIB


class ContentSource:
    """One stored content, read by ranges. Serves as the `Base` of staged files as well.

    Args:
        data: The model.
        content: What is read.
        windowed: Whether reads come from one handle, in an order that reading ahead may learn from.
    """

    def __init__(self, data: ModelData, content: Content, *, windowed: bool = False) -> None:
        self._data = data
        self.content = content
        self._windowed = windowed
        self._small: _Blob | None = None
        self._large: LargeReader | None = None
        self._window: ReadWindow | None = None

    @property
    def size_bytes(self) -> int:
        """Length of the content."""
        return self.content.size_bytes

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes [offset, offset+length), cut at the end."""
        return bytes(await self.read_view(offset, length))

    async def read_view(self, offset: int, length: int) -> bytes | memoryview:
        """Like `read`, without a copy where there is none needed."""
        if offset >= self.size_bytes or length <= 0:
            return b""
        if isinstance(self.content, BlobContent):
            if self._small is None:
                self._small = await self._data.blob(self.content)
            return memoryview(self._small.data)[offset : offset + length]
        if self._large is None:
            large = await self._data.open_large(self.content)
            if self._large is None:
                self._large = large
                self._window = large.window() if self._windowed else None
        return await self._large.read(offset, length, self._window)

    def close(self) -> None:
        """Ends reading ahead."""
        if self._window is not None:
            self._window.close()
            self._window = None


class _Blob:
    """The bytes of a blob, shared by all that read it."""

    __slots__ = ("__weakref__", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data


class HeldSnapshot(Protocol):
    """The root directory of a snapshot, as far as it says whether anybody has it."""

    commit: str
    lookups: int
    handles: int


class ModelData:
    """A model's stored trees and contents."""

    def __init__(self, repository: ModelRepository, content: ModelContent, lease: MountLease) -> None:
        self.repository = repository
        self.content = content
        self.lease = lease
        self._blobs: WeakValueDictionary[BlobContent, _Blob] = WeakValueDictionary()
        self._reading_big = trio.Lock()
        self.snapshots: WeakSet[HeldSnapshot] = WeakSet()

    @property
    def id(self) -> str:
        """The model's id."""
        return self.repository.id

    @property
    def name(self) -> str:
        """The model's name."""
        return self.repository.name

    def set_live(self) -> None:
        """Tells content what the ref log holds, as far as it was taken in."""
        refs = self.repository.refs
        self.content.set_live(refs.manifests, refs.packs)

    def held_commits(self) -> set[str]:
        """The commits whose snapshots the kernel or a handle holds."""
        return {snapshot.commit for snapshot in self.snapshots if snapshot.lookups or snapshot.handles}

    async def entries(self, tree: str, commit: str | None = None) -> dict[bytes, TreeEntry]:
        """A tree's entries by name.

        Args:
            tree: Its Git id.
            commit: The commit whose time files have that Git alone speaks of; None where times don't matter.
        """
        time_ns = 0
        if commit is not None:
            time_ns = (await self.repository.commit_info(commit)).committer_time_s * NS_PER_S
        return {entry.name: entry for entry in await self.repository.list_tree(tree, default_mtime_ns=time_ns)}

    async def read_blob(self, content: BlobContent) -> bytes:
        """A small file's bytes."""
        return (await self.blob(content)).data

    async def blob(self, content: BlobContent) -> _Blob:
        """A file that Git itself holds: a small one, unless it came with another repository's history.

        A big one is in memory once, whatever number of handles reads it, and they are fetched one after another.
        """
        if content.size_bytes < _BIG_BLOB_BYTES:
            return _Blob(await self.repository.read_content(content))
        async with self._reading_big:
            found = self._blobs.get(content)
            if found is None:
                found = self._blobs[content] = _Blob(await self.repository.read_content(content))
            return found

    async def open_large(self, content: LargeContent) -> LargeReader:
        """A reader of a large file that some version has.

        Raises:
            CorruptData: Its data isn't in the store, or is damaged there.
            StorageError: The store failed.
        """
        try:
            return await self.content.open(content)
        except NotFound as error:
            raise CorruptData(str(error)) from error

    def source(self, content: Content, *, windowed: bool = False) -> ContentSource:
        """A reader of stored content; it is opened at its first read."""
        return ContentSource(self, content, windowed=windowed)
