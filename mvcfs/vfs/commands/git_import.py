"""A Git repository, with the large files of Git LFS, as a model. Threading: trio thread; files and Git in threads and processes."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from mvcfs.content.upload import Upload
from mvcfs.errors import (
    AlreadyExists,
    Conflict,
    CorruptData,
    InvalidArgument,
    MvcfsError,
    NotFound,
    NotPermitted,
    ReadOnly,
    UnknownOutcome,
)
from mvcfs.types import LargeContent, StoredFile
from mvcfs.versions.gather import gather
from mvcfs.versions.log.refs import Refs
from mvcfs.versions.names import check_model_name
from mvcfs.versions.plain_git.git_source import GitSource, Stage
from mvcfs.versions.plain_git.import_plan import ChosenRefs, ImportPlan, check_targets, choose_refs
from mvcfs.vfs.changes import Json
from mvcfs.vfs.command_progress import command_progress
from mvcfs.vfs.commands.local_files import local_errors
from mvcfs.vfs.service import StoreService
from mvcfs.vfs.sources import ModelData

LFS_CHOICES = ("all", "tips")
_SHOWN_PATHS = 20
_FILES_AT_ONCE = 4
_UPLOAD_TRIES = 3


class GitImportCommands:
    """`git-import`."""

    def __init__(self, engine: StoreService) -> None:
        self._engine = engine

    async def git_import(self, args: Json) -> Json:
        """Makes a model of a Git repository on this host, or brings one that was made of it up to date."""
        if self._engine.config.read_only:
            raise ReadOnly("this mount is read-only: nothing can be imported by it")
        if self._engine.part.model is not None:
            raise NotPermitted("this mount shows one model: name the one to make with --store STORE MODEL")
        name, directory = str(args.get("model") or ""), Path(str(args.get("source") or ""))
        check_model_name(name)
        if not directory.is_absolute() or str(args.get("lfs") or "all") not in LFS_CHOICES:
            raise InvalidArgument(f"--lfs takes {' or '.join(LFS_CHOICES)}, and the folder's path must be absolute")
        is_there = name in await self._engine.store.models()
        if is_there:
            await self._check_may_take(name, update=bool(args.get("update")))
        with local_errors():
            async with self._stage() as stage:
                source, chosen = await self._fill(stage, directory, args)
                if is_there:
                    model = await self._engine.model(name)
                    result = await _Import(model.data, source, stage, chosen, args).run()
                    model.data.set_live()
                    await model.follow()
                else:
                    async with self._engine.new_model(name) as data:
                        result = await _Import(data, source, stage, chosen, args).run()
        return {"model": name, "created": not is_there, "left_out_refs": list(chosen.left_out), **result}

    async def _check_may_take(self, name: str, *, update: bool) -> None:
        model = await self._engine.model(name)
        await model.refresh()
        refs = model.data.repository.refs
        if not update and not _is_empty(refs):
            raise AlreadyExists(f"the model {name} is there and not empty; --update brings an imported one up to date")

    @asynccontextmanager
    async def _stage(self) -> AsyncIterator[Stage]:
        """A scratch repository on the disk of the models' local folders; what killed processes left goes."""
        parent = self._engine.local_dir / "imports"
        parent.mkdir(exist_ok=True, mode=0o700)
        # The local folder is one process's, so others' are over.
        mine = f"{os.getpid()}-"
        for left in parent.iterdir():
            if not left.name.startswith(mine):
                await trio.to_thread.run_sync(functools.partial(shutil.rmtree, left, ignore_errors=True))
        folder = parent / f"{mine}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        stage = Stage(folder, self._engine.storage.block_bytes)
        try:
            yield stage
        finally:
            with trio.CancelScope(shield=True):
                await stage.remove()

    async def _fill(self, stage: Stage, directory: Path, args: Json) -> tuple[GitSource, ChosenRefs]:
        """Brings what is to be imported into the scratch repository, and checks it."""
        progress = command_progress()
        progress.start("looking at the repository")
        source = await GitSource.open(directory)
        chosen = choose_refs(source.refs, _renames(args.get("renames") or ()))
        if not chosen.branches and not chosen.tags:
            raise InvalidArgument(f"{directory} has no branch and no tag: there is nothing to import")
        progress.start("packing Git objects")
        await stage.fill(source, chosen.source)
        progress.start("checking Git objects")
        await stage.check(rules=not args.get("no_fsck"))
        await trio.to_thread.run_sync(check_targets, stage.objects, chosen)
        return source, chosen


class _Import:
    """One import into an open model."""

    def __init__(self, data: ModelData, source: GitSource, stage: Stage, chosen: ChosenRefs, args: Json) -> None:
        self._data = data
        self._source = source
        self._stage = stage
        self._chosen = chosen
        self._tips_only = args.get("lfs") == "tips"
        self._allow_missing = bool(args.get("allow_missing"))
        self._pack_bytes = 0
        self._missing: set[LargeContent] = set()

    async def run(self) -> Json:
        """Uploads what is new and publishes it."""
        progress = command_progress()
        progress.start("looking for large files")
        every = await self._stage.pointers()
        wanted = await self._stage.tip_pointers() if self._tips_only else every
        files = await self._find(wanted)
        if self._missing and not self._allow_missing:
            raise NotFound(await self._describe_missing())
        total = sum(content.size_bytes for content in files)
        progress.start("storing large files", total=len(files), total_bytes=total)
        for last in range(_UPLOAD_TRIES - 1, -1, -1):
            upload = self._data.content.upload()
            try:
                plan = await self._publish(upload, files)
                break
            except UnknownOutcome:
                raise  # the record may name what was uploaded
            except BaseException as error:
                await upload.abort()
                # A pack that the upload relied on was dropped meanwhile; with none of them named, that can't be.
                if not isinstance(error, _Dropped) or not last:
                    raise
        return {
            "branches": [
                {"branch": name, "version": version, "tip": tip, "moved": moved}
                for name, version, tip, moved in plan.branches
            ],
            "tags": len(self._chosen.tags),
            "unchanged": not plan.changes,
            "git_bytes": self._pack_bytes,
            "lfs_files": len(wanted),
            "new_lfs_files": len(files) - len(self._missing & files.keys()),
            "new_lfs_bytes": total,
            "stored_bytes": upload.stored_bytes,
            "left_out_lfs_files": len(every) - len(wanted),
            "missing_lfs": await self._missing_rows(),
        }

    async def _find(self, wanted: set[LargeContent]) -> dict[LargeContent, Path]:
        """Where the data of those is that the model doesn't have; notes those that are nowhere."""
        lacking = []
        for content in sorted(wanted, key=lambda one: one.oid):
            if content.size_bytes and not await self._data.content.find(content.oid):
                lacking.append(content)
        found: dict[LargeContent, Path] = {}

        def look() -> None:
            for content in lacking:
                path = self._source.lfs_path(content)
                try:
                    state = path.stat()
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if stat.S_ISREG(state.st_mode) and state.st_size == content.size_bytes:
                    found[content] = path

        await trio.to_thread.run_sync(look)
        self._missing.update(content for content in lacking if content not in found)
        return found

    async def _publish(self, upload: Upload, files: Mapping[LargeContent, Path]) -> ImportPlan:
        manifests: tuple[StoredFile, ...] = ()
        packs: tuple[StoredFile, ...] = ()
        if files:
            add = [functools.partial(self._add, upload, content, path) for content, path in files.items()]
            await gather(add, at_once=_FILES_AT_ONCE)
            try:
                manifests, packs = await upload.finish()
            except Conflict as error:
                raise _Dropped(str(error)) from error
        progress = command_progress()
        progress.start("storing Git objects", done=0)
        self._pack_bytes = 0
        return await self._data.repository.publish_import(self._stage, self._chosen, manifests, packs, self._note_pack)

    def _note_pack(self, size_bytes: int) -> None:
        self._pack_bytes += size_bytes
        command_progress().add(things=1)

    async def _add(self, upload: Upload, content: LargeContent, path: Path) -> None:
        progress = command_progress()
        progress.item = content.oid[:12]
        file = _LocalFile(await trio.to_thread.run_sync(_open, path), content.size_bytes)
        try:
            stored = await upload.add(file, lambda count: progress.add(size_bytes=count))
        finally:
            await file.aclose()
        progress.add(things=1)
        if stored != content:
            if not self._allow_missing:
                paths = await self._stage.pointer_paths([content])
                raise CorruptData(f"{path} ({paths.get(content, '?')}) is damaged: its SHA-256 is {stored.oid}")
            self._missing.add(content)

    async def _describe_missing(self) -> str:
        rows = await self._missing_rows()
        shown = ", ".join(str(row["path"] or row["oid"]) for row in rows[:_SHOWN_PATHS])
        more = f" and {len(rows) - _SHOWN_PATHS} more" if len(rows) > _SHOWN_PATHS else ""
        return (
            f"{len(rows)} large files are not in {self._source.lfs_objects}: {shown}{more}. "
            f"Fetch them with git lfs fetch --all, or use --lfs tips or --allow-missing"
        )

    async def _missing_rows(self) -> list[Json]:
        if not self._missing:
            return []
        paths = await self._stage.pointer_paths(self._missing)
        return [
            {"oid": content.oid, "size_bytes": content.size_bytes, "path": paths.get(content)}
            for content in sorted(self._missing, key=lambda one: one.oid)
        ]


class _Dropped(MvcfsError):
    """An upload that has to be done again."""


class _LocalFile:
    """A file of this host as the source of an upload.

    Every call is in a thread, closing too: it may be in a mount that this very process serves.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._fd = fd
        self.size_bytes = size_bytes

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes [offset, offset+length)."""
        return await trio.to_thread.run_sync(os.pread, self._fd, length, offset)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(os.close, self._fd)


def _open(path: Path) -> int:
    # What was a regular file may be a fifo by now, whose opening would wait for ever.
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _renames(words: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words if isinstance(words, (list, tuple)) else ():
        old, equals, new = str(word).partition("=")
        if not old or not equals:
            raise InvalidArgument(f"--rename takes OLD=NEW, not {word!r}")
        found[old] = new
    return found


def _is_empty(refs: Refs) -> bool:
    """Whether no version was ever made in a model."""
    return not refs.tags and not refs.aliases and all(branch.tip is None for branch in refs.branches.values())
