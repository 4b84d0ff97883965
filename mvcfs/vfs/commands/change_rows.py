"""Changes between versions as `diff`, `show` and `log` print them. Threading: trio thread."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable

import trio

from mvcfs.types import Attributes, BlobContent, LargeContent, TreeEntry
from mvcfs.versions.trees.comparing import Change, Changes
from mvcfs.vfs.changes import Json
from mvcfs.vfs.shown import digest
from mvcfs.vfs.sources import ModelData
from mvcfs.vfs.working_tree.working_changes import WorkingChanges

_TEXT_FILE_BYTES = 64 * 1024
_TEXT_FILE_LINES = 2_000
_TEXT_TOTAL_BYTES = 1 << 20
"""What `--text` prints of a file and in all: difflib takes time by the square of the lines, and holds Python meanwhile."""

_COMPARED = ("mode", "uid", "gid", "mtime_ns")


class ChangeRows:
    """Makes rows of changes of one model.

    Args:
        data: The model.
        attributes: Show what attributes changed wherever they did, and times of directories.
        text: Show how small text files changed.
        working: What is known of content that is in no version yet.
    """

    def __init__(
        self, data: ModelData, *, attributes: bool = False, text: bool = False, working: WorkingChanges | None = None
    ) -> None:
        self._data = data
        self._attributes = attributes
        self._text = text
        self._text_left = _TEXT_TOTAL_BYTES
        self._working = working or WorkingChanges()

    async def report(self, changes: Changes) -> Json:
        """All of a comparison: `changes`, `totals` and how many changes are `not_listed`."""
        rows = [row for change in changes.listed if (row := await self._row(change)) is not None]
        totals = total_rows(rows)
        totals["added_bytes"] += changes.not_listed_added_bytes
        return {"changes": rows, "totals": totals, "not_listed": changes.not_listed}

    async def _row(self, change: Change) -> Json | None:
        """One change, None for one that isn't shown."""
        before, after = change.before, change.after
        differ = changed_attributes(before, after)
        kind = _what(change)
        if kind == "attributes" and not self._attributes:
            differ = {key: value for key, value in differ.items() if not (_is_dir(after) and key == "mtime_ns")}
        if kind == "attributes" and not differ:
            return None
        row: Json = {
            "change": kind,
            "kind": _kind(after or before),
            "path": os.fsdecode(change.path),
            "old_path": None if change.old_path is None else os.fsdecode(change.old_path),
            "similarity": change.similarity if change.old_path is not None else None,
            "size_bytes": _size(after),
            "old_size_bytes": _size(before),
            "digest": _digest(after),
            "old_digest": _digest(before),
            "shared_bytes": await self._shared(change),
        }
        if kind == "attributes" or self._attributes:
            row["attributes"] = differ
        if self._text and kind != "attributes" and (text := await self._text_of(change)):
            row["text"] = text
        return row

    async def _shared(self, change: Change) -> int | None:
        before, after = change.before, change.after
        if before is None or after is None or before.content is None or after.content is None:
            return None
        if before.content == after.content:
            return after.content.size_bytes
        if "" in (before.content.oid, after.content.oid):
            return self._working.kept_bytes.get(change.path)
        if isinstance(before.content, LargeContent) and isinstance(after.content, LargeContent):
            return await self._data.content.shared_bytes(before.content, after.content)
        return 0

    async def _text_of(self, change: Change) -> str | None:
        """A unified diff, None where there is none to show: no small text, or too much of it."""
        sides = [await self._lines(entry) for entry in (change.before, change.after)]
        if sides[0] is None or sides[1] is None or sides[0] == sides[1]:
            return None
        names = [
            f"{side}/{os.fsdecode(path)}" if entry is not None else "/dev/null"
            for side, path, entry in (
                ("a", change.old_path or change.path, change.before),
                ("b", change.path, change.after),
            )
        ]
        text = await trio.to_thread.run_sync(_unified, sides[0], sides[1], names[0], names[1])
        self._text_left -= len(text)
        return text if self._text_left >= 0 else None

    async def _lines(self, entry: TreeEntry | None) -> list[str] | None:
        if entry is None:
            return []
        content = entry.content
        if not isinstance(content, BlobContent) or content.size_bytes > _TEXT_FILE_BYTES or self._text_left <= 0:
            return None
        texts = self._working.texts
        data = texts[content.oid] if content.oid in texts else await self._data.read_blob(content)
        if data is None or b"\0" in data:
            return None
        lines = [line.decode("utf-8", "surrogateescape") for line in data.splitlines(keepends=True)]
        return lines if len(lines) <= _TEXT_FILE_LINES else None


def total_rows(rows: Iterable[Json]) -> Json:
    """How many files changed in each way, and the bytes: new or changed, gone, and shared with what was there."""
    totals: Json = dict.fromkeys(("added", "removed", "changed", "renamed", "attributes"), 0)
    totals |= {"added_bytes": 0, "removed_bytes": 0, "shared_bytes": 0}
    for row in rows:
        totals[row["change"]] += 1
        if row["digest"] != row["old_digest"] or row["digest"] is None:
            totals["added_bytes"] += row["size_bytes"] or 0
        if row["change"] == "removed":
            totals["removed_bytes"] += row["old_size_bytes"] or 0
        totals["shared_bytes"] += row["shared_bytes"] or 0
    return totals


def entry_fields(entry: TreeEntry | None) -> Json:
    """What an entry of a version is; nulls for none."""
    return {
        "kind": None if entry is None else _kind(entry),
        "size_bytes": _size(entry),
        "digest": f"git:{entry.tree}" if entry is not None and entry.tree is not None else _digest(entry),
        "mode": None if entry is None else entry.attributes.mode,
    }


def changed_attributes(before: TreeEntry | None, after: TreeEntry | None) -> dict[str, list[int | None]]:
    """The attributes that differ between two states of one thing: old and new value by name."""
    if before is None or after is None:
        return {}
    was, now = before.attributes, after.attributes
    found: dict[str, list[int | None]] = {
        key: [getattr(was, key), getattr(now, key)] for key in _COMPARED if getattr(was, key) != getattr(now, key)
    }
    if was.xattrs != now.xattrs:
        found["xattrs"] = [_xattr_count(was), _xattr_count(now)]
    return found


def _xattr_count(attributes: Attributes) -> int:
    return len(attributes.xattrs)


def _what(change: Change) -> str:
    if change.old_path is not None:
        return "renamed"
    if change.before is None:
        return "added"
    if change.after is None:
        return "removed"
    return "changed" if _content_differs(change.before, change.after) else "attributes"


def _content_differs(before: TreeEntry, after: TreeEntry) -> bool:
    return before.content != after.content or _kind(before) != _kind(after)


def _kind(entry: TreeEntry | None) -> str:
    if entry is None or entry.tree is not None:
        return "directory"
    return "symlink" if stat.S_ISLNK(entry.attributes.mode) else "file"


def _is_dir(entry: TreeEntry | None) -> bool:
    return entry is not None and entry.tree is not None


def _size(entry: TreeEntry | None) -> int | None:
    return None if entry is None or entry.content is None else entry.content.size_bytes


def _digest(entry: TreeEntry | None) -> str | None:
    return None if entry is None else digest(entry.content) or None


def _unified(before: list[str], after: list[str], old_name: str, new_name: str) -> str:
    lines = difflib.unified_diff(before, after, old_name, new_name)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
