"""The two sides of a comparison: versions, or a working tree and a version, and the changes between them.

Threading: trio thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from mvcfs.errors import InvalidArgument, InvalidName, NotFound
from mvcfs.versions.trees.comparing import Change, Changes
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.targets import Target, parse_target
from mvcfs.vfs.comparison import Spot, compare_spots, entry_at
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.working_tree.working_changes import WorkingChanges, compare_working
from mvcfs.vfs.working_tree.worktree import WorkingTree


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two things that are compared.

    Attributes:
        spot: The version (of a working tree: the one it stands on), and what of it is compared.
        branch: The branch that it was named by, None for none.
        working: The working tree, if it has changes that are in no version.
    """

    spot: Spot
    branch: str | None
    working: WorkingTree | None = None


async def parse_sides(engine: StoreService, args: Json) -> tuple[OpenModel, Side, Side]:
    """Reads what is compared from a command's arguments, which `DiffCommands.diff` lists."""
    target = await parse_target(engine, args)
    model = target.require_model()
    other, other_path = args.get("other"), args.get("other_path")
    if other is None and other_path is None:
        return model, *await _alone(engine, model, target)
    first = await _side(engine, model, target, args.get("revision"))
    if other is not None:
        try:
            commit = await model.data.repository.resolve(str(other), branch=first.branch)
        except (NotFound, InvalidName):
            if other_path is None:
                raise
        else:
            return model, first, Side(Spot(commit, target.path), _branch_named(model, str(other)))
    second = await parse_target(engine, {"mount_path": other_path})
    if second.model is not model:
        raise InvalidArgument(f"{other_path} is not in the model {model.name}: versions of one model are compared")
    return model, first, await _side(engine, model, second, None)


async def _alone(engine: StoreService, model: OpenModel, target: Target) -> tuple[Side, Side]:
    """A version against the one before it, a working tree against the version that it stands on."""
    side = await _side(engine, model, target, None)
    if target.revision is None:
        if engine.overlay is None:
            raise InvalidArgument(
                f"{model.name}/{target.branch} is not mounted here, so nothing in it is unpublished: "
                f"name a version of it, such as {target.branch}@1, or two"
            )
        return replace(side, working=None), side
    assert side.spot.commit is not None
    parents = (await model.data.repository.commit_info(side.spot.commit)).parents
    return Side(Spot(parents[0] if parents else None, side.spot.path), side.branch), side


async def _side(engine: StoreService, model: OpenModel, target: Target, revision: str | None) -> Side:
    text = revision or target.revision or target.branch
    if not text:
        raise InvalidArgument(f"name two versions of {model.name}, such as main@1 main@2")
    if target.branch and not revision and not target.revision and engine.overlay is not None:
        tree = (await model.branch(target.branch)).tree
        return Side(Spot(tree.base_commit, target.path), target.branch, tree if tree.root.changed else None)
    commit = await model.data.repository.resolve(str(text), branch=target.branch)
    branch = target.branch if revision is None else _branch_named(model, revision)
    return Side(Spot(commit, target.path), branch or target.branch)


def _branch_named(model: OpenModel, revision: str) -> str | None:
    """The branch that a revision begins with, None for none."""
    for mark in ("@", "~"):
        name = revision.split(mark, 1)[0]
        if name in model.data.repository.refs.branches:
            return name
    return None


async def compare_sides(model: OpenModel, before: Side, after: Side, path: bytes) -> WorkingChanges:
    """The changes at a path below both sides.

    Raises:
        NotFound: Neither has anything there.
        InvalidArgument: Both are working trees with changes.
    """
    old, new = before.spot.below(path), after.spot.below(path)
    found: WorkingChanges | None
    if before.working is not None and after.working is not None:
        raise InvalidArgument(
            f"{before.branch} and {after.branch} both have changes that are in no version: name a version of one of them"
        )
    if after.working is not None:
        found = await compare_working(after.working, await entry_at(model.data, old), new.path)
    elif before.working is not None:
        found = await compare_working(before.working, await entry_at(model.data, new), old.path)
        if found is not None:
            found.changes.listed = sorted(map(_inverse, found.changes.listed), key=lambda change: change.path)
    else:
        changes = await compare_spots(model.data, old, new)
        found = None if changes is None else WorkingChanges(changes)
    if found is None and (old.path or new.path):
        raise NotFound(f"{os.fsdecode(new.path or old.path)} is in neither version")
    return found or WorkingChanges()


def _inverse(change: Change) -> Change:
    old_path = None if change.old_path is None else change.path
    return Change(change.old_path or change.path, change.after, change.before, old_path, change.similarity)


def add_changes(to: WorkingChanges, more: WorkingChanges) -> None:
    """Puts the changes of another path beside those that are there."""
    to.texts |= more.texts
    to.kept_bytes |= more.kept_bytes
    to.changes = Changes(
        to.changes.listed + more.changes.listed,
        to.changes.not_listed + more.changes.not_listed,
        to.changes.not_listed_added_bytes + more.changes.not_listed_added_bytes,
    )
