"""Commands on models as a whole. Threading: trio thread."""

from __future__ import annotations

from mvcfs.errors import InvalidArgument, NotPermitted
from mvcfs.vfs.changes import Json
from mvcfs.vfs.service import StoreService


class ModelCommands:
    """`undelete`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def undelete(self, args: Json) -> Json:
        """Brings a removed model back."""
        if self._engine.part.model is not None:
            raise NotPermitted("this mount shows one model: name the removed one with --store STORE MODEL")
        name = str(args.get("model") or args.get("mount_path") or "").strip("/")
        if not name or "/" in name:
            raise InvalidArgument("name the removed model: MOUNTPOINT/MODEL, or MODEL with --store")
        states = await self._engine.undelete_model(name)
        return {"model": name, "branches": [{"branch": state.name, "version": state.version} for state in states]}
