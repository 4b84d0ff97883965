"""Comparing two versions of a model: the changes between them, renames found, without reading what is equal.

Changes are collected up to a bound, and those past it are counted only: a version that adds a million files must not fill
the memory of a mount because somebody asked what it changed.

Threading: methods on the trio thread; trees are read in threads, a bounded piece of work at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mvcfs.types import TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.trees.changes import PathChange, TreeWalk
from mvcfs.versions.trees.diff import list_differing
from mvcfs.versions.trees.renames import Rename, find_renames

T = TypeVar("T")

MAX_LISTED = 20_000
"""Changes beyond are counted, not listed, and no renames are looked for among them."""

_STEP = 1_000


class ReadInThread(Protocol):
    """Reads objects in a thread, mending damage from the store."""

    async def __call__(self, call: Callable[[], T]) -> T:
        """What `call` returns."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a file or directory between two versions.

    Attributes:
        path: Its path now, or the one it had if it is gone.
        before: What was there (of a renamed one, under its old path), None if it is new.
        after: What is there now, None if it is gone.
        old_path: Where it was, if it was renamed.
        similarity: Of a renamed one: how much is the same, in percent.
    """

    path: bytes
    before: TreeEntry | None
    after: TreeEntry | None
    old_path: bytes | None = None
    similarity: int = 100


@dataclass(slots=True)
class Changes:
    """The changes between two versions.

    Attributes:
        listed: In the order of their paths; at most `MAX_LISTED` files, and some more where a directory holds many.
        not_listed: How many more there are.
        not_listed_added_bytes: Bytes of files that are new or changed among those.
    """

    listed: list[Change] = field(default_factory=list)
    not_listed: int = 0
    not_listed_added_bytes: int = 0


class Comparing:
    """Compares versions of one model."""

    def __init__(self, objects: GitObjects, read: ReadInThread) -> None:
        self._objects = objects
        self._read = read

    async def changes(self, before: str | None, after: str | None, *, path: bytes = b"") -> Changes:
        """What changed between two versions of a directory.

        Args:
            before: Its tree as it was, None for none.
            after: Its tree as it is.
            path: Where it stands; paths of changes begin with it.

        Raises:
            CorruptData: An object is missing or damaged.
        """
        collected = Collected()
        await self.collect(collected, before, after, path=path)
        return await self.paired(collected)

    async def collect(self, collected: Collected, before: str | None, after: str | None, *, path: bytes = b"") -> None:
        """Adds the changes between two versions of a directory, added and removed directories whole; args as `changes`."""
        await self._walk(TreeWalk(self._objects, before, after, path=path, whole=True), collected)

    async def differing(self, before: str | None, after: str | None) -> list[dict[bytes, TreeEntry]]:
        """The entries of two versions of a directory by name, those that are equal in both left out or not. CorruptData."""
        call = functools.partial(list_differing, self._objects, (before, after), default_mtime_ns=0)
        return await self._read(call)

    async def paired(self, collected: Collected) -> Changes:
        """Finds renames among changes, and expands the directories that were added or removed."""
        found = Changes()
        renames = await self._renames(collected)
        _take_renames(collected, renames, found.listed)
        await self._expand(collected)
        _take_renames(collected, await self._renames(collected), found.listed)
        found.listed += [Change(change.path, change.before, change.after) for change in collected.all()]
        found.listed.sort(key=lambda change: change.path)
        found.not_listed = collected.dropped
        found.not_listed_added_bytes = collected.dropped_bytes
        return found

    async def _walk(self, walk: TreeWalk, collected: Collected) -> None:
        while some := await self._read(functools.partial(walk.take, _STEP)):
            collected.add(some)

    async def _expand(self, collected: Collected) -> None:
        """Puts the files of added and removed directories in their place."""
        for side in (collected.removed, collected.added):
            for path in sorted(path for path, change in side.items() if _tree_of(change) is not None):
                change = side.pop(path)
                before, after = change.before, change.after
                trees = [None if entry is None else entry.tree for entry in (before, after)]
                size = collected.size
                dropped = collected.dropped
                await self._walk(TreeWalk(self._objects, trees[0], trees[1], path=path), collected)
                if (collected.size, collected.dropped) == (size, dropped):
                    side[path] = change

    async def _renames(self, collected: Collected) -> list[Rename]:
        removed = {path: change.before for path, change in collected.removed.items() if change.before is not None}
        added = {path: change.after for path, change in collected.added.items() if change.after is not None}
        return await self._read(functools.partial(find_renames, self._objects, removed, added))


class Collected:
    """Changes by path, up to a bound. In one of `removed` a path is gone, in one of `added` it is new."""

    def __init__(self) -> None:
        self.removed: dict[bytes, PathChange] = {}
        self.added: dict[bytes, PathChange] = {}
        self.changed: list[PathChange] = []
        self.dropped = 0
        self.dropped_bytes = 0

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.removed) + len(self.added) + len(self.changed)

    def add(self, changes: Iterable[PathChange]) -> None:
        """Takes changes; past the bound it counts them."""
        for change in changes:
            if self.size >= MAX_LISTED:
                self.dropped += 1
                after = change.after
                if after is not None and after.content is not None and not change.same_content:
                    self.dropped_bytes += after.content.size_bytes
            elif change.after is None:
                self.removed[change.path] = change
            elif change.before is None:
                self.added[change.path] = change
            else:
                self.changed.append(change)

    def all(self) -> list[PathChange]:
        """Those that are there, in no order."""
        return [*self.removed.values(), *self.added.values(), *self.changed]


def _tree_of(change: PathChange) -> str | None:
    entry = change.before or change.after
    return None if entry is None else entry.tree


def _take_renames(collected: Collected, renames: Iterable[Rename], found: list[Change]) -> None:
    for rename in renames:
        before = collected.removed.pop(rename.source).before
        after = collected.added.pop(rename.target).after
        found.append(Change(rename.target, before, after, rename.source, rename.similarity))
