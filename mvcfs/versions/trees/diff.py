"""What differs between versions of one directory, found without looking at what is equal.

A directory of 100,000 files in which each of two hosts changed one must not be read three times over: entries that are the
same Git object in all versions, and whose rows stand in the same shard, are dropped before anything is decoded.

Threading: reads from `GitObjects` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mvcfs.errors import CorruptData, NotFound
from mvcfs.types import TreeEntry
from mvcfs.versions.git.format import MODE_TREE, RawEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.names import ATTRS_NAME, ESCAPE_PREFIX
from mvcfs.versions.trees.attributes import AttrRow, shard_of
from mvcfs.versions.trees.reader import EMPTY_TREE_OID, Listing, list_tree, load_rows, load_shards


def list_differing(
    objects: GitObjects, trees: Sequence[str | None], *, default_mtime_ns: int
) -> list[dict[bytes, TreeEntry]]:
    """The entries of several versions of a directory by true name.

    Entries equal in all of them may be left out of all of them; they are where that saves work.

    Args:
        objects: Where to read.
        trees: The versions; None stands for an empty one.
        default_mtime_ns: As for `list_tree`.

    Raises:
        CorruptData: An object is missing or damaged; the message names it.
    """
    if any(tree is None or tree == EMPTY_TREE_OID for tree in trees):
        return [_whole(objects, tree, default_mtime_ns) for tree in trees]
    try:
        raw = [{entry.name: entry for entry in objects.read_tree(str(tree))} for tree in trees]
        attrs = [entry for entries in raw if (entry := entries.pop(ATTRS_NAME, None)) is not None]
        if len(attrs) < len(raw) or any(entry.mode != MODE_TREE for entry in attrs):
            return [_whole(objects, tree, default_mtime_ns) for tree in trees]
        names, rows = _differing(objects, raw, [load_shards(objects, entry) for entry in attrs])
        listings = [
            Listing(objects, str(tree), default_mtime_ns).join([e for e in entries.values() if e.name in names], some)
            for tree, entries, some in zip(trees, raw, rows, strict=True)
        ]
    except NotFound as error:
        raise CorruptData(f"a version of a directory can't be read: {error}") from error
    return [{entry.name: entry for entry in entries} for entries in listings]


def _differing(
    objects: GitObjects, raw: Sequence[dict[bytes, RawEntry]], shards: Sequence[dict[bytes, RawEntry]]
) -> tuple[set[bytes], list[list[AttrRow]]]:
    """The names in the trees of entries that differ, and all rows among which theirs are, for each version."""
    names = _unequal(raw)
    wanted = _unequal(shards) | {shard_of(name) for name in names}
    if any(name.startswith(ESCAPE_PREFIX) for name in names):
        wanted.update(*shards)
    rows = [[row for name in wanted for row in load_rows(objects, some.get(name))] for some in shards]
    by_name = [{row.entry_name: row for row in some} for some in rows]
    return names | _unequal(by_name), rows


def _unequal(maps: Sequence[Mapping[bytes, object]]) -> set[bytes]:
    """The keys that not all maps have with the same value."""
    first, *others = maps
    unequal = {key for key, value in first.items() if any(each.get(key) != value for each in others)}
    return unequal.union(*(each.keys() - first.keys() for each in others))


def _whole(objects: GitObjects, tree: str | None, default_mtime_ns: int) -> dict[bytes, TreeEntry]:
    entries = () if tree is None else list_tree(objects, tree, default_mtime_ns=default_mtime_ns)
    return {entry.name: entry for entry in entries}
