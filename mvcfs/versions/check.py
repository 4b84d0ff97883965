"""What is wrong with a model: a check of its log, of the files that it names, and of its Git objects.

A check is for damaged stores, so it never stops at the first fault and never raises for one: each is a `Problem` that
says what is hit. Large files' chunks are the content layer's to check; `large_contents` says which there must be.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import trio

from mvcfs.errors import CorruptData, MvcfsError, NotADirectory, NotFound, UnsupportedFormat
from mvcfs.storage.protocol import Storage
from mvcfs.types import StoredFile
from mvcfs.versions.gather import gather
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.walks import is_first_parent_ancestor, walk_missing
from mvcfs.versions.log.records import BranchMove
from mvcfs.versions.log.reflog import Listing, RefLog, checkpoint_name, record_name
from mvcfs.versions.log.refs import BranchState
from mvcfs.versions.log.state import LogState, StoredRecord, apply


class Severity(Enum):
    """How bad a problem is."""

    NOTE = "note"
    """Something left over, of no consequence."""
    DAMAGE = "damage"
    """Data is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        severity: How bad it is.
        what: The file or Git object.
        message: What is wrong with it.
        versions: What it is known to affect, as `branch@version` or ref names.
    """

    severity: Severity
    what: str
    message: str
    versions: tuple[str, ...] = ()


async def check_model(
    storage: Storage, ref_log: RefLog, objects: GitObjects, state: LogState, limiter: trio.CapacityLimiter
) -> list[Problem]:
    """Checks a model as of `state`. Only a store that can't be listed at all raises."""
    listing = await ref_log.listing()
    problems = await _check_log(ref_log, objects, listing, limiter)
    problems += await _check_newest_files(storage, ref_log, state)
    problems += await trio.to_thread.run_sync(functools.partial(_check_objects, objects, state), limiter=limiter)
    return problems


# --- the log


async def _check_log(
    ref_log: RefLog, objects: GitObjects, listing: Listing, limiter: trio.CapacityLimiter
) -> list[Problem]:
    problems: list[Problem] = []
    checkpoints = await _read_checkpoints(ref_log, listing, problems)
    first, state = _start(listing, checkpoints)
    for number in listing.records:
        if 0 < number < first:
            path = ref_log.path(record_name(number))
            problems.append(Problem(Severity.NOTE, path, "a record from before the log's beginning: it is void"))
    moves: list[tuple[str, BranchState | None, BranchMove]] = []
    last = listing.records[-1] if listing.records else -1
    for number in range(first, last + 1):
        stored = await _read_record(ref_log, number, problems)
        if stored is None:
            state = checkpoints.get(number)
            continue
        if state is None and number > 0:
            state = checkpoints.get(number)
            continue
        moves += _moves(state, stored)
        try:
            state = apply(state, [stored])
        except CorruptData as error:
            problems.append(Problem(Severity.DAMAGE, stored.where, str(error)))
            state = checkpoints.get(number)
            continue
        known = checkpoints.get(number)
        if known is not None and (known.sha256, known.refs) != (state.sha256, state.refs):
            path = ref_log.path(checkpoint_name(number))
            problems.append(Problem(Severity.DAMAGE, path, f"says other than the records up to {number} do"))
    for name in listing.temporary:
        problems.append(Problem(Severity.NOTE, ref_log.path(name), "a record or checkpoint that was never finished"))
    check = functools.partial(_check_moves, objects, moves)
    return problems + await trio.to_thread.run_sync(check, limiter=limiter)


def _start(listing: Listing, checkpoints: dict[int, LogState]) -> tuple[int, LogState | None]:
    """The first record that must be there, and the state before it.

    Records are trimmed from 1 upwards, and checkpoints after them, so that the log begins at the oldest checkpoint whose
    records are all there. A record that stands alone below is a ghost.
    """
    numbers, newest = set(listing.records), max(checkpoints, default=0)
    oldest = next((number for number in sorted(checkpoints) if number > 0), None)
    if oldest is None or (1 in numbers and (2 in numbers or all(number in numbers for number in range(oldest)))):
        return 0, None
    real = (number for number in listing.records if 0 < number <= newest and not _stands_alone(number, numbers))
    first = next(real, newest)
    begin = next(number for number in sorted(checkpoints) if number >= first - 1)
    return begin + 1, checkpoints[begin]


def _stands_alone(number: int, numbers: set[int]) -> bool:
    return number - 1 not in numbers and number + 1 not in numbers


async def _read_checkpoints(ref_log: RefLog, listing: Listing, problems: list[Problem]) -> dict[int, LogState]:
    found = {}
    for number in listing.checkpoints:
        try:
            state = await ref_log.read_checkpoint(number)
        except (CorruptData, UnsupportedFormat) as error:
            problems.append(Problem(Severity.DAMAGE, ref_log.path(checkpoint_name(number)), str(error)))
        else:
            if state is not None:
                found[number] = state
    return found


async def _read_record(ref_log: RefLog, number: int, problems: list[Problem]) -> StoredRecord | None:
    path = ref_log.path(record_name(number))
    try:
        stored = await ref_log.read_record(number)
    except (CorruptData, UnsupportedFormat) as error:
        problems.append(Problem(Severity.DAMAGE, path, str(error)))
        return None
    if stored is None:
        problems.append(Problem(Severity.DAMAGE, path, "the record is missing"))
    return stored


def _moves(state: LogState | None, stored: StoredRecord) -> list[tuple[str, BranchState | None, BranchMove]]:
    """The branches that a record moves, as they were before and as they are then."""
    changes = [change for change in stored.record.refs if isinstance(change, BranchMove)]
    return [
        (stored.where, None if state is None else state.refs.branch_by_id(change.branch), change) for change in changes
    ]


def _check_moves(objects: GitObjects, moves: Sequence[tuple[str, BranchState | None, BranchMove]]) -> list[Problem]:
    """Version numbers must never move: each new tip has the old one as its ancestor, so many steps behind. For a thread."""
    problems = []
    for where, old, new in moves:
        if old is None or old.tip is None or new.tip is None or old.tip == new.tip:
            continue
        versions = (f"{new.name}@{new.version}",)
        try:
            fits = is_first_parent_ancestor(objects, old.tip, new.tip, new.version - old.version + 1)
        except (NotFound, CorruptData) as error:
            problems.append(Problem(Severity.DAMAGE, where, f"history of {new.name!r} is broken: {error}", versions))
            continue
        if not fits:
            message = f"branch {new.name!r} moves to {new.tip}, which version {old.version} doesn't lead to"
            problems.append(Problem(Severity.DAMAGE, where, message, versions))
    return problems


# --- files


async def _check_newest_files(storage: Storage, ref_log: RefLog, state: LogState) -> list[Problem]:
    """`_check_files`; what is damaged is looked at again if the log has gone on: it may have been joined meanwhile."""
    path = ref_log.folder.removesuffix("/log")
    while True:
        problems = await _check_files(storage, path, state)
        if all(problem.severity is Severity.NOTE for problem in problems):
            return problems
        newest = RefLog(storage, lambda: path)
        try:
            await newest.open()
        except MvcfsError:
            return problems
        if newest.state.number == state.number:
            return problems
        state = newest.state


async def _check_files(storage: Storage, model_path: str, state: LogState) -> list[Problem]:
    """Every live file must be there at its length; what else is there is left over, unless it waits to be deleted."""
    refs = state.refs
    waiting = {entry.name for entry in state.condemned}
    waiting |= {name.removesuffix(".pack") + ".idx" for name in waiting if name.endswith(".pack")}
    live = {
        "git": [*refs.git, *(StoredFile(file.name.removesuffix(".pack") + ".idx", -1) for file in refs.git)],
        "manifests": list(refs.manifests),
        "packs": list(refs.packs),
    }

    async def check(folder: str) -> list[Problem]:
        path = f"{model_path}/{folder}"
        try:
            sizes = {f"{folder}/{entry.name}": entry.size_bytes for entry in await storage.list_dir(path)}
        except (NotFound, NotADirectory):
            return [Problem(Severity.DAMAGE, path, "the folder is missing")]
        except MvcfsError as error:
            return [Problem(Severity.DAMAGE, path, f"the folder can't be read: {error}")]
        found = []
        for file in live[folder]:
            size = sizes.pop(file.name, None)
            if size is None:
                found.append(Problem(Severity.DAMAGE, f"{model_path}/{file.name}", "the file is missing"))
            elif file.size_bytes >= 0 and size != file.size_bytes:
                message = f"has {size} bytes, {file.size_bytes} are recorded"
                found.append(Problem(Severity.DAMAGE, f"{model_path}/{file.name}", message))
        left = [
            Problem(Severity.NOTE, f"{model_path}/{name}", "no record names it")
            for name in sorted(sizes.keys() - waiting)
        ]
        return found + left

    found = await gather([functools.partial(check, folder) for folder in live])
    return [problem for problems in found for problem in problems]


# --- Git objects


def _check_objects(objects: GitObjects, state: LogState) -> list[Problem]:
    """Everything that a ref leads to must be there. For a thread."""
    refs = state.refs
    tips: dict[str, list[str]] = {}
    for branch in (*refs.branches.values(), *refs.deleted):
        if branch.tip is not None:
            name = f"{branch.name} (deleted)" if branch.deleted else branch.name
            tips.setdefault(branch.tip, []).append(f"{name}@{branch.version}")
    for name, target in (*refs.tags.items(), *refs.aliases.items()):
        tips.setdefault(target, []).append(name)
    for name, log in refs.alias_logs.items():
        tips.setdefault(log, []).append(f"log of alias {name}")
    faults = walk_missing(objects, tips)
    if not faults:
        return []
    affected: dict[str, list[str]] = {}
    for tip, names in tips.items():
        for oid, _ in walk_missing(objects, [tip]):
            affected.setdefault(oid, []).extend(names)
    return [
        Problem(Severity.DAMAGE, f"Git object {oid}", message, tuple(sorted(affected.get(oid, ()))))
        for oid, message in faults
    ]
