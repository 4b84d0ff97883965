"""Where Git objects are read from and written to: local packs, and memory for what no pack holds yet.

New objects stay in memory until a publish has put them into a pack; inline objects of ref-log records live there too.
Packs stand in `objects/pack` of a bare repository, which real Git can open for a look.

Threading: every method may be called in any thread. Reads go to libgit2's pack backend, which pygit2 calls under the
GIL, so two never run at once; memory is a dict whose single operations are atomic; `write_pack`, which works without
the GIL, opens the packs anew for itself. Packs may be removed once others hold their objects: whoever misses something
looks again if the packs were replaced meanwhile. One process at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import TypeVar

import pygit2

from mvcfs.errors import CorruptData, NotFound
from mvcfs.versions.git.format import (
    RawCommit,
    RawEntry,
    RawTag,
    object_id,
    parse_commit,
    parse_tag,
    parse_tree,
    serialise_commit,
    serialise_tag,
    serialise_tree,
)
from mvcfs.versions.git.pack_index import ids_with_prefix

T = TypeVar("T")

_NUMBER_OF = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}
_KIND_OF = {number: kind for kind, number in _NUMBER_OF.items()}


class _MemoryBackend(pygit2.OdbBackend):
    """Lets libgit2's pack builder read the objects in memory."""

    def __init__(self, objects: dict[str, tuple[str, bytes]]) -> None:
        super().__init__()
        self._objects = objects

    def read_cb(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        kind, data = self._objects[str(oid)]
        return _NUMBER_OF[kind], data

    def read_header_cb(self, oid: pygit2.Oid) -> tuple[int, int]:
        kind, data = self._objects[str(oid)]
        return _NUMBER_OF[kind], len(data)

    def exists_cb(self, oid: pygit2.Oid) -> bool:
        return str(oid) in self._objects

    def refresh_cb(self) -> None:
        """libgit2 calls this before it says that an object is missing: nothing can have come."""


class _Packs:
    """The packs of a folder.

    The Odb owns the backend's memory; the backend is asked directly, which saves a look at the folder at every miss. It is
    asked by these methods only: their `self` keeps the Odb alive while another thread puts a new one in its place.
    """

    def __init__(self, objects_dir: Path) -> None:
        self._backend = pygit2.OdbBackendPack(str(objects_dir))
        self._odb = pygit2.Odb()
        self._odb.add_backend(self._backend, 1)

    def read(self, oid: pygit2.Oid) -> tuple[int, bytes]:
        return self._backend.read(oid)

    def header(self, oid: pygit2.Oid) -> tuple[int, int]:
        return self._backend.read_header(oid)

    def has(self, oid: pygit2.Oid) -> bool:
        return bool(self._backend.exists(oid))

    def oids(self) -> list[str]:
        return [str(oid) for oid in self._backend]

    def refresh(self) -> None:
        self._backend.refresh()


class GitObjects:
    """The Git objects of one model.

    Attributes:
        git_dir: The bare repository.
        pack_dir: Where packs stand; files put there by others count after `rescan`.
    """

    def __init__(self, local_dir: Path) -> None:
        self.git_dir = local_dir
        self._objects_dir = local_dir / "objects"
        self.pack_dir = self._objects_dir / "pack"
        if not (local_dir / "HEAD").exists():
            pygit2.init_repository(str(local_dir), bare=True, initial_head="main")
        self.pack_dir.mkdir(parents=True, exist_ok=True)
        self._memory: dict[str, tuple[str, bytes]] = {}
        self._replacing = Lock()
        self._packs = _Packs(self._objects_dir)

    # --- single objects

    def read(self, oid: str) -> tuple[str, bytes]:
        """An object's type (`commit`, `tree`, `blob`, `tag`) and its bytes, checked against its id.

        Raises:
            NotFound: No such object here.
            CorruptData: A pack holds other bytes under that id.
        """
        found = self._memory.get(oid)
        if found is not None:
            return found
        try:
            number, data = self._from_packs(oid, _Packs.read)
        except NotFound:
            # It may have moved between the two looks.
            if (found := self._memory.get(oid)) is not None:
                return found
            raise
        kind = _KIND_OF[int(number)]
        if object_id(kind, data) != oid:
            raise CorruptData(f"Git object {oid} has other content than its id says")
        return kind, data

    def read_kind(self, oid: str, kind: str) -> bytes:
        """The bytes of an object that must be of this type.

        Raises:
            NotFound: No such object here.
            CorruptData: It is damaged or of another type.
        """
        found, data = self.read(oid)
        if found != kind:
            raise CorruptData(f"Git object {oid} is a {found}, not a {kind}")
        return data

    def header(self, oid: str) -> tuple[str, int]:
        """An object's type and length.

        Raises:
            NotFound: No such object here.
            CorruptData: A pack is damaged there.
        """
        found = self._memory.get(oid)
        if found is not None:
            return found[0], len(found[1])
        number, size = self._from_packs(oid, _Packs.header)
        return _KIND_OF[int(number)], size

    def _from_packs(self, oid: str, look: Callable[[_Packs, pygit2.Oid], T]) -> T:
        """What the packs say of an object; once more if they were replaced, for one of them may have been removed."""
        checked, packs = _checked_oid(oid), self._packs
        while True:
            try:
                return look(packs, checked)
            except (KeyError, pygit2.GitError) as error:
                with self._replacing:
                    replaced, packs = packs is not self._packs, self._packs
                if replaced:
                    continue
                if isinstance(error, KeyError):
                    raise NotFound(f"Git object {oid} is not in this model") from None
                raise CorruptData(f"Git object {oid} can't be read: {error}") from error

    def has(self, oid: str) -> bool:
        """Whether the object is here, in memory or in a pack."""
        return oid in self._memory or self.in_packs(oid)

    def in_packs(self, oid: str) -> bool:
        """Whether a pack holds the object."""
        checked, packs = _checked_oid(oid), self._packs
        while not packs.has(checked):
            with self._replacing:
                replaced, packs = packs is not self._packs, self._packs
            if not replaced:
                return False
        return True

    def write(self, kind: str, data: bytes) -> str:
        """Keeps an object in memory unless a pack has it; returns its id."""
        oid = object_id(kind, data)
        if oid not in self._memory and not self.in_packs(oid):
            self._memory[oid] = (kind, data)
        return oid

    def find_prefix(self, prefix: str) -> list[str]:
        """All ids that start with these hex digits (at least 4), sorted."""
        prefix = prefix.lower()
        found = {oid for oid in list(self._memory) if oid.startswith(prefix)}
        for index in self.pack_dir.glob("*.idx"):
            # One that goes meanwhile was joined into another, which is here then.
            with contextlib.suppress(FileNotFoundError):
                found.update(ids_with_prefix(index, prefix))
        return sorted(found)

    # --- trees, commits, tags

    def read_tree(self, oid: str) -> list[RawEntry]:
        """A tree's entries in Git's order. NotFound, CorruptData as `read_kind`."""
        return parse_tree(self.read_kind(oid, "tree"), oid)

    def write_tree(self, entries: Iterable[RawEntry]) -> str:
        """Keeps a tree with these entries, in any order; returns its id."""
        return self.write("tree", serialise_tree(entries))

    def read_commit(self, oid: str) -> RawCommit:
        """A commit, decoded. NotFound, CorruptData as `read_kind`."""
        return parse_commit(self.read_kind(oid, "commit"), oid)

    def write_commit(self, commit: RawCommit) -> str:
        """Keeps a commit; what Git forbids in names and messages is removed. Returns its id."""
        return self.write("commit", serialise_commit(commit))

    def read_tag(self, oid: str) -> RawTag:
        """A tag object, decoded. NotFound, CorruptData as `read_kind`."""
        return parse_tag(self.read_kind(oid, "tag"), oid)

    def write_tag(self, tag: RawTag) -> str:
        """Keeps a tag object; returns its id."""
        return self.write("tag", serialise_tag(tag))

    def peel(self, oid: str) -> str:
        """The commit that an id of a commit, or of a tag (of a tag …) of a commit, stands for.

        Raises:
            NotFound: An object on the way is missing.
            CorruptData: It is neither.
        """
        for _ in range(32):
            kind, data = self.read(oid)
            if kind == "commit":
                return oid
            if kind != "tag":
                break
            oid = parse_tag(data, oid).target
        raise CorruptData(f"Git object {oid} is no commit and no tag of one")

    # --- packs and memory

    def memory_objects(self) -> set[str]:
        """Ids of the objects in memory."""
        return set(self._memory)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the objects in memory."""
        return sum(len(data) for _, data in list(self._memory.values()))

    def forget(self, oids: Iterable[str]) -> None:
        """Drops objects from memory, those only that a pack holds too."""
        for oid in oids:
            if oid in self._memory and self.in_packs(oid):
                del self._memory[oid]

    def discard(self, oids: Iterable[str]) -> None:
        """Drops objects from memory that nobody needs any more (of a build that came to nothing)."""
        for oid in oids:
            self._memory.pop(oid, None)

    def add_pack(self, pack: Path, index: Path) -> None:
        """Moves a pack and its index, files of the same file system, into `pack_dir` and reads from it."""
        os.replace(pack, self.pack_dir / pack.name)
        os.replace(index, self.pack_dir / index.name)
        self._packs.refresh()

    def rescan(self, gone: Iterable[Path] = ()) -> None:
        """Takes in what was put into `pack_dir`, and removes files from it whose objects other packs hold, if any."""
        with self._replacing:
            for path in gone:
                path.unlink(missing_ok=True)
            self._packs = _Packs(self._objects_dir)

    def packed_objects(self) -> Iterator[str]:
        """Ids of all objects in packs; an object in two packs may come twice."""
        return iter(self._packs.oids())

    def write_pack(self, oids: Collection[str], directory: Path, name: str) -> tuple[Path, Path]:
        """Writes these objects, wherever they are, into `directory/name.pack` and `name.idx`. For a thread.

        Raises:
            NotFound: One of the objects isn't here.
            ValueError: There are none: Git has no empty packs.
        """
        if not oids:
            raise ValueError("a pack needs an object")
        # Looked for here, as an error inside the builder can't be told from any other.
        for oid in oids:
            if not self.has(oid):
                raise NotFound(f"Git object {oid} is not in this model")
        packs = self._packs
        try:
            return self._write_pack(oids, directory, name)
        except pygit2.GitError as error:
            if packs is self._packs:
                raise CorruptData(f"no Git pack can be made: {error}") from error
            return self._write_pack(oids, directory, name)

    def _write_pack(self, oids: Collection[str], directory: Path, name: str) -> tuple[Path, Path]:
        repository = pygit2.Repository()
        odb = pygit2.Odb()
        odb.add_backend(_MemoryBackend(dict(self._memory)), 2)
        odb.add_backend(pygit2.OdbBackendPack(str(self._objects_dir)), 1)
        repository.set_odb(odb)
        builder = pygit2.PackBuilder(repository)
        for oid in sorted(oids):
            builder.add(pygit2.Oid(hex=oid))
        scratch = directory / f"{name}.tmp"
        scratch.mkdir(exist_ok=True)
        builder.write(str(scratch))
        (made,) = scratch.glob("*.pack")
        pack, index = directory / f"{name}.pack", directory / f"{name}.idx"
        os.replace(made, pack)
        os.replace(made.with_suffix(".idx"), index)
        scratch.rmdir()
        return pack, index


def _checked_oid(oid: str) -> pygit2.Oid:
    try:
        return pygit2.Oid(hex=oid)
    except ValueError:
        raise NotFound(f"{oid!r} is no id of a Git object") from None
