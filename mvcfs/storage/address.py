"""From an address to a storage with its wrappers."""

from __future__ import annotations

from pathlib import Path

import trio

from mvcfs.storage.config import StorageConfig
from mvcfs.storage.deadline import DeadlineStorage
from mvcfs.storage.hdfs import HdfsStorage
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.protocol import Storage
from mvcfs.storage.retry import RetryingStorage
from mvcfs.storage.store_url import parse_store_url


async def open_storage(url: str, *, config: StorageConfig | None = None, hadoop_conf_dir: str | None = None) -> Storage:
    """The storage at an address, with deadlines and retries. Nothing is asked of the store yet.

    Args:
        url: As `parse_store_url` takes it.
        config: Deadlines, retries, block size, replication.
        hadoop_conf_dir: Folder of core-site.xml and hdfs-site.xml; None leaves it to the client (HADOOP_CONF_DIR).

    Raises:
        InvalidArgument: The address is none.
    """
    config = config or StorageConfig()
    await trio.lowlevel.checkpoint()
    address = parse_store_url(url)
    backend: Storage
    if address.scheme == "file":
        backend = LocalStorage(Path(address.path), block_bytes=config.block_bytes)
    else:
        backend = HdfsStorage(address, config, hadoop_conf_dir=hadoop_conf_dir)
    bounded = DeadlineStorage(backend, metadata_s=config.metadata_deadline_s, data_s=config.data_deadline_s)
    return RetryingStorage(bounded, config.retry)
