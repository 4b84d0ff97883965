"""The moves of an alias: one Git commit each, so that they outlive the records of the ref log.

A move's tree is that of the commit that the alias names from then on; its first parent is the move before, its second parent
that commit. The first move of an alias has the commit as its only parent, a removal the move before. Author, date and message
say who, when and why, trailers what a reader can't take from the parents. A log is never shortened: a removed alias
keeps it, and goes on with it when it is made again.

A move is no version: it is found by its whole id only. Synchronous; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mvcfs.errors import CorruptData, NotFound
from mvcfs.types import NS_PER_S, Author
from mvcfs.versions.git.format import RawCommit, Signature
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.trailers import parse_trailers
from mvcfs.versions.log.refs import AliasState

_ALIAS = "Mvcfs-Alias"
_TARGET = "Mvcfs-Target"
_VERSION = "Mvcfs-Version"
_NO_TARGET = "none"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias.

    Attributes:
        oid: The commit that keeps it.
        alias: The alias.
        target: The commit that it names from then on; None: it was removed.
        who: Who moved it.
        time_s: When, seconds since 1970.
        why: The message.
        branch: The branch whose version the target was when it was moved there; None if no branch had it.
        version: That version's number.
    """

    oid: str
    alias: str
    target: str | None
    who: Author
    time_s: int
    why: str
    branch: str | None = None
    version: int | None = None


def write_move(
    objects: GitObjects,
    alias: str,
    target: str | None,
    previous: str | None,
    who: Author,
    why: str,
    now_ns: int,
    place: tuple[str, int] | None = None,
) -> AliasMove:
    """Makes the commit of a move, not older than the one before.

    Args:
        objects: Where it is written.
        alias: The alias.
        target: The commit that it shall name; None to remove it.
        previous: The move before, None for the first.
        who: Who moves it.
        why: Why, or nothing.
        now_ns: The time.
        place: Branch and version that the target is.

    Raises:
        ValueError: There is neither a target nor a move before.
        NotFound: There is no such commit.
    """
    shown = target or previous
    if shown is None:
        raise ValueError("a removal follows a move")
    time_s = now_ns // NS_PER_S
    if previous is not None:
        time_s = max(time_s, objects.read_commit(previous).committer.time_s)
    said = why.strip() or (f"Move {alias}" if target else f"Remove {alias}")
    lines = [f"{_ALIAS}: {alias}", f"{_TARGET}: {target or _NO_TARGET}"]
    if place is not None:
        lines.append(f"{_VERSION}: {place[0]}@{place[1]}")
    parents = tuple([oid for oid in (previous, target) if oid is not None])
    signature = Signature(who.name, who.email, time_s)
    message = "\n".join([said, "", *lines, ""])
    raw = RawCommit(objects.read_commit(shown).tree, parents, signature, signature, message)
    return _read(objects, objects.write_commit(raw))[0]


def moves(objects: GitObjects, log: str) -> Iterator[AliasMove]:
    """The moves of an alias, newest first, from the one that its state names.

    Raises:
        CorruptData: A move is missing or damaged.
    """
    oid: str | None = log
    while oid is not None:
        try:
            move, oid = _read(objects, oid)
        except NotFound as error:
            raise CorruptData(f"the log of an alias is incomplete: {error}") from error
        yield move


def last_move(objects: GitObjects, alias: str, state: AliasState) -> AliasMove:
    """The move that brought an alias where it is; one that no commit keeps says as much as the ref log does.

    Raises:
        CorruptData: It is missing or damaged.
    """
    if state.log is not None:
        return replace(next(moves(objects, state.log)), alias=alias)
    name, _, email = state.who.rstrip(">").rpartition(" <")
    return AliasMove("", alias, state.target, Author(name or state.who, email if name else ""), 0, state.why)


def is_move(objects: GitObjects, logs: Iterable[str], oid: str) -> bool:
    """Whether a commit is a move of one of these logs. CorruptData."""
    return any(move.oid == oid for log in logs for move in moves(objects, log))


def _read(objects: GitObjects, oid: str) -> tuple[AliasMove, str | None]:
    """A move, and the one before it."""
    raw = objects.read_commit(oid)
    said = dict(parse_trailers(raw.message))
    if _ALIAS not in said or _TARGET not in said:
        raise CorruptData(f"Git object {oid} is no move of an alias")
    target = None if said[_TARGET] == _NO_TARGET else said[_TARGET]
    if target is not None and raw.parents[-1:] != (target,):
        raise CorruptData(f"Git object {oid} says that its alias names {target}, which is no parent of it")
    before = raw.parents[:-1] if target is not None else raw.parents
    branch, _, version = said.get(_VERSION, "").rpartition("@")
    numbered = bool(branch) and version.isascii() and version.isdecimal()
    return AliasMove(
        oid,
        said[_ALIAS],
        target,
        Author(raw.author.name, raw.author.email),
        raw.author.time_s,
        raw.message.rstrip().rpartition("\n\n")[0],
        branch if numbered else None,
        int(version) if numbered else None,
    ), before[0] if before else None
