"""Every kind of storage, bare and wrapped, behind one fixture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvcfs.storage.config import RetryPolicy, StorageConfig
from mvcfs.storage.deadline import DeadlineStorage
from mvcfs.storage.faults import FaultyStorage
from mvcfs.storage.hdfs import HdfsStorage
from mvcfs.storage.local import LocalStorage
from mvcfs.storage.memory import MemoryStorage
from mvcfs.storage.protocol import Storage
from mvcfs.storage.retry import RetryingStorage
from mvcfs.storage.store_url import parse_store_url

SMALL_BLOCKS = StorageConfig(block_bytes=1 << 20)

WRAPPERS: dict[str, Callable[[Storage], Storage]] = {
    "bare": lambda inner: inner,
    "deadline": lambda inner: DeadlineStorage(inner, metadata_s=30, data_s=60),
    "retry": lambda inner: RetryingStorage(inner, RetryPolicy()),
    "faulty": FaultyStorage,
    "all": lambda inner: RetryingStorage(
        DeadlineStorage(FaultyStorage(inner), metadata_s=30, data_s=60), RetryPolicy()
    ),
}


def hdfs_storage(url: str, config: StorageConfig = SMALL_BLOCKS) -> HdfsStorage:
    return HdfsStorage(parse_store_url(url), config)


def _kinds() -> list[object]:
    kinds: list[object] = []
    for backend in ("local", "memory", "hdfs"):
        marks = [pytest.mark.hdfs] if backend == "hdfs" else []
        kinds += [pytest.param((backend, wrapper), id=f"{backend}-{wrapper}", marks=marks) for wrapper in WRAPPERS]
    return kinds


@pytest.fixture(params=_kinds())
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty store of every kind, in every wrapper."""
    backend, wrapper = request.param
    inner: Storage
    if backend == "local":
        (tmp_path / "store").mkdir()
        inner = LocalStorage(tmp_path / "store")
    elif backend == "memory":
        inner = MemoryStorage()
    else:
        inner = hdfs_storage(request.getfixturevalue("hdfs_url"))
    return WRAPPERS[wrapper](inner)
