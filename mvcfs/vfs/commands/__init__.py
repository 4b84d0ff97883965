"""The commands of a store: JSON in, JSON out, the same over a mount's socket and without a mount.

Keys and their units are part of the command line's promise (`docs/cli.md`). Errors are those of `mvcfs.errors`. Threading:
trio thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.aliases import AliasCommands
from mvcfs.vfs.commands.branches import BranchCommands
from mvcfs.vfs.commands.check import check_store
from mvcfs.vfs.commands.diff import DiffCommands
from mvcfs.vfs.commands.diff_tensors import TensorCommands
from mvcfs.vfs.commands.edits import EditCommands
from mvcfs.vfs.commands.git_export import GitExportCommands
from mvcfs.vfs.commands.git_import import GitImportCommands
from mvcfs.vfs.commands.history import HistoryCommands
from mvcfs.vfs.commands.models import ModelCommands
from mvcfs.vfs.commands.show import ShowCommands
from mvcfs.vfs.commands.state import StateCommands
from mvcfs.vfs.commands.sync import SyncCommands
from mvcfs.vfs.commands.tags import TagCommands
from mvcfs.vfs.service import StoreService

Command = Callable[[Json], Awaitable[Json]]


def command_table(engine: StoreService) -> Mapping[str, Command]:
    """The commands of a store in use, by name."""
    state, history = StateCommands(engine), HistoryCommands(engine)
    branches, tags, models = BranchCommands(engine), TagCommands(engine), ModelCommands(engine)
    aliases, edits = AliasCommands(engine), EditCommands(engine)

    async def fsck(args: Json) -> Json:
        return await check_store(engine, data=bool(args.get("data")))

    return {
        "status": state.status,
        "commit": state.commit,
        "sync": SyncCommands(engine).sync,
        "info": state.info,
        "log": history.log,
        "history": history.history,
        "diff": DiffCommands(engine).diff,
        "show": ShowCommands(engine).show,
        "diff_tensors": TensorCommands(engine).diff_tensors,
        "branches": branches.branches,
        "branch_create": branches.create,
        "branch_rename": branches.rename,
        "branch_protect": branches.protect,
        "branch_delete": branches.delete,
        "branch_undelete": branches.undelete,
        "tags": tags.tags,
        "tag_create": tags.create,
        "tag_delete": tags.delete,
        "aliases": aliases.aliases,
        "alias_set": aliases.set,
        "alias_delete": aliases.delete,
        "alias_log": aliases.log,
        "undelete": models.undelete,
        "merge": edits.merge,
        "restore": edits.restore,
        "revert": edits.revert,
        "fsck": fsck,
        "git_export": GitExportCommands(engine).git_export,
        "git_import": GitImportCommands(engine).git_import,
    }
