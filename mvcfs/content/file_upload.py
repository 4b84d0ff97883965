"""Putting a local file into the store, piece by piece. Threading: trio thread; the file is read in threads."""

from __future__ import annotations

from pathlib import Path

import trio

from mvcfs.content.packs import CLEANUP_S, close_checked, create_checked
from mvcfs.storage.protocol import Storage


async def store_file(
    storage: Storage, local: Path, path: str, size_bytes: int, piece_bytes: int, limiter: trio.CapacityLimiter
) -> None:
    """Makes a store file of a random name out of a local one. On return it is durable, unless a piece was lost.

    Args:
        storage: Where to.
        local: The file.
        path: Its whole path in the store.
        size_bytes: Its length.
        piece_bytes: How much of it is in memory at once.
        limiter: Threads that read it.

    Raises:
        NotFound: The folder isn't there.
        StorageError: The store failed; nothing stays behind, as far as it answers.
    """
    writer = await create_checked(storage, path)
    try:
        for offset in range(0, size_bytes, piece_bytes):
            data = await trio.to_thread.run_sync(_read_at, local, offset, piece_bytes, limiter=limiter)
            await writer.write(data)
        await close_checked(storage, writer, path, size_bytes)
    except BaseException:
        with trio.move_on_after(CLEANUP_S, shield=True):
            await writer.abort()
        raise


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
