"""Reading one large file: any range, at any time, from many tasks at once.

Threading: trio thread only. A read of chunks that are in memory neither waits nor copies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mvcfs.content.chunk_store import ChunkStore
from mvcfs.content.config import ContentConfig
from mvcfs.content.fetches import Span
from mvcfs.content.manifest_file import ChunkRef, FileChunks
from mvcfs.content.window import ReadWindow
from mvcfs.errors import CorruptData
from mvcfs.types import LargeContent

logger = logging.getLogger(__name__)


class LargeReader:
    """The bytes of one large file. Holds nothing that must be closed; its windows do."""

    def __init__(
        self,
        content: LargeContent,
        chunks: FileChunks,
        store: ChunkStore,
        config: ContentConfig,
        model_path: Callable[[], str],
        doubt: Callable[[str], None],
    ) -> None:
        """Made by `ModelContent.open`.

        Args:
            content: The file.
            chunks: Where its chunks are.
            store: What fetches them.
            config: Sizes.
            model_path: The model's folder now, for messages.
            doubt: Told the manifest's name when the store doesn't hold what it says.
        """
        self._content = content
        self._chunks = chunks
        self._store = store
        self._config = config
        self._model_path = model_path
        self._doubt = doubt
        self._last: list[ChunkRef] = []  # what the latest read needed: the next often needs the same

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        return self._content.size_bytes

    def window(self) -> ReadWindow:
        """A new window, for one open handle; close it with the handle."""
        return ReadWindow(self._chunks, self._store, self._config)

    def chunks(self, begin: int, end: int) -> list[ChunkRef]:
        """The chunks that hold any of [begin, end), in order; no data is read."""
        return self._chunks.refs(begin, end)

    async def read(self, offset: int, length: int, window: ReadWindow | None = None) -> bytes | memoryview:
        """The bytes [offset, offset+length), clamped at the file's end.

        Args:
            offset: Where they begin.
            length: How many.
            window: The handle's window, which then reads ahead.

        Raises:
            CorruptData: The store doesn't hold what the manifest says; no byte is handed on.
            StorageError: The store failed.
        """
        end = min(offset + length, self.size_bytes)
        if offset >= end:
            return b""
        refs = self._refs(offset, end)
        try:
            want = self._store.want(refs)
            try:
                if window is not None:
                    window.advance(offset, end)
                spans = await want.wait()
            finally:
                want.release()
        except CorruptData as error:
            raise self._corrupt(str(error)) from error
        return _join(spans, offset - refs[0].start, end - offset)

    def _refs(self, offset: int, end: int) -> list[ChunkRef]:
        refs = self._last
        if not _covers(refs, offset, end):
            refs = self._chunks.refs(offset, end)
            if not _covers(refs, offset, end):
                raise self._corrupt(f"manifest {self._chunks.manifest} has no chunks for bytes {offset}-{end}")
            self._last = refs
        return [ref for ref in refs if ref.start < end and ref.start + ref.length > offset]

    def _corrupt(self, what: str) -> CorruptData:
        self._doubt(self._chunks.manifest)
        logger.error("%s: large file %s: %s", self._model_path(), self._content.oid, what)
        return CorruptData(f"{self._model_path()}: large file {self._content.oid}: {what}")


def _covers(refs: Sequence[ChunkRef], offset: int, end: int) -> bool:
    return bool(refs) and refs[0].start <= offset and end <= refs[-1].start + refs[-1].length


def _join(spans: Sequence[Span], skip: int, length: int) -> bytes | memoryview:
    """`length` bytes of the chunks after the first `skip`: a view where they are in one buffer, else a copy."""
    first = spans[0]
    end = first.begin
    for span in spans:
        if span.segment is not first.segment or span.begin != end:
            break
        end += span.length
    else:
        begin = first.begin + skip
        return memoryview(first.segment.data)[begin : begin + length]
    parts, left = [], length
    for span in spans:
        part = span.view[skip : skip + left]
        parts.append(part)
        left -= len(part)
        skip = 0
    return b"".join(parts)
