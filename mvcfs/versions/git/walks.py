"""Walks over the graph of commits, trees and blobs: ancestors, what is missing, what only memory holds.

All are synchronous and read from `GitObjects` only, so they may run in any thread; each is bounded by the objects it
names, not by the size of files.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from mvcfs.errors import CorruptData, NotFound
from mvcfs.types import LargeContent
from mvcfs.versions.git.format import MODE_GITLINK, MODE_TREE, parse_commit, parse_tag, parse_tree
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pointer import POINTER_MAX_BYTES, parse_pointer


def first_parents(objects: GitObjects, oid: str, limit: int | None = None) -> Iterator[str]:
    """A commit, its first parent, that one's first parent …, at most `limit` of them.

    Raises:
        NotFound: A commit on the way is missing.
        CorruptData: One is damaged.
    """
    count = 0
    current: str | None = oid
    while current is not None and (limit is None or count < limit):
        yield current
        count += 1
        parents = objects.read_commit(current).parents
        current = parents[0] if parents else None


def is_first_parent_ancestor(objects: GitObjects, ancestor: str, tip: str, limit: int | None = None) -> bool:
    """Whether `ancestor` is `tip` or is reached from it by first parents, in at most `limit` commits."""
    return any(oid == ancestor for oid in first_parents(objects, tip, limit))


def merge_base(objects: GitObjects, left: str, right: str) -> str | None:
    """A best common ancestor of two commits, None if they share none.

    Commits are visited newest first by committer time. Where clocks ran backwards it may be an older common ancestor
    than the best.
    """
    if left == right:
        return left
    known: dict[str, tuple[int, tuple[str, ...]]] = {}
    sides: dict[str, int] = {}
    queue: list[tuple[int, str]] = []
    common: list[str] = []
    stale = 4  # below a common ancestor: of no interest any more

    def mark(oid: str, flags: int) -> None:
        if sides.get(oid, 0) | flags != sides.get(oid, 0):
            sides[oid] = sides.get(oid, 0) | flags
            if oid not in known:
                commit = objects.read_commit(oid)
                known[oid] = commit.committer.time_s, commit.parents
            heapq.heappush(queue, (-known[oid][0], oid))

    mark(left, 1)
    mark(right, 2)
    while any(not sides[oid] & stale for _, oid in queue):
        _, oid = heapq.heappop(queue)
        flags = sides[oid]
        if flags & 3 == 3 and not flags & stale:
            common.append(oid)
            flags |= stale
        for parent in known[oid][1]:
            mark(parent, flags)
    best = [oid for oid in common if not sides[oid] & stale]
    return min(best, key=lambda oid: (-known[oid][0], oid)) if best else None


def _references(objects: GitObjects, oid: str) -> tuple[str, list[tuple[str, str]]]:
    """An object's type and the (type, id) of what it names. Gitlinks name commits of other repositories: left out."""
    kind, data = objects.read(oid)
    if kind == "commit":
        commit = parse_commit(data, oid)
        return kind, [("commit", parent) for parent in commit.parents] + [("tree", commit.tree)]
    if kind == "tree":
        return kind, [
            ("tree" if entry.mode == MODE_TREE else "blob", entry.oid)
            for entry in parse_tree(data, oid)
            if entry.mode != MODE_GITLINK
        ]
    if kind == "tag":
        tag = parse_tag(data, oid)
        return kind, [(tag.kind, tag.target)]
    return kind, []


def walk_missing(objects: GitObjects, tips: Iterable[str]) -> list[tuple[str, str]]:
    """What a check of everything reachable from these commits and tags finds wrong.

    Returns:
        (id, what is wrong) of each object that is missing, damaged or of another type than its name's holder says.
    """
    problems: list[tuple[str, str]] = []
    seen: set[str] = set()
    todo: list[tuple[str, str]] = [("", tip) for tip in tips]
    while todo:
        expected, oid = todo.pop()
        if oid in seen:
            continue
        seen.add(oid)
        try:
            kind, references = _references(objects, oid)
        except (NotFound, CorruptData) as error:
            problems.append((oid, str(error)))
            continue
        if expected and kind != expected:
            problems.append((oid, f"Git object {oid} is a {kind}, but is named as a {expected}"))
        todo.extend(reference for reference in references if reference[1] not in seen)
    return problems


def reachable(objects: GitObjects, tips: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(type, id) of every object that these commits, tags or trees lead to, once each; blobs are not read.

    Raises:
        NotFound: A commit, tree or tag on the way is missing.
        CorruptData: One is damaged.
    """
    seen: set[str] = set()
    todo: list[tuple[str, str]] = [(objects.header(tip)[0], tip) for tip in tips]
    while todo:
        kind, oid = todo.pop()
        if oid in seen:
            continue
        seen.add(oid)
        yield kind, oid
        if kind != "blob":
            todo.extend(reference for reference in _references(objects, oid)[1] if reference[1] not in seen)


def large_contents(objects: GitObjects, tips: Iterable[str]) -> set[LargeContent]:
    """Every large file that these commits, tags or trees lead to: all blobs that are LFS pointers."""
    found = set()
    for kind, oid in reachable(objects, tips):
        if kind == "blob" and objects.header(oid)[1] < POINTER_MAX_BYTES:
            content = parse_pointer(objects.read_kind(oid, "blob"))
            if content is not None:
                found.add(content)
    return found


def memory_closure(objects: GitObjects, tips: Iterable[str]) -> set[str]:
    """The objects that these commits, tags or trees lead to and that no pack holds: what a pack of a publish takes.

    What a packed object leads to is not looked at, as a pack is never published without it.

    Raises:
        NotFound: An object that no pack holds is not in memory either.
    """
    found: set[str] = set()
    todo = list(tips)
    while todo:
        oid = todo.pop()
        if oid in found or objects.in_packs(oid):
            continue
        found.add(oid)
        todo.extend(reference for _, reference in _references(objects, oid)[1])
    return found
