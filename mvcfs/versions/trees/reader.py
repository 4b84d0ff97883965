"""Directories of a version as a reader of the mount sees them: Git's tree joined with the rows of `.mvcfs-attrs`.

Trees may come from anybody who pushes with plain Git, so nothing in them is believed that the tree itself doesn't prove: a
row counts only if it names the entry's content and kind, a large file's hash only if the pointer made of it has the entry's
id, and names that no directory can hold are left out with a log line. Where rows say it all, no file's blob is read.

Threading: the functions read from `GitObjects` only; a `TreeReader` guards its cache by a lock.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

from mvcfs.errors import CorruptData, NotFound
from mvcfs.types import Attributes, BlobContent, Content, LargeContent, TreeEntry
from mvcfs.versions.git import gitattributes
from mvcfs.versions.git.format import (
    MODE_EXECUTABLE,
    MODE_FILE,
    MODE_GITLINK,
    MODE_SYMLINK,
    MODE_TREE,
    RawEntry,
)
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pointer import POINTER_MAX_BYTES, parse_pointer, pointer_blob_oid
from mvcfs.versions.names import ATTRS_NAME, GITATTRIBUTES, MAX_ENTRY_BYTES, ROOT_ROW, escape_name, is_entry_name
from mvcfs.versions.trees.attributes import AttrRow, parse_rows, shard_of, speaks_of

logger = logging.getLogger(__name__)

EMPTY_TREE_OID = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""Git's id of the empty tree; as a `tree` it needs no object."""

_PLAIN_BLOB_BYTES = 65536
"""A row of at least this size that names no large file is looked into."""

_OWNER = (os.getuid(), os.getgid())
"""Git keeps no owners: what no row speaks of belongs to who reads it, who could not write to it otherwise."""

DEFAULT_MODES = {MODE_TREE: 0o040755, MODE_SYMLINK: 0o120777}
"""st_mode of an entry without a row where it isn't Git's mode itself."""


def load_rows(objects: GitObjects, attrs: RawEntry | None) -> list[AttrRow]:
    """All rows of a directory, given its entry `.mvcfs-attrs`.

    Raises:
        NotFound: An object is missing.
        CorruptData: An object is damaged.
    """
    if attrs is None:
        return []
    if attrs.mode == MODE_TREE:
        return [row for shard in load_shards(objects, attrs).values() for row in load_rows(objects, shard)]
    if stat.S_ISREG(attrs.mode):
        return parse_rows(objects.read_kind(attrs.oid, "blob"), attrs.oid)
    return []


def load_shards(objects: GitObjects, attrs: RawEntry) -> dict[bytes, RawEntry]:
    """The blobs of a sharded `.mvcfs-attrs` by name; whatever else is in that tree is left out."""
    return {
        entry.name: entry
        for entry in objects.read_tree(attrs.oid)
        if stat.S_ISREG(entry.mode) and len(entry.name) == 2 and set(entry.name) <= set(b"0123456789abcdef")
    }


def normal_mode(mode: int) -> int | None:
    """Git's mode of an entry as current Git writes it, None for what no mvcfs can show."""
    if mode in (MODE_FILE, MODE_TREE):
        return mode
    kind = mode & 0o170000
    if kind == stat.S_IFREG:
        return MODE_EXECUTABLE if mode & stat.S_IXUSR else MODE_FILE
    return kind if kind in (MODE_TREE, MODE_SYMLINK, MODE_GITLINK) else None


def row_fits(row: AttrRow, entry: RawEntry) -> bool:
    """Whether a row speaks of this very entry, its escaped name included."""
    if not speaks_of(row, entry):
        return False
    if row.tree_name is None:
        return row.name == entry.name
    return row.tree_name == entry.name == escape_name(row.name) and is_entry_name(row.name)


def _unknown_content(objects: GitObjects, entry: RawEntry) -> Content | None:
    """Content of a file that no row speaks of; None for a `.gitattributes` that is our block only."""
    kind, size = objects.header(entry.oid)
    if kind != "blob":
        raise CorruptData(f"Git object {entry.oid} is a {kind}, but a tree names it as a file")
    if entry.mode != MODE_SYMLINK:
        if entry.name == GITATTRIBUTES:
            parts = gitattributes.split(objects.read_kind(entry.oid, "blob"))
            if parts.large is not None:
                return BlobContent(entry.oid, len(parts.user), True) if parts.user else None
        if size < POINTER_MAX_BYTES:
            large = parse_pointer(objects.read_kind(entry.oid, "blob"))
            if large is not None:
                return large
    return BlobContent(entry.oid, size)


def _known_content(objects: GitObjects, entry: RawEntry, row: AttrRow) -> Content | None:
    """Content of a file by its row.

    Raises:
        ValueError: The row lies about it.
    """
    if row.lfs is not None:
        large = LargeContent(row.lfs, row.size)
        if pointer_blob_oid(large) != entry.oid:
            raise ValueError("the pointer is another")
        return large
    if row.block is not None:
        if entry.name != GITATTRIBUTES:
            raise ValueError("no such block here")
        return BlobContent(entry.oid, row.size, True) if row.block == "end" else None
    if row.size >= _PLAIN_BLOB_BYTES:
        return _unknown_content(objects, entry)
    return BlobContent(entry.oid, row.size)


class Listing:
    """One directory being read.

    Attributes:
        used_default: Whether the default time went into an entry.
    """

    def __init__(self, objects: GitObjects, tree: str, default_mtime_ns: int) -> None:
        self._objects = objects
        self._tree = tree
        self._default_mtime_ns = default_mtime_ns
        self._rows: dict[bytes, AttrRow] = {}
        self._ignored_rows = 0
        self.used_default = False

    def read(self) -> tuple[TreeEntry, ...]:
        """The entries by true name, in the tree's order."""
        raw = self._objects.read_tree(self._tree)
        attrs = next((entry for entry in raw if entry.name == ATTRS_NAME), None)
        return self.join(raw, load_rows(self._objects, attrs))

    def join(self, raw: Iterable[RawEntry], rows: Iterable[AttrRow]) -> tuple[TreeEntry, ...]:
        """The given entries of the tree, joined with rows."""
        self._rows = {row.entry_name: row for row in rows}
        found: dict[bytes, TreeEntry] = {}
        for entry in raw:
            if entry.name == ATTRS_NAME:
                continue
            mode = normal_mode(entry.mode)
            if mode is None or not is_entry_name(entry.name) or len(entry.name) > MAX_ENTRY_BYTES:
                logger.warning("tree %s: entry %.300r of mode %o left out", self._tree, entry.name, entry.mode)
                continue
            made = self._entry(entry if mode == entry.mode else entry._replace(mode=mode))
            if made is None:
                continue
            if made.name in found:
                logger.warning("tree %s: a second entry %r left out", self._tree, made.name)
                continue
            found[made.name] = made
        if self._ignored_rows:
            logger.info("tree %s: %d rows of attributes don't fit their entries", self._tree, self._ignored_rows)
        return tuple(found.values())

    def _entry(self, entry: RawEntry) -> TreeEntry | None:
        row = self._rows.get(entry.name)
        if row is not None and row_fits(row, entry):
            if entry.mode == MODE_TREE:
                return TreeEntry(row.name, row.attributes, None, entry.oid)
            try:
                content = _known_content(self._objects, entry, row)
            except ValueError:
                pass
            else:
                return None if content is None else TreeEntry(row.name, row.attributes, content)
        if row is not None:
            self._ignored_rows += 1
        return self._without_row(entry)

    def _without_row(self, entry: RawEntry) -> TreeEntry | None:
        self.used_default = True
        if entry.mode in (MODE_TREE, MODE_GITLINK):
            attributes = Attributes(DEFAULT_MODES[MODE_TREE], *_OWNER, self._default_mtime_ns)
            return TreeEntry(entry.name, attributes, None, entry.oid if entry.mode == MODE_TREE else EMPTY_TREE_OID)
        content = _unknown_content(self._objects, entry)
        if content is None:
            return None
        mode = DEFAULT_MODES.get(entry.mode, entry.mode)
        return TreeEntry(entry.name, Attributes(mode, *_OWNER, self._default_mtime_ns), content)


def _read(objects: GitObjects, tree: str, default_mtime_ns: int) -> tuple[tuple[TreeEntry, ...], bool]:
    """A directory's entries, and whether the default time went into them."""
    if tree == EMPTY_TREE_OID:
        return (), False
    listing = Listing(objects, tree, default_mtime_ns)
    try:
        return listing.read(), listing.used_default
    except NotFound as error:
        raise CorruptData(f"directory {tree} can't be read: {error}") from error


def list_tree(objects: GitObjects, tree: str, *, default_mtime_ns: int) -> tuple[TreeEntry, ...]:
    """A directory of a version: true names, attributes joined, in the tree's order.

    Args:
        objects: Where to read.
        tree: Git id of the tree.
        default_mtime_ns: Time of what no row speaks of; the commit's.

    Raises:
        CorruptData: An object is missing or damaged; the message names it.
    """
    return _read(objects, tree, default_mtime_ns)[0]


def root_attributes(objects: GitObjects, tree: str) -> Attributes | None:
    """The attributes of a version's root directory, None if its tree doesn't say.

    Raises:
        CorruptData: An object is missing or damaged; the message names it.
    """
    if tree == EMPTY_TREE_OID:
        return None
    try:
        attrs = next((entry for entry in objects.read_tree(tree) if entry.name == ATTRS_NAME), None)
        if attrs is not None and attrs.mode == MODE_TREE:
            attrs = load_shards(objects, attrs).get(shard_of(ROOT_ROW))
        rows = load_rows(objects, attrs)
    except NotFound as error:
        raise CorruptData(f"directory {tree} can't be read: {error}") from error
    return next((row.attributes for row in rows if row.name == ROOT_ROW and row.attributes.is_dir), None)


class TreeReader:
    """Reads directories through a cache that is bounded by the number of entries in it.

    The directory read last always stays, whatever its size.
    """

    def __init__(self, objects: GitObjects, *, max_entries: int = 100_000) -> None:
        self._objects = objects
        self._max_entries = max_entries
        self._cache: OrderedDict[tuple[str, int | None], tuple[TreeEntry, ...]] = OrderedDict()
        self._cached_entries = 0
        self._lock = Lock()

    def list(self, tree: str, *, default_mtime_ns: int) -> tuple[TreeEntry, ...]:
        """As `list_tree`."""
        with self._lock:
            for key in ((tree, None), (tree, default_mtime_ns)):
                found = self._cache.get(key)
                if found is not None:
                    self._cache.move_to_end(key)
                    return found
        entries, used_default = _read(self._objects, tree, default_mtime_ns)
        with self._lock:
            made = (tree, default_mtime_ns if used_default else None)
            if made not in self._cache:
                self._cache[made] = entries
                self._cached_entries += len(entries) + 1
            while self._cached_entries > self._max_entries and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached_entries -= len(dropped) + 1
        return entries

    @property
    def cached_entries(self) -> int:
        """How many entries the cache holds; a directory counts as one more."""
        return self._cached_entries
