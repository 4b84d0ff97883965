"""Builds what the layers below take from the options: access to the store, the engine and its configuration.

The modules of those layers are loaded where they are used: a command that only asks a daemon does without them.
"""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mvcfs.cli.localstate import default_cache_dir, hadoop_conf_dir, prepare_cache_dir
from mvcfs.cli.options import EngineOptions, Fsync, StoreOptions
from mvcfs.config import EngineConfig, MountRoot, VersionRules

if TYPE_CHECKING:
    from mvcfs.storage.protocol import Storage


def user_name() -> str:
    """The name of who runs this, by number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def absolute_url(store: str) -> str:
    """A store's address in its one form, which means the same in every directory."""
    from mvcfs.storage.store_url import parse_store_url

    return parse_store_url(store).url


def cache_dir(stores: StoreOptions) -> Path:
    """The folder of this host's local state, made where it isn't."""
    return prepare_cache_dir(stores.cache_dir or default_cache_dir())


async def open_store(url: str, stores: StoreOptions) -> Storage:
    """Opens a store's files, with the deadlines that the options say."""
    from mvcfs.storage.address import open_storage
    from mvcfs.storage.config import StorageConfig

    hadoop = hadoop_conf_dir(stores)
    config = StorageConfig(
        metadata_deadline_s=stores.metadata_timeout,
        data_deadline_s=stores.data_timeout,
        block_bytes=stores.block_size,
        replication=stores.replication,
    )
    return await open_storage(url, config=config, hadoop_conf_dir=str(hadoop) if hadoop else None)


def engine_config(folder: Path, engine: EngineOptions, root: MountRoot | None = None) -> EngineConfig:
    """Gathers what the engine needs to know.

    Args:
        folder: Local state.
        engine: The options.
        root: What the mount shows; None for the whole store.
    """
    return EngineConfig(
        cache_dir=folder,
        host=socket.gethostname(),
        user=user_name(),
        memory_bytes=engine.memory,
        block_cache_bytes=engine.block_cache,
        staging_bytes=engine.staging,
        staging_min_free_bytes=engine.staging_min_free,
        rules=VersionRules(
            settle_s=engine.settle, max_settle_s=engine.max_settle, live_interval_s=engine.live_interval
        ),
        xattr=engine.xattr,
        show_history=engine.show_history,
        refresh_s=engine.refresh,
        read_only=engine.read_only,
        fsync_publish=engine.fsync is Fsync.PUBLISH,
        entry_timeout_s=engine.entry_timeout,
        shared=engine.shared,
        root=root,
    )
