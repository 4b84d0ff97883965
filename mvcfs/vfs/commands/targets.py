"""What a command is about: a model, a branch, a revision, a path, parsed from its arguments in one place.

A path under a mount is read as the kernel would walk it, from what the mount shows; outside one, `model/branch/path` is read
the same way. Branch names may have slashes, so the longest branch that the path starts with is meant. Threading: trio thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mvcfs.errors import InvalidArgument, NotFound
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.virtual import names_snapshot


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is about.

    Attributes:
        model: The model, None for the whole store.
        branch: Name of the branch, None for the model or a revision that names none.
        revision: The revision, None for the working tree or the branch's tip.
        path: Path below, without slashes at its ends.
    """

    model: OpenModel | None
    branch: str | None = None
    revision: str | None = None
    path: bytes = b""

    def require_model(self) -> OpenModel:
        """The model; InvalidArgument where the target is the whole store."""
        if self.model is None:
            raise InvalidArgument("name a model: MOUNTPOINT/MODEL, or MODEL with --store")
        return self.model

    def require_branch(self) -> tuple[OpenModel, str]:
        """Model and branch; InvalidArgument where the target names none."""
        model = self.require_model()
        if self.branch is None:
            branches = ", ".join(sorted(model.data.repository.refs.branches)) or "none yet"
            raise InvalidArgument(f"name a branch of {model.name}, such as {model.name}/main (there are: {branches})")
        return model, self.branch


async def parse_target(engine: StoreService, args: dict[str, Any]) -> Target:
    """Reads the target of a command's arguments.

    Args:
        engine: The engine.
        args: `mount_path` (a path relative to the mount point) or `target` (`model`, `branch`, `revision`, `path`); neither
            means the whole store.

    Raises:
        NotFound: There is no such model or branch.
    """
    if args.get("mount_path") is not None:
        return await _walk_part(engine, str(args["mount_path"]))
    target = args.get("target")
    if not target or not target.get("model"):
        return Target(None)
    model = await engine.model(str(target["model"]))
    path = os.fsencode(str(target.get("path") or "")).strip(b"/")
    branch, revision = target.get("branch"), target.get("revision")
    if branch is not None and branch not in model.data.repository.refs.branches:
        return await _walk(engine, "/".join(filter(None, (model.name, branch, os.fsdecode(path)))), revision)
    return Target(model, branch, revision, path)


async def _walk_part(engine: StoreService, text: str) -> Target:
    """Reads a path that starts at what the mount shows."""
    model, branch, snapshot = engine.part.model, engine.part.branch, engine.part.snapshot
    if model is None:
        return await _walk(engine, text)
    path = os.fsencode("/".join(part for part in text.split("/") if part and part != "."))
    if branch is not None:
        return Target(model, branch.tree.branch_name, None, path)
    if snapshot is not None:
        return Target(model, branch_of(model, engine.part.revision or ""), snapshot.commit, path)
    return await _walk_model(model, [part for part in os.fsdecode(path).split("/") if part], None)


async def _walk(engine: StoreService, text: str, revision: str | None = None) -> Target:
    parts = [part for part in text.split("/") if part and part != "."]
    if not parts:
        return Target(None)
    return await _walk_model(await engine.model(parts[0]), parts[1:], revision)


async def _walk_model(model: OpenModel, rest: list[str], revision: str | None) -> Target:
    if not rest:
        return Target(model, None, revision)
    if rest[0] == ".history":
        return await _walk_history(model, rest[1:])
    branches = model.data.repository.refs.branches
    for length in range(len(rest), 0, -1):
        name = "/".join(rest[:length])
        if name in branches:
            return Target(model, name, revision, os.fsencode("/".join(rest[length:])))
    for length in range(1, len(rest) + 1):
        name = "/".join(rest[:length])
        refs = model.data.repository.refs
        if names_snapshot(rest[length - 1]) or name in refs.tags or name in refs.aliases:
            return Target(model, branch_of(model, name), name, os.fsencode("/".join(rest[length:])))
    shown = ", ".join(sorted(branches)) or "none"
    raise NotFound(f"{model.name} has no branch, tag or version {'/'.join(rest)} (its branches: {shown})")


def branch_of(model: OpenModel, revision: str) -> str | None:
    """The branch that a revision is written with, `main` of `main@42`; None for another kind."""
    for mark in ("@", "~"):
        name = revision.split(mark, 1)[0]
        if name in model.data.repository.refs.branches:
            return name
    return None


async def _walk_history(model: OpenModel, parts: list[str]) -> Target:
    kind, rest = (parts[0] if parts else ""), parts[1:]
    repository = model.data.repository
    if kind == "commits" and rest:
        return Target(model, None, await repository.commits_matching(rest[0]), os.fsencode("/".join(rest[1:])))
    known = {"branches": repository.refs.branches, "tags": repository.refs.tags, "aliases": repository.refs.aliases}
    for length in range(len(rest), 0, -1):
        name = "/".join(rest[:length])
        if kind == "branches" and name in known["branches"]:
            if length == len(rest):
                return Target(model, name)
            version = rest[length].split("_", 1)[0]
            commit = await repository.version_commit(name, int(version)) if version.isdecimal() else None
            return Target(model, name, commit, os.fsencode("/".join(rest[length + 1 :])))
        if kind in ("tags", "aliases") and name in known[kind]:
            return Target(model, None, name, os.fsencode("/".join(rest[length:])))
    return Target(model)
