"""Small files of a plan that the user's `.gitattributes` wants in Git LFS: they are stored as large ones.

Only directories that the plan touches are looked at; those above a changed file are among them. Threading: trio thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvcfs.types import MIB, BlobContent
from mvcfs.versions.git.lfs_patterns import LfsPatterns
from mvcfs.versions.names import GITATTRIBUTES
from mvcfs.vfs.working_tree.freeze import PlannedDir, PlannedFile
from mvcfs.vfs.working_tree.worktree import WorkingTree

# Git reads no longer one either (its limit is 100 MiB); rules are lines of a few words.
_LONGEST_BYTES = MIB


@dataclass(frozen=True, slots=True)
class _Above:
    """The rules of a directory, and the path from it to the one that is looked at, with a slash behind."""

    patterns: LfsPatterns
    path: bytes


async def find_lfs_files(tree: WorkingTree, root: PlannedDir) -> set[int]:
    """The ids of the `PlannedFile`s of a plan that Git LFS is asked to keep."""
    found: set[int] = set()
    stack: list[tuple[PlannedDir, tuple[_Above, ...]]] = [(root, ())]
    while stack:
        planned, above = stack.pop()
        patterns = LfsPatterns(await _attributes_of(tree, planned))
        if patterns:
            above = (_Above(patterns, b""), *above)
        for name, entry in planned.entries.items():
            if isinstance(entry, PlannedDir):
                stack.append((entry, tuple([_Above(each.patterns, each.path + name + b"/") for each in above])))
            elif entry is not None and name != GITATTRIBUTES and _asked(above, name):
                found.add(id(entry))
    return found


def _asked(above: tuple[_Above, ...], name: bytes) -> bool:
    """What the nearest directory says that says anything."""
    for each in above:
        asked = each.patterns.asks(each.path + name)
        if asked is not None:
            return asked
    return False


async def _attributes_of(tree: WorkingTree, planned: PlannedDir) -> bytes:
    """The `.gitattributes` that a directory has in the plan, without mvcfs's own lines; empty for none."""
    if GITATTRIBUTES in planned.entries:
        file = planned.entries[GITATTRIBUTES]
        if not isinstance(file, PlannedFile):
            return b""
        if file.frozen is not None:
            return bytes(await file.frozen.read(0, min(file.frozen.size_bytes, _LONGEST_BYTES)))
        content = file.content
    else:
        base = planned.node.base if planned.node.base_tree == planned.base_tree else None
        if base is None:
            base = {} if planned.base_tree is None else await tree.model.entries(planned.base_tree)
        entry = base.get(GITATTRIBUTES)
        content = None if entry is None else entry.content
    if not isinstance(content, BlobContent) or content.size_bytes > _LONGEST_BYTES:
        return b""
    return await tree.model.read_blob(content)
