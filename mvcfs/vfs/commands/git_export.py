"""A model as a plain Git repository with its large files as Git LFS keeps them. Threading: trio thread; files in threads."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import trio

from mvcfs.content.model_content import ModelContent
from mvcfs.errors import CorruptData, InvalidArgument, LimitExceeded, NotFound
from mvcfs.types import MIB, LargeContent
from mvcfs.vfs.changes import Json
from mvcfs.vfs.command_progress import command_progress
from mvcfs.vfs.commands.local_files import local_errors
from mvcfs.vfs.commands.targets import parse_target
from mvcfs.vfs.service import StoreService

LFS_CHOICES = ("all", "tips", "none")
_RANGE_BYTES = 8 * MIB
_SPARE_BYTES = 64 * MIB


class GitExportCommands:
    """`git-export`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def git_export(self, args: Json) -> Json:
        """Writes a model into a bare Git repository, or brings one that an earlier export wrote up to date."""
        target = await parse_target(self._engine, args)
        model = target.require_model()
        if target.branch is not None or target.revision is not None or target.path:
            raise InvalidArgument(
                f"a whole model is exported: name {model.name} alone; --branch takes some of its branches"
            )
        lfs, directory = str(args.get("lfs") or "all"), Path(str(args.get("directory") or ""))
        if lfs not in LFS_CHOICES or not directory.is_absolute():
            raise InvalidArgument(f"--lfs takes {', '.join(LFS_CHOICES)}, and the folder's path must be absolute")
        await model.refresh()
        progress = command_progress()
        export = model.data.repository.git_export(directory, [str(name) for name in args.get("branches") or ()])
        try:
            with local_errors():
                progress.start("copying Git objects")
                await export.open()
                objects = await export.write_objects()
                large: set[LargeContent] = set()
                if lfs != "none":
                    progress.start("looking for large files")
                    large = await export.large_contents(tips_only=lfs == "tips")
                written = await _LfsFolder(directory / "lfs").write(model.data.content, large)
                progress.start("writing refs")
                refs = await export.write_refs(force=bool(args.get("force")))
        finally:
            export.close()
        return {
            "model": model.name,
            "directory": str(directory),
            "head": refs.head,
            "refs": len(refs.refs),
            "moved_refs": refs.moved,
            "removed_refs": refs.removed,
            "new_packs": objects.packs,
            "new_pack_bytes": objects.size_bytes,
            **written,
        }


class _LfsFolder:
    """The folder `lfs` of a repository, where git-lfs keeps large files by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._limiter = trio.CapacityLimiter(2)

    async def write(self, content: ModelContent, large: Iterable[LargeContent]) -> Json:
        """Writes those that aren't there; tells what there was, what is new, and what the model doesn't have itself.

        Raises:
            LimitExceeded: They don't fit on the disk; nothing of them was written.
            CorruptData: One isn't in the store as its name says.
            StorageError: The store failed.
        """
        every = sorted(large, key=lambda one: one.oid)
        missing: list[LargeContent] = []
        needed = await trio.to_thread.run_sync(self._absent, every, limiter=self._limiter)
        total = sum(one.size_bytes for one in needed)
        await trio.to_thread.run_sync(self._check_room, total, limiter=self._limiter)
        progress = command_progress()
        progress.start("copying large files", total=len(needed), total_bytes=total)
        for one in needed:
            progress.item = one.oid[:12]
            try:
                await self._write_one(content, one)
            except NotFound:
                missing.append(one)
            progress.add(things=1)
        lost = sum(one.size_bytes for one in missing)
        return {
            "lfs_files": len(every),
            "lfs_bytes": sum(one.size_bytes for one in every),
            "new_lfs_files": len(needed) - len(missing),
            "new_lfs_bytes": total - lost,
            "missing_lfs": [{"oid": one.oid, "size_bytes": one.size_bytes} for one in missing],
        }

    def _path(self, one: LargeContent) -> Path:
        return self._folder / "objects" / one.oid[:2] / one.oid[2:4] / one.oid

    def _absent(self, every: Iterable[LargeContent]) -> list[LargeContent]:
        def is_there(one: LargeContent) -> bool:
            try:
                return self._path(one).stat().st_size == one.size_bytes
            except FileNotFoundError:
                return False

        return [one for one in every if not is_there(one)]

    def _check_room(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self._folder.parent).free
        if needed_bytes and needed_bytes + _SPARE_BYTES > free:
            raise LimitExceeded(
                f"{self._folder.parent} has room for {free} bytes, the large files take {needed_bytes}: "
                "take fewer with --lfs tips, --lfs none or --branch"
            )

    async def _write_one(self, content: ModelContent, one: LargeContent) -> None:
        """Writes one file under a temporary name, checks its SHA-256 and gives it its own. NotFound where there is none."""
        reader = await content.open(one) if one.size_bytes else None
        run = functools.partial(trio.to_thread.run_sync, limiter=self._limiter)
        temporary = self._folder / "incomplete" / one.oid
        digest = hashlib.sha256()
        file = await run(_create, temporary)
        try:
            if reader is not None:
                window = reader.window()
                try:
                    for offset in range(0, one.size_bytes, _RANGE_BYTES):
                        data = await reader.read(offset, _RANGE_BYTES, window)
                        await run(_take, file, digest, data)
                        command_progress().add(size_bytes=len(data))
                finally:
                    window.close()
            if digest.hexdigest() != one.oid:
                raise CorruptData(f"large file {one.oid} has the SHA-256 {digest.hexdigest()} in the store")
            await run(_finish, file, temporary, self._path(one))
        finally:
            with trio.CancelScope(shield=True):
                await run(_discard, file, temporary)


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _take(file: IO[bytes], digest: hashlib._Hash, data: bytes | memoryview) -> None:
    digest.update(data)
    file.write(data)


def _discard(file: IO[bytes], temporary: Path) -> None:
    """Removes what was written unless it is in place."""
    with file:
        temporary.unlink(missing_ok=True)


def _finish(file: IO[bytes], temporary: Path, path: Path) -> None:
    """Puts a whole file in place, durably."""
    file.flush()
    os.fsync(file.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.chmod(0o444)
    os.replace(temporary, path)
