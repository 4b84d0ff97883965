"""What stands above the branches: the root with its models, a model with its branches, levels of branch names.

Models and branches are made by mkdir, renamed by mv, removed by rmdir when they are empty. Past versions and `.history` are
found by name and stand in no listing, so that `cp -r`, `du` and backups of a model don't walk every version.

Threading: trio thread.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Sequence

from mvcfs.errors import (
    AlreadyExists,
    CrossDevice,
    InvalidName,
    MvcfsError,
    NotEmpty,
    NotFound,
    NotPermitted,
)
from mvcfs.types import Caller
from mvcfs.vfs.history import HistoryTree
from mvcfs.vfs.inode import ROOT_INO, Inode
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.shown_names import LEVEL
from mvcfs.vfs.snapshot import SnapshotDir, open_snapshot
from mvcfs.vfs.virtual import VirtualDir, decode_name, names_snapshot
from mvcfs.vfs.working_tree.namespace import RENAME_EXCHANGE, RENAME_NOREPLACE, check_name
from mvcfs.vfs.working_tree.node import Node

HISTORY_NAME = b".history"


class RootDir(VirtualDir):
    """The root of a mount: the models of a store."""

    __slots__ = ("_models", "_service")

    def __init__(self, engine: StoreService) -> None:
        super().__init__(engine, ROOT_INO)
        self._service = engine
        self._models: dict[str, LevelDir] = {}

    def describe(self) -> str:
        """See `Inode.describe`."""
        return "the root of the store"

    def refuse(self, doing: str) -> MvcfsError:
        """See `Inode.refuse`."""
        return NotPermitted(f"{self.describe()} holds models only ({doing}): make one with mkdir")

    async def child(self, name: bytes) -> Inode:
        """See `Inode.child`."""
        check_name(name)
        text = decode_name(name)
        model = await self._service.model(text)
        level = self._models.get(model.data.id)
        if level is None or level.model is not model:
            level = LevelDir(self._service, model, "")
            self._models[model.data.id] = level
        return level

    async def look_again(self) -> None:
        """See `Inode.look_again`."""
        self._service.models.forget_names()

    async def names(self) -> Sequence[bytes]:
        """See `Inode.names`."""
        return [name.encode() for name in await self._service.models.names()]

    async def mkdir(self, name: bytes, mode: int, caller: Caller) -> Inode:
        """Makes a model with an empty branch `main`."""
        check_name(name)
        text = _new_name(name)
        await self._service.create_model(text)
        level = await self.child(name)
        assert isinstance(level, LevelDir)
        await level.adopt_creator("main", mode, caller)
        return level

    async def rmdir(self, name: bytes, caller: Caller) -> None:
        """Removes a model whose last branch is empty; `mvcfs undelete` brings it back."""
        await self._service.remove_model(decode_name(name))

    async def rename_child(self, name: bytes, target: Inode, new_name: bytes, flags: int) -> None:
        """Renames a model."""
        if target is not self:
            raise CrossDevice("a model can't move into a model")
        if flags & RENAME_EXCHANGE:
            raise NotPermitted("models can't be exchanged")
        await self._service.rename_model(decode_name(name), _new_name(new_name))


def _new_name(name: bytes) -> str:
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidName(f"{name!r}: a name of a model or branch is UTF-8") from None
    if names_snapshot(text):
        raise InvalidName(f"{text!r}: names with @ or ~ are those of past versions")
    return text


class LevelDir(VirtualDir):
    """A model, or a level of its branches' names (`feature` of `feature/x`)."""

    __slots__ = ("_history", "_levels", "_prefix", "_service", "_snapshots", "model")

    def __init__(self, engine: StoreService, model: OpenModel, prefix: str, ino: int | None = None) -> None:
        super().__init__(engine, engine.allocate_ino() if ino is None else ino)
        self._service = engine
        self.model = model
        self._prefix = prefix
        self._levels: dict[str, LevelDir] = {}
        self._snapshots: dict[str, SnapshotDir] = {}
        self._history = HistoryTree(engine, model)
        model.shown.add(LEVEL, prefix, self.ino)

    def describe(self) -> str:
        """See `Inode.describe`."""
        return f"{self.model.name}/{self._prefix}".rstrip("/")

    def refuse(self, doing: str) -> MvcfsError:
        """See `Inode.refuse`: only branches can be made here."""
        branches = sorted(self.model.data.repository.refs.branches)
        example = f"{self.model.name}/{branches[0] if branches else 'main'}"
        self._service.warn_once(
            f"{self.describe()} holds branches only ({doing}): write into a branch, such as {example}"
        )
        return NotPermitted(f"{self.describe()} holds branches only ({doing}): write into a branch, such as {example}")

    def _full(self, name: str) -> str:
        return self._prefix + name

    async def child(self, name: bytes) -> Inode:
        """See `Inode.child`: a branch, a level, `.history`, or a past version by its name."""
        check_name(name)
        text = decode_name(name)
        if name == HISTORY_NAME and not self._prefix:
            return self._history.root()
        full = self._full(text)
        branches = self.model.data.repository.refs.branches
        if full in branches:
            return (await self.model.branch(full)).tree.root
        if any(other.startswith(full + "/") for other in branches):
            return self._level(text)
        refs = self.model.data.repository.refs
        if any(other.startswith(full + "/") for names in (refs.tags, refs.aliases) for other in names):
            return self._level(text)
        return await self._snapshot(full)

    def _level(self, name: str) -> LevelDir:
        found = self._levels.get(name)
        if found is None:
            found = self._levels[name] = LevelDir(self._service, self.model, self._full(name) + "/")
        return found

    async def _snapshot(self, full: str) -> SnapshotDir:
        repository = self.model.data.repository
        refs = repository.refs
        if not names_snapshot(full) and full not in refs.tags and full not in refs.aliases:
            raise NotFound(f"{self.model.name} has no branch, tag or version {full}")
        try:
            commit = await repository.resolve(full)
        except InvalidName as error:
            raise NotFound(str(error)) from error
        found = self._snapshots.get(full)
        if found is None or found.commit != commit:
            found = await open_snapshot(self.model.data, self._service.pool, commit)
            found.on_forgotten = functools.partial(self._snapshot_forgotten, full, found)
            self._snapshots[full] = found
        return found

    def _snapshot_forgotten(self, full: str, gone: SnapshotDir) -> None:
        """An alias may stand for another commit by now."""
        if self._snapshots.get(full) is gone:
            del self._snapshots[full]

    async def look_again(self) -> None:
        """See `Inode.look_again`."""
        await self.model.freshness.wait()

    async def names(self) -> Sequence[bytes]:
        """See `Inode.names`: branches and levels, past versions not."""
        names = {
            branch[len(self._prefix) :].split("/", 1)[0]
            for branch in self.model.data.repository.refs.branches
            if branch.startswith(self._prefix)
        }
        listed = [name.encode() for name in sorted(names)]
        if self._service.config.show_history and not self._prefix:
            listed.append(HISTORY_NAME)
        return listed

    async def mkdir(self, name: bytes, mode: int, caller: Caller) -> Inode:
        """Makes an empty branch."""
        check_name(name)
        full = self._full(_new_name(name))
        await self.model.data.repository.create_branch(full, None)
        self._kernel_knows()
        return await self.adopt_creator(full, mode, caller)

    async def adopt_creator(self, branch: str, mode: int, caller: Caller) -> Node:
        """Gives a new empty branch's directory to who made it."""
        tree = (await self.model.branch(branch)).tree
        if tree.base_commit is None and not tree.root.changed:
            tree.root.uid, tree.root.gid = caller.uid, caller.gid
            tree.root.mode = stat.S_IFDIR | stat.S_IMODE(mode)
        return tree.root

    async def rmdir(self, name: bytes, caller: Caller) -> None:
        """Removes a branch whose directory is empty; `mvcfs branch --undelete` brings back its last version."""
        full = self._full(decode_name(name))
        repository = self.model.data.repository
        if full not in repository.refs.branches:
            if any(other.startswith(full + "/") for other in repository.refs.branches):
                raise NotEmpty(f"{self.model.name}/{full} holds branches")
            raise self.refuse("rmdir") if names_snapshot(full) else NotFound(f"no branch {full} in {self.model.name}")
        await self._service.delete_branch(self.model, full)
        self._kernel_knows()

    def _kernel_knows(self) -> None:
        """What the kernel did itself it needn't be told."""
        self.model.shown.changes(self.model.data.repository.refs)

    async def rename_child(self, name: bytes, target: Inode, new_name: bytes, flags: int) -> None:
        """Renames a branch."""
        if not isinstance(target, LevelDir) or target.model is not self.model:
            raise CrossDevice("a branch stays in its model")
        if flags & RENAME_EXCHANGE:
            raise NotPermitted("branches can't be exchanged")
        repository = self.model.data.repository
        old, new = self._full(decode_name(name)), target._full(_new_name(new_name))
        if old not in repository.refs.branches:
            if any(other.startswith(old + "/") for other in repository.refs.branches):
                raise NotPermitted(f"{old} is a level of branch names: rename its branches one by one")
            raise NotFound(f"{self.model.name} has no branch {old}")
        if old == new:
            return
        if new in repository.refs.branches:
            await self._make_room(new, flags)
        await repository.rename_branch(old, new)
        self._kernel_knows()
        await self.model.follow()

    async def _make_room(self, new: str, flags: int) -> None:
        """POSIX lets a directory be renamed over an empty one."""
        if flags & RENAME_NOREPLACE:
            raise AlreadyExists(f"{self.model.name} has a branch {new}")
        await self._service.delete_branch(self.model, new)
