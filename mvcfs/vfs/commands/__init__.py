"""The commands of a store: JSON in, JSON out, the same over a mount's socket and without a mount.

Keys and their units are part of the command line's promise (`docs/cli.md`). Errors are those of `mvcfs.errors`. Threading:
trio thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.check import check_store
from mvcfs.vfs.commands.git_export import GitExportCommands
from mvcfs.vfs.commands.history import HistoryCommands
from mvcfs.vfs.commands.refs import RefCommands
from mvcfs.vfs.commands.state import StateCommands
from mvcfs.vfs.service import StoreService

Command = Callable[[Json], Awaitable[Json]]


def command_table(engine: StoreService) -> Mapping[str, Command]:
    """The commands of a store in use, by name."""
    state, history, refs = StateCommands(engine), HistoryCommands(engine), RefCommands(engine)

    async def fsck(args: Json) -> Json:
        return await check_store(engine, data=bool(args.get("data")))

    return {
        "status": state.status,
        "commit": state.commit,
        "info": state.info,
        "log": history.log,
        "branches": refs.branches,
        "branch_create": refs.branch_create,
        "branch_delete": refs.branch_delete,
        "branch_undelete": refs.branch_undelete,
        "tags": refs.tags,
        "tag_create": refs.tag_create,
        "tag_delete": refs.tag_delete,
        "undelete": refs.undelete,
        "fsck": fsck,
        "git_export": GitExportCommands(engine).git_export,
    }
