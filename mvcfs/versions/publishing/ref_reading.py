"""What a model's branches, tags and aliases say, beyond the refs themselves: which versions they are, who moved them.

`RefReading` is the part of an open model that tells; `ModelRepository` is the whole. Threading: trio thread.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from mvcfs.versions.git.tags import TagInfo, read_tag
from mvcfs.versions.history.divergence import Divergence, Known, divergence
from mvcfs.versions.history.versions import History, VersionPlace
from mvcfs.versions.log.alias_log import AliasMove, last_move, moves
from mvcfs.versions.log.refs import Refs
from mvcfs.versions.publishing.synced import SyncedModel

T = TypeVar("T")


class RefReading(ABC):
    """A model whose refs can be read."""

    def __init__(self, model: SyncedModel, history: History) -> None:
        self._model = model
        self._objects = model.objects
        self._history = history

    @property
    def refs(self) -> Refs:
        """Branches, tags, aliases and live files as last taken in."""
        return self._model.state.refs

    @abstractmethod
    async def _read(self, call: Callable[[], T], *, small: bool) -> T:
        """Reads objects, in a thread unless it is quick."""

    async def place_of(self, commit: str, *, prefer: str | None = None) -> VersionPlace | None:
        """Which version of which branch a commit is, see `History.place_of`."""
        return await self._history.place_of(self.refs, commit, prefer)

    async def divergences(self, branch: str | None) -> dict[str, Divergence]:
        """How far each branch and this one went apart, by name; without branches that have no version."""
        base = None if branch is None else self.refs.branch(branch).tip
        tips = {} if base is None else {state.name: state.tip for state in self.refs.branches.values()}

        def compare() -> dict[str, Divergence]:
            known: Known = {}
            return {
                name: divergence(self._objects, tip, base, known)
                for name, tip in tips.items()
                if tip is not None and base is not None
            }

        return await self._read(compare, small=False)

    async def tags(self) -> list[TagInfo]:
        """The tags by name. CorruptData."""
        targets = self.refs.tags
        return await self._read(lambda: [read_tag(self._objects, *item) for item in targets.items()], small=False)

    async def aliases(self) -> list[AliasMove]:
        """Each alias by name, as its last move says. CorruptData."""
        notes = self.refs.alias_notes
        return await self._read(lambda: [last_move(self._objects, *item) for item in notes.items()], small=False)

    async def alias_moves(self, name: str, *, limit: int | None = None) -> list[AliasMove]:
        """The moves of an alias, newest first, also of a removed one. NotFound, CorruptData."""
        note = self.refs.alias_notes.get(name)
        if note is not None and note.log is None:
            return [last_move(self._objects, name, note)]
        walk = functools.partial(moves, self._objects, self.refs.alias_log(name))
        return await self._read(lambda: list(itertools.islice(walk(), limit)), small=False)
