"""Three-way merge of versions by path, which descends only where trees differ.

*Ours* is what a mount wants to publish, *theirs* what is published already, *base* what ours was made on. The rules:

* Paths that one side changed are taken from it; the same change on both sides is one change.
* Content and attributes are merged each for itself: one side's bytes go with the other's chmod. Where both sides set the same
  attribute to different values theirs stays, but of two times the newer; attributes alone never conflict.
* A file that one side deleted and the other only touched (its time) is deleted. A file that gave way to a directory, or a
  directory to a file, was deleted and something else was added.
* Small text files are merged by lines. Only a result without a conflict is taken; large files are never merged.
* What one side renamed and the other changed has the new name and the change, and what the other side added to a directory
  is in the renamed one: see `mvcfs.versions.merging.rename_alignment`.
* Both sides changed the bytes, or one deleted what the other changed, or one made a file where the other made a directory, or
  they gave one thing two new names: a conflict. The merged tree holds theirs there, so that what is published stays as it is,
  and everything else is merged.
* A directory is there if both sides have it, empty or not. One that a side deleted goes unless the other side changed
  something in it; then it stays, with what that side changed or added.
* `.mvcfs-attrs` and the block in `.gitattributes` are derived from the merged directory, never merged as text.

For a thread: only `GitObjects` is read and written.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mvcfs.types import Attributes, BlobContent, Content, DirChange, FileChange, TreeEntry
from mvcfs.versions.git import gitattributes
from mvcfs.versions.git.format import object_id
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.merging.line_merge import MAX_BYTES, merge_lines
from mvcfs.versions.merging.rename_alignment import (
    Known,
    Lost,
    RenamedTwice,
    Sides,
    align_directories,
    align_known,
    align_renames,
)
from mvcfs.versions.trees.builder import build_tree
from mvcfs.versions.trees.diff import list_differing
from mvcfs.versions.trees.edit import TreeEdit
from mvcfs.versions.trees.reader import root_attributes

CHANGED_BOTH = "both sides changed it"
ADDED_BOTH = "both sides added it"
DELETED_BY_OURS = "changed there, deleted here"
DELETED_BY_THEIRS = "deleted there, changed here"
KINDS_DIFFER = "a file on one side, a directory on the other"
RENAMED_BOTH = "the sides gave it different names"

_ROUNDS = 4
"""Renames of both sides and of directories in renamed ones are followed one after another, at most so often."""


@dataclass(frozen=True, slots=True)
class MergeConflict:
    """A path that both sides changed differently.

    Attributes:
        path: From the root, names joined by slashes; where one side renamed it, its new path.
        kind: What happened, one of this module's constants.
        base: The entry that both started from, None if there was none.
        ours: The entry of our side, None if it is gone.
        theirs: The entry of the published side, None if it is gone; the merged tree holds this.
        ours_path: Of `RENAMED_BOTH` only: the path that our side gave it; `path` is the one that theirs gave it.
    """

    path: bytes
    kind: str
    base: TreeEntry | None
    ours: TreeEntry | None
    theirs: TreeEntry | None
    ours_path: bytes | None = None


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge gave.

    Attributes:
        tree: The merged tree; None if neither side has one.
        conflicts: Paths on which it holds theirs only, sorted.
    """

    tree: str | None
    conflicts: tuple[MergeConflict, ...] = ()


@dataclass(slots=True)
class _Node:
    """A directory that both sides changed, or one changed and the other deleted."""

    path: bytes
    attributes: Attributes
    base: str | None
    ours: str | None
    theirs: str | None
    parent: _Node | None = None
    changes: dict[bytes, FileChange | DirChange | None] = field(default_factory=dict)

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]

    def path_of(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


def merge_trees(
    objects: GitObjects,
    base: str | None,
    ours: str | None,
    theirs: str | None,
    *,
    default_mtime_ns: int = 0,
    by_lines: bool = True,
    known: Known | None = None,
) -> MergeResult:
    """Merges two versions; None stands for an empty one.

    Args:
        objects: Where trees are read from and written to.
        base: Tree of the version that ours was made on.
        ours: Our tree.
        theirs: The published tree.
        default_mtime_ns: Time of entries that plain Git committed; that of the published commit.
        by_lines: Whether small text files are merged by lines; else both sides' changes of one are a conflict.
        known: Directories that the sides are known to have renamed since the base.

    Raises:
        CorruptData: An object is missing or damaged.
    """
    if ours in (theirs, base):
        return MergeResult(theirs)
    if theirs == base:
        return MergeResult(ours)
    sides = Sides(base, ours, theirs)
    if known is not None:
        sides = align_known(objects, sides, known, default_mtime_ns=default_mtime_ns)
    twice: tuple[RenamedTwice, ...] = ()
    for number in range(_ROUNDS + 1):
        merge = _Merge(objects, sides, default_mtime_ns, by_lines=by_lines)
        merge.look(into_lost=number == _ROUNDS)
        if number == _ROUNDS:
            break
        # A directory that is gone on one side may be large: where it went as a whole it needn't be looked into.
        aligned = align_directories(objects, sides, merge.lost, default_mtime_ns=default_mtime_ns)
        if aligned is None:
            merge.look_into_lost()
            aligned = align_renames(objects, sides, merge.lost, default_mtime_ns=default_mtime_ns)
        if aligned is None:
            break
        sides, twice = aligned.sides, (*twice, *aligned.twice)
    result = merge.build()
    return _with_renamed_twice(objects, result, sides, twice, default_mtime_ns)


def _with_renamed_twice(
    objects: GitObjects, result: MergeResult, sides: Sides, twice: tuple[RenamedTwice, ...], default_mtime_ns: int
) -> MergeResult:
    """The result with the conflicts of what both sides renamed, in place of those that its content has."""
    if not twice:
        return result
    base, ours, theirs = [
        TreeEdit(objects, tree, default_mtime_ns=default_mtime_ns) for tree in (sides.base, sides.ours, sides.theirs)
    ]
    conflicts = {conflict.path: conflict for conflict in result.conflicts}
    for one in twice:
        path = one.theirs
        conflicts[path] = MergeConflict(
            path, RENAMED_BOTH, base.entry(path), ours.entry(path), theirs.entry(path), one.ours
        )
    return MergeResult(result.tree, tuple(conflicts[path] for path in sorted(conflicts)))


class _Merge:
    """One merge: nodes are made from the root down, and turned into changes of their parents from the leaves up."""

    def __init__(self, objects: GitObjects, trees: Sides, default_mtime_ns: int, *, by_lines: bool) -> None:
        self._objects = objects
        self._trees = trees
        self._default_mtime_ns = default_mtime_ns
        self._by_lines = by_lines
        self._nodes: list[_Node] = []
        self._skipped: list[_Node] = []
        self._into_lost = False
        self._conflicts: list[MergeConflict] = []
        self._users_parts: dict[str, bytes] = {}
        self.lost = Lost()

    def look(self, *, into_lost: bool) -> None:
        """Looks at all that differs; `into_lost`: also into directories that one side has no more."""
        trees = self._trees
        sides = [self._root_attributes(tree) for tree in (trees.base, trees.ours, trees.theirs)]
        attributes = _merged_attributes(sides[0], sides[1] or sides[2], sides[2] or sides[1])
        default = Attributes(stat.S_IFDIR | 0o755, 0, 0, self._default_mtime_ns)
        self._nodes.append(_Node(b"", attributes or default, trees.base, trees.ours, trees.theirs))
        self._into_lost = into_lost
        for node in self._nodes:
            self._merge_directory(node)

    def look_into_lost(self) -> None:
        """Looks into the directories that one side has no more, too."""
        self._into_lost = True
        done = len(self._nodes)
        self._nodes += self._skipped
        for node in itertools.islice(self._nodes, done, None):
            self._merge_directory(node)

    def build(self) -> MergeResult:
        """Writes the merged trees."""
        for node in reversed(self._nodes):
            if node.parent is not None:
                node.parent.changes[node.name] = DirChange(node.attributes, node.theirs, node.changes)
        root = self._nodes[0]
        tree = build_tree(self._objects, DirChange(root.attributes, root.theirs, root.changes))
        return MergeResult(tree, tuple(sorted(self._conflicts, key=lambda conflict: conflict.path)))

    def _root_attributes(self, tree: str | None) -> Attributes | None:
        return None if tree is None else root_attributes(self._objects, tree)

    def _merge_directory(self, node: _Node) -> None:
        """Finds what ours changes in theirs."""
        trees = [node.base, node.ours]
        if node.theirs is not None:
            # Where theirs has no directory any more, what ours left as it was is gone without a look at it.
            trees.append(node.theirs)
        base, ours, theirs = [*list_differing(self._objects, trees, default_mtime_ns=self._default_mtime_ns), {}][:3]
        for name in base.keys() | ours.keys():
            b, o, t = base.get(name), ours.get(name), theirs.get(name)
            if b is not None and _is_replaced(b, o) and _is_replaced(b, t):
                self.lost.both.add(node.path_of(name))
            if o in (t, b):
                continue
            if t == b:
                node.changes[name] = _as_change(o)
                continue
            self._merge_entry(node, name, b, o, t)

    def _merge_entry(
        self, node: _Node, name: bytes, b: TreeEntry | None, o: TreeEntry | None, t: TreeEntry | None
    ) -> None:
        """Merges an entry that is another on each of three sides."""
        if b is not None and _is_replaced(b, o) and _is_replaced(b, t):
            b = None
            if o is None or t is None:
                if o is not None:
                    node.changes[name] = _as_change(o)
                return
        if b is not None and _is_replaced(b, o) and not self._is_untouched(b, t):
            self.lost.ours.add(node.path_of(name))
        if b is not None and _is_replaced(b, t) and not self._is_untouched(b, o):
            self.lost.theirs.add(node.path_of(name))
        if self._is_directory_merge(b, o, t):
            self._descend(node, name, b, o, t)
            return
        if o is not None and t is not None and o.tree is None and t.tree is None and _kind(o) == _kind(t):
            content = self._merged_content(b, o, t)
            if content is not None:
                attributes = _merged_attributes(_attributes_of(b, o), o.attributes, t.attributes)
                if (attributes, content) != (t.attributes, t.content):
                    node.changes[name] = FileChange(attributes or t.attributes, content)
                return
        if self._is_untouched(b, o):
            return
        if self._is_untouched(b, t):
            node.changes[name] = _as_change(o)
            return
        self._conflicts.append(MergeConflict(node.path_of(name), _conflict_kind(b, o, t), b, o, t))

    def _is_directory_merge(self, b: TreeEntry | None, o: TreeEntry | None, t: TreeEntry | None) -> bool:
        """Whether both sides have a directory there, or one deleted a directory that the other changed inside."""
        if o is not None and t is not None:
            return o.tree is not None and t.tree is not None
        kept = o or t
        return b is not None and b.tree is not None and kept is not None and kept.tree not in (None, b.tree)

    def _descend(self, node: _Node, name: bytes, b: TreeEntry | None, o: TreeEntry | None, t: TreeEntry | None) -> None:
        """Plans the merge of a directory, or settles it if only attributes or only one side's trees differ."""
        kept = o or t
        if kept is None:
            return
        before = None if b is None or b.tree is None else b
        attributes = _merged_attributes(
            None if before is None else before.attributes, (o or kept).attributes, (t or kept).attributes
        )
        trees = [None if entry is None else entry.tree for entry in (before, o, t)]
        made = _Node(node.path_of(name), attributes or kept.attributes, trees[0], trees[1], trees[2], node)
        if o is not None and t is not None and (o.tree == t.tree or trees[0] in (o.tree, t.tree)):
            taken = t if o.tree == t.tree or o.tree == trees[0] else o
            node.changes[name] = DirChange(made.attributes, taken.tree)
            return
        is_lost = o is None or t is None
        (self._skipped if is_lost and not self._into_lost else self._nodes).append(made)

    def _merged_content(self, b: TreeEntry | None, o: TreeEntry, t: TreeEntry) -> bytes | Content | None:
        """The content of a file that both sides have, None if it conflicts."""
        ours, theirs = self._content_key(o), self._content_key(t)
        base = None if b is None or _kind(b) != _kind(o) else self._content_key(b)
        if ours in (theirs, base):
            return t.content
        if theirs == base:
            return o.content
        if base is None or not self._by_lines or not stat.S_ISREG(o.attributes.mode):
            return None
        texts = [self._text(content) for content in (base, ours, theirs)]
        return None if None in texts else merge_lines(*[text for text in texts if text is not None])

    def _text(self, content: Content | None) -> bytes | None:
        """The bytes of a small file; None for a large one."""
        if not isinstance(content, BlobContent) or content.size_bytes > MAX_BYTES:
            return None
        known = self._users_parts.get(content.oid)
        return self._objects.read_kind(content.oid, "blob") if known is None else known

    def _content_key(self, entry: TreeEntry) -> Content | None:
        """A file's content for comparison: of a `.gitattributes` only the user's part counts."""
        content = entry.content
        if isinstance(content, BlobContent) and content.stripped:
            user = gitattributes.split(self._objects.read_kind(content.oid, "blob")).user
            oid = object_id("blob", user)
            self._users_parts[oid] = user
            return BlobContent(oid, len(user))
        return content

    def _is_untouched(self, b: TreeEntry | None, side: TreeEntry | None) -> bool:
        """Whether a side left an entry as it was, its time aside."""
        if b is None or side is None:
            return b is side
        if (_kind(b), b.tree) != (_kind(side), side.tree) or self._content_key(b) != self._content_key(side):
            return False
        # A directory's attributes say nothing about what becomes of its entries.
        return b.tree is not None or replace(side.attributes, mtime_ns=b.attributes.mtime_ns) == b.attributes


def _kind(entry: TreeEntry) -> int:
    return stat.S_IFMT(entry.attributes.mode)


def _is_replaced(b: TreeEntry, side: TreeEntry | None) -> bool:
    """Whether a side deleted an entry, be it to make a directory of a file or the other way round."""
    return side is None or (b.tree is None) != (side.tree is None)


def _attributes_of(b: TreeEntry | None, like: TreeEntry) -> Attributes | None:
    """Base attributes to merge against, if the base is the same kind of thing."""
    return b.attributes if b is not None and _kind(b) == _kind(like) else None


def _as_change(entry: TreeEntry | None) -> FileChange | DirChange | None:
    if entry is None:
        return None
    if entry.content is None:
        return DirChange(entry.attributes, entry.tree)
    return FileChange(entry.attributes, entry.content)


def _merged_attributes(
    base: Attributes | None, ours: Attributes | None, theirs: Attributes | None
) -> Attributes | None:
    """Field by field; both sides changed it: theirs, and of two times the newer. None if there are no sides."""
    if ours is None or theirs is None:
        return ours or theirs

    def pick(get: Callable[[Attributes], object]) -> Attributes:
        return ours if base is not None and get(theirs) == get(base) else theirs

    link = pick(lambda a: (a.link, a.nlink))
    mtimes = {ours.mtime_ns, theirs.mtime_ns}
    if base is not None and len(mtimes) > 1:
        mtimes.discard(base.mtime_ns)
    return Attributes(
        mode=pick(lambda a: a.mode).mode,
        uid=pick(lambda a: a.uid).uid,
        gid=pick(lambda a: a.gid).gid,
        mtime_ns=max(mtimes),
        nlink=link.nlink,
        link=link.link,
        xattrs=pick(lambda a: a.xattrs).xattrs,
    )


def _conflict_kind(b: TreeEntry | None, o: TreeEntry | None, t: TreeEntry | None) -> str:
    if o is None:
        return DELETED_BY_OURS
    if t is None:
        return DELETED_BY_THEIRS
    if (o.tree is None) != (t.tree is None):
        return KINDS_DIFFER
    return ADDED_BOTH if b is None else CHANGED_BOTH
