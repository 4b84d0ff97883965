"""A store on HDFS, by hdfs-native (no JVM).

Files are written under a hidden temporary name in the directory that they belong to, closed, and moved to their name by
HDFS's rename without overwrite: so nobody ever sees half a file, and of many writers of one name one wins. Directories
are made exclusively the same way, since HDFS's own mkdirs is content with one that exists. What a crash leaves is hidden.

Paths may come to name other files when a directory is renamed; names of big files are never used again. So `read_range`
may use a file that it opened minutes ago, `read_file` always looks anew.

Threading: all calls of the client are in threads (see `threads`), metadata and bulk data apart. The client is made at
first use, in the process that uses it: one made before a fork hangs. A call that was abandoned after a long wait takes
its connection with it, the next one begins afresh. Connection and reader cache are touched on the trio thread only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import trio
from hdfs_native import Client, ContentSummary, FileReader, FileStatus, WriteOptions

from mvcfs.errors import LimitExceeded, MvcfsError, NotADirectory, NotFound
from mvcfs.storage.config import StorageConfig
from mvcfs.storage.hdfs_connection import Connection
from mvcfs.storage.hdfs_errors import is_panic, translate
from mvcfs.storage.hdfs_reading import open_reader, read_range
from mvcfs.storage.hdfs_space import cluster_space, configured_replication
from mvcfs.storage.hdfs_writer import HdfsWriter, Unfinished
from mvcfs.storage.paths import check_identity, check_range, is_temporary, split, split_child, temporary_name
from mvcfs.storage.protocol import Space, StoreEntry, Writer
from mvcfs.storage.store_url import StoreAddress
from mvcfs.storage.threads import CallThreads
from mvcfs.types import SELF, Identity

T = TypeVar("T")

_METADATA_THREADS = 16
_BULK_THREADS = 8
_SUSPECT_S = 3.0
"""A call that was given up after so long casts doubt on its connection."""
_SPACE_KEPT_S = 60.0
_UNKNOWN_FREE_BYTES = 1 << 50
_NO_QUOTA = 1 << 62


class HdfsStorage:
    """The files below a path of an HDFS."""

    def __init__(self, address: StoreAddress, config: StorageConfig, *, hadoop_conf_dir: str | None = None):
        self._address = address
        self._config = config
        self._conf_dir = hadoop_conf_dir
        self._connection = Connection(address, hadoop_conf_dir)
        self._metadata = CallThreads(address.url, _METADATA_THREADS)
        self._bulk = CallThreads(address.url, _BULK_THREADS)
        self._space: tuple[float, Space] | None = None

    @property
    def url(self) -> str:
        """The store's address."""
        return self._address.url

    @property
    def block_bytes(self) -> int:
        """The block size that all files of this store are made with."""
        return self._config.block_bytes

    async def stat(self, path: str, *, identity: Identity = SELF) -> StoreEntry:
        """What is at `path`."""
        check_identity(identity, self.url)
        full = self._full(split(path))
        status = await self._call(path, lambda client: client.get_file_info(full))
        return _entry(path.rpartition("/")[2], status)

    async def list_dir(self, path: str, *, identity: Identity = SELF) -> list[StoreEntry]:
        """The names in a directory, sorted."""
        check_identity(identity, self.url)
        full = self._full(split(path))
        found = await self._call(path, lambda client: list(client.list_status(full)))
        if len(found) == 1 and not found[0].isdir and found[0].path.rstrip("/") == full:
            raise NotADirectory(f"{path} is a file")
        entries = [_entry(status.path.rpartition("/")[2], status) for status in found]
        return sorted((entry for entry in entries if not is_temporary(entry.name)), key=lambda entry: entry.name)

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        """The bytes of a range, all of them. An error with a reader of some age is judged by a fresh one."""
        check_identity(identity, self.url)
        check_range(path, offset, length)
        full = self._full(split_child(path))
        connection = self._connection
        reader = connection.recent_reader(full)
        if reader is not None:
            try:
                return await self._read(path, reader, offset, length)
            except (MvcfsError, trio.Cancelled) as error:
                connection.forget_readers(full)
                if isinstance(error, trio.Cancelled):
                    raise
        reader = await self._call(path, lambda client: open_reader(client, full, offset + length))
        data = await self._read(path, reader, offset, length)
        connection.keep_reader(full, reader)
        return data

    async def read_file(self, path: str, *, max_bytes: int, identity: Identity = SELF) -> bytes:
        """A whole file of at most `max_bytes`, as it is now."""
        check_identity(identity, self.url)
        full = self._full(split_child(path))

        def read(client: Client) -> bytes:
            size = client.get_file_info(full).length
            if size > max_bytes:
                raise LimitExceeded(f"{path}: {size} bytes are more than the {max_bytes} expected at most")
            return read_range(open_reader(client, full, size), path, 0, size)

        return await self._call(path, read, bulk=True)

    async def create(self, path: str, *, identity: Identity = SELF) -> Writer:
        """Starts a new file under a hidden name; its own name is taken at `close`."""
        check_identity(identity, self.url)
        unfinished = self._unfinished(path)

        raw = await self._call(path, unfinished.start)
        return HdfsWriter(unfinished, raw, self._call)

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        """Makes a new file with `data`."""
        check_identity(identity, self.url)
        unfinished = self._unfinished(path)

        def write(client: Client) -> None:
            unfinished.finish(client, unfinished.start(client), bytes(data), len(data))

        await self._call(path, write, bulk=True, mutates=True)

    async def rename(self, source: str, target: str, *, identity: Identity = SELF) -> None:
        """Moves a file or directory to a free name."""
        check_identity(identity, self.url)
        old, new = self._full(split_child(source)), self._full(split_child(target))
        self._connection.forget_readers(old)
        await self._call(f"{source} -> {target}", lambda client: client.rename(old, new), mutates=True)

    async def mkdir(self, path: str, *, parents: bool = False, identity: Identity = SELF) -> None:
        """Makes a directory; without `parents` exclusively, by a rename."""
        check_identity(identity, self.url)
        if parents:
            full = self._full(split(path))
            await self._call(path, lambda client: client.mkdirs(full, create_parent=True), mutates=True)
            return
        segments = split_child(path)
        full, temporary = self._full(segments), self._full((*segments[:-1], temporary_name()))

        def make(client: Client) -> None:
            client.mkdirs(temporary, create_parent=False)
            try:
                client.rename(temporary, full)
            except Exception:
                with contextlib.suppress(OSError, RuntimeError):
                    client.delete(temporary)
                raise

        await self._call(path, make, mutates=True)

    async def delete(self, path: str, *, recursive: bool = False, identity: Identity = SELF) -> None:
        """Removes a file, an empty directory, or with `recursive` a tree. Nothing goes to the trash."""
        check_identity(identity, self.url)
        full = self._full(split_child(path))
        self._connection.forget_readers(full)
        if not await self._call(path, lambda client: client.delete(full, recursive), mutates=True):
            raise NotFound(f"{path}: no such file or directory")

    async def space(self, *, identity: Identity = SELF) -> Space:
        """Room by the cluster's free disk and the space quota of the store's root, whichever is less.

        Where the NameNode's web server doesn't say how much is free and the root has no quota, free space is given as
        1 PiB, so that nobody refuses to write; a full cluster shows when a write fails. Asked at most once a minute,
        since the NameNode walks the whole tree for it.
        """
        check_identity(identity, self.url)
        now = trio.current_time()
        if self._space is None or now - self._space[0] > _SPACE_KEPT_S:
            root = self._full(())

            def look(client: Client) -> Space:
                summary = client.get_content_summary(root)
                return self._room(summary, cluster_space(self._address.authority, self._conf_dir))

            self._space = now, await self._call("", look)
        return self._space[1]

    def _room(self, summary: ContentSummary, cluster: tuple[int, int] | None) -> Space:
        used = summary.length
        copies = self._config.replication or configured_replication(self._conf_dir) or 3
        if used:
            copies = max(1, round(summary.space_consumed / used))
        bounds = [] if cluster is None else [cluster[1]]
        if summary.space_quota < _NO_QUOTA:
            bounds.append(max(0, summary.space_quota - summary.space_consumed))
        free = min(bounds) // copies if bounds else _UNKNOWN_FREE_BYTES
        total = used + free
        if cluster is not None and summary.space_quota >= _NO_QUOTA:
            total = max(total, cluster[0] // copies)
        return Space(total, free)

    async def aclose(self) -> None:
        """Lets go of the client; its connections close when the last call has ended."""
        await trio.lowlevel.checkpoint()
        self._connection = Connection(self._address, self._conf_dir)

    def _full(self, segments: tuple[str, ...]) -> str:
        return "/".join((self._address.path.rstrip("/"), *segments)) or "/"

    def _unfinished(self, path: str) -> Unfinished:
        segments = split_child(path)
        options = WriteOptions(
            block_size=self._config.block_bytes,
            replication=self._config.replication,
            overwrite=False,
            create_parent=False,
        )
        temporary = self._full((*segments[:-1], temporary_name()))
        return Unfinished(f"{self.url}: {path}", self._full(segments), temporary, options)

    async def _read(self, path: str, reader: FileReader, offset: int, length: int) -> bytes:
        return await self._call(path, lambda _: read_range(reader, path, offset, length), bulk=True)

    async def _call(
        self, path: str, function: Callable[[Client], T], *, mutates: bool = False, bulk: bool = False
    ) -> T:
        """Runs `function` in a thread, with its errors made those of the protocol."""
        connection = self._connection

        def run() -> T:
            try:
                return function(connection.client())
            except MvcfsError:
                raise
            except Exception as error:
                raise translate(error, f"{self.url}: {path or '/'}", mutates=mutates) from error
            except BaseException as error:
                if is_panic(error):
                    raise translate(error, f"{self.url}: {path or '/'}", mutates=mutates) from error
                raise

        began = trio.current_time()
        try:
            return await (self._bulk if bulk else self._metadata).run(run)
        except trio.Cancelled:
            if trio.current_time() - began > _SUSPECT_S and self._connection is connection:
                self._connection = Connection(self._address, self._conf_dir)
            raise


def _entry(name: str, status: FileStatus) -> StoreEntry:
    size = 0 if status.isdir else status.length
    return StoreEntry(name, status.isdir, size, status.modification_time * 1_000_000)
