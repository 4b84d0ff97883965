"""Reading ahead for one open handle.

A handle that reads in sequence gets a window that doubles as it is read through; a far seek closes it again. The kernel
sends the requests of its own read-ahead in any order, so "in sequence" means near the furthest byte asked for.

Invariants: a window only asks for what the budget has free; a reader never waits for what it prefetches beyond the
reader's own chunks. `close` ends all of its interest, which cancels what nobody else waits for.

Threading: trio thread only; no method waits.
"""

from __future__ import annotations

from collections import deque

from mvcfs.content.chunk_store import ChunkStore
from mvcfs.content.config import ContentConfig
from mvcfs.content.fetches import Fetch
from mvcfs.content.manifest_file import FileChunks


class ReadWindow:
    """The window of one handle."""

    def __init__(self, chunks: FileChunks, store: ChunkStore, config: ContentConfig) -> None:
        """Made by `LargeReader.window`."""
        self._chunks = chunks
        self._store = store
        self._config = config
        self._bytes = 0
        self._next = 0  # furthest byte asked for
        self._grow_at = 0
        self._ahead = 0  # how far is asked for ahead
        self._held: deque[tuple[int, Fetch]] = deque()  # with the file offset it ends at
        self._closed = False

    @property
    def size_bytes(self) -> int:
        """How far ahead the window reaches now; 0 before the first read and after a far seek."""
        return self._bytes

    def advance(self, offset: int, end: int) -> None:
        """Notes a read of [offset, end) and fetches ahead of it."""
        if self._closed:
            return
        slack = max(self._bytes, self._config.window_min_bytes)
        if not self._next - slack <= offset <= self._next + slack:
            self._drop()
            self._bytes, self._next, self._grow_at, self._ahead = 0, end, end, end
            return
        self._next = max(self._next, end)
        if not self._bytes:
            self._bytes = self._config.window_min_bytes
            self._grow_at = self._next + self._bytes // 2
        elif self._next >= self._grow_at:
            self._bytes = min(2 * self._bytes, self._config.window_max_bytes)
            self._grow_at = self._next + self._bytes // 2
        while self._held and self._held[0][0] <= offset - self._config.window_min_bytes:
            self._store.release(self._held.popleft()[1], consumed=True)
        self._fetch()

    def close(self) -> None:
        """Ends the window."""
        self._closed = True
        self._drop()

    def _fetch(self) -> None:
        begin = max(self._ahead, self._next)
        target = min(self._next + self._bytes, self._chunks.size_bytes)
        worthwhile = min(self._config.range_bytes, self._bytes // 2)
        if target - begin < worthwhile and target < self._chunks.size_bytes:
            return
        refs = self._chunks.refs(begin, target)
        if refs and refs[0].start < begin:
            refs = refs[1:]  # the reader itself has asked for that one
        holds, covered = self._store.prefetch(refs)
        if covered:
            self._ahead = refs[covered - 1].start + refs[covered - 1].length
        self._held.extend((end, fetch) for fetch, end in holds.items())

    def _drop(self) -> None:
        while self._held:
            self._store.release(self._held.popleft()[1])
