"""Commands on the versions of a branch. Threading: trio thread."""

from __future__ import annotations

from mvcfs.errors import NotFound
from mvcfs.types import NS_PER_S
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.targets import parse_target
from mvcfs.vfs.service import StoreService

_DEFAULT_LOG_LIMIT = 1000


class HistoryCommands:
    """`log`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def log(self, args: Json) -> Json:
        """The versions of a branch, newest first."""
        target = await parse_target(self._engine, args)
        model, name = target.require_branch()
        repository = model.data.repository
        limit = int(args.get("limit") or _DEFAULT_LOG_LIMIT)
        versions = await repository.history(name, limit=None if target.revision else limit)
        if target.revision is not None:
            commit = await repository.resolve(target.revision, branch=name)
            at = next((i for i, info in enumerate(versions) if info.commit == commit), None)
            if at is None:
                raise NotFound(f"{target.revision} is no version of {model.name}/{name}")
            versions = versions[at : at + limit]
        tags: dict[str, list[str]] = {}
        for tag in repository.refs.tags:
            tags.setdefault(await repository.resolve(tag), []).append(tag)
        return {
            "model": model.name,
            "branch": name,
            "versions": [
                {
                    "version": info.version,
                    "commit": info.commit,
                    "time_ns": info.time_s * NS_PER_S,
                    "author": info.author.name,
                    "email": info.author.email,
                    "message": info.message,
                    "tags": tags.get(info.commit, []),
                }
                for info in versions
            ],
        }
