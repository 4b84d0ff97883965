"""Which refs of a Git repository become what in a model, and the ref changes that it takes.

A branch's version number is the length of its tip's chain of first parents, so every version of an imported branch has
its number, as if it had been made here. Pure but for reading commits of the objects given; for any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mvcfs.errors import Conflict, CorruptData, InvalidName, LimitExceeded, MvcfsError, ReadOnly
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.log.alias_log import moves
from mvcfs.versions.log.records import AliasChange, BranchMove, RefChange, TagChange
from mvcfs.versions.log.refs import Refs, collision, new_id
from mvcfs.versions.names import check_ref_name

_KINDS = {"branch": "refs/heads/", "tag": "refs/tags/", "alias": "refs/mvcfs/aliases/"}
_LOGS = "refs/mvcfs/alias-logs/"
_SHOWN = 5
_MOST_REFS = 100_000
"""All refs of an import are in one record, which may have 64 MiB, and in every checkpoint."""
_WHY = "imported from Git"


@dataclass(frozen=True, slots=True)
class ChosenRefs:
    """Refs that are to be in a model.

    Attributes:
        branches: Commit by the name in the model.
        tags: Commit or tag object by name.
        aliases: Commit by name.
        logs: Last move by the name of the alias, also of removed ones.
        source: What they hold by their full names in the source.
        left_out: Refs of the source that aren't taken.
    """

    branches: Mapping[str, str]
    tags: Mapping[str, str]
    aliases: Mapping[str, str]
    logs: Mapping[str, str]
    source: Mapping[str, str]
    left_out: tuple[str, ...]


@dataclass(slots=True)
class ImportPlan:
    """What an import comes to on the refs as they are.

    Attributes:
        changes: The ref changes.
        branches: (name, version, tip, whether it moves) of each branch of the source.
    """

    changes: list[RefChange] = field(default_factory=list)
    branches: list[tuple[str, int, str, bool]] = field(default_factory=list)


def choose_refs(refs: Mapping[str, str], renames: Mapping[str, str]) -> ChosenRefs:
    """Sorts a source's refs by what they become.

    Args:
        refs: What each ref holds, by full name.
        renames: The name in the model by the one in the source, which is the short or the full one; "" leaves it out.

    Raises:
        InvalidName: Names can't be in a model, or collide; the message lists them.
        LimitExceeded: There are too many.
    """
    chosen: dict[str, dict[str, str]] = {kind: {} for kind in _KINDS}
    source: dict[str, str] = {}
    left_out: list[str] = []
    wrong: list[str] = []
    used: set[str] = set()
    logs: dict[str, str] = {}
    for full, oid in refs.items():
        if full.startswith(_LOGS):
            # A log goes with its alias, under the alias's new name.
            short = full.removeprefix(_LOGS)
            key = next((key for key in (_KINDS["alias"] + short, short) if key in renames), short)
            name = renames.get(key, short)
            used.add(key)
            if name and name not in logs:
                logs[name], source[full] = oid, oid
            else:
                left_out.append(full)
            continue
        kind = next((kind for kind, prefix in _KINDS.items() if full.startswith(prefix)), None)
        if kind is None:
            left_out.append(full)
            continue
        short = full.removeprefix(_KINDS[kind])
        key = full if full in renames else short
        name = renames.get(key, short)
        used.add(key)
        if not name:
            left_out.append(full)
            continue
        if name in chosen[kind]:
            wrong.append(f"there are two {kind} names {name!r}")
        chosen[kind][name] = oid
        source[full] = oid
    wrong += [f"there is no branch or tag {name!r} to rename" for name in renames if name not in used]
    wrong += _wrong_names(chosen)
    if len(source) > _MOST_REFS:
        raise LimitExceeded(
            f"the repository has {len(source)} branches and tags; a model takes {_MOST_REFS}: leave some out with --rename OLD="
        )
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InvalidName(
            f"{'; '.join(wrong[:_SHOWN])}{more}. Rename with --rename OLD=NEW, or leave out with --rename OLD="
        )
    return ChosenRefs(chosen["branch"], chosen["tag"], chosen["alias"], logs, source, tuple(left_out))


def _wrong_names(chosen: Mapping[str, Mapping[str, str]]) -> list[str]:
    wrong: list[str] = []
    kind_of: dict[str, str] = {}
    for kind, names in chosen.items():
        for name in names:
            try:
                check_ref_name(name, kind)
            except InvalidName as error:
                wrong.append(str(error))
            if kind != "branch" and name.isdigit():
                wrong.append(f"no {kind} can be called {name!r}: it reads as a version number")
            if name in kind_of:
                wrong.append(f"{name!r} is a {kind_of[name]} and a {kind}")
            kind_of.setdefault(name, kind)
            parts = name.split("/")
            above = next((up for n in range(1, len(parts)) if (up := "/".join(parts[:n])) in names), None)
            if above is not None:
                wrong.append(f"{above!r} and {name!r} can't both be a {kind}: one is a directory of the other")
    return wrong


def check_targets(objects: GitObjects, chosen: ChosenRefs) -> None:
    """Makes sure that every tag and alias stands for a commit, and that logs of aliases are such.

    Raises:
        InvalidName: Some don't; the message lists them.
        CorruptData: What stands where a log should is none.
        NotFound: An object is missing.
    """
    wrong = []
    for log in chosen.logs.values():
        for _ in moves(objects, log):
            pass
    for name, oid in [*chosen.branches.items(), *chosen.tags.items(), *chosen.aliases.items()]:
        try:
            objects.peel(oid)
        except CorruptData:
            wrong.append(repr(name))
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InvalidName(
            f"{', '.join(wrong[:_SHOWN])}{more} {'is' if len(wrong) == 1 else 'are'} of no commit: leave out with --rename NAME="
        )


class Planner:
    """Plans an import on the refs as they are, again after each lost race."""

    def __init__(self, objects: GitObjects, chosen: ChosenRefs, *, who: str) -> None:
        """`objects` holds all commits that the chosen refs lead to; `who` imports them."""
        self._objects = objects
        self._chosen = chosen
        self._who = who
        self._lengths: dict[str, int] = {}

    def plan(self, refs: Refs) -> ImportPlan:
        """The changes that bring the chosen refs in.

        Raises:
            Conflict: A branch or tag is there already and can't become what the source has, or a name collides.
            ReadOnly: A branch that would move is protected.
        """
        plan = ImportPlan()
        problems: list[MvcfsError] = []
        for name, tip in self._chosen.branches.items():
            try:
                self._plan_branch(plan, refs, name, tip)
            except (Conflict, ReadOnly) as error:
                problems.append(error)
        others = set(refs.tags) | set(refs.aliases)
        for name, target in self._chosen.tags.items():
            there = refs.tags.get(name)
            if there is None:
                problems += self._taken(name, "tag", refs.tags, set(refs.branches) | set(refs.aliases))
                plan.changes.append(TagChange(name, target))
            elif there != target:
                problems.append(Conflict(f"tag {name!r} is {there[:10]} here and {target[:10]} in the repository"))
        for name, target in self._chosen.aliases.items():
            # An alias that is there has a history of its own here: it stays.
            if name not in refs.aliases:
                known = {*refs.aliases, *refs.alias_logs} - {name}
                problems += self._taken(name, "alias", known, others - set(refs.aliases) | set(refs.branches))
                plan.changes.append(AliasChange(name, target, self._who, _WHY, self._log(refs, name, target)))
        for name in self._chosen.logs.keys() - self._chosen.aliases.keys() - refs.alias_logs.keys():
            log = self._log(refs, name, None)
            if log is not None and collision(name, {*refs.aliases, *refs.alias_logs, *self._chosen.aliases}) is None:
                plan.changes.append(AliasChange(name, None, self._who, _WHY, log))
        if problems:
            more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise type(problems[0])("; ".join(str(problem) for problem in problems[:_SHOWN]) + more)
        return plan

    def _log(self, refs: Refs, name: str, target: str | None) -> str | None:
        """The log that an alias gets with a target; None if it has one here, or the source's ends elsewhere."""
        log = self._chosen.logs.get(name)
        if log is None or name in refs.alias_logs or next(moves(self._objects, log)).target != target:
            return None
        return log

    def _plan_branch(self, plan: ImportPlan, refs: Refs, name: str, tip: str) -> None:
        old = refs.branches.get(name)
        if old is None:
            for problem in self._taken(name, "branch", refs.branches, {*refs.tags, *refs.aliases}):
                raise problem
        if old is not None and old.tip == tip:
            plan.branches.append((name, old.version, tip, False))
            return
        if old is not None and old.protected:
            raise ReadOnly(f"branch {name!r} is protected")
        version = self._length(tip)
        if old is not None and old.tip is not None:
            steps = self._steps(tip, old.tip)
            if steps is None:
                raise Conflict(
                    f"branch {name!r}: the repository's {tip[:10]} does not lead to version {old.version} "
                    f"({old.tip[:10]}) by first parents"
                )
            version = old.version + steps
        plan.changes.append(BranchMove(new_id() if old is None else old.id, name, tip, version))
        plan.branches.append((name, version, tip, True))

    def _taken(self, name: str, kind: str, same: Iterable[str], other: Iterable[str]) -> list[MvcfsError]:
        """What keeps a new name from being used in this model."""
        found = collision(name, same)
        if found is not None:
            return [Conflict(f"{name!r} and {found!r}, which the model has, can't both be a {kind}")]
        if name in other:
            return [Conflict(f"the model uses {name!r}, a {kind} of the repository, for something else")]
        return []

    def _length(self, tip: str) -> int:
        """How many commits there are from a tip to its root by first parents. What was walked is kept."""
        path: list[str] = []
        oid: str | None = tip
        while oid is not None and oid not in self._lengths:
            path.append(oid)
            parents = self._objects.read_commit(oid).parents
            oid = parents[0] if parents else None
        length = 0 if oid is None else self._lengths[oid]
        for step in reversed(path):
            length += 1
            self._lengths[step] = length
        return length

    def _steps(self, tip: str, old: str) -> int | None:
        """How many first-parent steps `old` is behind `tip`, None if it isn't."""
        steps = self._length(tip) - self._lengths[old] if old in self._lengths else None
        oid: str | None = tip
        for _ in range(steps or 0):
            parents = self._objects.read_commit(oid).parents if oid is not None else ()
            oid = parents[0] if parents else None
        return steps if oid == old else None
