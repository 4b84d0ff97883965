"""Removing what a model's log needs no longer: old records and checkpoints, and files that were joined into others.

Nothing here is needed for anything to be right, so every failure is only logged and whoever publishes next goes on. Nothing
that is removed is missed either: a reader that finds a file gone reads the log again, and learns where it went.

* Records go oldest first, each after the one before is gone, never record 0, and only below the newest checkpoint by
  `KEPT_RECORDS`; checkpoints only below the oldest of the records that are kept.
* A joined file goes some time after its join, so that readers which are about to fetch it still can; when many wait,
  as in a burst of versions, the oldest go earlier.
* A temporary file of the log is void a day after it was written. Should its publisher wake up, its rename finds no source.

Trio thread.
"""

from __future__ import annotations

import logging

from mvcfs.errors import MvcfsError, NotFound
from mvcfs.storage.protocol import Storage, StoreEntry
from mvcfs.types import NS_PER_S
from mvcfs.versions.log.reflog import Listing, RefLog, checkpoint_name, record_name
from mvcfs.versions.log.state import LogState

log = logging.getLogger(__name__)

KEPT_RECORDS = 128
"""So many records below the newest checkpoint stay: a reader that slept for less reads on from where it was."""

KEPT_WAITING = 64
"""When more joined files than this wait to be deleted (a Git pack's index is one too), the oldest go before their time."""

_TEMPORARY_KEPT_NS = 24 * 3600 * NS_PER_S
_AT_ONCE = 256


def _files(name: str) -> list[str]:
    """A file that the log names, and the index beside it if it is a Git pack."""
    return [name, name.removesuffix(".pack") + ".idx"] if name.endswith(".pack") else [name]


class Trimmer:
    """Removes from one model's folder what nothing needs.

    Attributes:
        deleted: Joined files that are gone, and that the log still calls condemned.
    """

    def __init__(self, storage: Storage, ref_log: RefLog) -> None:
        self._storage = storage
        self._log = ref_log
        self._trimmed_at = 0
        self.deleted: set[str] = set()

    async def delete_joined(self, state: LogState, now_ns: int) -> None:
        """Deletes joined files whose time has come. `now_ns`: the time, ns since 1970."""
        waiting = [entry for entry in state.condemned if entry.joined]
        self.deleted &= {entry.name for entry in waiting}
        waiting = [entry for entry in waiting if entry.name not in self.deleted]
        surplus = sum(len(_files(entry.name)) for entry in waiting) - KEPT_WAITING
        live = {file.name for file in (*state.refs.git, *state.refs.manifests)}
        for entry in sorted(waiting, key=lambda entry: entry.until_ns):
            if entry.name in live or (surplus <= 0 and entry.until_ns > now_ns):
                continue
            names = _files(entry.name)
            surplus -= len(names)
            if all([await self._delete(f"{self._folder}/{name}") for name in names]):
                self.deleted.add(entry.name)

    async def trim_log(self, state: LogState) -> None:
        """Removes old records and checkpoints, if a checkpoint was written since the last time."""
        newest = self._log.newest_checkpoint
        if newest <= self._trimmed_at or newest > state.number:
            return
        try:
            entries = await self._storage.list_dir(self._log.folder)
        except MvcfsError as error:
            log.warning("%s can't be trimmed: %s", self._log.folder, error)
            return
        if await self._trim(Listing.of(entries), newest):
            self._trimmed_at = newest
        await self._sweep(entries)

    @property
    def _folder(self) -> str:
        return self._log.folder.removesuffix("/log")

    async def _trim(self, listing: Listing, newest: int) -> bool:
        """Whether all went that may go."""
        first_kept = newest - KEPT_RECORDS
        if not listing.checkpoints or listing.checkpoints[-1] < newest:
            return False
        old = [number for number in listing.records if 0 < number < first_kept]
        for number in old[:_AT_ONCE]:
            if not await self._delete(self._log.path(record_name(number))):
                return False
        if len(old) > _AT_ONCE:
            return False
        for number in listing.checkpoints:
            if number < first_kept and not await self._delete(self._log.path(checkpoint_name(number))):
                return False
        return True

    async def _sweep(self, entries: list[StoreEntry]) -> None:
        """Removes temporary files that were left a day ago, by the store's own clock."""
        now_ns = max(entry.mtime_ns for entry in entries)
        for entry in entries:
            if entry.name.startswith("tmp-") and entry.mtime_ns < now_ns - _TEMPORARY_KEPT_NS:
                await self._delete(self._log.path(entry.name))

    async def _delete(self, path: str) -> bool:
        """Whether the file is gone, by us or by somebody else."""
        try:
            await self._storage.delete(path)
        except NotFound:
            return True
        except MvcfsError as error:
            log.warning("%s stays for now: %s", path, error)
            return False
        return True
