"""Renames in a three-way merge: the sides are given the same paths, and then merged path by path.

Renames matter only where one side has something no more that the other side changed, or that neither has any more; a merge by
path tells which these are (`Lost`). Then what became of them is looked for, and what the one side moved is moved in the base
and in the other side too. So a change goes to the new name, and what was added to a directory goes along with it. Whole
directories are moved as one tree, whatever they hold.

* A directory goes where most of it went (see `mvcfs.versions.trees.renames`). Where the place is taken, its entries are moved one
  by one, and what finds its name taken stays.
* A small file of a directory that is gone, and that did not go with it, wasn't renamed: checkpoints that come and go have
  many small files in common. A large one was.
* What one side renamed and the other removed stays under its new name, without a conflict.
* Two new names for one thing are told as `RenamedTwice`, and theirs is taken for the merge.

For a thread: reads and writes `GitObjects` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mvcfs.errors import NotADirectory
from mvcfs.types import LargeContent, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.trees.diff import list_differing
from mvcfs.versions.trees.edit import TreeEdit
from mvcfs.versions.trees.renames import (
    MAX_ENTRIES,
    find_directory_renames,
    find_renames,
    joined,
    moved_path,
    parent_of,
)


@dataclass(frozen=True, slots=True)
class Sides:
    """The trees of a merge, None for an empty one."""

    base: str | None
    ours: str | None
    theirs: str | None


@dataclass(slots=True)
class Lost:
    """Paths of the base that a side has no more.

    Attributes:
        ours: Those that our side has no more, and theirs has changed.
        theirs: Those that theirs has no more, and ours has changed.
        both: Those that neither has.
    """

    ours: set[bytes] = field(default_factory=set)
    theirs: set[bytes] = field(default_factory=set)
    both: set[bytes] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class RenamedTwice:
    """What had one path, and has two now.

    Attributes:
        path: Its path in the base.
        ours: The path that our side gave it.
        theirs: The path that theirs gave it, and where the aligned trees all have it.
    """

    path: bytes
    ours: bytes
    theirs: bytes


@dataclass(frozen=True, slots=True)
class Aligned:
    """Trees in which renamed things have the same paths, and what had two new ones."""

    sides: Sides
    twice: tuple[RenamedTwice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Moves:
    """What a side moved: new paths by old ones. What follows from a directory's move is left out of `files`."""

    directories: Mapping[bytes, bytes]
    files: Mapping[bytes, bytes]

    def exactly(self, path: bytes) -> bytes | None:
        return self.directories.get(path) or self.files.get(path)


def align_directories(objects: GitObjects, sides: Sides, lost: Lost, *, default_mtime_ns: int = 0) -> Aligned | None:
    """As `align_renames`, for directories that stand elsewhere as a whole only; nothing in them is read."""
    return _Alignment(objects, sides, default_mtime_ns).run_whole(lost)


def align_renames(objects: GitObjects, sides: Sides, lost: Lost, *, default_mtime_ns: int = 0) -> Aligned | None:
    """Follows the renames that stand in the way of a merge by path.

    Args:
        objects: Where trees are read from and written to.
        sides: The trees.
        lost: What the merge missed.
        default_mtime_ns: Time of entries that plain Git committed.

    Returns:
        None if there are no such renames. There may be more after these: merge and look again.

    Raises:
        NotFound, CorruptData: An object is missing or damaged.
    """
    return _Alignment(objects, sides, default_mtime_ns).run(lost)


@dataclass(frozen=True, slots=True)
class Known:
    """Directories that the sides are known to have renamed: new paths by old ones. What the trees don't show is passed over."""

    ours: Mapping[bytes, bytes] = field(default_factory=dict)
    theirs: Mapping[bytes, bytes] = field(default_factory=dict)


def align_known(objects: GitObjects, sides: Sides, known: Known, *, default_mtime_ns: int = 0) -> Sides:
    """Gives the sides the same paths where it is known which directories they renamed, whatever is in these.

    Args:
        objects: Where trees are read from and written to.
        sides: The trees.
        known: What is known.
        default_mtime_ns: Time of entries that plain Git committed.

    Raises:
        NotFound, CorruptData: An object is missing or damaged.
    """
    return _Alignment(objects, sides, default_mtime_ns).run_known(known)


class _Alignment:
    def __init__(self, objects: GitObjects, sides: Sides, default_mtime_ns: int) -> None:
        self._objects = objects
        self._sides = sides
        self._mtime_ns = default_mtime_ns
        self._base, self._ours, self._theirs = [
            TreeEdit(objects, tree, default_mtime_ns=default_mtime_ns)
            for tree in (sides.base, sides.ours, sides.theirs)
        ]

    def run(self, lost: Lost) -> Aligned | None:
        if lost.theirs and self._follow(self._theirs, self._sides.theirs, self._ours, lost.theirs):
            return Aligned(Sides(self._base.write(), self._ours.write(), self._sides.theirs))
        if lost.ours and self._follow(self._ours, self._sides.ours, self._theirs, lost.ours):
            return Aligned(Sides(self._base.write(), self._sides.ours, self._theirs.write()))
        if lost.both:
            return self._join(lost.both)
        return None

    def run_whole(self, lost: Lost) -> Aligned | None:
        if self._follow_whole(self._theirs, self._sides.theirs, self._ours, lost.theirs):
            return Aligned(Sides(self._base.write(), self._ours.write(), self._sides.theirs))
        if self._follow_whole(self._ours, self._sides.ours, self._theirs, lost.ours):
            return Aligned(Sides(self._base.write(), self._sides.ours, self._theirs.write()))
        return None

    def _follow_whole(self, mover: TreeEdit, tree: str | None, other: TreeEdit, lost: set[bytes]) -> bool:
        if not any(self._base.is_directory(path) for path in lost):
            return False
        removed, added = [_directories(entries) for entries in self._compare(self._sides.base, tree)]
        done = False
        for rename in find_renames(self._objects, removed, added):
            if rename.source in lost:
                done |= _carry(other, rename.source, rename.target, mover)
                done |= _carry(self._base, rename.source, rename.target, mover)
        return done

    def run_known(self, known: Known) -> Sides:
        ours_moved = self._follow_known(self._theirs, self._ours, known.theirs)
        theirs_moved = self._follow_known(self._ours, self._theirs, known.ours)
        if not ours_moved and not theirs_moved:
            return self._sides
        return Sides(
            self._base.write(),
            self._ours.write() if ours_moved else self._sides.ours,
            self._theirs.write() if theirs_moved else self._sides.theirs,
        )

    def _follow_known(self, mover: TreeEdit, other: TreeEdit, moves: Mapping[bytes, bytes]) -> bool:
        done = False
        for source, target in sorted(moves.items(), reverse=True):
            if mover.is_directory(target) and not mover.is_directory(source) and other.is_directory(source):
                done |= _carry(other, source, target, mover) | _carry(self._base, source, target, mover)
        return done

    def _follow(self, mover: TreeEdit, tree: str | None, other: TreeEdit, lost: set[bytes]) -> bool:
        """Moves in the base and in the other side what one side moved; whether there was anything."""
        moves = self._moves(mover, tree, lost)
        done = False
        for source, target in sorted(moves.files.items()):
            if source in lost and not other.has(target):
                done |= _carry(other, source, target, mover) | _carry(self._base, source, target, mover)
        # The deepest first: a directory may have gone elsewhere than the one it was in.
        for source, target in sorted(moves.directories.items(), reverse=True):
            if any(path == source or path.startswith(source + b"/") for path in lost):
                done |= _carry(other, source, target, mover) | _carry(self._base, source, target, mover)
        return done

    def _join(self, lost: set[bytes]) -> Aligned | None:
        """Gives what both sides renamed one path in all trees."""
        ours = self._moves(self._ours, self._sides.ours, lost)
        theirs = self._moves(self._theirs, self._sides.theirs, lost)
        twice: list[RenamedTwice] = []
        done = False
        for path in sorted(lost):
            here, there = ours.exactly(path), theirs.exactly(path)
            if here is None or there is None or not self._base.has(path) or self._base.has(there):
                continue
            if here != there:
                if self._ours.has(there) or not self._ours.has(here):
                    continue
                _carry(self._ours, here, there, self._theirs)
                twice.append(RenamedTwice(path, here, there))
            done |= _carry(self._base, path, there, self._theirs)
        if not done:
            return None
        sides = Sides(self._base.write(), self._ours.write() if twice else self._sides.ours, self._sides.theirs)
        return Aligned(sides, tuple(twice))

    def _moves(self, mover: TreeEdit, tree: str | None, lost: set[bytes]) -> _Moves:
        """What a side moved of the base, as far as the lost paths are concerned."""
        removed, added = self._compare(self._sides.base, tree)
        whole = {rename.source: rename.target for rename in find_renames(self._objects, removed, added)}
        found = {path for path in whole if removed[path].tree is not None}
        wanted = {
            path: entry
            for path, entry in removed.items()
            if path not in found and (entry.tree is None or any((one + b"/").startswith(path + b"/") for one in lost))
        }
        targets = {whole[path] for path in found}
        before = self._expanded(wanted)
        now = self._expanded({path: entry for path, entry in added.items() if path not in targets})
        renames = find_renames(self._objects, before, now)
        directories = find_directory_renames(renames, before, lambda path: not mover.is_directory(path))
        directories |= {path: whole[path] for path in found}
        files = {
            rename.source: rename.target
            for rename in renames
            if moved_path(directories, rename.source) != rename.target
            and (
                isinstance(before[rename.source].content, LargeContent) or mover.is_directory(parent_of(rename.source))
            )
        }
        return _Moves(directories, files)

    def _compare(self, base: str | None, tree: str | None) -> tuple[dict[bytes, TreeEntry], dict[bytes, TreeEntry]]:
        """What a side removed and added, directories as a whole; neither if that is too much."""
        removed: dict[bytes, TreeEntry] = {}
        added: dict[bytes, TreeEntry] = {}
        todo: list[tuple[bytes, str | None, str | None]] = [(b"", base, tree)]
        while todo:
            path, before, now = todo.pop()
            old, new = list_differing(self._objects, (before, now), default_mtime_ns=self._mtime_ns)
            for name in old.keys() | new.keys():
                b, n = old.get(name), new.get(name)
                if b is not None and n is not None and (b.tree is None) == (n.tree is None):
                    if b.tree != n.tree:
                        todo.append((joined(path, name), b.tree, n.tree))
                    continue
                if b is not None:
                    removed[joined(path, name)] = b
                if n is not None:
                    added[joined(path, name)] = n
            if max(len(removed), len(added)) > MAX_ENTRIES:
                return {}, {}
        return removed, added

    def _expanded(self, entries: Mapping[bytes, TreeEntry]) -> dict[bytes, TreeEntry]:
        """The files of these entries, those in directories too; none if they are too many."""
        files: dict[bytes, TreeEntry] = {}
        todo = list(entries.items())
        while todo:
            path, entry = todo.pop()
            if entry.tree is None:
                files[path] = entry
            else:
                below = list_differing(self._objects, (entry.tree, None), default_mtime_ns=self._mtime_ns)[0]
                todo.extend((joined(path, name), child) for name, child in below.items())
            if len(files) + len(todo) > MAX_ENTRIES:
                return {}
        return files


def _directories(entries: Mapping[bytes, TreeEntry]) -> dict[bytes, TreeEntry]:
    return {path: entry for path, entry in entries.items() if entry.tree is not None}


def _carry(edit: TreeEdit, source: bytes, target: bytes, like: TreeEdit) -> bool:
    """Moves an entry, or of a directory whose place is taken the entries; what finds its name taken stays."""
    if not edit.has(source):
        return False
    if edit.is_directory(source) and edit.is_directory(target):
        done = [_carry(edit, joined(source, name), joined(target, name), like) for name in edit.names(source)]
        if not edit.names(source):
            edit.remove(source)
            return True
        return any(done)
    if edit.has(target):
        return False
    try:
        edit.move(source, target, like=like)
    except NotADirectory:
        return False
    return True
