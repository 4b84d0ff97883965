"""Says in the store which models this mount uses, and knows who else does.

A model in use has one lease of this mount, renewed about once a minute: of branches that are looked at, with the commits
that their unpublished changes stand on, and of past versions that somebody has open. A model that nobody looked into has none,
and a mount that takes no changes has one only while it holds a past version.

Threading: trio thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from mvcfs.errors import MvcfsError
from mvcfs.storage.protocol import Storage
from mvcfs.types import NS_PER_S
from mvcfs.versions.log.json_fields import is_hex
from mvcfs.versions.log.leases import OVERLAY, RENEW_S, SNAPSHOT, LeaseFile, LeaseFolder, MountLease, Pin
from mvcfs.versions.log.publish import Publisher
from mvcfs.versions.log.refs import new_id
from mvcfs.versions.repository import ModelRepository
from mvcfs.vfs.model import OpenModel

log = logging.getLogger(__name__)

Json = dict[str, Any]

# How soon a model that is looked at for the first time is told of.
_LOOK_S = 1.0
_GOODBYE_S = 5.0
_PATIENCE_S = 3.0


class Presence:
    """The leases of one mount. The models are those that `models` gives each time."""

    def __init__(
        self,
        storage: Storage,
        models: Callable[[], Iterable[OpenModel]],
        publisher: Callable[[], Publisher],
        *,
        read_only: bool,
    ) -> None:
        self.mount_id = new_id()
        self._storage = storage
        self._models = models
        self._publisher = publisher
        self._read_only = read_only
        self._renewed: dict[str, tuple[float, str]] = {}

    def use(self, storage: Storage, local_dir: Path) -> None:
        """Names the store's files as they can be written, and the folder that makes this mount the same after a kill.

        A lease is the one thing that a read-only mount writes, as far as it may: else what it reads could be deleted.
        """
        self._storage = storage
        self.mount_id = _kept_mount_id(local_dir)

    def lease_of(self, repository: ModelRepository) -> MountLease:
        """This mount's lease of a model; not taken yet."""
        publisher = self._publisher()
        folder = LeaseFolder(self._storage, lambda: repository.path)
        return MountLease(folder, self.mount_id, publisher.host, publisher.user, publisher.clock)

    async def run(self) -> None:
        """Keeps the leases for ever."""
        while True:
            await trio.sleep(_LOOK_S)
            for model in list(self._models()):
                await self.keep(model)

    async def keep(self, model: OpenModel) -> None:
        """Takes, renews or ends the lease of a model, whichever is due."""
        branches = [] if self._read_only else self._pins(model)
        commits = sorted(model.data.held_commits())
        purpose = OVERLAY if branches else SNAPSHOT if commits else ""
        when, last = self._renewed.get(model.data.id, (-1e9, ""))
        if purpose == last and (not purpose or trio.current_time() - when < RENEW_S):
            return
        # What fails is tried again when it would be renewed: a store that doesn't answer is not asked all the time.
        self._renewed[model.data.id] = (trio.current_time(), purpose)
        try:
            if purpose:
                await model.data.lease.renew(purpose, branches, commits)
            else:
                await model.data.lease.release()
        except MvcfsError as error:
            log.debug("%s: the lease of this mount is not renewed: %s", model.name, error)

    @staticmethod
    def _pins(model: OpenModel) -> list[Pin]:
        return [
            Pin(branch.tree.branch_id, branch.tree.branch_name, branch.tree.base_commit)
            for branch in model.branches.values()
        ]

    async def release(self) -> None:
        """Ends all leases, if the store answers soon; else they end by themselves."""
        with trio.move_on_after(_GOODBYE_S, shield=True):
            for model in list(self._models()):
                if self._renewed.pop(model.data.id, None) is not None:
                    await model.data.lease.release()


def _kept_mount_id(local_dir: Path) -> str:
    """The id of the mounts that use a local folder, one at a time: the same after a kill and a remount."""
    path = local_dir / "mount-id"
    with suppress(OSError, UnicodeDecodeError):
        found = path.read_text(encoding="ascii").strip()
        if is_hex(found, 32):
            return found
    made = new_id()
    with suppress(OSError):
        path.write_text(made, encoding="ascii")
    return made


async def others_of(model: OpenModel) -> list[Json]:
    """Who else has a model mounted, as the status shows it; the same mount once. Nobody where the store doesn't answer."""
    found: list[tuple[LeaseFile, float]] = []
    with trio.move_on_after(_PATIENCE_S):
        try:
            found = await model.data.lease.others()
        except MvcfsError as error:
            log.debug("%s: leases can't be read: %s", model.name, error)
    newest = {file.lease.holder: (file, age_s) for file, age_s in found if file.lease.purpose in (OVERLAY, SNAPSHOT)}
    return [
        {
            "model": model.name,
            "host": file.lease.host,
            "user": file.lease.user,
            "purpose": file.lease.purpose,
            "since_s": file.lease.since_ns / NS_PER_S,
            "seen_s": round(age_s, 3),
            "branches": [pin.name for pin in file.lease.branches],
        }
        for file, age_s in newest.values()
    ]


def conflicts_of(model: OpenModel) -> list[Json]:
    """The conflict branches of a model, and how each is resolved."""
    found: list[Json] = []
    for state in model.data.repository.refs.branches.values():
        target, mark, host = state.name.partition("-conflict-")
        if not mark or not target or not host or state.tip is None:
            continue
        where = os.path.join(model.name, target)
        found.append(
            {
                "model": model.name,
                "branch": state.name,
                "target": target,
                "host": host,
                "version": state.version,
                "resolve": f"mvcfs merge {where} {state.name}, then mvcfs branch {model.name} {state.name} --delete",
            }
        )
    return found
