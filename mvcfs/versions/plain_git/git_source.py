"""A Git repository that is to become a model: what it is, its refs, a checked copy of their objects, its LFS objects.

Nothing in it is believed: its objects are packed into a scratch repository of ours by `git pack-objects`, and `git fsck`
reads every one of them there, hashes it and follows its links, before any of it goes further. So what is published is
what was checked, whatever happens to the source meanwhile.

Threading: trio thread; Git runs in processes, and objects are read in threads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from mvcfs.errors import CorruptData, LimitExceeded, NotFound, NotSupported
from mvcfs.types import MIB, LargeContent
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pointer import POINTER_MAX_BYTES, parse_pointer, pointer_blob_oid
from mvcfs.versions.git.program import GitFailed, each_line, run_git
from mvcfs.versions.git.walks import large_contents

MAX_BLOB_BYTES = 256 * MIB
"""A larger blob would have to be read into memory whole; Git LFS is for such files."""

_LEAST_PACK_BYTES = 1 * MIB


@dataclass(frozen=True, slots=True)
class GitSource:
    """A repository to read.

    Attributes:
        directory: Its Git folder.
        lfs_objects: Where its LFS objects are, if there are any.
        refs: What each ref holds, by full name.
    """

    directory: Path
    lfs_objects: Path
    refs: Mapping[str, str]

    @classmethod
    async def open(cls, directory: Path) -> GitSource:
        """Looks at a repository, bare or with a working tree.

        Raises:
            NotFound: There is none.
            NotSupported: There is no Git here, or the repository is of a kind that can't be a model.
            GitFailed: Git refuses to read it.
        """
        # Git itself would go on looking in the folders above. (In a thread: the folder may be in a mount of this process.)
        if not await trio.to_thread.run_sync(_is_repository, directory):
            raise NotFound(f"{directory} is no Git repository")
        try:
            told = await run_git(
                directory, "rev-parse", "--path-format=absolute", "--git-common-dir", "--show-object-format",
                "--is-shallow-repository",
            )  # fmt: skip
        except GitFailed as error:
            if "not a git repository" in error.output:
                raise NotFound(f"{directory} is no Git repository") from error
            raise
        folder, kind, shallow = told.decode("utf-8", "surrogateescape").splitlines()
        if kind != "sha1":
            raise NotSupported(f"{directory} names its objects by {kind}; a model's are named by SHA-1")
        if shallow == "true":
            raise NotSupported(
                f"{directory} lacks the beginning of its history; complete it with: git fetch --unshallow"
            )
        listed = await run_git(directory, "for-each-ref", "--format=%(objectname) %(refname)")
        pairs = [line.partition(" ") for line in listed.decode("utf-8", "surrogateescape").splitlines()]
        return cls(Path(folder), await _lfs_objects(Path(folder)), {name: oid for oid, _, name in pairs})

    def lfs_path(self, content: LargeContent) -> Path:
        """Where the data of a large file is, if it is there."""
        return self.lfs_objects / content.oid[:2] / content.oid[2:4] / content.oid


def _is_repository(directory: Path) -> bool:
    return (directory / ".git").exists() or (directory / "objects").is_dir()


async def _lfs_objects(git_dir: Path) -> Path:
    try:
        told = await run_git(git_dir, "config", "--get", "lfs.storage")
    except GitFailed:
        return git_dir / "lfs" / "objects"
    return git_dir / told.decode("utf-8", "surrogateescape").rstrip("\n") / "objects"


class Stage:
    """A scratch repository with exactly the objects that some refs of a source lead to.

    Attributes:
        objects: These objects.
    """

    objects: GitObjects

    def __init__(self, folder: Path, pack_bytes: int) -> None:
        """Writes nothing yet.

        Args:
            folder: A new folder, to be removed by whoever gave it.
            pack_bytes: Packs are made no longer than this, but for one object that is.
        """
        self._folder = folder
        self._pack_bytes = max(pack_bytes, _LEAST_PACK_BYTES)
        self._tips: tuple[str, ...] = ()

    async def fill(self, source: GitSource, refs: Mapping[str, str]) -> None:
        """Packs what these refs lead to.

        Raises:
            CorruptData: Objects are missing or can't be read.
        """
        self._tips = tuple(dict.fromkeys(refs.values()))
        folder = self._folder
        for part in ("objects/pack", "objects/info", "refs"):
            (folder / part).mkdir(parents=True)
        (folder / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
        head = next((name for name in refs if name.startswith("refs/heads/")), "refs/heads/main")
        (folder / "HEAD").write_text(f"ref: {head}\n", encoding="utf-8")
        lines = sorted(f"{oid} {name}\n" for name, oid in refs.items())
        (folder / "packed-refs").write_text("".join(lines), encoding="utf-8")
        # Git works here and only reads objects there: it would write its temporary files there otherwise.
        alternates = folder / "objects" / "info" / "alternates"
        alternates.write_bytes(os.fsencode(source.directory / "objects") + b"\n")
        try:
            await self._pack(folder / "objects" / "pack", "\n".join(self._tips), "--revs")
        except GitFailed as error:
            raise CorruptData(f"{source.directory}: {error}") from error
        alternates.unlink()
        self.objects = GitObjects(folder)

    async def _pack(self, target: Path, stdin: str, *words: str) -> None:
        limit = f"--max-pack-size={self._pack_bytes}"
        await run_git(
            self._folder, "pack-objects", "-q", *words, "--delta-base-offset", "--non-empty", limit, str(target / "pack"),
            stdin=stdin.encode() + b"\n",
        )  # fmt: skip

    async def check(self, *, rules: bool) -> None:
        """Reads and hashes all objects and follows their links.

        Args:
            rules: Also hold them against Git's rules of how objects are written, as `git fsck` does.

        Raises:
            CorruptData: Something is wrong; the message says what Git said.
        """
        try:
            if rules:
                await run_git(self._folder, "fsck", "--full", "--no-dangling", "--no-progress")
            else:
                for index in sorted((self._folder / "objects" / "pack").glob("*.idx")):
                    await run_git(self._folder, "index-pack", "--verify", str(index.with_suffix(".pack")))
                await run_git(self._folder, "fsck", "--connectivity-only", "--no-dangling", "--no-progress")
        except GitFailed as error:
            way_out = "; --no-fsck takes objects that are only written oddly" if rules else ""
            raise CorruptData(f"the repository is damaged: {error}{way_out}") from error

    async def pointers(self) -> set[LargeContent]:
        """Every large file that a blob stands for.

        Raises:
            LimitExceeded: A blob is too large; the message names its path.
        """
        found, huge = await trio.to_thread.run_sync(_look_at_blobs, self.objects)
        if huge:
            paths = await self.paths(huge)
            oid, size = next(iter(huge.items()))
            raise LimitExceeded(
                f"{paths.get(oid, oid)} has {size} bytes; Git blobs of more than {MAX_BLOB_BYTES} can't be in a model "
                f"({len(huge)} are): bring them into Git LFS with git lfs migrate import"
            )
        return found

    async def tip_pointers(self) -> set[LargeContent]:
        """The large files of the commits only that the refs name."""
        objects = self.objects

        def look() -> set[LargeContent]:
            return large_contents(objects, {objects.read_commit(objects.peel(tip)).tree for tip in self._tips})

        return await trio.to_thread.run_sync(look)

    async def paths(self, oids: Collection[str]) -> dict[str, str]:
        """A path of each of these blobs, in some version."""
        found: dict[str, str] = {}

        def take(line: bytes) -> None:
            oid, _, path = line.partition(b" ")
            name = oid.decode()
            if name in oids and path:
                found.setdefault(name, path.decode("utf-8", "surrogateescape"))

        await each_line(self._folder, "rev-list", "--objects", "--all", take=take)
        return found

    async def pointer_paths(self, contents: Iterable[LargeContent]) -> dict[LargeContent, str]:
        """A path of each of these large files, where its pointer is written in the usual way."""
        blobs = {pointer_blob_oid(content): content for content in contents}
        return {blobs[oid]: path for oid, path in (await self.paths(blobs)).items()}

    async def new_packs(self, known: GitObjects) -> list[Path]:
        """Packs, each with its index beside it, of the objects that `known` lacks."""

        def look() -> tuple[list[str], int]:
            oids = set(self.objects.packed_objects())
            return [oid for oid in oids if not known.has(oid)], len(oids)

        lacking, count = await trio.to_thread.run_sync(look)
        folder = self._folder / "objects" / "pack"
        if 0 < len(lacking) < count:
            folder = self._folder / "new"
            folder.mkdir()
            await self._pack(folder, "\n".join(sorted(lacking)))
        return sorted(folder.glob("*.pack")) if lacking else []

    async def remove(self) -> None:
        """Removes the folder."""
        await trio.to_thread.run_sync(lambda: shutil.rmtree(self._folder, ignore_errors=True))


def _look_at_blobs(objects: GitObjects) -> tuple[set[LargeContent], dict[str, int]]:
    """The large files that blobs stand for, and the blobs that are too large with their lengths."""
    found: set[LargeContent] = set()
    huge: dict[str, int] = {}
    for oid in objects.packed_objects():
        kind, size = objects.header(oid)
        if kind != "blob":
            continue
        if size > MAX_BLOB_BYTES:
            huge[oid] = size
        elif size < POINTER_MAX_BYTES:
            content = parse_pointer(objects.read_kind(oid, "blob"))
            if content is not None:
                found.add(content)
    return found, huge


def has_pointers(git_dir: Path) -> bool:
    """Whether any blob in a repository's packs is an LFS pointer."""
    return bool(_look_at_blobs(GitObjects(git_dir))[0])
