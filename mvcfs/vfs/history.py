"""`.history` of a model: all versions of its branches, its tags, aliases and commits, as read-only directories.

A version's directory is named `<version>_<time>_<commit>`, so that a listing is in order and says what is what; the number
alone is enough to look it up. Threading: trio thread.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mvcfs.errors import InvalidName, NotFound
from mvcfs.vfs.inode import Inode
from mvcfs.vfs.model import OpenModel
from mvcfs.vfs.snapshot import ListedSnapshot, SnapshotDir
from mvcfs.vfs.virtual import Host, ListedDir, decode_name

_Find = Callable[[str], Awaitable[Inode]]


def version_name(version: int, commit: str, time_s: int) -> bytes:
    """The directory name of a version: `00000042_2026-11-20T120000Z_3f2a91c`."""
    stamp = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime(time_s))
    return f"{version:08d}_{stamp}_{commit[:7]}".encode()


class HistoryTree:
    """Makes the directories of one model's `.history` and keeps those that were looked at."""

    def __init__(self, engine: Host, model: OpenModel) -> None:
        self._engine = engine
        self.model = model
        self._dirs: dict[str, ListedDir] = {}
        self._snapshots: dict[tuple[str, str], SnapshotDir] = {}

    def root(self) -> ListedDir:
        """`.history` itself."""
        return self._dir("", self._root_names, self._root_child)

    def _dir(
        self, place: str, names: Callable[[], Awaitable[Sequence[bytes]]], find: Callable[[bytes], Awaitable[Inode]]
    ) -> ListedDir:
        found = self._dirs.get(place)
        if found is None:
            shown = f"{self.model.name}/.history/{place}".rstrip("/")
            found = self._dirs[place] = ListedDir(self._engine, shown, names, find)
        return found

    async def _root_names(self) -> Sequence[bytes]:
        return [b"aliases", b"branches", b"commits", b"tags"]

    async def _root_child(self, name: bytes) -> Inode:
        refs = self.model.data.repository.refs
        if name == b"branches":
            return self._level("branches", "", lambda: self.model.data.repository.refs.branches, self._versions)
        if name == b"tags":
            return self._level("tags", "", lambda: self.model.data.repository.refs.tags, self._by_name("tags"))
        if name == b"aliases":
            return self._level("aliases", "", lambda: self.model.data.repository.refs.aliases, self._by_name("aliases"))
        if name == b"commits":
            return self._dir("commits", self._no_names, self._commit)
        raise NotFound(f"{name!r} is not in .history of {self.model.name} (record {refs.number})")

    async def _no_names(self) -> Sequence[bytes]:
        # Any commit can be looked up; listing them would walk all of history.
        return []

    def _level(self, kind: str, prefix: str, known: Callable[[], Mapping[str, object]], find: _Find) -> ListedDir:
        """A directory of names that may have slashes, which are levels."""

        async def names() -> Sequence[bytes]:
            heads = {name[len(prefix) :].split("/", 1)[0] for name in known() if name.startswith(prefix)}
            return [head.encode() for head in sorted(heads)]

        async def child(name: bytes) -> Inode:
            full = prefix + decode_name(name)
            if full in known():
                return await find(full)
            if any(other.startswith(full + "/") for other in known()):
                return self._level(kind, full + "/", known, find)
            raise NotFound(f"{self.model.name} has no {full} among its {kind}")

        level = self._dir(f"{kind}/{prefix}", names, child)
        self.model.shown.add(kind, prefix, level.ino)
        return level

    async def _versions(self, branch: str) -> Inode:
        """The directory of a branch's versions."""
        repository = self.model.data.repository

        async def names() -> Sequence[bytes]:
            return [version_name(*mark) for mark in await repository.version_marks(branch)]

        async def child(name: bytes) -> Inode:
            text = decode_name(name)
            number = text.split("_", 1)[0]
            if not number.isdecimal() or not number.isascii() or len(number) > 18:
                raise NotFound(f"{text} names no version of {branch}")
            commit, time_s = await repository.version_mark(branch, int(number))
            if "_" in text and version_name(int(number), commit, time_s) != name:
                raise NotFound(f"{text} names no version of {branch}")
            return self._snapshot(f"branches/{branch}/{text}", commit)

        return self._dir(f"branches/{branch}", names, child)

    def _by_name(self, kind: str) -> _Find:
        async def find(name: str) -> Inode:
            commit = await self.model.data.repository.resolve(name)
            return self._snapshot(f"{kind}/{name}", commit)

        return find

    async def _commit(self, name: bytes) -> Inode:
        text = decode_name(name)
        try:
            commit = await self.model.data.repository.commits_matching(text)
        except InvalidName as error:
            raise NotFound(str(error)) from error
        return self._snapshot(f"commits/{text}", commit)

    def _snapshot(self, place: str, commit: str) -> Inode:
        """One directory inode a place: the kernel allows a directory one name only."""
        found = self._snapshots.get((place, commit))
        if found is None:
            found = ListedSnapshot(self.model.data, self._engine.pool, commit)
            found.on_forgotten = lambda: self._snapshots.pop((place, commit), None)
            self._snapshots[(place, commit)] = found
        return found
