"""Renames between two versions, found from what one side removed and added.

* First by content: the same bytes and kind under another name. Large files are found by their hash, whole directories by
  their tree, so neither size nor number of what was moved matters. An empty file says nothing by its content, so it must
  have kept its base name; an empty directory must have kept all its attributes, its time included.
* Then small text files by similarity: at least half of the bytes of the longer one stand in lines that both have.
* Where several fit, the one whose path begins and ends most like the other's, and then the first by path. So the result
  depends on the two sides only.
* A directory was renamed if it is gone, and more than half of the files that were in it, which hold more than half of its
  bytes, stand in one other directory now, under the same names below it. Git's merge-ort counts files alone; but when an
  old checkpoint is removed and a new one added in one version, their many small files are often equal, and only the
  large ones tell that it is no rename.

All work is bounded by the constants below, never by the size of files. Pure functions over `GitObjects`, for any thread.
"""

from __future__ import annotations

import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mvcfs.types import BlobContent, TreeEntry
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.trees.reader import EMPTY_TREE_OID, list_tree

MAX_ENTRIES = 20_000
"""With more removed or added entries than this nothing is looked for: some seconds of work at most."""

_MAX_PAIRS = 2_500
"""More pairs than this aren't compared one by one, those with the same base name apart: comparing takes up to 0.3 ms."""

_MAX_TEXT_BYTES = 65_536
"""Longer files aren't compared by lines; small files are shorter anyway, unless plain Git committed them."""

_SIMILAR_PERCENT = 50
"""As much as Git asks for."""

_EMPTY_TREE_BYTES = 256
"""The tree of an empty directory, which holds attributes at most, is shorter."""

_EMPTY = -1


@dataclass(frozen=True, slots=True)
class Rename:
    """An entry that stands under another path now.

    Attributes:
        source: Its path before, names joined by slashes.
        target: Its path now.
        similarity: How much of it is the same, in percent; 100: all.
    """

    source: bytes
    target: bytes
    similarity: int = 100


def find_renames(
    objects: GitObjects, removed: Mapping[bytes, TreeEntry], added: Mapping[bytes, TreeEntry]
) -> list[Rename]:
    """Pairs what a side removed with what it added.

    Args:
        objects: Where small files are read for comparison.
        removed: By path, what the version before has and this one has not. A directory stands for all that is in it: it
            is paired as a whole or not at all.
        added: By path, what this version has and the one before has not.

    Returns:
        Each path is in at most one; sorted by source. Nothing if either side has more than `MAX_ENTRIES`.

    Raises:
        NotFound: An object is missing.
        CorruptData: An object is damaged.
    """
    if not removed or not added or max(len(removed), len(added)) > MAX_ENTRIES:
        return []
    found = _find_exact(objects, removed, added)
    sources, targets = _paths_of(found)
    found += _find_similar(
        objects,
        {path: entry for path, entry in removed.items() if path not in sources},
        {path: entry for path, entry in added.items() if path not in targets},
    )
    return sorted(found, key=lambda rename: rename.source)


def find_directory_renames(
    renames: Iterable[Rename], removed: Mapping[bytes, TreeEntry], is_gone: Callable[[bytes], bool]
) -> dict[bytes, bytes]:
    """Finds directories that were renamed, from the renames of the files in them.

    Args:
        renames: As `find_renames` gave them, of files.
        removed: All files that the side removed, by path.
        is_gone: Whether the side has no directory at a path that the version before had one at.

    Returns:
        The path now by the path before. One that follows from that of a directory above it is left out.
    """
    went: dict[bytes, Counter[bytes]] = defaultdict(Counter)
    went_bytes: dict[bytes, Counter[bytes]] = defaultdict(Counter)
    for rename in renames:
        entry = removed.get(rename.source)
        if entry is None or entry.content is None:
            continue
        source, target = parent_of(rename.source), parent_of(rename.target)
        while source and source != target:
            went[source][target] += 1
            went_bytes[source][target] += entry.content.size_bytes
            if base_name(source) != base_name(target):
                break
            source, target = parent_of(source), parent_of(target)
    files, sizes = _totals(removed, went.keys())
    found: dict[bytes, bytes] = {}
    for source in sorted(went):
        target, count = max(went[source].items(), key=lambda item: (item[1], item[0]))
        is_most = 2 * count > files[source] and (2 * went_bytes[source][target] > sizes[source] or not sizes[source])
        if is_most and is_gone(source) and moved_path(found, source) != target:
            found[source] = target
    return found


def moved_path(moves: Mapping[bytes, bytes], path: bytes) -> bytes:
    """Where a path is after directories were renamed: the deepest directory above it decides; unmoved, the path itself."""
    head, tail = path, b""
    while head:
        if head in moves:
            return joined(moves[head], tail)
        head, tail = parent_of(head), joined(base_name(head), tail)
    return path


def parent_of(path: bytes) -> bytes:
    """The path of the directory that a path is in; the root's is empty."""
    return path.rpartition(b"/")[0]


def base_name(path: bytes) -> bytes:
    """The last name of a path."""
    return path.rpartition(b"/")[2]


def joined(directory: bytes, path: bytes) -> bytes:
    """A path below a directory; either may be empty."""
    return directory + b"/" + path if directory and path else directory or path


def _totals(removed: Mapping[bytes, TreeEntry], directories: Iterable[bytes]) -> tuple[Counter[bytes], Counter[bytes]]:
    """How many removed files each directory had, and of how many bytes."""
    wanted = frozenset(directories)
    files: Counter[bytes] = Counter()
    sizes: Counter[bytes] = Counter()
    for path, entry in removed.items():
        if entry.content is None:
            continue
        directory = parent_of(path)
        while directory:
            if directory in wanted:
                files[directory] += 1
                sizes[directory] += entry.content.size_bytes
            directory = parent_of(directory)
    return files, sizes


# --- by content


def _find_exact(
    objects: GitObjects, removed: Mapping[bytes, TreeEntry], added: Mapping[bytes, TreeEntry]
) -> list[Rename]:
    sources = _by_content(objects, removed)
    targets = _by_content(objects, added)
    found = []
    for key in sources.keys() & targets.keys():
        found += _pair(sources[key], targets[key])
    return found


def _by_content(objects: GitObjects, entries: Mapping[bytes, TreeEntry]) -> dict[Hashable, list[bytes]]:
    """Paths by what tells that two entries are the same."""
    found: dict[Hashable, list[bytes]] = defaultdict(list)
    for path, entry in entries.items():
        kind = stat.S_IFMT(entry.attributes.mode)
        if entry.content is not None and entry.content.size_bytes:
            found[kind, entry.content].append(path)
        elif entry.content is not None:
            found[kind, _EMPTY, base_name(path)].append(path)
        elif entry.tree is not None and not _is_empty(objects, entry.tree):
            found[kind, entry.tree].append(path)
        else:
            found[kind, _EMPTY, entry.attributes].append(path)
    return found


def _is_empty(objects: GitObjects, tree: str) -> bool:
    """Whether nothing is in a directory; a long tree isn't read for that."""
    if tree == EMPTY_TREE_OID:
        return True
    return objects.header(tree)[1] <= _EMPTY_TREE_BYTES and not list_tree(objects, tree, default_mtime_ns=0)


def _pair(sources: Sequence[bytes], targets: Sequence[bytes]) -> list[Rename]:
    """Pairs paths of equal content, the closest first."""
    if len(sources) * len(targets) > _MAX_PAIRS:
        named = _pair_by_name(sources, targets)
        rest = [sorted(set(paths) - taken) for paths, taken in zip((sources, targets), _paths_of(named), strict=True)]
        return named + [Rename(source, target) for source, target in zip(*rest, strict=False)]
    pairs = [(_distance(source, target), source, target) for source in sources for target in targets]
    return _take([(source, target, 100) for _, source, target in sorted(pairs)])


def _paths_of(renames: Sequence[Rename]) -> tuple[set[bytes], set[bytes]]:
    return {rename.source for rename in renames}, {rename.target for rename in renames}


def _pair_by_name(sources: Sequence[bytes], targets: Sequence[bytes]) -> list[Rename]:
    """Pairs those with the same base name, in the order of their paths."""
    by_name: dict[bytes, list[bytes]] = defaultdict(list)
    for target in sorted(targets, reverse=True):
        by_name[base_name(target)].append(target)
    return [
        Rename(source, by_name[base_name(source)].pop()) for source in sorted(sources) if by_name[base_name(source)]
    ]


def _distance(source: bytes, target: bytes) -> tuple[bool, int]:
    """How little alike two paths are: another base name first, then the fewer bytes that both begin and end with."""
    shorter = min(len(source), len(target))
    head = next((i for i in range(shorter) if source[i] != target[i]), shorter)
    tail = next((i for i in range(shorter - head) if source[-1 - i] != target[-1 - i]), shorter - head)
    return base_name(source) != base_name(target), -head - tail


def _take(ordered: Iterable[tuple[bytes, bytes, int]]) -> list[Rename]:
    """Takes pairs, the best first, each path once."""
    sources: set[bytes] = set()
    targets: set[bytes] = set()
    found = []
    for source, target, similarity in ordered:
        if source not in sources and target not in targets:
            sources.add(source)
            targets.add(target)
            found.append(Rename(source, target, similarity))
    return found


# --- by lines


def _find_similar(
    objects: GitObjects, removed: Mapping[bytes, TreeEntry], added: Mapping[bytes, TreeEntry]
) -> list[Rename]:
    sources = [path for path, entry in sorted(removed.items()) if _is_comparable(entry)]
    targets = [path for path, entry in sorted(added.items()) if _is_comparable(entry)]
    if len(sources) * len(targets) <= _MAX_PAIRS:
        pairs = [(source, target) for source in sources for target in targets]
    else:
        pairs = [(rename.source, rename.target) for rename in _pair_by_name(sources, targets)][:_MAX_PAIRS]
    lines: dict[str, Counter[bytes] | None] = {}
    scored = []
    for source, target in pairs:
        before, now = removed[source].content, added[target].content
        assert isinstance(before, BlobContent)
        assert isinstance(now, BlobContent)
        longer = max(before.size_bytes, now.size_bytes)
        if 100 * min(before.size_bytes, now.size_bytes) < _SIMILAR_PERCENT * longer:
            continue
        common = _common_bytes(_lines_of(objects, before.oid, lines), _lines_of(objects, now.oid, lines))
        similarity = min(99, 100 * common // longer)
        if similarity >= _SIMILAR_PERCENT:
            scored.append((-similarity, _distance(source, target), source, target))
    return _take([(source, target, -similarity) for similarity, _, source, target in sorted(scored)])


def _is_comparable(entry: TreeEntry) -> bool:
    content = entry.content
    return (
        isinstance(content, BlobContent)
        and stat.S_ISREG(entry.attributes.mode)
        and 0 < content.size_bytes <= _MAX_TEXT_BYTES
        and not content.stripped
    )


def _lines_of(objects: GitObjects, oid: str, known: dict[str, Counter[bytes] | None]) -> Counter[bytes] | None:
    """How often each line is in a small text file, None for one that is no text."""
    if oid not in known:
        data = objects.read_kind(oid, "blob")
        known[oid] = None if b"\0" in data else Counter(data.splitlines(keepends=True))
    return known[oid]


def _common_bytes(left: Counter[bytes] | None, right: Counter[bytes] | None) -> int:
    if left is None or right is None:
        return 0
    if len(left) > len(right):
        left, right = right, left
    return sum(len(line) * min(count, right[line]) for line, count in left.items() if line in right)
