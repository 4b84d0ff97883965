"""Who publishes next: a mount that lost many races in a row is let go first.

Publishing is a race that every mount may win at any time, and one with a slow way to the store may lose it for ever. After
`LOST_IN_A_ROW` losses it takes a `publish` lease; the others see it before they try, and wait until it is gone, but never
longer than `HONOURED_S` by their own clock from when they first saw it: a dead mount's lease holds nobody up for long. Of
several leases the oldest goes first. This is about fairness only: that one record wins is the rename's doing.

Threading: trio thread, one publish of a model at a time.
"""

from __future__ import annotations

import logging

import trio

from mvcfs.errors import MvcfsError
from mvcfs.versions.log.leases import PUBLISH, Lease, LeaseFile, LeaseFolder
from mvcfs.versions.log.refs import new_id

log = logging.getLogger(__name__)

LOST_IN_A_ROW = 6
HONOURED_S = 10.0
_LOOK_S = 0.1


class Turns:
    """One model's turns, as one mount sees and takes them."""

    def __init__(self, folder: LeaseFolder, holder: str, host: str, user: str) -> None:
        self._folder = folder
        self._holder, self._host, self._user = holder, host, user
        self._own: str | None = None
        self._seen: dict[str, float] = {}

    async def wait(self) -> None:
        """Waits for mounts whose turn it is. A store that doesn't answer makes nobody wait."""
        while True:
            try:
                files = await self._folder.read()
            except MvcfsError as error:
                log.debug("leases can't be read: %s", error)
                return
            if not self._must_wait([file for file in files if file.lease.purpose == PUBLISH]):
                return
            await trio.sleep(_LOOK_S)

    def _must_wait(self, files: list[LeaseFile]) -> bool:
        now = trio.current_time()
        self._seen = {file.name: self._seen.get(file.name, now) for file in files}
        for file in files:
            if file.name == self._own:
                return False
            if file.lease.holder != self._holder and now - self._seen[file.name] < HONOURED_S:
                return True
        return False

    async def lost(self, times: int, now_ns: int) -> None:
        """Tells of a lost race; takes the lease when there were many in a row."""
        if times % LOST_IN_A_ROW:
            return
        await self.give_back()
        lease = Lease(self._holder, self._host, self._user, PUBLISH, now_ns, HONOURED_S)
        name = new_id()
        self._own = name
        try:
            await self._folder.write(lease, name)
        except MvcfsError as error:
            log.debug("no publish lease: %s", error)

    async def give_back(self) -> None:
        """Ends the turn, whatever came of it."""
        if self._own is not None:
            name, self._own = self._own, None
            await self._folder.delete(name)
