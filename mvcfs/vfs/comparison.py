"""What two versions have at a path each, compared. Threading: trio thread."""

from __future__ import annotations

from dataclasses import dataclass

from mvcfs.types import TreeEntry
from mvcfs.versions.trees.comparing import Change, Changes
from mvcfs.vfs.sources import ModelData


@dataclass(frozen=True, slots=True)
class Spot:
    """A path in a version.

    Attributes:
        commit: The version; None: nothing, before the first one.
        path: Names joined by slashes; empty for the whole version.
    """

    commit: str | None
    path: bytes = b""

    def below(self, path: bytes) -> Spot:
        """A path below this one."""
        return Spot(self.commit, self.path + b"/" + path if self.path and path else self.path or path)


async def entry_at(data: ModelData, spot: Spot) -> TreeEntry | None:
    """What a version has there, None for nothing. CorruptData."""
    return None if spot.commit is None else await data.repository.entry_at(spot.commit, spot.path)


async def compare_spots(data: ModelData, before: Spot, after: Spot) -> Changes | None:
    """The changes from one to the other, under the path that the latter has; None if both are nothing. CorruptData."""
    old, new = await entry_at(data, before), await entry_at(data, after)
    if old is None and new is None:
        return None
    found = Changes()
    trees = [None if entry is None else entry.tree for entry in (old, new)]
    if trees != [None, None]:
        found = await data.repository.comparing.changes(trees[0], trees[1], path=after.path)
    files = [None if entry is None or entry.tree is not None else entry for entry in (old, new)]
    if files[0] != files[1]:
        renamed = before.path if None not in files and before.path != after.path else None
        found.listed.insert(0, Change(after.path, files[0], files[1], renamed))
    return found
