"""The newest commits of a history with merges, in an order in which it can be drawn.

Which commits: the newest by time that a commit leads to, by all its parents, so that what is drawn costs as many commits as
it shows. In which order: a commit after all of its children, and the line that was merged in right below its merge, as
`git log --graph` has it. For a thread; reads from `GitObjects` only.
"""

from __future__ import annotations

import heapq
from collections import Counter

from mvcfs.versions.git.format import RawCommit
from mvcfs.versions.git.objects import GitObjects


def newest_commits(objects: GitObjects, start: str, count: int) -> dict[str, RawCommit]:
    """The newest commits by id, in the order in which they are drawn.

    Raises:
        NotFound: A commit is missing.
        CorruptData: One is damaged.
    """
    first = objects.read_commit(start)
    queue = [(-first.committer.time_s, 0, start)]
    read = {start: first}
    found: dict[str, RawCommit] = {}
    while queue and len(found) < count:
        _, _, oid = heapq.heappop(queue)
        found[oid] = read.pop(oid)
        for parent in found[oid].parents:
            if parent not in found and parent not in read:
                read[parent] = objects.read_commit(parent)
                # Of equal times the one that was found first goes first: a child before its parents.
                heapq.heappush(queue, (-read[parent].committer.time_s, len(found) + len(read), parent))
    return {oid: found[oid] for oid in _drawn_order(found, start)}


def _drawn_order(commits: dict[str, RawCommit], start: str) -> list[str]:
    waiting = Counter(parent for commit in commits.values() for parent in set(commit.parents))
    ready, order = [start], []
    while ready:
        oid = ready.pop()
        order.append(oid)
        for parent in dict.fromkeys(commits[oid].parents):
            waiting[parent] -= 1
            if not waiting[parent] and parent in commits:
                ready.append(parent)
    return order
