"""Chunks in memory, and on their way there: from the block cache, else from packs in ranges of several chunks.

A chunk that several readers need is fetched once; a fetch nobody is interested in any more is cancelled. Fetches made
ahead of need wait for a slot and for free budget. A fetch that a reader waits for does neither: when the budget is used
up, its bytes are handed on without being kept.

Invariants: every byte that leaves was checked against its chunk's BLAKE3, here or by the block cache. Memory that is
kept is reserved from the budget, and given back when others need it.

Threading: trio thread only; reading is the storage's concern, checking is done in threads.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import trio

from mvcfs.content.block_cache import BlockCache
from mvcfs.content.budget import Budget
from mvcfs.content.config import ContentConfig
from mvcfs.content.fetches import Fetch, Key, Segment, Span, check_chunks, key_of, range_groups
from mvcfs.content.manifest_file import ChunkRef
from mvcfs.errors import CorruptData, NotFound, StorageError
from mvcfs.storage.protocol import Storage
from mvcfs.types import MIB

logger = logging.getLogger(__name__)

_CACHE_QUEUE_BYTES = 64 * MIB
"""Bytes on their way to the block cache; what comes on top isn't cached: a slow local disk must not slow reading."""


class Want:
    """Chunks that a reader waits for. Release it when done, whatever happened."""

    def __init__(self, store: ChunkStore, keys: Sequence[Key]) -> None:
        self._store = store
        self._keys = keys
        self.hits: dict[Key, Span] = {}
        self.fetches: dict[Key, Fetch] = {}

    async def wait(self) -> list[Span]:
        """The chunks, in the order asked for; CorruptData, StorageError."""
        if not self.fetches:
            return [self.hits[key] for key in self._keys]
        for fetch in set(self.fetches.values()):
            await fetch.done.wait()
        return [self.hits[key] if key in self.hits else self.fetches[key].result(key) for key in self._keys]

    def release(self) -> None:
        """Ends the interest in what was waited for."""
        for fetch in self.fetches.values():
            fetch.waiters -= 1
            if fetch.done.is_set() and not fetch.waiters:
                fetch.found.clear()
            self._store.release(fetch)
        self.fetches = {}


class ChunkStore:
    """The chunks of one model that are in memory or on their way."""

    def __init__(
        self,
        storage: Storage,
        model_path: Callable[[], str],
        cache: BlockCache,
        budget: Budget,
        config: ContentConfig,
        start_soon: Callable[..., object],
    ) -> None:
        """Holds nothing yet.

        Args:
            storage: The store.
            model_path: The model's folder now.
            cache: Chunks on local disk.
            budget: Where memory is reserved.
            config: Sizes.
            start_soon: Starts a task that outlives the caller.
        """
        self._storage = storage
        self._model_path = model_path
        self._cache = cache
        self._budget = budget
        self._config = config
        self._start_soon = start_soon
        self._limiter = trio.CapacityLimiter(config.verify_threads)
        self._kept: OrderedDict[Segment, None] = OrderedDict()
        self._where: dict[Key, Span] = {}
        self._fetches: dict[Key, Fetch] = {}
        self._queue: deque[Fetch] = deque()
        self._running_ahead = 0
        self._tasks = 0
        self._idle = trio.Event()
        self._caching_bytes = 0
        self._closed = False
        budget.on_pressure(self.reclaim)

    def want(self, refs: Sequence[ChunkRef]) -> Want:
        """Starts whatever must be fetched for `refs`, at once."""
        if self._closed:
            raise StorageError("the model's content is closed")
        want = Want(self, [key_of(ref) for ref in refs])
        missing: dict[Key, ChunkRef] = {}
        for ref in refs:
            key = key_of(ref)
            span = self._where.get(key)
            if span is not None:
                self._kept.move_to_end(span.segment)
                want.hits[key] = span
            elif key not in want.fetches and key not in missing:
                fetch = self._fetches.get(key)
                if fetch is None:
                    missing[key] = ref
                else:
                    self._join(want, key, fetch)
        for group in range_groups(missing.values(), self._config.range_bytes):
            total = sum(ref.length for ref in group)
            fetch = Fetch(group, total if self._make_room(total) else 0)
            for ref in group:
                self._fetches[key_of(ref)] = fetch
                self._join(want, key_of(ref), fetch)
            self._start(fetch)
        return want

    def prefetch(self, refs: Sequence[ChunkRef]) -> tuple[dict[Fetch, int], int]:
        """Starts fetching ahead, as far as the budget reaches.

        Args:
            refs: Adjacent chunks of a file.

        Returns:
            The fetches concerned, each to be released once, with the file offset that it is needed to; and how many of
            `refs` they cover.
        """
        holds: dict[Fetch, int] = {}
        covered = 0
        for group in range_groups(refs, self._config.range_bytes):
            missing: dict[Key, ChunkRef] = {}
            for ref in group:
                fetch = self._having(ref)
                if fetch is None:
                    missing[key_of(ref)] = ref
                else:
                    fetch.interest += fetch not in holds
                    holds[fetch] = ref.start + ref.length
            total = sum(ref.length for ref in missing.values())
            if missing and (self._closed or not self._make_room(total)):
                break
            covered += len(group)
            if missing:
                fetch = Fetch(tuple(missing.values()), total)
                fetch.interest, fetch.ahead = 1, True
                holds[fetch] = group[-1].start + group[-1].length
                self._fetches.update(dict.fromkeys(missing, fetch))
                self._queue.append(fetch)
        self._start_queued()
        return holds, covered

    def release(self, fetch: Fetch, *, consumed: bool = False) -> None:
        """Ends one interest in a fetch; without any it is cancelled.

        Args:
            fetch: What `want` or `prefetch` gave.
            consumed: Whether its chunks were read in sequence. They go at once: the kernel has them, and buffers that
                are used again while warm make reading much faster than a large cache of cold ones.
        """
        fetch.interest -= 1
        if fetch.interest:
            return
        if fetch.done.is_set():
            if consumed:
                self._drop([segment for segment in fetch.segments if segment in self._kept])
        elif fetch.started:
            self._forget(fetch)
            fetch.scope.cancel()
        else:
            self._forget(fetch)
            self._queue.remove(fetch)
            self._budget.release(fetch.reserved_bytes)

    def reclaim(self, n: int) -> None:
        """Gives `n` bytes back to the budget, if so much is kept: what nobody waits to read goes first."""
        freed = self._evict(n, spare_wanted=True)
        if freed < n:
            self._evict(n - freed, spare_wanted=False)

    async def aclose(self) -> None:
        """Cancels what is on its way and forgets what is kept."""
        self._closed = True
        for fetch in set(self._fetches.values()):
            if fetch.started:
                fetch.scope.cancel()
            else:
                self._queue.remove(fetch)
                self._forget(fetch)
                self._budget.release(fetch.reserved_bytes)
                fetch.done.set()
        with trio.CancelScope(shield=True):
            while self._tasks:
                self._idle = trio.Event()
                await self._idle.wait()
        self._evict(self._budget.limit_bytes * 2, spare_wanted=False)

    def _having(self, ref: ChunkRef) -> Fetch | None:
        span = self._where.get(key_of(ref))
        return span.segment.fetch if span is not None else self._fetches.get(key_of(ref))

    def _join(self, want: Want, key: Key, fetch: Fetch) -> None:
        fetch.interest += 1
        fetch.waiters += 1
        want.fetches[key] = fetch
        if not fetch.started and fetch in self._queue:
            self._queue.remove(fetch)
            self._start(fetch)

    def _start(self, fetch: Fetch) -> None:
        fetch.started = True
        self._running_ahead += fetch.ahead
        self._tasks += 1
        self._start_soon(self._run, fetch)

    def _start_queued(self) -> None:
        while self._queue and self._running_ahead < self._config.fetches:
            self._start(self._queue.popleft())

    async def _run(self, fetch: Fetch) -> None:
        try:
            try:
                with fetch.scope:
                    await self._load(fetch)
                    fetch.failed = None
            except Exception as error:  # noqa: BLE001 - every reader raises it; the mount's nursery must not end by it
                fetch.failed = error
            finally:
                self._running_ahead -= fetch.ahead
                fresh = [(ref.hash, fetch.found[key_of(ref)].view) for ref in fetch.fresh]
                self._finish(fetch)
            await self._fill_cache(fresh)
        finally:
            self._tasks -= 1
            self._idle.set()

    def _finish(self, fetch: Fetch) -> None:
        self._forget(fetch)
        kept = 0
        if fetch.reserved_bytes and not self._closed and not self._budget.waiting:
            for segment in fetch.segments:
                self._kept[segment] = None
                kept += len(segment.data)
                for key in segment.keys:
                    self._where[key] = fetch.found[key]
        self._budget.release(fetch.reserved_bytes - kept)
        fetch.done.set()
        if not fetch.waiters:
            fetch.found.clear()
        if not self._closed:
            self._start_queued()

    def _forget(self, fetch: Fetch) -> None:
        for ref in fetch.refs:
            if self._fetches.get(key_of(ref)) is fetch:
                del self._fetches[key_of(ref)]

    async def _load(self, fetch: Fetch) -> None:
        missing = []
        for ref in fetch.refs:
            data = await self._cache.get(ref.hash, ref.length)
            if data is None:
                missing.append(ref)
            else:
                fetch.add(data, [ref])
        for group in range_groups(missing, self._config.range_bytes):
            await self._load_range(fetch, group)

    async def _load_range(self, fetch: Fetch, group: Sequence[ChunkRef]) -> None:
        first, total = group[0], sum(ref.length for ref in group)
        path = f"{self._model_path()}/{first.pack}"
        try:
            data = await self._storage.read_range(path, first.offset, total)
            good = await trio.to_thread.run_sync(check_chunks, data, group, limiter=self._limiter)
        except (CorruptData, NotFound):
            good = [False] * len(group)
        if all(good):
            fetch.add(data, group)
            fetch.fresh += group
            return
        begin = 0
        for ref, is_good in zip(group, good, strict=True):
            if is_good:
                fetch.add(data[begin : begin + ref.length], [ref])
                fetch.fresh.append(ref)
            else:
                await self._load_again(fetch, ref, path)
            begin += ref.length

    async def _load_again(self, fetch: Fetch, ref: ChunkRef, path: str) -> None:
        where = f"{path} at {ref.offset}"
        logger.warning("chunk %s of %s didn't come as it should: reading it once more", ref.hash.hex(), where)
        try:
            data = await self._storage.read_range(path, ref.offset, ref.length)
            (good,) = await trio.to_thread.run_sync(check_chunks, data, [ref], limiter=self._limiter)
        except (CorruptData, NotFound) as error:
            fetch.errors[key_of(ref)] = CorruptData(f"pack {where}: {error}")
            return
        if good:
            fetch.add(data, [ref])
            fetch.fresh.append(ref)
        else:
            fetch.errors[key_of(ref)] = CorruptData(
                f"pack {where}: {ref.length} bytes are not the chunk {ref.hash.hex()}"
            )

    async def _fill_cache(self, chunks: Sequence[tuple[bytes, memoryview]]) -> None:
        """Puts what came from the store into the block cache, unless that is busy."""
        if self._caching_bytes > _CACHE_QUEUE_BYTES or not self._cache.limit_bytes:
            return
        total = sum(len(data) for _, data in chunks)
        self._caching_bytes += total
        try:
            for hash, data in chunks:
                if self._closed:
                    break
                await self._cache.put(hash, data)
        finally:
            self._caching_bytes -= total

    def _make_room(self, n: int) -> bool:
        limit = self._budget.limit_bytes
        if n > limit or self._closed:
            return False
        missing = self._budget.used_bytes + n - limit
        if missing > 0:
            self._evict(missing, spare_wanted=True)
        return self._budget.try_reserve(n)

    def _evict(self, n: int, *, spare_wanted: bool) -> int:
        victims, freed = [], 0
        for segment in self._kept:
            if freed >= n:
                break
            if not (spare_wanted and segment.fetch.interest):
                victims.append(segment)
                freed += len(segment.data)
        self._drop(victims)
        return freed

    def _drop(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            del self._kept[segment]
            for key in segment.keys:
                span = self._where.get(key)
                if span is not None and span.segment is segment:
                    del self._where[key]
        if segments:
            self._budget.release(sum(len(segment.data) for segment in segments))
