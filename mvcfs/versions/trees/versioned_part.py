"""The part of a branch's work that a version holds: all but the names that versions leave out.

Descends only where the work differs from the tip. For a thread: only `GitObjects` is read and written.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from mvcfs.types import Attributes, DirChange, FileChange, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.trees.builder import build_tree
from mvcfs.versions.trees.diff import list_differing
from mvcfs.versions.trees.reader import root_attributes


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs under one name of the root.

    Attributes:
        name: The name.
        verb: `add`, `change` or `remove`.
        is_dir: Whether it is (or was) a directory.
        files: Changed and new files in it, or the file itself.
        bytes: Their bytes.
    """

    name: bytes
    verb: str
    is_dir: bool
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class VersionedPart:
    """A tree for a version.

    Attributes:
        tree: Its id.
        differences: What differs from the tip, by the root's names.
        matters: Whether anything differs but times of directories.
    """

    tree: str
    differences: tuple[Difference, ...]
    matters: bool


@dataclass(slots=True)
class _Count:
    files: int = 0
    bytes: int = 0
    matters: bool = False
    left_out: bool = False


def versioned_part(
    objects: GitObjects, work: str, tip: str | None, leaves_out: Callable[[bytes, bool], bool]
) -> VersionedPart:
    """Takes what versions leave out from the work.

    Args:
        objects: Where to read and write.
        work: The work's tree.
        tip: The tree of the version before, None for none.
        leaves_out: Whether versions leave out a path; the second argument says that it is a directory.

    Raises:
        CorruptData: An object is missing or damaged.
    """
    return _Filter(objects, leaves_out).run(work, tip)


@dataclass(slots=True)
class _Filter:
    objects: GitObjects
    leaves_out: Callable[[bytes, bool], bool]
    differences: list[Difference] = field(default_factory=list)

    def run(self, work: str, tip: str | None) -> VersionedPart:
        before = None if tip is None else root_attributes(self.objects, tip)
        after = root_attributes(self.objects, work) or before or Attributes(stat.S_IFDIR | 0o755, 0, 0, 0)
        total = _Count(matters=before is not None and not _same(before, after))
        changes = self._changes(tip, work, b"", total)
        tree = build_tree(self.objects, DirChange(after, tip, changes))
        return VersionedPart(tree, tuple(self.differences), total.matters)

    def _changes(
        self, tip: str | None, work: str | None, prefix: bytes, count: _Count
    ) -> dict[bytes, FileChange | DirChange | None]:
        before, after = list_differing(self.objects, (tip, work), default_mtime_ns=0)
        changes: dict[bytes, FileChange | DirChange | None] = {}
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name), after.get(name)
            if old == new:
                continue
            below = _Count()
            if new is None or self.leaves_out(prefix + name, new.tree is not None):
                # What versions leave out takes the place of what one held: as where a rename brought it there.
                count.left_out = count.left_out or new is not None
                if old is not None:
                    changes[name], below.matters = None, True
                    self._note(prefix, name, "remove", old, below)
            else:
                change = self._change(old, new, prefix + name, below)
                if old is None and isinstance(change, DirChange) and not change.changes and below.left_out:
                    # A directory that is there for what versions leave out: that it is there is no change either.
                    count.left_out = True
                    continue
                changes[name] = change
                if below.matters:
                    self._note(prefix, name, "add" if old is None else "change", new, below)
            count.matters = count.matters or below.matters
            count.files += below.files
            count.bytes += below.bytes
        return changes

    def _change(self, old: TreeEntry | None, new: TreeEntry, path: bytes, count: _Count) -> FileChange | DirChange:
        if new.content is not None:
            count.matters, count.files, count.bytes = True, 1, new.content.size_bytes
            return FileChange(new.attributes, new.content)
        kept = None if old is None or old.tree is None else old
        count.matters = kept is None or not _same(kept.attributes, new.attributes)
        base = None if kept is None else kept.tree
        return DirChange(new.attributes, base, self._changes(base, new.tree, path + b"/", count))

    def _note(self, prefix: bytes, name: bytes, verb: str, entry: TreeEntry, count: _Count) -> None:
        if not prefix:
            self.differences.append(Difference(name, verb, entry.tree is not None, count.files, count.bytes))


def changed_paths(
    objects: GitObjects, before: str | None, after: str | None, leaves_out: Callable[[bytes, bool], bool]
) -> Iterator[tuple[bytes, bool]]:
    """The (path, whether it is a directory) of what differs between two trees, but what versions leave out. Lazy.

    Raises:
        CorruptData: An object is missing or damaged.
    """
    stack = [(b"", before, after)]
    while stack:
        prefix, old_tree, new_tree = stack.pop()
        old, new = list_differing(objects, (old_tree, new_tree), default_mtime_ns=0)
        for name in old.keys() | new.keys():
            b, a = old.get(name), new.get(name)
            entry = a or b
            if b == a or entry is None or leaves_out(prefix + name, entry.tree is not None):
                continue
            trees = None if b is None else b.tree, None if a is None else a.tree
            if trees != (None, None):
                stack.append((prefix + name + b"/", *trees))
            if entry.tree is None or b is None or a is None:
                yield prefix + name, entry.tree is not None


def _same(before: Attributes, after: Attributes) -> bool:
    return replace(before, mtime_ns=0) == replace(after, mtime_ns=0)
