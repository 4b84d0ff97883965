"""Past versions as read-only directories.

Directories are inodes of their own for each place they are seen at. Regular files with the same content and the same attributes are
one inode in all snapshots of a model, so that the kernel's page cache holds an unchanged shard once for a hundred
versions; hard links of a version are one inode by the same rule. Nothing here ever changes, so the kernel may keep all it learned.

Threading: trio thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace

from mvcfs.errors import InvalidArgument, NotFound
from mvcfs.types import Attributes, Content, TreeEntry
from mvcfs.vfs.attr import Attr
from mvcfs.vfs.inode import Inode
from mvcfs.vfs.sources import ModelData

# Nothing in a snapshot changes: the kernel may keep names and attributes for a day.
SNAPSHOT_TIMEOUT_S = 86400.0


class SnapshotFile(Inode):
    """A file or symlink of past versions, shared by all of them that have it so."""

    __slots__ = ("_place", "_pool", "attributes", "content", "data")

    def __init__(
        self, ino: int, data: ModelData, attributes: Attributes, content: Content | None, pool: SnapshotPool, place: str
    ) -> None:
        super().__init__(ino)
        self.data = data
        self.attributes = attributes
        self.content = content
        self._pool = pool
        self._place = place

    def attr(self) -> Attr:
        """See `Inode.attr`."""
        attributes = self.attributes
        size = self.content.size_bytes if self.content is not None else 0
        mtime = attributes.mtime_ns
        return Attr(
            self.ino, attributes.mode, attributes.nlink, attributes.uid, attributes.gid, 0, size, mtime, mtime, mtime,
            SNAPSHOT_TIMEOUT_S, SNAPSHOT_TIMEOUT_S,
        )  # fmt: skip

    def describe(self) -> str:
        """See `Inode.describe`."""
        return self._place

    async def readlink(self) -> bytes:
        """See `Inode.readlink`."""
        if not stat.S_ISLNK(self.attributes.mode) or self.content is None:
            raise InvalidArgument(f"{self.describe()} is not a symbolic link")
        return await self.data.source(self.content).read(0, self.content.size_bytes)

    def xattrs(self) -> Sequence[tuple[bytes, bytes]]:
        """See `Inode.xattrs`."""
        return self.attributes.xattrs

    def forgotten(self) -> None:
        """See `Inode.forgotten`."""
        self._pool.drop(self)


class SnapshotPool:
    """The shared files of all snapshots of one mount."""

    def __init__(self, allocate: Callable[[], int]) -> None:
        self.allocate = allocate
        self._files: dict[tuple[str, Attributes, Content | None], SnapshotFile] = {}

    def file(self, data: ModelData, entry: TreeEntry, place: str) -> SnapshotFile:
        """The inode of a file of a version."""
        key = (data.id, entry.attributes, entry.content)
        file = self._files.get(key)
        if file is None:
            file = SnapshotFile(self.allocate(), data, entry.attributes, entry.content, self, place)
            self._files[key] = file
        return file

    def drop(self, file: SnapshotFile) -> None:
        """Forgets a file that nobody holds."""
        self._files.pop((file.data.id, file.attributes, file.content), None)


class SnapshotDir(Inode):
    """A directory of a past version."""

    __slots__ = (
        "__weakref__", "_children", "_entries", "_parent", "_pool", "attributes", "commit", "data", "on_forgotten", "path", "tree",
    )  # fmt: skip

    def __init__(
        self,
        data: ModelData,
        pool: SnapshotPool,
        attributes: Attributes,
        tree: str | None,
        *,
        commit: str,
        path: bytes = b"",
        parent: SnapshotDir | None = None,
    ) -> None:
        super().__init__(pool.allocate())
        self.data = data
        self.attributes = attributes
        self.tree = tree
        self.commit = commit
        self.path = path
        self._pool = pool
        self._parent = parent
        self._entries: dict[bytes, TreeEntry] | None = None
        self._children: dict[bytes, SnapshotDir] = {}
        self.on_forgotten: Callable[[], object] | None = None

    def attr(self) -> Attr:
        """See `Inode.attr`."""
        attributes = self.attributes
        mtime = attributes.mtime_ns
        return Attr(
            self.ino, attributes.mode, 2, attributes.uid, attributes.gid, 0, 0, mtime, mtime, mtime,
            SNAPSHOT_TIMEOUT_S, SNAPSHOT_TIMEOUT_S,
        )  # fmt: skip

    def describe(self) -> str:
        """See `Inode.describe`."""
        path = os.fsdecode(self.path)
        return f"{self.data.name}@{self.commit[:10]}" + (f"/{path}" if path else "")

    async def _load(self) -> dict[bytes, TreeEntry]:
        if self._entries is None:
            self._entries = {} if self.tree is None else await self.data.entries(self.tree, self.commit)
        return self._entries

    async def entry(self, name: bytes) -> TreeEntry:
        """What the version says of a name; NotFound."""
        entry = (await self._load()).get(name)
        if entry is None:
            raise NotFound(f"{name!r} is not in {self.describe()}")
        return entry

    async def child(self, name: bytes) -> Inode:
        """See `Inode.child`."""
        entry = await self.entry(name)
        path = self.path + b"/" + name if self.path else name
        if entry.tree is None:
            return self._pool.file(self.data, entry, f"{self.data.name}@{self.commit[:10]}/{os.fsdecode(path)}")
        child = self._children.get(name)
        if child is None:
            child = SnapshotDir(
                self.data, self._pool, entry.attributes, entry.tree, commit=self.commit, path=path, parent=self
            )
            self._children[name] = child
        return child

    async def names(self) -> Sequence[bytes]:
        """See `Inode.names`."""
        return list(await self._load())

    def xattrs(self) -> Sequence[tuple[bytes, bytes]]:
        """See `Inode.xattrs`."""
        return self.attributes.xattrs

    def forgotten(self) -> None:
        """See `Inode.forgotten`: also lets go of what was listed."""
        self._entries = None
        parent = self._parent
        if parent is not None and not self._children:
            name = self.path.rsplit(b"/", 1)[-1]
            if parent._children.get(name) is self:
                del parent._children[name]
        if self.on_forgotten is not None:
            self.on_forgotten()


class ListedSnapshot(SnapshotDir):
    """The root of a commit's snapshot that reads nothing before somebody looks at it: listings show thousands.

    Until then it shows common attributes, which the kernel is told to ask for again.
    """

    __slots__ = ("_is_read",)

    def __init__(self, data: ModelData, pool: SnapshotPool, commit: str) -> None:
        super().__init__(data, pool, Attributes(stat.S_IFDIR | 0o755, 0, 0, 0), None, commit=commit)
        self._is_read = False

    def attr(self) -> Attr:
        """See `Inode.attr`."""
        attr = super().attr()
        return attr if self._is_read else replace(attr, attr_timeout_s=0.0)

    async def refreshed(self) -> None:
        """See `Inode.refreshed`: reads the commit. CorruptData."""
        if not self._is_read:
            self.tree, self.attributes = await _read_root(self.data, self.commit)
            self._is_read = True
            self.data.snapshots.add(self)

    async def _load(self) -> dict[bytes, TreeEntry]:
        await self.refreshed()
        return await super()._load()


async def open_snapshot(data: ModelData, pool: SnapshotPool, commit: str) -> SnapshotDir:
    """The root directory of a commit's snapshot.

    Raises:
        NotFound: There is no such commit.
        CorruptData: Its objects can't be read.
    """
    tree, attributes = await _read_root(data, commit)
    root = SnapshotDir(data, pool, attributes, tree, commit=commit)
    data.snapshots.add(root)
    return root


async def _read_root(data: ModelData, commit: str) -> tuple[str, Attributes]:
    """The tree of a commit, and the attributes of its root directory."""
    info = await data.repository.commit_info(commit)
    attributes = await data.repository.root_attributes(info.tree)
    if attributes is None:
        attributes = Attributes(stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), info.committer_time_s * 1_000_000_000)
    return info.tree, replace(attributes, nlink=1)
