"""Notes of renamed directories in the messages of commits: a trailer each, `Mvcfs-Renamed: ["OLD", "NEW"]`.

Whoever makes a version in a mount knows which directories were renamed, also empty ones and those whose content changed, where the trees
alone don't tell. A merge reads the notes of the versions since its base, so that what others add to the old directory goes
along. Notes are hints: where the trees don't bear them out they do nothing.

For threads: reads `GitObjects` only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from mvcfs.errors import NotFound
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.walks import first_parents

MAX_NOTES = 100
"""A version with more renamed directories notes none: the trees have to tell."""

_MAX_VERSIONS = 256
"""So many versions are looked through, the newest first: some milliseconds."""

_TRAILER = "Mvcfs-Renamed"
_LINE = re.compile(rf'^{_TRAILER}: (\["(?:[^"\\]|\\.)+", "(?:[^"\\]|\\.)+"\])$', re.MULTILINE)


def write_notes(renames: Mapping[bytes, bytes]) -> str:
    """The trailers that say which directories were renamed, each with a line break behind it."""
    if len(renames) > MAX_NOTES:
        return ""
    pairs = [[path.decode("utf-8", "surrogateescape") for path in pair] for pair in sorted(renames.items())]
    return "".join(f"{_TRAILER}: {json.dumps(pair)}\n" for pair in pairs)


def read_notes(message: str) -> dict[bytes, bytes]:
    """The renamed directories that a message speaks of: new paths by old ones."""
    found: dict[bytes, bytes] = {}
    for text in _LINE.findall(message)[:MAX_NOTES]:
        try:
            old, new = (str(path).encode("utf-8", "surrogateescape") for path in json.loads(text))
        except ValueError:
            continue
        if is_path(old) and is_path(new) and old != new:
            found[old] = new
    return found


def is_path(path: bytes) -> bool:
    """Whether these are names joined by slashes."""
    return all(name not in (b"", b".", b"..") and b"\0" not in name for name in path.split(b"/"))


def renamed_since(objects: GitObjects, base: str | None, tip: str) -> dict[bytes, bytes]:
    """The directories that were renamed after one commit and up to another: new paths by old ones.

    Args:
        objects: Where commits are read.
        base: The commit before, which is left out; None: all of history.
        tip: The last commit. Only first parents are followed, and not very far.
    """
    messages = []
    try:
        for oid in first_parents(objects, tip, _MAX_VERSIONS):
            if oid == base:
                break
            messages.append(objects.read_commit(oid).message)
    except NotFound:
        pass
    return in_one_go([read_notes(message) for message in reversed(messages)])


def in_one_go(steps: Iterable[Mapping[bytes, bytes]]) -> dict[bytes, bytes]:
    """Renames one after another as those from the first to the last state."""
    found: dict[bytes, bytes] = {}
    for step in steps:
        for old, new in step.items():
            for source, target in found.items():
                if target == old or target.startswith(old + b"/"):
                    found[source] = new + target[len(old) :]
            found.setdefault(old, new)
    return {old: new for old, new in found.items() if old != new}
