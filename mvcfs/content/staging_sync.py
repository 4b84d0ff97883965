"""Work on layers that takes long: making them durable, and folding one into the one below it.

Threading: called on the trio thread; disk work is done in threads with pinned descriptors, facts about layers are taken and
set on the trio thread.
"""

from __future__ import annotations

import logging
import os as _os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import trio

from mvcfs.content.staging_layer import BLOCK_BYTES, Layer
from mvcfs.content.staging_room import StagingRoom
from mvcfs.errors import StorageError

logger = logging.getLogger(__name__)

_COPY_BYTES = BLOCK_BYTES


async def sync_layers(room: StagingRoom, layers: Sequence[Layer]) -> bool:
    """Makes layers durable as they are now; says whether any was not.

    Raises:
        StorageError: The disk failed to. It may have forgotten what it failed to write, so this is said ever after.
    """
    for layer in layers:
        if layer.failed is not None:
            raise StorageError(f"the local disk lost data of {room.directory / layer.name}: {layer.failed}")
    # Facts are taken before the sync: what is written while it runs isn't known to be on disk afterwards.
    stale = [(layer, layer.writes, layer.facts()) for layer in layers if layer.synced != layer.writes]
    if not stale:
        return False
    folder = room.directory if any(layer.durable is None for layer, _, _ in stale) else None
    with ExitStack() as stack:
        fds = [stack.enter_context(room.files.pinned(layer.name)) for layer, _, _ in stale]
        try:
            await trio.to_thread.run_sync(_sync, fds, folder, limiter=room.threads)
        except OSError as error:
            for layer, _, _ in stale:
                layer.failed = str(error)
            raise StorageError(f"the local disk failed to sync {room.directory}: {error}") from error
    for layer, writes, facts in stale:
        if writes > layer.synced:
            layer.durable, layer.synced = facts, writes
    return True


async def fold_layers(room: StagingRoom, lower: Layer, upper: Layer, is_wanted: Callable[[], bool]) -> bool:
    """Moves what `upper` hides into `lower`, after which `upper` may be dropped from the stack.

    All that it changes in `lower` is hidden by `upper`, so the content is the same at every instant, also after a kill.

    Args:
        room: Where the layers live.
        lower: The layer below; shown by no view that doesn't show `upper`.
        upper: The layer above it; not written while this runs.
        is_wanted: Asked at the end whether the two are still what they were.

    Returns:
        Whether `lower` now has it all.
    """
    try:
        if lower.size > upper.base_bytes:
            lower.truncate(upper.base_bytes)
        lower.truncate(upper.size)
        blocks = upper.own_blocks()
        beyond = -(-upper.base_bytes // BLOCK_BYTES) * BLOCK_BYTES
        with room.files.pinned(upper.name) as source, room.files.pinned(lower.name) as target:
            durable = lower.durable is not None
            await trio.to_thread.run_sync(_copy, source, target, blocks, beyond, durable, limiter=room.threads)
        if not is_wanted():
            return False
        lower.mark(blocks)
        lower.resync()
    except OSError as error:
        logger.warning("layers of a changed file in %s stay apart: %s", room.directory, error)
        return False
    if durable:
        lower.durable, lower.synced = lower.facts(), lower.writes
    return True


def _sync(fds: list[int], folder: Path | None) -> None:
    for fd in fds:
        _os.fdatasync(fd)
    if folder is not None:
        fd = _os.open(folder, _os.O_RDONLY | _os.O_DIRECTORY | _os.O_CLOEXEC)
        try:
            _os.fsync(fd)
        finally:
            _os.close(fd)


def _copy(source: int, target: int, blocks: list[int], beyond: int, durable: bool) -> None:
    size = _os.fstat(source).st_size
    for block in blocks:
        start = block * BLOCK_BYTES
        _copy_range(source, target, start, min(start + BLOCK_BYTES, size))
    # Beyond the base the target has been cut off and is zero: holes need no copying.
    offset = beyond
    while offset < size:
        try:
            start = _os.lseek(source, offset, _os.SEEK_DATA)
        except OSError:
            break
        offset = _os.lseek(source, start, _os.SEEK_HOLE)
        _copy_range(source, target, start, offset)
    if durable:
        _os.fdatasync(target)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        data = _os.pread(source, min(_COPY_BYTES, end - start), start)
        if not data:
            break
        start += _os.pwrite(target, data, start)
