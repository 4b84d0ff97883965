"""The versions of a branch, by number, commit and time, and the commits of a model by prefix.

Version k of a branch whose tip is version v is the commit v-k first-parent steps behind the tip, so numbers are found by
walking. What was walked is kept and goes on from there: versions are only ever added at the tip. Walks are in a thread;
what is kept is changed on the trio thread only.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import trio

from mvcfs.errors import Conflict, CorruptData, NotFound
from mvcfs.types import Author
from mvcfs.versions.alias_log import is_move
from mvcfs.versions.git_format import OID_DIGITS, RawCommit
from mvcfs.versions.objects import GitObjects
from mvcfs.versions.refs import BranchState, Refs
from mvcfs.versions.trailers import parse_trailers

_STEPS_AT_LEAST = 256


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """A commit.

    Attributes:
        oid: Its id.
        tree: Its root directory's tree.
        parents: Its parents, the version before it first.
        author: Who made the changes.
        author_time_s: When, seconds since 1970.
        committer_time_s: When it was published; never falls along first parents.
        message: The whole message.
        trailers: `Key: value` lines of its last paragraph.
    """

    oid: str
    tree: str
    parents: tuple[str, ...]
    author: Author
    author_time_s: int
    committer_time_s: int
    message: str
    trailers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, oid: str, raw: RawCommit) -> CommitInfo:
        """A commit as it was read."""
        return cls(
            oid,
            raw.tree,
            raw.parents,
            Author(raw.author.name, raw.author.email),
            raw.author.time_s,
            raw.committer.time_s,
            raw.message,
            parse_trailers(raw.message),
        )

    @property
    def subject(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """Where a version stands: `branch@version`."""

    branch: str
    version: int


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A version of a branch.

    Attributes:
        version: Its number, from 1.
        commit: Its commit.
        tree: That commit's tree.
        time_s: When it was published, seconds since 1970.
        author: Who made the changes.
        message: The whole message.
    """

    version: int
    commit: str
    tree: str
    time_s: int
    author: Author
    message: str

    @property
    def subject(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0]


class _Step(NamedTuple):
    oid: str
    time_s: int
    parent: str | None


def _walk(objects: GitObjects, start: str, count: int) -> list[_Step]:
    """Up to `count` commits from `start` on along first parents. For a thread."""
    steps: list[_Step] = []
    oid: str | None = start
    while oid is not None and len(steps) < count:
        try:
            commit = objects.read_commit(oid)
        except NotFound as error:
            raise CorruptData(f"history is incomplete: {error}") from error
        parent = commit.parents[0] if commit.parents else None
        steps.append(_Step(oid, commit.committer.time_s, parent))
        oid = parent
    return steps


class _Line:
    """What was walked of one branch: all versions from `lowest` to `highest`, without a gap.

    Numbers below 1 are commits from before the branch was made.
    """

    def __init__(self) -> None:
        self.steps: dict[int, _Step] = {}
        self.numbers: dict[str, int] = {}
        self.highest = 0
        self.lowest = 1

    @property
    def end(self) -> str | None:
        """The first commit that wasn't walked; None at the root of history."""
        return self.steps[self.lowest].parent

    def add(self, highest: int, steps: Sequence[_Step]) -> None:
        for number, step in zip(range(highest, highest - len(steps), -1), steps, strict=True):
            self.steps[number] = step
            self.numbers.setdefault(step.oid, number)
        first = not self.highest
        self.highest = highest if first else max(self.highest, highest)
        lowest = highest - len(steps) + 1
        self.lowest = lowest if first else min(self.lowest, lowest)


class History:
    """Versions of one model's branches."""

    def __init__(self, objects: GitObjects) -> None:
        self._objects = objects
        self._limiter = trio.CapacityLimiter(2)
        self._lock = trio.Lock()
        self._lines: dict[str, _Line] = {}
        self._commits: set[str] = set()
        self._commits_of: tuple[str, ...] = ()

    async def commit_of(self, branch: BranchState, version: int) -> str:
        """The commit of a version.

        Raises:
            NotFound: The branch has no such version; the message says which it has.
        """
        if not 1 <= version <= branch.version:
            have = f"versions 1 to {branch.version}" if branch.version else "no version yet"
            raise NotFound(f"there is no {branch.name}@{version}: branch {branch.name!r} has {have}")
        line = await self._line(branch, version)
        if version not in line.steps:
            raise CorruptData(f"history of branch {branch.name!r} ends before version {version}")
        return line.steps[version].oid

    async def version_of(self, branch: BranchState, commit: str) -> int | None:
        """Which version of the branch a commit is, None if it is none."""
        if branch.tip is None:
            return None
        line = await self._line(branch, branch.version)
        if commit not in line.numbers:
            line = await self._line(branch, 1)
        number = line.numbers.get(commit, 0)
        return number if number >= 1 else None

    async def place_of(self, refs: Refs, commit: str, prefer: str | None = None) -> VersionPlace | None:
        """Which version of which branch a commit is; of the preferred branch, the default one or the first by name.

        None if no branch has it as a version.
        """
        default = refs.default_branch()
        first = [name for name in (prefer, None if default is None else default.name) if name is not None and name in refs.branches]
        for name in dict.fromkeys([*first, *refs.branches]):
            version = await self.version_of(refs.branches[name], commit)
            if version is not None:
                return VersionPlace(name, version)
        return None

    async def leads_to(self, branch: BranchState, commit: str) -> bool:
        """Whether a commit is a version of the branch, or one that the branch started from."""
        if await self.version_of(branch, commit) is not None:
            return True
        if branch.tip is None:
            return False
        line = await self._line(branch, 0)
        while commit not in line.numbers and line.end is not None:
            line = await self._line(branch, line.lowest - 10 * _STEPS_AT_LEAST)
        return commit in line.numbers

    async def version_at(self, branch: BranchState, time_s: int) -> int | None:
        """The last version that was published at or before a time, None if there is none."""
        version = branch.version
        while version >= 1:
            line = await self._line(branch, version)
            if version not in line.steps:
                return None
            if line.steps[version].time_s <= time_s:
                return version
            version -= 1
        return None

    async def versions(self, branch: BranchState, limit: int | None) -> list[VersionInfo]:
        """The branch's versions, newest first, at most `limit`."""
        count = branch.version if limit is None else min(limit, branch.version)
        if count <= 0:
            return []
        lowest = branch.version - count + 1
        line = await self._line(branch, lowest)
        numbered = [(number, line.steps[number].oid) for number in range(branch.version, lowest - 1, -1)]
        return await trio.to_thread.run_sync(self._describe, numbered, limiter=self._limiter)

    def _describe(self, numbered: Sequence[tuple[int, str]]) -> list[VersionInfo]:
        found = []
        for number, oid in numbered:
            raw = self._objects.read_commit(oid)
            author = Author(raw.author.name, raw.author.email)
            found.append(VersionInfo(number, oid, raw.tree, raw.committer.time_s, author, raw.message))
        return found

    async def ancestor(self, commit: str, steps: int) -> str | None:
        """The commit so many first-parent steps behind another, None if history is shorter."""
        if steps == 0:
            return commit
        walked = await trio.to_thread.run_sync(_walk, self._objects, commit, steps, limiter=self._limiter)
        return walked[-1].parent if len(walked) == steps else None

    async def commit_with_prefix(self, prefix: str, tips: Collection[str], logs: Collection[str] = ()) -> str:
        """The one commit that `tips` lead to whose id starts with these hex digits.

        A move of the aliases whose last moves `logs` are is found by its whole id only.

        Raises:
            NotFound: There is none.
            Conflict: There are several; the message shows some.
        """
        async with self._lock:
            wanted = tuple(tips)
            if wanted != self._commits_of:
                known = frozenset(self._commits)
                found = await trio.to_thread.run_sync(_new_commits, self._objects, wanted, known, limiter=self._limiter)
                self._commits |= found
                self._commits_of = wanted
            matching = sorted(oid for oid in self._commits if oid.startswith(prefix))
        if not matching and len(prefix) == OID_DIGITS and logs:
            look = functools.partial(is_move, self._objects, logs, prefix)
            matching = [prefix] if await trio.to_thread.run_sync(look, limiter=self._limiter) else []
        if not matching:
            raise NotFound(f"no commit {prefix!r} in this model")
        if len(matching) > 1:
            some = ", ".join(oid[:12] for oid in matching[:5])
            raise Conflict(f"{len(matching)} commits start with {prefix!r}: {some}: write more digits")
        return matching[0]

    async def _line(self, branch: BranchState, down_to: int) -> _Line:
        """What is known of a branch, walked at least from its tip to version `down_to` or to history's root."""
        line = self._lines.get(branch.id)
        if line is not None and line.highest == branch.version and line.lowest <= down_to:
            return line
        async with self._lock:
            line = self._lines.get(branch.id)
            if line is None or line.highest > branch.version:
                line = self._lines[branch.id] = _Line()
            if line.highest < branch.version and branch.tip is not None:
                line = await self._reach_tip(line, branch, branch.tip)
            while line.lowest > down_to and line.end is not None:
                count = max(line.lowest - down_to, _STEPS_AT_LEAST)
                steps = await trio.to_thread.run_sync(_walk, self._objects, line.end, count, limiter=self._limiter)
                line.add(line.lowest - 1, steps)
            return line

    async def _reach_tip(self, line: _Line, branch: BranchState, tip: str) -> _Line:
        """Adds the versions since the line was last walked; starts it anew if they don't lead there."""
        count = branch.version - line.highest if line.highest else 1
        steps = await trio.to_thread.run_sync(_walk, self._objects, tip, count, limiter=self._limiter)
        if line.highest and steps[-1].parent != line.steps[line.highest].oid:
            line, steps = _Line(), steps[:1]
            self._lines[branch.id] = line
        line.add(branch.version, steps)
        return line


def _new_commits(objects: GitObjects, tips: Collection[str], known: frozenset[str]) -> set[str]:
    """The commits that these ids of commits and tags lead to, but for the known ones and their ancestors."""
    found: set[str] = set()
    todo = [objects.peel(tip) for tip in tips]
    while todo:
        oid = todo.pop()
        if oid not in found and oid not in known:
            found.add(oid)
            todo.extend(objects.read_commit(oid).parents)
    return found
