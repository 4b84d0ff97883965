"""A model as a plain bare Git repository: its packs, the objects that only the log holds, and its refs.

Real Git reads, checks and clones the result; large files are LFS pointers in it. Exporting into the same folder again
copies new packs only and moves refs. A note in the folder, `mvcfs-export.json`, says whose it is and which refs and packs
are ours; it is written before anything else, so a folder that a killed export left is known and is completed.

The order is: objects, whatever the caller adds (LFS objects), refs. So refs never name what isn't there.

Threading: trio thread; files are written in threads, by plain Python only. libgit2 would hold the interpreter while it
waits for the disk, and the folder may be on a file system that this very process serves.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from mvcfs.errors import AlreadyExists, Busy, Conflict, CorruptData, NotEmpty, NotFound
from mvcfs.types import LargeContent
from mvcfs.versions.git.objects import GitObjects
from mvcfs.versions.git.pack_index import read_ids
from mvcfs.versions.git.walks import large_contents, reachable
from mvcfs.versions.log.refs import Refs
from mvcfs.versions.log.state import LogState
from mvcfs.versions.publishing.synced import SyncedModel

T = TypeVar("T")

NOTE = "mvcfs-export.json"
_LOCK = "mvcfs-export.lock"
_OURS = ("refs/heads/", "refs/tags/", "refs/mvcfs/")
_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
_PACKS_MOVED_TRIES = 5


@dataclass(slots=True)
class _Note:
    """What an export folder says of itself.

    Attributes:
        model: Id of the model.
        refs: The refs that the last export wrote.
        next: Those that an export was about to write.
        packs: Stems of the packs that exports wrote.
    """

    model: str
    refs: dict[str, str] = field(default_factory=dict)
    next: dict[str, str] = field(default_factory=dict)
    packs: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, directory: Path) -> _Note | None:
        """The note of a folder, None if it has none. CorruptData."""
        path = directory / NOTE
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(value["model"]), dict(value["refs"]), dict(value["next"]), list(value["packs"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptData(f"{path} is damaged; remove the folder to export anew") from error

    def write(self, directory: Path) -> None:
        """Puts the note in place, whole or not at all."""
        text = json.dumps({"mvcfs-export": 1, **asdict(self)}, indent=1)
        _replace(directory / NOTE, lambda path: path.write_text(text, encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class WrittenObjects:
    """What an export brought of Git objects: packs that weren't there, and their bytes."""

    packs: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class WrittenRefs:
    """What an export did to refs.

    Attributes:
        head: The branch that HEAD names.
        refs: Every ref with what it holds.
        moved: How many are new or hold something else than before.
        removed: How many went.
    """

    head: str
    refs: Mapping[str, str]
    moved: int
    removed: int


class GitExport:
    """One export. `open`, `write_objects`, `write_refs`, in this order, and `close` whatever happened."""

    def __init__(self, model: SyncedModel, directory: Path, branches: Collection[str]) -> None:
        """Writes nothing yet.

        Args:
            model: What is exported.
            directory: Where to.
            branches: Export these, and tags and aliases of their versions; empty: all there is, deleted branches too.
        """
        self.directory = directory
        self._model = model
        self._branches = frozenset(branches)
        self._limiter = trio.CapacityLimiter(1)
        self._lock: int | None = None
        self._note = _Note("")
        self._wanted: dict[str, str] = {}
        self._packs: set[str] = set()

    async def open(self) -> None:
        """Takes the folder, which is new, empty, or holds an export of this model.

        Raises:
            NotEmpty: Something else is in it.
            AlreadyExists: It is an export of another model.
            Busy: Another export is writing into it.
            NotFound: There is no such branch.
            CorruptData: Its note is damaged.
            OSError: It can't be written.
        """
        for name in self._branches:
            self._model.state.refs.branch(name)
        await self._in_thread(self._open)

    async def write_objects(self) -> WrittenObjects:
        """Copies the Git objects that aren't there yet.

        Raises:
            CorruptData: An object is missing or damaged.
            OSError: They can't be written.
        """
        for _ in range(_PACKS_MOVED_TRIES):
            state = self._model.state
            try:
                return await self._in_thread(functools.partial(self._write_objects, state))
            except FileNotFoundError:
                # Packs were joined meanwhile, so what was to be copied is in another one now.
                if state is self._model.state:
                    raise
        raise Busy(f"the Git packs of the model change faster than they can be copied to {self.directory}")

    async def large_contents(self, *, tips_only: bool) -> set[LargeContent]:
        """The large files of all exported commits, or of those only that a ref names. CorruptData."""

        def find() -> set[LargeContent]:
            objects = self._model.objects
            tips: Iterable[str] = set(self._wanted.values())
            if tips_only:
                tips = {objects.read_commit(objects.peel(tip)).tree for tip in tips}
            return large_contents(objects, tips)

        return await self._in_thread(find)

    async def write_refs(self, *, force: bool = False) -> WrittenRefs:
        """Makes the refs those of the model, as of `write_objects`.

        Args:
            force: Also where somebody else has changed or made refs in the folder.

        Raises:
            Conflict: Somebody has.
            OSError: They can't be written.
        """
        return await self._in_thread(functools.partial(self._write_refs, force))

    def close(self) -> None:
        """Lets go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._limiter)

    # --- in the thread

    def _open(self) -> None:
        directory, model = self.directory, self._model.state.model
        directory.mkdir(parents=True, exist_ok=True)
        note = _Note.read(directory)
        if note is None and any(entry.name not in (_LOCK, NOTE + ".tmp") for entry in directory.iterdir()):
            raise NotEmpty(f"{directory} is neither empty nor an export of this model")
        if note is not None and note.model != model:
            raise AlreadyExists(f"{directory} is an export of another model")
        self._lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise Busy(f"another export writes into {directory}") from None
        self._note = note or _Note(model)
        if note is None:
            self._note.write(directory)
        for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        for name, text in (("config", _CONFIG), ("HEAD", "ref: refs/heads/main\n")):
            if not (directory / name).exists():
                _replace(directory / name, lambda path, text=text: path.write_text(text))  # type: ignore[misc]

    def _write_objects(self, state: LogState) -> WrittenObjects:
        objects, pack_dir = self._model.objects, self.directory / "objects" / "pack"
        self._wanted = _ref_names(state.refs, objects, self._branches)
        self._packs = set()
        written: list[int] = []
        if self._branches:
            there = _packed_oids(pack_dir)
            every = reachable(objects, set(self._wanted.values()))
            oids = {oid for _, oid in every if bytes.fromhex(oid) not in there}
        else:
            oids = {entry.oid for entry in state.inline}
            stems = ["pack-" + file.name.removeprefix("git/").removesuffix(".pack") for file in state.refs.git]
            self._claim(stems)
            for stem in stems:
                written += self._copy_pack(objects.pack_dir / stem, pack_dir / stem)
        if oids:
            written += self._write_pack(objects, oids, pack_dir)
        return WrittenObjects(len(written), sum(written))

    def _claim(self, stems: Collection[str]) -> None:
        """Notes packs as ours before they are written."""
        self._packs.update(stems)
        if not self._packs <= set(self._note.packs):
            self._note.packs = sorted(self._packs.union(self._note.packs))
            self._note.write(self.directory)

    def _write_pack(self, objects: GitObjects, oids: Collection[str], pack_dir: Path) -> list[int]:
        """One pack of these objects, whose name says which they are."""
        stem = "pack-" + hashlib.sha1("".join(sorted(oids)).encode(), usedforsecurity=False).hexdigest()
        self._claim([stem])
        if (pack_dir / f"{stem}.idx").exists():
            return []
        scratch = objects.git_dir / "fetch" / f"export-{os.getpid()}"
        scratch.mkdir(exist_ok=True)
        try:
            pack, _ = objects.write_pack(oids, scratch, stem)
            return self._copy_pack(pack.with_suffix(""), pack_dir / stem)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _copy_pack(self, source: Path, target: Path) -> list[int]:
        """Copies a pack unless it is there; its length if it was copied. The index comes last: Git looks for indexes."""
        size = source.with_suffix(".pack").stat().st_size
        try:
            if target.with_suffix(".idx").exists() and target.with_suffix(".pack").stat().st_size == size:
                return []
        except FileNotFoundError:
            pass
        for suffix in (".pack", ".idx"):
            _replace(
                target.with_suffix(suffix),
                functools.partial(shutil.copyfile, source.with_suffix(suffix)),
                mode=0o444,
            )
        return [size]

    def _write_refs(self, force: bool) -> WrittenRefs:
        directory, note, wanted = self.directory, self._note, self._wanted
        others, present = _read_refs(directory)
        foreign = sorted(
            name
            for name, oid in present.items()
            if oid not in (note.refs.get(name), note.next.get(name), wanted.get(name))
        )
        if foreign and not force:
            raise Conflict(
                f"{len(foreign)} refs in {directory} were made or moved by somebody else, {foreign[0]} for one: "
                "bring them away, or overwrite them with --force"
            )
        head = "main" if "refs/heads/main" in wanted else _first_branch(wanted)
        note.next = wanted
        note.write(directory)
        lines = [f"{oid} {name}\n" for name, oid in sorted((others | wanted).items())]
        _replace(directory / "packed-refs", lambda path: path.write_text("".join(lines), encoding="utf-8"))
        for prefix in _OURS:
            _remove_loose(directory / prefix)
        head_text = f"ref: refs/heads/{head}\n"
        if (directory / "HEAD").read_text(encoding="utf-8") != head_text:
            _replace(directory / "HEAD", lambda path: path.write_text(head_text, encoding="utf-8"))
        gone = [] if self._branches else [stem for stem in note.packs if stem not in self._packs]
        note.refs, note.next = wanted, {}
        note.packs = [stem for stem in note.packs if stem not in gone]
        note.write(directory)
        for stem in gone:
            # The index goes first: a pack without one is nothing to Git.
            for suffix in (".idx", ".pack"):
                (directory / "objects" / "pack" / (stem + suffix)).unlink(missing_ok=True)
        moved = sum(1 for name, oid in wanted.items() if present.get(name) != oid)
        return WrittenRefs(head, wanted, moved, len(present.keys() - wanted.keys()))


def _ref_names(refs: Refs, objects: GitObjects, branches: Collection[str]) -> dict[str, str]:
    """Git's full name of every ref to export, and what it holds."""
    names = {f"refs/heads/{b.name}": b.tip for b in refs.branches.values() if not branches or b.name in branches}
    marks = {f"refs/tags/{name}": target for name, target in refs.tags.items()}
    marks |= {f"refs/mvcfs/aliases/{name}": target for name, target in refs.aliases.items()}
    if not branches:
        deleted = {f"refs/mvcfs/deleted/{branch.id}": branch.tip for branch in refs.deleted}
        logs = {f"refs/mvcfs/alias-logs/{name}": log for name, log in refs.alias_logs.items()}
        every = names | deleted | marks | logs
    else:
        tips = [tip for tip in names.values() if tip is not None]
        commits = {oid for oid in _commits(objects, tips)}
        every = names | {name: oid for name, oid in marks.items() if objects.peel(oid) in commits}
    return {name: oid for name, oid in every.items() if oid is not None}


def _commits(objects: GitObjects, tips: Iterable[str]) -> set[str]:
    """These commits and all their ancestors."""
    found: set[str] = set()
    todo = list(tips)
    while todo:
        oid = todo.pop()
        if oid not in found:
            found.add(oid)
            try:
                todo.extend(objects.read_commit(oid).parents)
            except NotFound as error:
                raise CorruptData(f"history is incomplete: {error}") from error
    return found


def _packed_oids(pack_dir: Path) -> set[bytes]:
    """Ids of all objects in the packs of a folder, by their indexes. CorruptData."""
    found: set[bytes] = set()
    for path in pack_dir.glob("*.idx"):
        ids = read_ids(path).tobytes()
        found.update(ids[at : at + 20] for at in range(0, len(ids), 20))
    return found


def _first_branch(refs: Mapping[str, str]) -> str:
    """The branch that HEAD names where there is no main; main, to be made, where there is none at all."""
    branches = sorted(name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/"))
    return branches[0] if branches else "main"


def _read_refs(directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The packed refs that are no matter of ours, and all those, packed or loose, that are."""
    others: dict[str, str] = {}
    ours: dict[str, str] = {}
    try:
        text = (directory / "packed-refs").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        text = ""
    for line in text.splitlines():
        oid, _, name = line.partition(" ")
        if line[:1] not in ("#", "^") and name:
            (ours if name.startswith(_OURS) else others)[name] = oid
    for prefix in _OURS:
        for path in (directory / prefix).rglob("*"):
            if path.is_file() and path.suffix != ".lock":
                name = str(path.relative_to(directory))
                ours[name] = path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    return others, ours


def _remove_loose(folder: Path) -> None:
    """Removes the loose refs of a folder: they would hide the packed ones."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _replace(path: Path, write: Callable[[Path], object], *, mode: int | None = None) -> None:
    """Writes a file durably under another name, then gives it its own."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        if mode is not None:
            temporary.chmod(mode)
        fd = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
