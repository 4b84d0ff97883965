"""What a mount does for the store after it has published: joining small files and trimming the log, in the background.

One task a model, woken by a publish of this mount. A version never waits for it and never fails on account of it; what
it can't do now is done after another publish, maybe another host's. Threading: trio thread.
"""

from __future__ import annotations

import logging
import random

import trio

from mvcfs.errors import MvcfsError, UnknownOutcome
from mvcfs.versions.publishing.pack_joining import Joinable, plan_join
from mvcfs.vfs.sources import ModelData

log = logging.getLogger(__name__)

# Hosts that publish to one model at the same time would join the same files at the same time.
_JITTER_S = 0.5


class Housekeeping:
    """Keeps one model light as long as the mount lives."""

    def __init__(self, data: ModelData) -> None:
        self._data = data
        self._due = trio.Event()
        self._scope = trio.CancelScope()
        self._running = trio.Lock()
        self._keeping = trio.Lock()

    def start(self, nursery: trio.Nursery) -> None:
        """Starts the task."""
        self._data.repository.upkeep.on_published(self._wake)
        nursery.start_soon(self._run)

    async def aclose(self) -> None:
        """Ends the task; a record that is being published goes on to its end."""
        self._scope.cancel()
        async with self._running:
            pass

    async def keep(self) -> None:
        """Does what is due now. What the store is the cause of is logged."""
        async with self._keeping:
            await self._join_manifests()
            await self._data.repository.upkeep.run()
            self._data.set_live()

    async def _join_manifests(self) -> None:
        """Joins manifests as long as a level is full."""
        repository, content = self._data.repository, self._data.content
        while True:
            live = repository.refs.manifests
            inputs = plan_join([Joinable(file, file.size_bytes >> 10) for file in live])
            if not inputs:
                return
            self._data.set_live()
            try:
                joined = await content.join_manifests([file.name for file in inputs])
                stays = False
                try:
                    stays = await repository.upkeep.publish_join(inputs, manifests=(joined,))
                except UnknownOutcome:
                    stays = True
                    raise
                finally:
                    if not stays:
                        await content.discard_joined(joined)
                    self._data.set_live()
            except (MvcfsError, OSError) as error:
                log.warning("%s: manifests are joined later: %s", self._data.name, error)
                return
            if not stays:
                return

    def _wake(self) -> None:
        self._due.set()

    async def _run(self) -> None:
        with self._scope:
            async with self._running:
                while True:
                    await self._due.wait()
                    await trio.sleep(random.uniform(0, _JITTER_S))
                    self._due = trio.Event()
                    try:
                        await self.keep()
                    except Exception:
                        log.exception("keeping %s light failed", self._data.name)
