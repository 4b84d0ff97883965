"""Where a model's branches, tags and aliases are shown, so that the kernel is told when a name stands for something else.

The kernel keeps a name for a while (`--refresh`). When refs change, by a command here or by another host, whoever noticed
compares what the names stood for with what they stand for now, and has those dropped that differ. Names that stay are
left alone: dropping one that a shell stands in would cost it its place. Threading: trio thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from mvcfs.versions.log.refs import Refs
from mvcfs.vfs.working_tree.follow import Invalidation

LEVEL = "level"
"""The kind of a model's own directory and the levels of names below it; the others are `branches`, `tags`, `aliases`."""

_Place = tuple[str, str]
_Meanings = dict[_Place, dict[str, str]]


class ShownNames:
    """The directories of one model that show names of refs."""

    def __init__(self) -> None:
        self._inodes: dict[_Place, int] = {}
        self._refs: Refs | None = None
        self._known: _Meanings = {}

    def add(self, kind: str, prefix: str, ino: int) -> None:
        """Notes a directory: what it shows (see `LEVEL`), and what the names in it begin with, `feature/`."""
        self._inodes[kind, prefix] = ino

    def changes(self, refs: Refs) -> list[Invalidation]:
        """The names that stand for something else than when this was asked last."""
        if refs is self._refs:
            return []
        now = _meanings(refs)
        first, before = self._refs is None, self._known
        self._refs, self._known = refs, now
        if first:
            return []
        found = []
        for place, ino in self._inodes.items():
            old, new = before.get(place, {}), now.get(place, {})
            names = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
            found += [Invalidation(ino, name.encode()) for name in sorted(names)]
        return found


def _meanings(refs: Refs) -> _Meanings:
    """What each name in each place stands for: the id of a branch, the target of a tag or alias, or a level."""
    found: _Meanings = {}
    branches = {branch.name: branch.id for branch in refs.branches.values()}
    # What a name of several kinds stands for in the model's directory: the last one put there wins, as in a lookup.
    for names in (refs.aliases, refs.tags):
        _add(found, LEVEL, names, leaves=True)
    for names in (refs.aliases, refs.tags, branches):
        _add(found, LEVEL, names, leaves=False)
    _add(found, LEVEL, branches, leaves=True)
    for kind, names in (("branches", branches), ("tags", refs.tags), ("aliases", refs.aliases)):
        _add(found, kind, names, leaves=True)
        _add(found, kind, names, leaves=False)
    return found


def _add(found: _Meanings, kind: str, names: Mapping[str, str], *, leaves: bool) -> None:
    for name, meaning in names.items():
        *levels, leaf = name.split("/")
        prefix = ""
        for level in levels:
            if not leaves:
                found.setdefault((kind, prefix), {})[level] = LEVEL
            prefix += level + "/"
        if leaves:
            found.setdefault((kind, prefix), {})[leaf] = meaning
