"""How far two lines of history went apart, counted as `git rev-list --left-right --count` does. For a thread."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from mvcfs.versions.git.objects import GitObjects

MAX_WALKED = 10_000
"""So many commits are looked at for one comparison: about a second on a busy machine. Beyond, the counts are lower bounds."""

_LEFT, _RIGHT, _BOTH = 1, 2, 3
_NEVER_S = 1 << 63

Known = dict[str, tuple[int, tuple[str, ...]]]
"""Time and parents of commits that were read, to be shared by several comparisons."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """What each of two commits has that the other hasn't.

    Attributes:
        ahead: Commits that the first leads to and the second doesn't.
        behind: The other way round.
        complete: Whether all were counted; else there may be more of both.
    """

    ahead: int
    behind: int
    complete: bool = True


def divergence(objects: GitObjects, left: str, right: str, known: Known, bound: int = MAX_WALKED) -> Divergence:
    """Counts the commits on either side, down to where both lines meet.

    Commits are visited newest first by committer time, which never falls along first parents.

    Raises:
        NotFound: A commit on the way is missing.
        CorruptData: One is damaged.
    """
    sides: dict[str, int] = {}
    visited: set[str] = set()
    queue: list[tuple[int, str]] = []
    pending = 0  # entries of the queue that may change the counts: not yet visited ones of one side, and second visits

    def mark(oid: str, flags: int) -> None:
        nonlocal pending
        before = sides.get(oid, 0)
        after = before | flags
        if after == before:
            return
        sides[oid] = after
        if oid not in known:
            commit = objects.read_commit(oid)
            known[oid] = commit.committer.time_s, commit.parents
        if oid in visited:
            pending += 1
        elif before:
            pending -= 1
            return
        elif after != _BOTH:
            pending += 1
        heapq.heappush(queue, (-known[oid][0], oid))

    mark(left, _LEFT)
    mark(right, _RIGHT)
    oldest_s = _NEVER_S  # of the commits that count on one side: what is on both may still lead to one of its time
    while queue and (pending or -queue[0][0] >= oldest_s) and len(visited) < bound:
        oid = heapq.heappop(queue)[1]
        if oid in visited or sides[oid] != _BOTH:
            pending -= 1
        if sides[oid] != _BOTH:
            oldest_s = min(oldest_s, known[oid][0])
        visited.add(oid)
        for parent in known[oid][1]:
            mark(parent, sides[oid])
    counted = [sides[oid] for oid in visited]
    return Divergence(counted.count(_LEFT), counted.count(_RIGHT), pending == 0)
