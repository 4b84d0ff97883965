"""What changed between two versions of a directory, found by walking both trees and descending only where they differ.

The walk is done in steps, so that whoever shows changes takes as many as it wants and memory holds the names that differ in
the directories on the way, nothing else. A directory of 100,000 files in which one changed costs what one change costs
(see `tree_diff`).

Changes come in the order of their paths, a directory's own before those in it. Equal content under another name is two
changes here; `mvcfs.versions.trees.renames` pairs them.

Threading: `TreeWalk` reads from `GitObjects` only and belongs to one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mvcfs.types import Attributes, BlobContent, TreeEntry
from mvcfs.versions.git import gitattributes
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.trees.diff import list_differing

_NO_ATTRIBUTES = Attributes(0o040755, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class PathChange:
    """A path that differs.

    Attributes:
        path: From the root, names joined by slashes.
        before: What was there, None for nothing.
        after: What is there now, None for nothing. A file that gave way to a directory is two changes.
    """

    path: bytes
    before: TreeEntry | None
    after: TreeEntry | None

    @property
    def same_content(self) -> bool:
        """Whether only attributes differ."""
        before, after = self.before, self.after
        if before is None or after is None or (before.attributes.mode ^ after.attributes.mode) & 0o170000:
            return False
        return before.content == after.content


class TreeWalk:
    """One walk over two versions of a directory.

    An added or removed directory is one change (`whole`), or else each file in it is one, and the directory itself only if
    it is empty.
    """

    def __init__(
        self, objects: GitObjects, before: str | None, after: str | None, *, path: bytes = b"", whole: bool = False
    ) -> None:
        """Reads nothing yet.

        Args:
            objects: Where to read.
            before: Tree of the directory as it was, None for none.
            after: Tree of it as it is.
            path: Where the directory stands; what is found stands below.
            whole: Whether added and removed directories stay whole.
        """
        self._objects = objects
        self._whole = whole
        entries = [None if tree is None else TreeEntry(b"", _NO_ATTRIBUTES, None, tree) for tree in (before, after)]
        self._root = PathChange(path, *entries)
        self._stack = [self._root]

    def take(self, count: int) -> list[PathChange]:
        """The next changes, about `count` of them; none at the end.

        After an error it can be called again, when what was missing is there.

        Raises:
            CorruptData: An object is missing or damaged; the message names it.
        """
        found: list[PathChange] = []
        while self._stack and len(found) < count:
            change = self._stack[-1]
            below = self._below(change)
            self._stack.pop()
            if self._is_shown(change, below):
                found.append(change)
            self._stack.extend(reversed(below or ()))
        return found

    def _is_shown(self, change: PathChange, below: list[PathChange] | None) -> bool:
        """Whether a change is one itself, and doesn't only lead to those below it (None: it isn't descended into)."""
        if change is self._root:
            return False
        before, after = change.before, change.after
        if before is None or after is None:
            return not below
        return before.attributes != after.attributes or before.content != after.content

    def _below(self, change: PathChange) -> list[PathChange] | None:
        """The changes in a directory, sorted; None where there is no directory to look into."""
        trees = [None if entry is None else entry.tree for entry in (change.before, change.after)]
        if trees[0] == trees[1] or (None in trees and self._whole and change is not self._root):
            return None
        before, after = list_differing(self._objects, trees, default_mtime_ns=0)
        names = before.keys() | after.keys()
        found: list[PathChange] = []
        for name in names:
            path = change.path + b"/" + name if change.path else name
            found += self._parted(path, before.get(name), after.get(name))
        return sorted(found, key=_sort_key)

    def _parted(self, path: bytes, before: TreeEntry | None, after: TreeEntry | None) -> list[PathChange]:
        """The change of a path; none if it is equal, two where a file became a directory or the other way round."""
        if before is not None and after is not None:
            if (before.tree is None) != (after.tree is None):
                return [PathChange(path, before, None), PathChange(path, None, after)]
            after = self._without_block(before, after)
        return [] if before == after else [PathChange(path, before, after)]

    def _without_block(self, before: TreeEntry, after: TreeEntry) -> TreeEntry:
        """The entry now, of a `.gitattributes` in which only our block differs with the content it had."""
        was, now = before.content, after.content
        if not isinstance(was, BlobContent) or not isinstance(now, BlobContent) or not (was.stripped or now.stripped):
            return after
        return replace(after, content=was) if self._user_part(was) == self._user_part(now) else after

    def _user_part(self, content: BlobContent) -> bytes:
        data = self._objects.read_kind(content.oid, "blob")
        return gitattributes.split(data).user if content.stripped else data


def _sort_key(change: PathChange) -> bytes:
    """Paths in the order of their bytes, what is in a directory included."""
    entry = change.before or change.after
    return change.path + b"/" if entry is not None and entry.tree is not None else change.path
