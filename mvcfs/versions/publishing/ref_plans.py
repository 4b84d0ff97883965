"""What a wish about branches, tags and aliases comes to: the ref changes to publish, or why it can't be.

Each function looks at the refs as they are. Whoever publishes plans anew after a lost race, so a name that another host
took in between is refused. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from mvcfs.errors import AlreadyExists, InvalidName, NotFound, ReadOnly
from mvcfs.versions.log.records import AliasChange, BranchHide, BranchMove, TagChange
from mvcfs.versions.log.refs import BranchState, Refs, collision, listed
from mvcfs.versions.names import check_ref_name


def _check_free(refs: Refs, name: str, what: str, *, but: str | None = None) -> None:
    """A new name must collide with no other, of whatever kind: a mount shows them side by side, and a slash as a directory.

    Raises:
        InvalidName, AlreadyExists: It can't be used.
    """
    check_ref_name(name, what)
    kinds: tuple[tuple[str, Mapping[str, object]], ...] = (
        ("branch", refs.branches),
        ("tag", refs.tags),
        ("alias", refs.aliases),
    )
    for kind, names in kinds:
        taken = [other for other in names if other != but]
        article = "an" if kind == "alias" else "a"
        if name in taken:
            raise AlreadyExists(f"there is already {article} {kind} {name!r}")
        other = collision(name, taken)
        if other is not None:
            raise AlreadyExists(
                f"there is {article} {kind} {other!r}: {name!r} can't be beside it, one is a directory of the other"
            )


def protected_error(branch: str) -> ReadOnly:
    """The refusal of a publish to a protected branch."""
    return ReadOnly(f"branch {branch!r} is protected: use `mvcfs merge`, or `mvcfs commit --override-protection`")


def _changeable(branch: BranchState) -> BranchState:
    if branch.protected:
        raise ReadOnly(f"branch {branch.name!r} is protected; `mvcfs branch --unprotect` lifts that")
    return branch


def plan_create_branch(refs: Refs, branch_id: str, name: str, commit: str | None) -> BranchMove:
    """Makes a branch, at a commit or empty. InvalidName, AlreadyExists."""
    _check_free(refs, name, "branch")
    return BranchMove(branch_id, name, commit, 0 if commit is None else 1)


def plan_delete_branch(refs: Refs, name: str) -> BranchHide:
    """Hides a branch. NotFound, ReadOnly for a protected one."""
    return BranchHide(_changeable(refs.branch(name)).id)


def plan_rename_branch(refs: Refs, old: str, new: str) -> BranchMove:
    """Gives a branch another name. NotFound, InvalidName, AlreadyExists, ReadOnly."""
    branch = _changeable(refs.branch(old))
    _check_free(refs, new, "branch", but=old)
    return BranchMove(branch.id, new, branch.tip, branch.version)


def plan_protect_branch(refs: Refs, name: str, protected: bool) -> BranchMove:
    """Sets or lifts a branch's protection. NotFound."""
    branch = refs.branch(name)
    return BranchMove(branch.id, branch.name, branch.tip, branch.version, protected)


def plan_show_branch(refs: Refs, name: str) -> BranchState:
    """The deleted branch that comes back under this name: the last deleted one. NotFound, AlreadyExists."""
    found = next((branch for branch in reversed(refs.deleted) if branch.name == name), None)
    if found is None:
        if name in refs.branches:
            raise AlreadyExists(f"branch {name!r} isn't deleted")
        names = {branch.name for branch in refs.deleted}
        raise NotFound(f"no deleted branch {name!r}; {listed('deleted is', 'deleted are', names)}")
    _check_free(refs, name, "branch")
    return found


def plan_create_tag(refs: Refs, name: str, target: str) -> TagChange:
    """Makes a tag. InvalidName, AlreadyExists."""
    _check_free(refs, name, "tag")
    if name.isdigit():
        raise InvalidName(f"no tag can be called {name!r}: it reads as a version number")
    return TagChange(name, target)


def plan_delete_tag(refs: Refs, name: str) -> TagChange:
    """Removes a tag. NotFound."""
    if name not in refs.tags:
        raise NotFound(f"no tag {name!r}; {listed('there is', 'there are', refs.tags)}")
    return TagChange(name, None)


def plan_set_alias(refs: Refs, name: str, target: str, who: str, why: str) -> AliasChange:
    """Makes or moves an alias. InvalidName, AlreadyExists for a name that a branch or tag has."""
    _check_free(refs, name, "alias", but=name if name in refs.aliases else None)
    other = collision(name, [other for other in refs.alias_logs if other != name])
    if other is not None:
        raise AlreadyExists(
            f"{name!r} and {other!r}, a removed alias whose moves are kept, can't both be an alias: "
            "one is a directory of the other"
        )
    if name.isdigit():
        raise InvalidName(f"no alias can be called {name!r}: it reads as a version number")
    return AliasChange(name, target, who, why)


def plan_delete_alias(refs: Refs, name: str, who: str, why: str = "") -> AliasChange:
    """Removes an alias. NotFound."""
    if name not in refs.aliases:
        raise NotFound(f"no alias {name!r}; {listed('there is', 'there are', refs.aliases)}")
    return AliasChange(name, None, who, why)
