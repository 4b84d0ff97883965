"""What of a working tree no version holds, counted for people and for the end of a mount. Threading: trio thread."""

from __future__ import annotations

import time
from typing import Any

from mvcfs.types import NS_PER_S
from mvcfs.vfs.model import Branch

Json = dict[str, Any]


def count_changes(branch: Branch) -> Json:
    """What of a working tree no version holds: files, bytes, how old, and what versions never take."""
    tree = branch.tree
    files = size = ignored = ignored_bytes = open_files = 0
    oldest: int | None = None
    seen: set[int] = set()
    for node in tree.changed_nodes():
        if node.is_directory or node.ino in seen:
            continue
        seen.add(node.ino)
        open_files += 1 if node.writers else 0
        if not node.is_versioned or tree.is_ignored(tree.path_of(node), is_dir=False):
            ignored += 1
            ignored_bytes += node.size_bytes
            continue
        files += 1
        size += node.size_bytes
        oldest = node.ctime_ns if oldest is None else min(oldest, node.ctime_ns)
    age = None if oldest is None else max(0.0, time.time() - oldest / NS_PER_S)
    return {
        "changed": tree.root.changed,
        "changed_files": files,
        "changed_bytes": size,
        "open_files": open_files,
        "ignored_files": ignored,
        "ignored_bytes": ignored_bytes,
        "oldest_unpublished_s": age,
    }
