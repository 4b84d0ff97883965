"""One client of HDFS and the files that it has open.

Threading: `client` is called in worker threads and makes the client once, under a lock; readers are kept and looked up on
the trio thread only (using one is safe in any thread).
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import trio
from hdfs_native import Client, FileReader

from mvcfs.storage.store_url import StoreAddress

_KEPT_READERS = 128
_READER_AGE_S = 300.0
_DEFAULT_PORT = 8020

_SETTINGS = {
    # A NameNode that is gone fails within a second rather than after three minutes; trying again is our own matter.
    "dfs.client.failover.max.attempts": "3",
    "dfs.client.failover.sleep.base.millis": "100",
    "dfs.client.failover.sleep.max.millis": "500",
}


class Connection:
    """A client, made when first needed, and a bounded number of recent readers."""

    def __init__(self, address: StoreAddress, hadoop_conf_dir: str | None):
        self._address = address
        self._conf_dir = hadoop_conf_dir
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._readers: OrderedDict[str, tuple[FileReader, float]] = OrderedDict()

    def client(self) -> Client:
        """The client."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Client:
        """A client. A lone name is a nameservice of Hadoop's configuration, or else a host with the usual port."""
        authority = self._address.authority
        try:
            return Client(f"hdfs://{authority}", _SETTINGS, self._conf_dir)
        except RuntimeError as error:
            if "No NameNode hosts found" not in str(error) or ":" in authority:
                raise
            return Client(f"hdfs://{authority}:{_DEFAULT_PORT}", _SETTINGS, self._conf_dir)

    def recent_reader(self, path: str) -> FileReader | None:
        """The reader of a file that was opened not long ago."""
        found = self._readers.get(path)
        if found is None:
            return None
        if trio.current_time() - found[1] > _READER_AGE_S:
            del self._readers[path]
            return None
        self._readers.move_to_end(path)
        return found[0]

    def keep_reader(self, path: str, reader: FileReader) -> None:
        """Keeps a reader that was just opened, at the cost of the one that was used longest ago."""
        self._readers[path] = reader, trio.current_time()
        if len(self._readers) > _KEPT_READERS:
            self._readers.popitem(last=False)

    def forget_readers(self, path: str) -> None:
        """Forgets the readers of a file, or of all files below a directory."""
        for known in [known for known in self._readers if f"{known}/".startswith(f"{path}/")]:
            del self._readers[known]
