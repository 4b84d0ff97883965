from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from mvcfs.errors import Conflict, CorruptData, NotFound
from mvcfs.versions.git.format import RawCommit, Signature
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.history.versions import History
from mvcfs.versions.log.refs import BranchState
from mvcfs.versions.trees.reader import EMPTY_TREE_OID

ID = "a" * 32


class Line:
    """A branch made of real commits without any store."""

    def __init__(self, path: Path, count: int) -> None:
        self.objects = GitObjects(path / "git")
        self.commits: list[str] = []
        self.grow(count)

    def grow(self, count: int) -> None:
        for _ in range(count):
            number = len(self.commits)
            who = Signature("a", "a@b", 1000 + number // 3)
            parents = tuple(self.commits[-1:])
            self.commits.append(
                self.objects.write_commit(RawCommit(EMPTY_TREE_OID, parents, who, who, f"Number {number + 1}"))
            )

    def branch(self, *, before: int = 0) -> BranchState:
        """The branch, as started from commit number `before`."""
        return BranchState(ID, "main", self.commits[-1], len(self.commits) - before)


async def test_numbers_and_commits_agree(tmp_path: Path) -> None:
    line = Line(tmp_path, 700)
    history = History(line.objects)
    for version in (700, 699, 350, 1, 2, 444):
        assert await history.commit_of(line.branch(), version) == line.commits[version - 1]
        assert await history.version_of(line.branch(), line.commits[version - 1]) == version
    assert await history.version_of(line.branch(), "0" * 40) is None
    with pytest.raises(NotFound, match="versions 1 to 700"):
        await history.commit_of(line.branch(), 701)
    with pytest.raises(NotFound):
        await history.commit_of(line.branch(), 0)
    with pytest.raises(NotFound, match="no version yet"):
        await history.commit_of(BranchState(ID, "main", None, 0), 1)


async def test_new_versions_are_walked_only_to_what_is_known(tmp_path: Path) -> None:
    line = Line(tmp_path, 600)
    history = History(line.objects)
    assert await history.commit_of(line.branch(), 1) == line.commits[0]
    line.grow(3)
    # What was walked before isn't read again, so it may even be missing.
    line.objects.discard(line.commits[:590])
    assert await history.commit_of(line.branch(), 603) == line.commits[602]
    assert await history.commit_of(line.branch(), 1) == line.commits[0]
    with pytest.raises(CorruptData, match="incomplete"):
        await History(line.objects).commit_of(line.branch(), 1)


async def test_commits_from_before_the_branch_are_no_versions(tmp_path: Path) -> None:
    line = Line(tmp_path, 20)
    history = History(line.objects)
    branch = line.branch(before=15)
    assert branch.version == 5
    assert await history.commit_of(branch, 1) == line.commits[15]
    assert await history.version_of(branch, line.commits[14]) is None
    assert await history.leads_to(branch, line.commits[0])
    assert not await history.leads_to(branch, "0" * 40)
    assert [info.version for info in await history.versions(branch, None)] == [5, 4, 3, 2, 1]
    assert [info.subject for info in await history.versions(branch, 2)] == ["Number 20", "Number 19"]


async def test_the_last_version_at_a_time(tmp_path: Path) -> None:
    line = Line(tmp_path, 9)
    history = History(line.objects)
    assert await history.version_at(line.branch(), 999) is None
    assert await history.version_at(line.branch(), 1000) == 3
    assert await history.version_at(line.branch(), 1001) == 6
    assert await history.version_at(line.branch(), 5000) == 9


async def test_a_line_that_was_replaced_is_walked_anew(tmp_path: Path) -> None:
    line = Line(tmp_path, 10)
    history = History(line.objects)
    await history.commit_of(line.branch(), 1)
    line.commits = line.commits[:5]
    who = Signature("b", "b@b", 2000)
    for number in range(8):
        line.commits.append(
            line.objects.write_commit(RawCommit(EMPTY_TREE_OID, (line.commits[-1],), who, who, f"other {number}"))
        )
    assert [await history.commit_of(line.branch(), v) for v in range(1, 14)] == line.commits


async def test_prefixes(tmp_path: Path) -> None:
    line = Line(tmp_path, 300)
    history = History(line.objects)
    tips = [line.commits[-1]]
    for commit in line.commits[::50]:
        assert await history.commit_with_prefix(commit, tips) == commit
        assert await history.commit_with_prefix(commit[:14], tips) == commit
    with pytest.raises(Conflict, match="write more digits"):
        await history.commit_with_prefix(line.commits[0][:1], tips)
    with pytest.raises(NotFound):
        await history.commit_with_prefix("0" * 12, tips)
    line.grow(1)
    assert await history.commit_with_prefix(line.commits[-1], [line.commits[-1]]) == line.commits[-1]


async def test_a_line_outlives_the_process(tmp_path: Path) -> None:
    line = Line(tmp_path, 1500)
    branch = line.branch(before=100)
    assert await History(line.objects).commit_of(branch, 1) == line.commits[100]
    # Nothing of what was walked is read again.
    line.grow(3)
    line.objects.discard(line.commits[:1499])
    history, branch = History(line.objects), line.branch(before=100)
    assert await history.commit_of(branch, 1) == line.commits[100]
    assert await history.version_of(branch, line.commits[700]) == 601
    assert await history.version_at(branch, 1100) == 203
    assert await history.version_at(branch, 1032) is None
    marks = await history.marks(branch)
    assert [(number, commit) for number, commit, _ in marks] == list(enumerate(line.commits[100:], 1))
    assert marks[-1][2] == 1000 + 1502 // 3
    with pytest.raises(CorruptData, match="incomplete"):
        await history.leads_to(branch, line.commits[50])


@pytest.mark.parametrize("hurt", [b"", b"mvcfs line 1\n", None])
async def test_a_damaged_line_is_walked_anew(tmp_path: Path, hurt: bytes | None) -> None:
    line = Line(tmp_path, 1200)
    await History(line.objects).commit_of(line.branch(), 1)
    (kept,) = (tmp_path / "lines").iterdir()
    data = bytearray(kept.read_bytes())
    data[5000] ^= 1
    kept.write_bytes(bytes(data) if hurt is None else hurt)
    assert await History(line.objects).commit_of(line.branch(), 251) == line.commits[250]


async def test_a_line_takes_little_memory(tmp_path: Path) -> None:
    line = Line(tmp_path, 3000)
    history = History(line.objects)
    await history.commit_of(line.branch(), 1)
    line.grow(500)
    tracemalloc.start()
    try:
        again = History(line.objects)
        assert await again.commit_of(line.branch(), 1) == line.commits[0]
        assert await again.commit_of(line.branch(), 3456) == line.commits[3455]
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 3500 * 28 * 2 + 50_000
