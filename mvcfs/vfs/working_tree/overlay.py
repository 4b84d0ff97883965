"""The names and attributes of working trees that no version holds yet: one SQLite database a mount.

Why: a system call that returned must survive `kill -9` of the daemon, so every change of a name or an attribute is a
committed transaction (in the page cache) before the call returns; the bytes of files are in staging files beside it
(`mvcfs.content.staging`). After power loss only what `sync` made durable counts: SQLite's log is a prefix of what was
done, and rows of files carry the boot they were written under, so that staging bytes which were never fsynced are not
taken for data.

Invariants: a row of `node` is a changed node; `entry` rows are the names of a directory that differ from its base tree
(a null `ino` removes the base's name); every node but a branch's root is named by at least one entry, after `prune`.
Inode numbers are never given out twice in the life of an overlay.

Threading: used on the trio thread only; `sync` waits for the disk in a thread.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from mvcfs.errors import CorruptData, LimitExceeded
from mvcfs.types import BlobContent, Content, LargeContent

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS branch(
    id TEXT PRIMARY KEY, model TEXT NOT NULL, base_commit TEXT, root INTEGER NOT NULL, attempt TEXT,
    merge_base TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS node(
    ino INTEGER PRIMARY KEY, branch TEXT NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
    rdev INTEGER NOT NULL, atime_ns INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    nlink INTEGER NOT NULL, link TEXT, xattrs TEXT, target BLOB, content TEXT, tree TEXT, staged TEXT,
    boot TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS node_branch ON node(branch);
CREATE TABLE IF NOT EXISTS entry(
    parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER, PRIMARY KEY(parent, name)) WITHOUT ROWID;
"""
_BRANCH_COLUMNS = "id,model,base_commit,root,attempt,merge_base"
_FORMAT = 2
# Inode numbers are reserved in the database this many at a time, so that an allocation is no transaction.
_INO_STEP = 16384
_FIRST_INO = 1024


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A changed node as the overlay keeps it.

    Attributes:
        ino: Inode number.
        branch: Id of the branch.
        mode: st_mode with type bits.
        uid: Owner.
        gid: Group.
        rdev: Device number.
        atime_ns: Last access as set.
        mtime_ns: Last change of content.
        ctime_ns: Last change.
        nlink: Number of names.
        link: Hard-link group, or None.
        xattrs: User xattrs, sorted.
        target: Target of a symlink that no version holds.
        content: Stored content the node is based on.
        tree: Git tree a directory is based on.
        staged: State of the staging file, as `StagedFile.state` gave it.
        boot: Boot id under which the row was written.
    """

    ino: int
    branch: str
    mode: int
    uid: int
    gid: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    link: str | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    target: bytes | None
    content: Content | None
    tree: str | None
    staged: str | None
    boot: str


@dataclass(frozen=True, slots=True)
class BranchRow:
    """A working tree that has changes.

    Attributes:
        id: The branch's id.
        model: The model's id.
        base_commit: Commit that unchanged names come from, None for an empty branch.
        root: Inode number of its root directory.
        attempt: A publish whose outcome is not known yet, as the committer wrote it, or None.
        merge_base: The tree that changes count from where it isn't that of `base_commit`, as the committer wrote it, or None.
    """

    id: str
    model: str
    base_commit: str | None
    root: int
    attempt: str | None
    merge_base: str | None = None


def _encode_content(content: Content | None) -> str | None:
    if content is None:
        return None
    if isinstance(content, BlobContent):
        return f"blob {content.oid} {content.size_bytes} {int(content.stripped)}"
    return f"large {content.oid} {content.size_bytes}"


def _decode_content(text: str | None) -> Content | None:
    if text is None:
        return None
    words = text.split(" ")
    if words[0] == "blob":
        return BlobContent(words[1], int(words[2]), words[3] == "1")
    return LargeContent(words[1], int(words[2]))


def _encode_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> str | None:
    return json.dumps([[n.hex(), v.hex()] for n, v in xattrs]) if xattrs else None


def _decode_xattrs(text: str | None) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((bytes.fromhex(n), bytes.fromhex(v)) for n, v in json.loads(text)) if text else ()


def boot_id() -> str:
    """This boot of the machine, as the kernel names it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _node_row(row: Sequence[Any]) -> NodeRow:
    ino, branch, mode, uid, gid, rdev, atime, mtime, ctime, nlink, link, xattrs, target, content, tree, staged, boot = (
        row
    )
    return NodeRow(
        ino, branch, mode, uid, gid, rdev, atime, mtime, ctime, nlink, link, _decode_xattrs(xattrs), target,
        _decode_content(content), tree, staged, boot,
    )  # fmt: skip


class Overlay:
    """The database. One process at a time has it open; the caller holds the lock."""

    def __init__(self, directory: Path, *, boot: str | None = None) -> None:
        """Opens or makes the overlay in `directory`.

        Args:
            directory: A folder on local disk, private to the user.
            boot: Boot id to write rows under; tests set it to play power loss.

        Raises:
            CorruptData: The database can't be read; it is left as it is.
        """
        self.path = directory / "overlay.db"
        self.boot = boot or boot_id()
        self.failed: str | None = None
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._check_format()
        except sqlite3.DatabaseError as error:
            raise CorruptData(
                f"the overlay {self.path} can't be read ({error}); it holds writes that are in no version: "
                "copy it away before you remove it"
            ) from error
        self._depth = 0
        self._next_ino = int(self._meta("next_ino") or _FIRST_INO)
        self._reserved = self._next_ino

    def _check_format(self) -> None:
        found = self._meta("format")
        if found is None:
            self._set_meta("format", str(_FORMAT))
        elif found != str(_FORMAT):
            raise CorruptData(f"the overlay {self.path} is of format {found}; this mvcfs reads format {_FORMAT}")

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, key: str, value: str) -> None:
        self._write("INSERT OR REPLACE INTO meta VALUES(?,?)", (key, value))

    def allocate_ino(self) -> int:
        """A number that no inode of this overlay ever had."""
        if self._next_ino >= self._reserved:
            self._reserved = self._next_ino + _INO_STEP
            self._set_meta("next_ino", str(self._reserved))
        self._next_ino += 1
        return self._next_ino - 1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Several changes that appear together; nests. No await may happen inside."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        self._write("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self._write("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        finally:
            self._depth = 0

    def _write(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Runs a statement that changes the database.

        After a failure the nodes in memory are ahead of the rows, so nothing more may be acknowledged: every later
        change is refused until all rows could be written anew (`mend`), or until the next mount, which finds what was
        acknowledged before.
        """
        if self.failed is not None:
            raise LimitExceeded(self.failed)
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            self.failed = f"the overlay {self.path} can't be written ({error}): free space there"
            log.error("%s", self.failed)
            raise LimitExceeded(self.failed) from error

    def mend(self, rewrite: Callable[[], None]) -> bool:
        """After a failed write: tries to write all rows anew.

        Args:
            rewrite: Writes the rows of everything that is changed.

        Returns:
            Whether the overlay takes changes again.
        """
        self.failed = None
        try:
            with self.transaction():
                rewrite()
        except LimitExceeded:
            return False
        log.info("the overlay %s can be written again", self.path)
        return True

    def put_branch(self, row: BranchRow) -> None:
        """Writes a working tree's row, new or changed."""
        self._write(
            "INSERT OR REPLACE INTO branch VALUES(?,?,?,?,?,?)",
            (row.id, row.model, row.base_commit, row.root, row.attempt, row.merge_base),
        )

    def set_attempt(self, branch: str, attempt: str | None) -> None:
        """Notes a publish that may or may not have happened."""
        self._write("UPDATE branch SET attempt=? WHERE id=?", (attempt, branch))

    def branches(self) -> list[BranchRow]:
        """All working trees that have changes or an attempt."""
        return [BranchRow(*row) for row in self._db.execute(f"SELECT {_BRANCH_COLUMNS} FROM branch")]

    def branch(self, branch: str) -> BranchRow | None:
        """One working tree's row."""
        row = self._db.execute(f"SELECT {_BRANCH_COLUMNS} FROM branch WHERE id=?", (branch,)).fetchone()
        return None if row is None else BranchRow(*row)

    def drop_branch(self, branch: str) -> None:
        """Forgets a working tree with all its nodes."""
        with self.transaction():
            self._write("DELETE FROM entry WHERE parent IN (SELECT ino FROM node WHERE branch=?)", (branch,))
            self._write("DELETE FROM node WHERE branch=?", (branch,))
            self._write("DELETE FROM branch WHERE id=?", (branch,))

    def put_node(self, row: NodeRow) -> None:
        """Writes a changed node, new or changed again."""
        self._write(
            "INSERT OR REPLACE INTO node VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                row.ino, row.branch, row.mode, row.uid, row.gid, row.rdev, row.atime_ns, row.mtime_ns, row.ctime_ns,
                row.nlink, row.link, _encode_xattrs(row.xattrs), row.target, _encode_content(row.content), row.tree,
                row.staged, row.boot,
            ),
        )  # fmt: skip

    def drop_nodes(self, inos: Iterable[int]) -> None:
        """Removes nodes and, of directories, their entries."""
        for ino in inos:
            self._write("DELETE FROM node WHERE ino=?", (ino,))
            self._write("DELETE FROM entry WHERE parent=?", (ino,))

    def put_entry(self, parent: int, name: bytes, ino: int | None) -> None:
        """Makes `name` of a directory differ from its base: another node, or (None) gone."""
        self._write("INSERT OR REPLACE INTO entry VALUES(?,?,?)", (parent, name, ino))

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Makes `name` of a directory what its base says again."""
        self._write("DELETE FROM entry WHERE parent=? AND name=?", (parent, name))

    def nodes(self, branch: str) -> list[NodeRow]:
        """The changed nodes of a working tree."""
        rows = self._db.execute(
            "SELECT ino,branch,mode,uid,gid,rdev,atime_ns,mtime_ns,ctime_ns,nlink,link,xattrs,target,content,tree,"
            "staged,boot FROM node WHERE branch=?",
            (branch,),
        )
        return [_node_row(row) for row in rows]

    def entries(self, branch: str) -> list[tuple[int, bytes, int | None]]:
        """The (directory, name, node or None) that differ from the base in a working tree."""
        return self._db.execute(
            "SELECT parent,name,entry.ino FROM entry JOIN node ON entry.parent=node.ino WHERE branch=?", (branch,)
        ).fetchall()

    def staged_states(self) -> list[str]:
        """The staging states of all nodes, so that what no row names can be swept."""
        return [row[0] for row in self._db.execute("SELECT staged FROM node WHERE staged IS NOT NULL")]

    async def sync(self) -> None:
        """Makes all transactions so far durable."""
        await trio.to_thread.run_sync(_fsync_log, Path(f"{self.path}-wal"))

    def close(self) -> None:
        """Closes the database."""
        self._db.close()


def _fsync_log(path: Path) -> None:
    # SQLite in WAL mode appends committed frames to this one file: its fsync is what synchronous=FULL does at a commit.
    # A checkpoint may have emptied it, which SQLite syncs on its own.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
