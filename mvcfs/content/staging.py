"""The staging files of one overlay: the bytes of changed files that no version holds yet.

What a write has returned for survives `kill -9` of the daemon at any instant, because it is in a file (in the page cache)
whose name the caller's row knows. What was fsynced survives a power loss, because the row then says so. See
`staging_layer` for the order of system calls, `staged_file` for views, rows and what waits, `staging_room` for the bound.

How a caller uses it: one `Staging` a folder; at start `sweep` with the states of all rows, then `load` each; a row is
written whenever a file's `state_version` differs from the one it was last written at; `reap` now and then.

Threading: trio thread only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from mvcfs.content.staged_file import FrozenFile, StagedFile
from mvcfs.content.staging_layer import BLOCK_BYTES, Layer
from mvcfs.content.staging_read import Base
from mvcfs.content.staging_room import StagingRoom
from mvcfs.content.staging_state import LAYER_NAME, MAP_SUFFIX, decode_state, file_names
from mvcfs.errors import CorruptData, NotFound

__all__ = ["BLOCK_BYTES", "Base", "FrozenFile", "StagedFile", "Staging"]

logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 256 << 20


class Staging(StagingRoom):
    """The folder of the staging files of one overlay."""

    def __init__(
        self,
        directory: Path,
        *,
        limit_bytes: int,
        min_free_bytes: int = MIN_FREE_BYTES,
        sync_rows: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Makes the folder (mode 0700) if it isn't there.

        Args:
            directory: The folder; staging files of one overlay only.
            limit_bytes: How much the files may take on disk.
            min_free_bytes: Free space of the local disk that is left to others.
            sync_rows: Makes the caller's committed rows durable; awaited before files are removed that they named.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(directory, limit_bytes=limit_bytes, min_free_bytes=min_free_bytes)
        self.sync_rows = sync_rows

    def create(self, base: Base | None = None) -> StagedFile:
        """A file with the content of `base`, or empty. Nothing is made on disk before it is changed."""
        return StagedFile(self, base, [])

    def load(self, state: str, base: Base | None, *, same_boot: bool) -> StagedFile:
        """A file as a row of an earlier run names it.

        After a load with `same_boot` False the caller writes the row again, under this boot, before anything is written.

        Args:
            state: What `StagedFile.state` gave.
            base: The content that the file was last based on.
            same_boot: Whether the row was written in this boot. If not, only what was fsynced counts.

        Raises:
            NotFound: Nothing of the file is durable and it had no base: it never existed.
            CorruptData: A file that must be there isn't, or the base is not the one that the file needs.
        """
        found = decode_state(state)
        layers = []
        for layer in found.layers:
            if same_boot:
                layers.append(Layer.load(self, layer))
            elif layer.durable is not None:
                layers.append(Layer.recover(self, layer))
            else:
                break
        if not same_boot and not layers and base is None and not found.synced:
            raise NotFound("a file that was not synced before a power loss")
        if layers and layers[0].base_bytes > (base.size_bytes if base is not None else 0):
            raise CorruptData(
                f"the staging file {self.directory / layers[0].name} needs {layers[0].base_bytes} bytes of stored content, "
                f"its row names {base.size_bytes if base is not None else 'none'}"
            )
        return StagedFile(self, base, layers, synced=found.synced, lost=found.layers[len(layers) :])

    def sweep(self, states: Iterable[str]) -> int:
        """At start: gives the staging files up that no state names; returns how many. They go with the next `reap`."""
        named = {name for state in states for layer in decode_state(state).layers for name in file_names(layer)}
        found = 0
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name not in named and LAYER_NAME.fullmatch(entry.name.removesuffix(MAP_SUFFIX)):
                    size = entry.stat(follow_symlinks=False).st_blocks * 512
                    self.charge(size)
                    self.doom((entry.name,), size)
                    found += 1
        if found:
            logger.info("%d staging files in %s are named by nothing", found, self.directory)
        return found

    def close(self) -> None:
        """Closes all descriptors."""
        self.files.close_all()
