"""`diff --tensors`: what changed in the tensors of safetensors files between two versions. Threading: trio thread."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from mvcfs.content.reader import LargeReader
from mvcfs.errors import LimitExceeded, NotFound
from mvcfs.types import BlobContent, Content, TreeEntry
from mvcfs.versions.trees.comparing import Change
from mvcfs.vfs.changes import Json
from mvcfs.vfs.command_progress import command_progress
from mvcfs.vfs.commands.diff import Comparison, compare
from mvcfs.vfs.commands.diff_sides import Side
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.sources import ContentSource, ModelData
from mvcfs.vfs.tensors.diff import Compared, Piece, Placed, StoredFile, compare_bytes, match_tensors, read_tensors
from mvcfs.vfs.working_tree.node import Node
from mvcfs.vfs.working_tree.working_changes import find_node
from mvcfs.vfs.working_tree.worktree import WorkingTree

SUFFIX = b".safetensors"
_MOST_ROWS = 100_000
"""Changed tensors beyond are counted, not listed."""

_MOST_TENSORS = 500_000
"""In one directory: some hundred MiB while they are matched."""


class StoredTensors:
    """A stored file that tensors are read from; see `tensor_diff.StoredFile`."""

    def __init__(self, data: ModelData, content: Content) -> None:
        self._data = data
        self._content = content
        self._source: ContentSource = data.source(content)
        self._large: LargeReader | None = None

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self._content.size_bytes

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """A range of it."""
        return await self._source.read_view(offset, length)

    async def pieces(self, begin: int, end: int) -> Sequence[Piece]:
        """The chunks that hold a range; a small file is one piece."""
        if isinstance(self._content, BlobContent):
            return (Piece(bytes.fromhex(self._content.oid), 0, self.size_bytes),)
        if self._large is None:
            self._large = await self._data.open_large(self._content)
        return [Piece(chunk.hash, chunk.start, chunk.length) for chunk in self._large.chunks(begin, end)]


class WorkingTensors:
    """A file of a working tree that is in no version; nothing is known of it before it is read."""

    def __init__(self, tree: WorkingTree, node: Node) -> None:
        self._tree = tree
        self._node = node

    @property
    def size_bytes(self) -> int:
        """Its length now."""
        return self._node.size_bytes

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """A range of it, as it is now."""
        return await self._tree.data.read(self._node, offset, length, None)

    async def pieces(self, begin: int, end: int) -> Sequence[Piece]:
        """None: every byte has to be read."""
        return ()


@dataclass(slots=True)
class Group:
    """Files that belong together, since they are in one directory: the shards of a model.

    Attributes:
        before: The files as they were: the path that they are known by, the one they had, the content.
        after: The files as they are.
    """

    before: list[tuple[bytes, bytes, Content]] = field(default_factory=list)
    after: list[tuple[bytes, bytes, Content]] = field(default_factory=list)


class TensorCommands:
    """`diff_tensors`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def diff_tensors(self, args: Json) -> Json:
        """What changed in tensors from one side to the other; see `DiffCommands.diff` for the arguments."""
        found = await compare(self._engine, args)
        listed = found.working.changes.listed
        asked = {found.after.spot.below(os.fsencode(path)).path for path in args.get("paths") or [""]}
        changes = [change for change in listed if _holds_tensors(change, asked)]
        rows = _Rows()
        command_progress().start("comparing", total=len(changes))
        for group in group_files(changes):
            await self._compare(found, group, rows)
            command_progress().add(things=max(len(group.before), len(group.after)))
        return {
            **await found.shown(),
            "tensors": rows.listed,
            "totals": rows.totals,
            "not_listed": rows.not_listed,
            "files": len(changes),
            "files_not_compared": found.working.changes.not_listed,
            "read_bytes": rows.read_bytes,
        }

    async def _compare(self, found: Comparison, group: Group, rows: _Rows) -> None:
        before, after = (
            await _tensors(found, found.before, group.before),
            await _tensors(found, found.after, group.after),
        )
        for old, new in await trio.to_thread.run_sync(_pairs, before, after):
            # Most tensors of a long list may need no reading, so nothing else would let others run.
            await trio.lowlevel.checkpoint()
            if old is None or new is None or not _alike(old, new):
                rows.add(old, new, None)
                continue
            command_progress().item = new.tensor.name
            rows.add(old, new, await compare_bytes(old, new))


def _holds_tensors(change: Change, asked: Collection[bytes]) -> bool:
    """Whether content changed of a file that is called as one of tensors, or that was asked about by itself."""
    if _content(change.before) == _content(change.after):
        return False
    return change.path.endswith(SUFFIX) or change.path in asked


def _content(entry: TreeEntry | None) -> Content | None:
    """The content of a regular file."""
    if entry is None or entry.attributes.is_symlink:
        return None
    return entry.content


def group_files(changes: Iterable[Change]) -> list[Group]:
    """The changed files by the directory they are in."""
    groups: dict[bytes, Group] = {}
    for change in changes:
        group = groups.setdefault(os.path.dirname(change.path), Group())
        before, after = _content(change.before), _content(change.after)
        if before is not None:
            group.before.append((change.path, change.old_path or change.path, before))
        if after is not None:
            group.after.append((change.path, change.path, after))
    return list(groups.values())


async def _tensors(found: Comparison, side: Side, files: Iterable[tuple[bytes, bytes, Content]]) -> list[Placed]:
    tensors: list[Placed] = []
    for path, shown, content in files:
        file = await _open(found, side, shown, content)
        tensors += await read_tensors(file, os.fsdecode(path), os.fsdecode(shown))
        if len(tensors) > _MOST_TENSORS:
            raise LimitExceeded(
                f"{os.fsdecode(os.path.dirname(shown)) or found.model.name} has more than {_MOST_TENSORS} tensors in "
                "changed files: compare fewer files, named after --"
            )
    return tensors


def _pairs(before: list[Placed], after: list[Placed]) -> list[tuple[Placed | None, Placed | None]]:
    return sorted(match_tensors(before, after), key=_order)


async def _open(found: Comparison, side: Side, path: bytes, content: Content) -> StoredFile:
    is_stored = content.oid and content.oid not in found.working.texts
    if side.working is None or is_stored:
        return StoredTensors(found.model.data, content)
    node = await find_node(side.working, path)
    if node is None:
        raise NotFound(f"{os.fsdecode(path)} was removed while it was compared")
    return WorkingTensors(side.working, node)


def _alike(old: Placed, new: Placed) -> bool:
    return (old.tensor.dtype, old.tensor.shape, old.tensor.size_bytes) == (
        new.tensor.dtype,
        new.tensor.shape,
        new.tensor.size_bytes,
    )


def _order(pair: tuple[Placed | None, Placed | None]) -> tuple[str, int]:
    one = pair[1] or pair[0]
    assert one is not None
    return one.path, one.tensor.begin


class _Rows:
    """The rows of a result, up to a bound, and what they add up to."""

    def __init__(self) -> None:
        self.listed: list[Json] = []
        self.not_listed = 0
        self.read_bytes = 0
        self.totals: Json = dict.fromkeys(("added", "removed", "changed", "same", "moved"), 0)

    def add(self, old: Placed | None, new: Placed | None, compared: Compared | None) -> None:
        """Takes what became of a tensor."""
        kind = "added" if old is None else "removed" if new is None else "changed"
        if compared is not None:
            self.read_bytes += compared.read_bytes
            kind = "same" if compared.same else "changed"
        self.totals[kind] += 1
        self.totals["moved"] += old is not None and new is not None and old.path != new.path
        if kind == "same":
            return
        if len(self.listed) >= _MOST_ROWS:
            self.not_listed += 1
            return
        row = {"change": kind, **_fields(new, ""), **_fields(old, "old_")}
        self.listed.append(row | _numbers(compared, new))


def _fields(placed: Placed | None, prefix: str) -> Json:
    tensor = None if placed is None else placed.tensor
    return {
        f"{prefix}name": None if tensor is None else tensor.name,
        f"{prefix}file": None if placed is None else placed.shown,
        f"{prefix}dtype": None if tensor is None else tensor.dtype,
        f"{prefix}shape": None if tensor is None else list(tensor.shape),
        f"{prefix}size_bytes": None if tensor is None else tensor.size_bytes,
    }


def _numbers(compared: Compared | None, new: Placed | None) -> Json:
    """How much a tensor differs; nulls where that isn't said in numbers."""
    numbers = None if compared is None else compared.numbers
    if numbers is None or new is None:
        return dict.fromkeys(("elements", "differing", "not_finite", "largest_difference", "mean_difference"))
    elements = new.tensor.elements
    counted = elements - numbers.not_finite
    return {
        "elements": elements,
        "differing": numbers.differing,
        "not_finite": numbers.not_finite,
        "largest_difference": numbers.largest if counted else None,
        "mean_difference": numbers.total / counted if counted else None,
    }
