"""Commands on the tags of a model. Threading: trio thread."""

from __future__ import annotations

from mvcfs.errors import InvalidArgument
from mvcfs.types import NS_PER_S
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands.arguments import author_of_request, name_of
from mvcfs.vfs.commands.targets import parse_target
from mvcfs.vfs.service import StoreService


class TagCommands:
    """`tag`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def tags(self, args: Json) -> Json:
        """The tags of a model, with the version each names."""
        model = (await parse_target(self._engine, args)).require_model()
        repository = model.data.repository
        rows = []
        for tag in await repository.tags():
            info = await repository.commit_info(tag.commit)
            place = await repository.place_of(tag.commit)
            rows.append(
                {
                    "tag": tag.name,
                    "commit": tag.commit,
                    "branch": None if place is None else place.branch,
                    "version": None if place is None else place.version,
                    "time_ns": info.committer_time_s * NS_PER_S,
                    "annotated": tag.annotated,
                    "tagger": None if tag.tagger is None else tag.tagger.name,
                    "email": None if tag.tagger is None else tag.tagger.email,
                    "tagged_ns": None if tag.time_s is None else tag.time_s * NS_PER_S,
                    "message": tag.message,
                }
            )
        return {"model": model.name, "tags": rows}

    async def create(self, args: Json) -> Json:
        """Gives a revision a name for good."""
        target = await parse_target(self._engine, args)
        model = target.require_model()
        repository = model.data.repository
        revision = args.get("revision") or target.revision or target.branch
        if not revision:
            raise InvalidArgument("name the revision to tag, such as main@42")
        commit = await repository.resolve(str(revision), branch=target.branch)
        message = args.get("message")
        author = author_of_request(args, self._engine.config.host) if message else None
        await repository.create_tag(name_of(args), commit, message=message, author=author)
        await self._engine.show_refs(model)
        return {"model": model.name, "tag": name_of(args), "commit": commit, "annotated": bool(message)}

    async def delete(self, args: Json) -> Json:
        """Removes a tag."""
        model = (await parse_target(self._engine, args)).require_model()
        await model.data.repository.delete_tag(name_of(args))
        await self._engine.show_refs(model)
        return {"model": model.name, "tag": name_of(args), "deleted": True}
