"""A walk back over versions, along first parents: all, those by an author or of a time, or those in which a path changed.

A step of the walk reads some commits in a thread and gives what it found, so that the newest 20 of 10,000 versions cost 20
commits, and a search that has to go further can be cut off between steps. By path a version costs the trees on the way
to it that differ from the next one's. Where a path appears, the version's other changes are looked at for where it came
from, and the walk goes on with the name it had.

Threading: methods on the trio thread; commits and trees are read in threads.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, replace

from mvcfs.errors import CorruptData, NotFound
from mvcfs.versions.git.format import RawCommit
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.history.graph_walk import newest_commits
from mvcfs.versions.history.path_trail import Trail, same_end, trail_to
from mvcfs.versions.history.versions import CommitInfo
from mvcfs.versions.trees.comparing import Changes, Comparing, ReadInThread

_STEP = 256


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which versions are looked for.

    Attributes:
        path: Where something changed; empty: anything.
        author: A part of `NAME <EMAIL>`, in any case.
        since_s: Published at this time or later, seconds since 1970.
        until_s: Published at this time or before.
    """

    path: bytes = b""
    author: str = ""
    since_s: int | None = None
    until_s: int | None = None

    def fits(self, commit: RawCommit) -> bool:
        """Whether author and time are wanted."""
        if self.until_s is not None and commit.committer.time_s > self.until_s:
            return False
        author = f"{commit.author.name} <{commit.author.email}>"
        return not self.author or self.author.casefold() in author.casefold()


@dataclass(frozen=True, slots=True)
class Found:
    """A version that was looked for.

    Attributes:
        version: Its number on the branch; None for a commit from before the branch was made.
        info: Its commit.
        path: The name of the path in it; empty where none was asked for.
        change: What became of the path: `added`, `changed`, `removed` or `renamed`; empty where none was asked for.
        old_path: What it was called before it was renamed.
    """

    version: int | None
    info: CommitInfo
    path: bytes = b""
    change: str = ""
    old_path: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a walk stands: the next commit, and (by path) what it has there if that is known."""

    commit: str | None
    version: int | None
    path: bytes = b""
    trail: Trail | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step gave.

    Attributes:
        found: Versions, newest first.
        next: Where to go on.
        appeared: The trees before and after a version in which the path appeared, if the step ended there.
        is_last: Whether `found` ends with that version.
    """

    found: tuple[Found, ...]
    next: _Position
    appeared: tuple[str, str] | None = None
    is_last: bool = False


class LookingBack:
    """Looks back over the versions of one model."""

    def __init__(self, objects: GitObjects, read: ReadInThread, comparing: Comparing) -> None:
        self._objects = objects
        self._read = read
        self._comparing = comparing

    def walk(self, start: str | None, version: int | None, wanted: Wanted) -> VersionWalk:
        """A walk back from a commit, which is this version of its branch; arguments as of `VersionWalk`."""
        return VersionWalk(self._objects, self._read, self._comparing, start, version, wanted)

    async def newest_commits(self, start: str, count: int) -> list[CommitInfo]:
        """The newest commits that a commit leads to by all parents, as they are drawn; see `graph_walk`. CorruptData."""
        found = await self._read(functools.partial(newest_commits, self._objects, start, count))
        return [CommitInfo.of(oid, raw) for oid, raw in found.items()]


class VersionWalk:
    """One walk."""

    def __init__(
        self,
        objects: GitObjects,
        read: ReadInThread,
        comparing: Comparing,
        start: str | None,
        version: int | None,
        wanted: Wanted,
    ) -> None:
        """Reads nothing yet.

        Args:
            objects: Where to read.
            read: How.
            comparing: Finds where a path came from.
            start: The newest commit.
            version: Its number; versions before are numbered down to 1. None: commits without numbers.
            wanted: What is looked for. Without a path the walk ends at version 1, by path it goes on to the branch
                that the branch was made of.
        """
        self._objects = objects
        self._read = read
        self._comparing = comparing
        self._wanted = wanted
        self._at = _Position(start, version, wanted.path)

    async def take(self, count: int) -> list[Found]:
        """The next versions, newest first; fewer than `count` at the end.

        Raises:
            CorruptData: History is incomplete or damaged.
        """
        found: list[Found] = []
        while self._at.commit is not None and len(found) < count:
            call = functools.partial(_walk, self._objects, self._at, self._wanted, count - len(found))
            try:
                step = await self._read(call)
            except NotFound as error:
                raise CorruptData(f"history is incomplete: {error}") from error
            found += step.found
            self._at = step.next
            if step.appeared is not None:
                await self._follow(step, found)
        return found

    async def _follow(self, step: _Step, found: list[Found]) -> None:
        """Goes on with the name that a path had before it was renamed, if it was."""
        assert step.appeared is not None
        path = step.next.path
        old_path = _source_of(path, await self._comparing.changes(*step.appeared))
        if old_path is None:
            return
        self._at = replace(step.next, path=old_path, trail=None)
        if step.is_last:
            found[-1] = replace(found[-1], change="renamed", old_path=old_path)


def _walk(objects: GitObjects, at: _Position, wanted: Wanted, count: int) -> _Step:
    """Some steps back. For a thread."""
    found: list[Found] = []
    for _ in range(_STEP):
        if at.commit is None or len(found) >= count:
            break
        commit = objects.read_commit(at.commit)
        if wanted.since_s is not None and commit.committer.time_s < wanted.since_s:
            return _Step(tuple(found), _Position(None, None))
        info = CommitInfo.of(at.commit, commit)
        if not at.path:
            if wanted.fits(commit):
                found.append(Found(at.version, info))
            at = _before(at, commit, None)
            continue
        names = tuple(name for name in at.path.split(b"/") if name)
        trail = at.trail or trail_to(objects, commit.tree, names)
        parent = objects.read_commit(commit.parents[0]).tree if commit.parents else None
        earlier = trail_to(objects, parent, names, trail)
        change = _change(objects, earlier, trail)
        if change and wanted.fits(commit):
            found.append(Found(at.version, info, at.path, change))
        at = _before(at, commit, earlier)
        if change == "added" and parent is not None:
            return _Step(tuple(found), at, (parent, commit.tree), wanted.fits(commit))
    return _Step(tuple(found), at)


def _before(at: _Position, commit: RawCommit, trail: Trail | None) -> _Position:
    """The position before another; without a path, and with numbers, it ends at the first version."""
    version = None if at.version is None or at.version <= 1 else at.version - 1
    is_end = not commit.parents or (not at.path and at.version is not None and version is None)
    return _Position(None if is_end else commit.parents[0], version, at.path, trail)


def _change(objects: GitObjects, before: Trail, after: Trail) -> str:
    if before.end is None:
        return "" if after.end is None else "added"
    if after.end is None:
        return "removed"
    return "" if same_end(objects, before, after) else "changed"


def _source_of(path: bytes, changes: Changes) -> bytes | None:
    """Where a path that appeared was before: it was renamed itself, or with a directory above it.

    A directory came from another one if more than half of its files did, with more than half of its bytes, as merges have it: a
    new checkpoint shares most of its small files with the one that was removed, and isn't it.
    """
    below = path + b"/"
    files: Counter[bytes] = Counter()
    sizes: Counter[bytes] = Counter()
    for change in changes.listed:
        if change.path == path or path.startswith(change.path + b"/"):
            if change.old_path is not None:
                return change.old_path + path[len(change.path) :]
        elif change.path.startswith(below) and change.after is not None:
            tail = change.path[len(path) :]
            is_moved = change.old_path is not None and change.old_path.endswith(tail)
            source = change.old_path[: -len(tail)] if is_moved and change.old_path is not None else b""
            files[source] += 1
            sizes[source] += 0 if change.after.content is None else change.after.content.size_bytes
    source, count = max(files.items(), key=lambda item: (item[1], item[0]), default=(b"", 0))
    is_most = 2 * count > files.total() and (2 * sizes[source] > sizes.total() or not sizes.total())
    return source if source and is_most else None
