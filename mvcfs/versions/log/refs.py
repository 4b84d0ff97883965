"""Branches, tags and aliases: their names, their state, and what ref changes of the log do to it.

`RefTable` is the one place where ref changes take effect, for records as they are read and for checkpoints.

Invariants: visible branches have distinct names, of which none is a directory of another (Git forbids it, and so does
a mount that shows a slash as a level); a branch's version never falls, and stays exactly while its tip stays.
Pure, no I/O; `RefTable` belongs to whoever made it, everything else is immutable.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from mvcfs.errors import CorruptData, InvalidName, NotFound
from mvcfs.types import StoredFile
from mvcfs.versions.log.records import AliasChange, BranchDrop, BranchHide, BranchMove, RefChange, TagChange, WorkMove
from mvcfs.versions.names import check_ref_name

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class BranchState:
    """A branch as of some record.

    Attributes:
        id: 32 hex digits, for good: a rename keeps it.
        name: Its name.
        tip: The commit of its newest version; None: it has none yet.
        version: That version's number; 0 without a tip.
        deleted: Hidden, its versions are kept.
        protected: Refuses deletion, renaming, and commits but those that override it.
        work: The commit that holds the work in progress of its `-o shared` mounts; None: there is none.
        work_base: The tip that was when `work` last took one in: what `work` differs in from it is in progress.
    """

    id: str
    name: str
    tip: str | None
    version: int
    deleted: bool = False
    protected: bool = False
    work: str | None = None
    work_base: str | None = None

    @property
    def newest(self) -> str | None:
        """What a shared mount stands on: the work in progress, else the tip."""
        return self.work or self.tip


@dataclass(frozen=True, slots=True)
class AliasState:
    """Where an alias points, and who moved it there why. `log` is the commit that keeps the move."""

    target: str
    who: str = ""
    why: str = ""
    log: str | None = None


@dataclass(frozen=True, slots=True)
class Refs:
    """All refs and live files of a model as of one record.

    Attributes:
        number: The record.
        branches: Visible branches by name, sorted.
        deleted: Hidden branches, the last deleted one last.
        tags: Commit or tag object by tag name, sorted.
        aliases: Commit by alias name, sorted.
        alias_notes: Who moved each alias why.
        git: Live Git packs.
        manifests: Live manifests.
        packs: Live packs.
        alias_logs: The last move of each alias that has a log, removed ones too, sorted.
    """

    number: int
    branches: Mapping[str, BranchState]
    deleted: tuple[BranchState, ...]
    tags: Mapping[str, str]
    aliases: Mapping[str, str]
    alias_notes: Mapping[str, AliasState]
    git: tuple[StoredFile, ...]
    manifests: tuple[StoredFile, ...]
    packs: tuple[StoredFile, ...]
    alias_logs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def branch(self, name: str) -> BranchState:
        """The visible branch of this name.

        Raises:
            NotFound: There is none; the message says which there are.
        """
        found = self.branches.get(name)
        if found is None:
            raise NotFound(f"no branch {name!r}; {listed('there is', 'there are', self.branches)}")
        return found

    def default_branch(self) -> BranchState | None:
        """The branch that others are compared with: `main`, where there is none the first by name."""
        return self.branches.get("main") or next(iter(self.branches.values()), None)

    def branch_by_id(self, branch_id: str) -> BranchState | None:
        """The branch with this id, visible or deleted."""
        every = (*self.branches.values(), *self.deleted)
        return next((branch for branch in every if branch.id == branch_id), None)

    def alias_log(self, name: str) -> str:
        """The last move of an alias, which may be its removal.

        Raises:
            NotFound: There never was one of this name, or its moves aren't kept.
        """
        found = self.alias_logs.get(name)
        if found is None:
            raise NotFound(f"no alias {name!r}; {listed('there is', 'there are', self.alias_logs)}")
        return found

    def tips(self) -> list[str]:
        """Every commit and tag object that a ref holds: deleted branches, work in progress and moves of aliases included."""
        every = (*self.branches.values(), *self.deleted)
        work = [branch.work for branch in every if branch.work is not None]
        return list(dict.fromkeys([*self.version_tips(), *work, *self.alias_logs.values()]))

    def version_tips(self) -> list[str]:
        """Every commit and tag object that a ref names, deleted branches included, work and moves of aliases not."""
        branches = [branch.tip for branch in (*self.branches.values(), *self.deleted) if branch.tip is not None]
        return list(dict.fromkeys([*branches, *self.tags.values(), *self.aliases.values()]))


def new_id() -> str:
    """A random name: of a branch, a model, a store file."""
    return secrets.token_hex(16)


def listed(one: str, many: str, names: Iterable[str]) -> str:
    """Names for a message: `one` or `many`, then the first of them."""
    shown = sorted(names)
    if not shown:
        return f"{one} none"
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return f"{one if len(shown) == 1 else many} {', '.join(shown[:20])}{more}"


def collision(name: str, taken: Iterable[str]) -> str | None:
    """The taken name that keeps `name` from being used: itself, or one that is a directory of the other."""
    return next(
        (other for other in taken if other == name or other.startswith(name + "/") or name.startswith(other + "/")),
        None,
    )


class RefTable:
    """Refs on which changes are applied one after another."""

    def __init__(self) -> None:
        self._visible: dict[str, BranchState] = {}
        self._hidden: dict[str, BranchState] = {}
        self._tags: dict[str, str] = {}
        self._aliases: dict[str, AliasState] = {}
        self._alias_logs: dict[str, str] = {}

    @classmethod
    def of(cls, refs: Refs) -> RefTable:
        """A table with these refs."""
        table = cls()
        table._visible = {branch.id: branch for branch in refs.branches.values()}
        table._hidden = {branch.id: branch for branch in refs.deleted}
        table._tags = dict(refs.tags)
        table._aliases = dict(refs.alias_notes)
        table._alias_logs = dict(refs.alias_logs)
        return table

    @classmethod
    def load(
        cls, branches: Iterable[BranchState], tags: Iterable[TagChange], aliases: Iterable[AliasChange], where: str
    ) -> RefTable:
        """A table with what a checkpoint lists.

        Raises:
            CorruptData: Two branches collide, or a name can't be one.
        """
        table = cls()
        for branch in branches:
            if (branch.tip is None) != (branch.version == 0):
                raise CorruptData(f"{where}: branch {branch.name!r} has version {branch.version} and tip {branch.tip}")
            try:
                check_ref_name(branch.name)
            except InvalidName as error:
                raise CorruptData(f"{where}: {error}") from error
            (table._hidden if branch.deleted else table._visible)[branch.id] = branch
        names = sorted(branch.name + "/" for branch in table._visible.values())
        for name, following in itertools.pairwise(names):
            if following.startswith(name):
                raise CorruptData(f"{where}: branches {name[:-1]!r} and {following[:-1]!r} collide")
        changes: list[RefChange] = [*tags, *aliases]
        for change in changes:
            table.apply(change, where)
        return table

    def apply(self, change: RefChange, where: str) -> None:
        """Takes in one change of a record that `where` names.

        Raises:
            CorruptData: The change doesn't fit what was before.
        """
        try:
            match change:
                case BranchMove():
                    self._move(change, where)
                case BranchHide():
                    branch = self._visible.pop(change.branch, None)
                    if branch is None:
                        raise CorruptData(f"{where}: deletes branch {change.branch}, which isn't there")
                    self._hidden[branch.id] = replace(branch, deleted=True, work=None, work_base=None)
                case BranchDrop():
                    if self._hidden.pop(change.branch, None) is None:
                        raise CorruptData(f"{where}: drops branch {change.branch}, which is no deleted one")
                case WorkMove():
                    branch = self._visible.get(change.branch)
                    if branch is None:
                        raise CorruptData(f"{where}: moves the work of branch {change.branch}, which isn't there")
                    base = None if change.work is None else change.base
                    self._visible[branch.id] = replace(branch, work=change.work, work_base=base)
                case TagChange():
                    check_ref_name(change.tag, "tag")
                    _set(self._tags, change.tag, change.target)
                case AliasChange():
                    check_ref_name(change.alias, "alias")
                    target, log = change.target, change.log or self._alias_logs.get(change.alias)
                    state = None if target is None else AliasState(target, change.who, change.why, log)
                    _set(self._aliases, change.alias, state)
                    _set(self._alias_logs, change.alias, log)
        except InvalidName as error:
            raise CorruptData(f"{where}: {error}") from error

    def _move(self, change: BranchMove, where: str) -> None:
        check_ref_name(change.name)
        old = self._visible.get(change.branch) or self._hidden.get(change.branch)
        if (change.tip is None) != (change.version == 0):
            raise CorruptData(f"{where}: branch {change.name!r} has version {change.version} and tip {change.tip}")
        if old is not None:
            stays = old.tip == change.tip
            if stays != (old.version == change.version) or change.version < old.version:
                raise CorruptData(
                    f"{where}: branch {change.name!r} goes from version {old.version} ({old.tip}) "
                    f"to {change.version} ({change.tip})"
                )
        others = [branch.name for branch in self._visible.values() if branch.id != change.branch]
        if (other := collision(change.name, others)) is not None:
            raise CorruptData(f"{where}: branch {change.name!r} collides with branch {other!r}")
        protected = change.protected
        if protected is None:
            protected = old is not None and old.protected
        self._hidden.pop(change.branch, None)
        work, work_base = (None, None) if old is None else (old.work, old.work_base)
        self._visible[change.branch] = BranchState(
            change.branch, change.name, change.tip, change.version, False, protected, work, work_base
        )

    def refs(
        self,
        number: int,
        git: tuple[StoredFile, ...],
        manifests: tuple[StoredFile, ...],
        packs: tuple[StoredFile, ...],
    ) -> Refs:
        """The refs as they are now, with the live files given."""
        aliases = dict(sorted(self._aliases.items()))
        return Refs(
            number,
            MappingProxyType({b.name: b for b in sorted(self._visible.values(), key=lambda b: b.name)}),
            tuple(self._hidden.values()),
            MappingProxyType(dict(sorted(self._tags.items()))),
            MappingProxyType({name: alias.target for name, alias in aliases.items()}),
            MappingProxyType(aliases),
            git,
            manifests,
            packs,
            MappingProxyType(dict(sorted(self._alias_logs.items()))),
        )


def _set(names: dict[str, V], name: str, value: V | None) -> None:
    if value is None:
        names.pop(name, None)
    else:
        names[name] = value
