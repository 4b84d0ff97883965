"""How a version is named: reading a revision, and finding the commit it stands for.

    42  @42  main@42        a version by number
    main@3f2a91c  3f2a91c   a commit by its id or the first digits of it
    main@2026-11-20T1200    the last version at or before a time (UTC unless an offset is written)
    main  v1.0  champion    a branch's newest version, a tag, an alias
    main~3  v1.0~1          so many versions before

A name that exists goes before anything else that the same text could mean, except that digits alone are a version
number wherever there is a branch to count in. Parsing is pure; finding walks history in threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from mvcfs.errors import InvalidName, NotFound
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.history.versions import History
from mvcfs.versions.log.refs import BranchState, Refs
from mvcfs.versions.names import check_ref_name

POSSIBLE = (
    "possible are a version number (42), BRANCH@42, BRANCH@COMMIT, BRANCH@TIME (2026-11-20T1200, UTC), "
    "a branch, tag or alias, a commit of at least 4 digits, and ~N after any of them"
)

_BACK = re.compile(r"(?P<rest>.*?)(?P<back>(?:~[0-9]{0,9})*)", re.DOTALL)
_HEX = re.compile(r"[0-9a-fA-F]{4,40}")
_OID_DIGITS = 40
_LONGEST_NUMBER = 8
"""A bare text of more digits is a commit."""

_LONGEST_COUNT = 18
_TIME = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})|(?P<month2>[0-9]{2})(?P<day2>[0-9]{2}))"
    r"(?:[Tt_ ](?P<hour>[0-9]{2})"
    r"(?::?(?P<minute>[0-9]{2})(?::?(?P<second>[0-9]{2})(?:[.,][0-9]{1,9})?)?)?)?"
    r" ?(?P<zone>[Zz]|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)


@dataclass(frozen=True, slots=True)
class ByNumber:
    """Version `number` of a branch; None: of the branch at hand."""

    branch: str | None
    number: int


@dataclass(frozen=True, slots=True)
class ByCommit:
    """The commit whose id starts with `prefix`, on a branch, or (None) anywhere in the model."""

    branch: str | None
    prefix: str


@dataclass(frozen=True, slots=True)
class ByTime:
    """The last version of a branch at or before a time, seconds since 1970."""

    branch: str | None
    time_s: int


@dataclass(frozen=True, slots=True)
class ByName:
    """A branch, tag or alias; what the text means if there is none of that name."""

    name: str
    otherwise: ByNumber | ByCommit | ByTime | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision as written.

    Attributes:
        base: What it starts from.
        back: How many first-parent steps it goes back from there.
    """

    base: ByNumber | ByCommit | ByTime | ByName
    back: int = 0


def parse_time(text: str) -> int | None:
    """Seconds since 1970 of a time in one of many spellings; None if the text is none.

    A day alone is its beginning, a minute alone too; fractions of a second are cut off. Without an offset it is UTC.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    zone = match["zone"] or "Z"
    offset = timedelta()
    if zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:])) * (-1 if zone[0] == "-" else 1)
    try:
        moment = datetime(
            int(match["year"]),
            int(match["month"] or match["month2"]),
            int(match["day"] or match["day2"]),
            int(match["hour"] or 0),
            int(match["minute"] or 0),
            int(match["second"] or 0),
            tzinfo=timezone(offset),
        )
    except ValueError:
        return None
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1))


def show_time(time_s: int) -> str:
    """A time as messages show it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_revision(text: str) -> Revision:
    """What a revision says, without looking at any model.

    Raises:
        InvalidName: It is none; the message says what is possible.
    """
    match = _BACK.fullmatch(text)
    if match is None or not match["rest"]:
        raise InvalidName(f"{text!r} is no revision: {POSSIBLE}")
    back = sum(int(digits or 1) for digits in match["back"].split("~")[1:])
    rest = match["rest"]
    if "@" in rest:
        branch, _, at = rest.partition("@")
        if branch:
            _check_name(branch, text)
        base = _after_at(branch or None, at)
        if base is None:
            raise InvalidName(f"{text!r} is no revision: {at!r} is no number, commit or time; {POSSIBLE}")
        return Revision(base, back)
    return Revision(_bare(rest, text), back)


def _check_name(name: str, text: str) -> None:
    try:
        check_ref_name(name)
    except InvalidName as error:
        raise InvalidName(f"{text!r} is no revision ({error}): {POSSIBLE}") from error


def _after_at(branch: str | None, at: str) -> ByNumber | ByCommit | ByTime | None:
    """What follows an `@`. All digits are a version number."""
    if at.isascii() and at.isdigit() and len(at) < _OID_DIGITS:
        return ByNumber(branch, int(at)) if len(at) <= _LONGEST_COUNT else None
    if _HEX.fullmatch(at):
        return ByCommit(branch, at.lower())
    time_s = parse_time(at)
    return None if time_s is None else ByTime(branch, time_s)


def _bare(rest: str, text: str) -> ByNumber | ByCommit | ByTime | ByName:
    otherwise: ByNumber | ByCommit | ByTime | None
    if rest.isascii() and rest.isdigit() and len(rest) <= _LONGEST_NUMBER:
        otherwise = ByNumber(None, int(rest))
    elif _HEX.fullmatch(rest):
        otherwise = ByCommit(None, rest.lower())
    else:
        time_s = parse_time(rest)
        otherwise = None if time_s is None else ByTime(None, time_s)
    try:
        _check_name(rest, text)
    except InvalidName:
        if otherwise is None:
            raise
        return otherwise
    return ByName(rest, otherwise)


class Resolver:
    """Finds the commits that revisions of one model stand for."""

    def __init__(self, objects: GitObjects, history: History) -> None:
        self._objects = objects
        self._history = history

    async def resolve(self, refs: Refs, text: str, branch: str | None) -> str:
        """The commit of a revision; `branch` is the one that a bare number or time counts in.

        Raises:
            InvalidName: The text is no revision.
            NotFound: There is nothing of that name; the message says what there is.
            Conflict: Several commits start with these digits.
        """
        revision = parse_revision(text)
        commit = await self._base(refs, revision.base, text, branch)
        found = await self._history.ancestor(commit, revision.back)
        if found is None:
            raise NotFound(f"{text!r}: history doesn't go back that far")
        return found

    async def _base(
        self, refs: Refs, base: ByNumber | ByCommit | ByTime | ByName, text: str, branch: str | None
    ) -> str:
        match base:
            case ByName():
                return await self._named(refs, base, text, branch)
            case ByNumber():
                return await self._history.commit_of(_branch(refs, base.branch or branch, text), base.number)
            case ByTime():
                state = _branch(refs, base.branch or branch, text)
                version = await self._history.version_at(state, base.time_s)
                if version is None:
                    raise NotFound(f"branch {state.name!r} has no version at or before {show_time(base.time_s)}")
                return await self._history.commit_of(state, version)
            case ByCommit():
                logs = refs.alias_logs.values()
                commit = await self._history.commit_with_prefix(base.prefix, refs.version_tips(), logs)
                if base.branch is not None:
                    state = refs.branch(base.branch)
                    if not await self._history.leads_to(state, commit):
                        raise NotFound(f"commit {commit} is no version of branch {state.name!r}")
                return commit

    async def _named(self, refs: Refs, base: ByName, text: str, branch: str | None) -> str:
        if isinstance(base.otherwise, ByNumber) and branch is not None:
            return await self._base(refs, base.otherwise, text, branch)
        state = refs.branches.get(base.name)
        if state is not None:
            if state.tip is None:
                raise NotFound(f"branch {state.name!r} has no version yet")
            return state.tip
        target = refs.tags.get(base.name) or refs.aliases.get(base.name)
        if target is not None:
            return self._objects.peel(target)
        if base.otherwise is None:
            names = sorted({*refs.branches, *refs.tags, *refs.aliases})
            some = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
            raise NotFound(f"no branch, tag or alias {base.name!r}; there is {some or 'none'}")
        return await self._base(refs, base.otherwise, text, branch)


def _branch(refs: Refs, name: str | None, text: str) -> BranchState:
    if name is None:
        raise InvalidName(f"{text!r} doesn't say of which branch: write BRANCH@{text.lstrip('@')}")
    return refs.branch(name)
