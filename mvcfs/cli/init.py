"""`mvcfs init`: makes a store."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mvcfs.cli.options import CommonOptions, OutputOptions, StoreOptions
from mvcfs.cli.output import print_json, print_line
from mvcfs.cli.stores import open_store

HELP = """Make a store: a directory on HDFS or a local folder.

\b
Examples:
  mvcfs init ./store
  mvcfs init hdfs://namenode:8020/models
"""


def init(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="hdfs://HOST:PORT/PATH, hdfs://NAMESERVICE/PATH or a local path.")
    ],
    output: OutputOptions,
    stores: StoreOptions,
    common: CommonOptions,
) -> None:
    """Makes the store and prints its address."""
    import trio

    from mvcfs.versions.store import Store

    async def make() -> tuple[str, str]:
        storage = await open_store(store, stores)
        try:
            return storage.url, (await Store.init(storage, created_ns=time.time_ns())).id
        finally:
            await storage.aclose()

    url, store_id = trio.run(make)
    if output.json:
        print_json({"store": url, "id": store_id})
    else:
        print_line(f"made store {url}")
        print_line(f"mount it with: mvcfs mount {store} MOUNTPOINT")
