"""A version's tree, edited by paths without reading what is not touched.

Entries are put, moved and removed; directories on the way are read when they are needed, and moving one takes along all that is
in it, whatever it holds. `write` makes the tree.

For one thread; reads and writes `GitObjects`.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from mvcfs.errors import NotADirectory, NotFound
from mvcfs.types import Attributes, DirChange, FileChange, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.trees.builder import build_tree
from mvcfs.versions.trees.reader import list_tree, root_attributes
from mvcfs.versions.trees.renames import base_name, parent_of


@dataclass(slots=True)
class _Directory:
    """A directory on its way: its base tree, what that has once it was read, and what differs."""

    attributes: Attributes
    base: str | None
    names: dict[bytes, TreeEntry] | None = None
    changes: dict[bytes, TreeEntry | _Directory | None] = field(default_factory=dict)


class TreeEdit:
    """One version's tree, being edited.

    Args:
        objects: Where to read and write.
        tree: The tree to start from; None stands for an empty one.
        default_mtime_ns: Time of entries that plain Git committed.
    """

    def __init__(self, objects: GitObjects, tree: str | None, *, default_mtime_ns: int = 0) -> None:
        self._objects = objects
        self._default_mtime_ns = default_mtime_ns
        known = None if tree is None else root_attributes(objects, tree)
        self._root = _Directory(known or Attributes(stat.S_IFDIR | 0o755, 0, 0, default_mtime_ns), tree)

    # --- looking

    def has(self, path: bytes) -> bool:
        """Whether there is anything at a path. CorruptData."""
        return self._find(path) is not None

    def is_directory(self, path: bytes) -> bool:
        """Whether there is a directory at a path. CorruptData."""
        found = self._find(path)
        return isinstance(found, _Directory) or (found is not None and found.tree is not None)

    def entry(self, path: bytes) -> TreeEntry | None:
        """What is at a path; of a directory that was edited, its tree is written. CorruptData."""
        found = self._find(path)
        if not isinstance(found, _Directory):
            return found
        # Written as a directory, not as a root, which has a row of its own.
        holder = build_tree(self._objects, DirChange(found.attributes, None, {b"d": _as_change(found)}))
        return next(
            TreeEntry(base_name(path), found.attributes, None, entry.tree)
            for entry in list_tree(self._objects, holder, default_mtime_ns=0)
        )

    def names(self, path: bytes) -> list[bytes]:
        """The names in a directory, sorted. CorruptData; NotADirectory if it is none."""
        directory = self._directory(path)
        kept = {name for name in self._base_names(directory) if directory.changes.get(name, True) is not None}
        return sorted(kept | {name for name, what in directory.changes.items() if what is not None})

    # --- editing

    def put(self, path: bytes, entry: TreeEntry, *, like: TreeEdit | None = None) -> None:
        """Puts an entry in the place of what is there; directories that are missing above it are made.

        Args:
            path: Where; its last name counts, not the entry's.
            entry: What.
            like: Whose directories give those that are made their attributes, if it has them.

        Raises:
            NotADirectory: Something above it is a file.
        """
        directory = self._made(parent_of(path), like)
        directory.changes[base_name(path)] = entry

    def remove(self, path: bytes) -> None:
        """Removes what is at a path, if there is anything. CorruptData."""
        parent = self._find(parent_of(path)) if path else None
        if isinstance(parent, TreeEntry) and parent.tree is None:
            return
        if parent is not None and self.has(path):
            directory = self._directory(parent_of(path))
            if base_name(path) in self._base_names(directory):
                directory.changes[base_name(path)] = None
            else:
                del directory.changes[base_name(path)]

    def move(self, source: bytes, target: bytes, *, like: TreeEdit | None = None) -> None:
        """Moves an entry to a free path. NotFound if there is none; NotADirectory as for `put`."""
        found = self._find(source)
        if found is None:
            raise NotFound(f"{source!r} is not in the tree")
        directory = self._made(parent_of(target), like)
        self.remove(source)
        directory.changes[base_name(target)] = found

    def set_attributes(self, path: bytes, attributes: Attributes) -> None:
        """Gives a directory other attributes. NotADirectory if it is none."""
        self._directory(path).attributes = attributes

    def write(self) -> str:
        """Writes the trees that were edited; the id of the root's."""
        return build_tree(self._objects, DirChange(self._root.attributes, self._root.base, _changes_of(self._root)))

    # --- inside

    def _base_names(self, directory: _Directory) -> dict[bytes, TreeEntry]:
        if directory.names is None:
            entries = (
                ()
                if directory.base is None
                else list_tree(self._objects, directory.base, default_mtime_ns=self._default_mtime_ns)
            )
            directory.names = {entry.name: entry for entry in entries}
        return directory.names

    def _child(self, directory: _Directory, name: bytes) -> TreeEntry | _Directory | None:
        if name in directory.changes:
            return directory.changes[name]
        return self._base_names(directory).get(name)

    def _opened(self, directory: _Directory, name: bytes, child: TreeEntry) -> _Directory:
        """A child directory as one that is read once and can be edited; as long as it isn't its tree stays the same."""
        opened = _Directory(child.attributes, child.tree)
        directory.changes[name] = opened
        return opened

    def _find(self, path: bytes) -> TreeEntry | _Directory | None:
        if not path:
            return self._root
        directory = self._root
        *above, last = path.split(b"/")
        for name in above:
            child = self._child(directory, name)
            if isinstance(child, TreeEntry) and child.tree is not None:
                child = self._opened(directory, name, child)
            if not isinstance(child, _Directory):
                return None
            directory = child
        return self._child(directory, last)

    def _directory(self, path: bytes) -> _Directory:
        """The directory at a path, opened for editing."""
        directory = self._root
        for name in path.split(b"/") if path else ():
            child = self._child(directory, name)
            if isinstance(child, TreeEntry) and child.tree is not None:
                child = self._opened(directory, name, child)
            if not isinstance(child, _Directory):
                raise NotADirectory(f"{path!r} is no directory")
            directory = child
        return directory

    def _made(self, path: bytes, like: TreeEdit | None) -> _Directory:
        """As `_directory`, made where it is missing."""
        if not path:
            return self._root
        parent = self._made(parent_of(path), like)
        name = base_name(path)
        child = self._child(parent, name)
        if child is None:
            model = None if like is None else like._find(path)
            known = model is not None and model.attributes.is_dir
            child = _Directory(model.attributes if model is not None and known else self._root.attributes, None)
            parent.changes[name] = child
        elif isinstance(child, TreeEntry) and child.tree is not None:
            child = self._opened(parent, name, child)
        if not isinstance(child, _Directory):
            raise NotADirectory(f"{path!r} is no directory")
        return child


def _changes_of(directory: _Directory) -> dict[bytes, FileChange | DirChange | None]:
    return {name: _as_change(what) for name, what in directory.changes.items()}


def _as_change(what: TreeEntry | _Directory | None) -> FileChange | DirChange | None:
    if what is None:
        return None
    if isinstance(what, _Directory):
        return DirChange(what.attributes, what.base, _changes_of(what))
    if what.content is None:
        return DirChange(what.attributes, what.tree)
    return FileChange(what.attributes, what.content)
