"""Commands on the aliases of a model: names that move, whose moves are kept. Threading: trio thread."""

from __future__ import annotations

from mvcfs.errors import InvalidArgument
from mvcfs.types import NS_PER_S
from mvcfs.versions.log.alias_log import AliasMove
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.arguments import author_of_request, name_of
from mvcfs.vfs.commands.targets import branch_of, parse_target
from mvcfs.vfs.service import StoreService


class AliasCommands:
    """`alias` and `log --alias`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def aliases(self, args: Json) -> Json:
        """The aliases of a model, each with its last move, and the names of those that were removed."""
        model = (await parse_target(self._engine, args)).require_model()
        repository = model.data.repository
        refs = repository.refs
        return {
            "model": model.name,
            "aliases": [{"alias": move.alias, **_move_json(move)} for move in await repository.aliases()],
            "removed": [name for name in refs.alias_logs if name not in refs.aliases],
        }

    async def set(self, args: Json) -> Json:
        """Makes an alias name a revision, or moves it there."""
        target = await parse_target(self._engine, args)
        model, name = target.require_model(), name_of(args)
        repository = model.data.repository
        revision = str(args.get("revision") or target.revision or target.branch or "")
        if not revision:
            raise InvalidArgument("name the revision to move it to, such as main@42")
        why = str(args.get("message") or "").strip()
        if not why:
            raise InvalidArgument("a move of an alias says why: -m MESSAGE")
        commit = await repository.resolve(revision, branch=target.branch)
        previous = repository.refs.aliases.get(name)
        move = await repository.set_alias(
            name, commit, who=author_of_request(args, self._engine.config.host), why=why,
            branch=target.branch or branch_of(model, revision),
        )  # fmt: skip
        await self._engine.show_refs(model)
        return {"model": model.name, "alias": name, "previous": previous, **_move_json(move)}

    async def delete(self, args: Json) -> Json:
        """Removes an alias; its moves are kept."""
        model = (await parse_target(self._engine, args)).require_model()
        who, why = author_of_request(args, self._engine.config.host), str(args.get("message") or "").strip()
        await model.data.repository.delete_alias(name_of(args), who=who, why=why)
        await self._engine.show_refs(model)
        return {"model": model.name, "alias": name_of(args), "deleted": True}

    async def log(self, args: Json) -> Json:
        """The moves of an alias, newest first, its removals too."""
        model = (await parse_target(self._engine, args)).require_model()
        name, limit = name_of(args), args.get("limit")
        moves = await model.data.repository.alias_moves(name, limit=None if limit is None else int(limit))
        return {"model": model.name, "alias": name, "moves": [_move_json(move) for move in moves]}


def _move_json(move: AliasMove) -> Json:
    return {
        "commit": move.target,
        "branch": move.branch,
        "version": move.version,
        "time_ns": move.time_s * NS_PER_S,
        "who": move.who.name,
        "email": move.who.email,
        "why": move.why,
        "move": move.oid,
        "deleted": move.target is None,
    }
