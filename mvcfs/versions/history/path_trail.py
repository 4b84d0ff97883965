"""What a version has at a path, found from the version after it without descending where nothing changed.

Only ids in Git's trees are compared: bytes, kind and the user's x bit. Other attributes alone are no change of a path here.
For a thread; reads from `GitObjects` only.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvcfs.versions.git import gitattributes
from mvcfs.versions.git.format import MODE_TREE, RawEntry, parse_tree
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.names import GITATTRIBUTES, escape_name
from mvcfs.versions.trees.reader import EMPTY_TREE_OID, list_tree


@dataclass(frozen=True, slots=True)
class Trail:
    """The way from a root directory to a path.

    Attributes:
        names: The true names of the path, at least one.
        trees: The trees that were looked into, the root's first; fewer than names where the path ends early.
        entries: What they have under each name.
    """

    names: tuple[bytes, ...]
    trees: tuple[str, ...]
    entries: tuple[RawEntry, ...]

    @property
    def end(self) -> RawEntry | None:
        """What stands at the path, None for nothing."""
        return self.entries[-1] if len(self.entries) == len(self.names) else None


def trail_to(objects: GitObjects, tree: str | None, names: tuple[bytes, ...], later: Trail | None = None) -> Trail:
    """The way to a path.

    Args:
        objects: Where to read.
        tree: The root directory's tree, None for an empty one.
        names: The names of the path.
        later: The way to the same path in another version: where both have the same tree, the rest of it is taken from there.

    Raises:
        NotFound: A tree is missing.
        CorruptData: It is damaged.
    """
    trees: list[str] = []
    entries: list[RawEntry] = []
    for depth, name in enumerate(names):
        if tree is None or tree == EMPTY_TREE_OID:
            break
        if later is not None and len(later.trees) > depth and later.trees[depth] == tree:
            return Trail(names, (*trees, *later.trees[depth:]), (*entries, *later.entries[depth:]))
        trees.append(tree)
        like = later.entries[depth] if later is not None and len(later.entries) > depth else None
        entry = _find(objects, tree, name, like)
        if entry is None:
            break
        entries.append(entry)
        tree = entry.oid if entry.mode == MODE_TREE else None
    return Trail(names, tuple(trees), tuple(entries))


def same_end(objects: GitObjects, left: Trail, right: Trail) -> bool:
    """Whether two versions have the same at a path; of a `.gitattributes` only the user's part counts."""
    one, other = left.end, right.end
    if one is None or other is None or left.names[-1] != GITATTRIBUTES or MODE_TREE in (one.mode, other.mode):
        return (one and (one.mode, one.oid)) == (other and (other.mode, other.oid))
    if one.mode != other.mode or one.oid == other.oid:
        return one == other
    parts = [gitattributes.split(objects.read_kind(entry.oid, "blob")).user for entry in (one, other)]
    return parts[0] == parts[1]


def _find(objects: GitObjects, tree: str, name: bytes, like: RawEntry | None) -> RawEntry | None:
    """An entry by its true name. `like` is what it probably is: then the tree needn't be taken apart."""
    data = objects.read_kind(tree, "tree")
    # The id's 20 bytes with mode and name before them stand nowhere else by chance.
    if like is not None and b"%o %b\0%b" % (like.mode, like.name, bytes.fromhex(like.oid)) in data:
        return like
    wanted = (name, escape_name(name))
    found = next((entry for entry in parse_tree(data, tree) if entry.name in wanted), None)
    if found is not None and found.name == GITATTRIBUTES and not _is_shown(objects, tree, name):
        return None
    return found


def _is_shown(objects: GitObjects, tree: str, name: bytes) -> bool:
    """Whether a directory has a name for its readers: they don't see a `.gitattributes` that was made for Git alone."""
    return any(entry.name == name for entry in list_tree(objects, tree, default_mtime_ns=0))
