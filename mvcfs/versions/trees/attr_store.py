"""The rows of one directory while its tree is being built: read where needed, written where changed.

A directory with many entries keeps its rows in shards; only the shards of names that changed are read and written again. What
is written depends on the final rows alone, never on how they came about. For one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mvcfs.versions.git.format import MODE_FILE, MODE_TREE, RawEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.names import ATTRS_NAME, ROOT_ROW
from mvcfs.versions.trees.attributes import AttrRow, serialise_rows, shard_of
from mvcfs.versions.trees.reader import load_rows, load_shards, row_fits


class AttrStore:
    """Rows by true name, on top of a base directory's.

    Args:
        objects: Where to read and write.
        base: The base's entry `.mvcfs-attrs`, None if there is none.
    """

    def __init__(self, objects: GitObjects, base: RawEntry | None) -> None:
        self._objects = objects
        self._base = base
        self._base_shards = load_shards(objects, base) if base is not None and base.mode == MODE_TREE else None
        self._parts: dict[bytes, dict[bytes, AttrRow]] = {}

    def _part(self, name: bytes) -> dict[bytes, AttrRow]:
        """The rows that a name's row is or would be among."""
        if self._base_shards is None:
            part = self._parts.get(b"")
            return self._load(b"", self._base) if part is None else part
        shard = shard_of(name)
        part = self._parts.get(shard)
        return self._load(shard, self._base_shards.get(shard)) if part is None else part

    def _load(self, key: bytes, entry: RawEntry | None) -> dict[bytes, AttrRow]:
        self._parts[key] = {row.name: row for row in load_rows(self._objects, entry)}
        return self._parts[key]

    def get(self, name: bytes) -> AttrRow | None:
        """The row of a true name."""
        return self._part(name).get(name)

    def put(self, row: AttrRow) -> None:
        """Sets the row of its name."""
        self._part(row.name)[row.name] = row

    def remove(self, name: bytes) -> None:
        """Drops the row of a name, if there is one."""
        self._part(name).pop(name, None)

    def all(self) -> Iterable[AttrRow]:
        """Every row, whatever it costs."""
        for shard, entry in (self._base_shards or {}).items():
            if shard not in self._parts:
                self._load(shard, entry)
        if self._base_shards is None and not self._parts:
            self._load(b"", self._base)
        return [row for part in self._parts.values() for row in part.values()]

    def write(self, entries: Mapping[bytes, RawEntry], *, sharded: bool, root: bool) -> RawEntry:
        """Writes what changed.

        Args:
            entries: The finished directory by names in the tree; rows that don't fit are dropped.
            sharded: Whether the rows shall stand in shards.
            root: Whether this is a root directory, which alone keeps a row of its own.
        """

        def keep(row: AttrRow) -> bool:
            if row.name == ROOT_ROW:
                return root
            entry = entries.get(row.entry_name)
            return entry is not None and row_fits(row, entry)

        if not sharded:
            oid = self._objects.write("blob", serialise_rows(filter(keep, self.all())))
            return RawEntry(ATTRS_NAME, MODE_FILE, oid)
        shards: dict[bytes, RawEntry] = {}
        parts: dict[bytes, list[AttrRow]] = {}
        if self._base_shards is None:
            for row in filter(keep, self.all()):
                parts.setdefault(shard_of(row.name), []).append(row)
        else:
            shards.update(self._base_shards)
            parts = {shard: list(filter(keep, part.values())) for shard, part in self._parts.items()}
        for shard, rows in parts.items():
            if rows:
                shards[shard] = RawEntry(shard, MODE_FILE, self._objects.write("blob", serialise_rows(rows)))
            else:
                shards.pop(shard, None)
        return RawEntry(ATTRS_NAME, MODE_TREE, self._objects.write_tree(shards.values()))
