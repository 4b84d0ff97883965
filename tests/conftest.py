"""Fixtures that every part of the suite may use: the real HDFS."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hdfs_native import Client
from hypothesis import HealthCheck, settings

from tests.hdfs_service import Cluster, SharedCluster

_shared = SharedCluster()

# The suite starts `mvcfs` hundreds of times: its modules are compiled once, into a folder of the checkout's own.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / "build" / "pycache"))


# How fast examples are made says more of the machine's load than of the code.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")


@pytest.fixture(scope="session")
def hdfs_cluster() -> Cluster:
    """The running cluster that all test processes share. Don't stop parts of it: see `own_hdfs_cluster`."""
    return _shared.use()


@pytest.fixture
def hdfs_url(hdfs_cluster: Cluster) -> Iterator[str]:
    """The address of an empty folder on HDFS that only this test uses."""
    path = f"/tests/{secrets.token_hex(8)}"
    client = Client(hdfs_cluster.url)
    client.mkdirs(path, create_parent=True)
    yield hdfs_cluster.url + path
    client.delete(path, True)


@pytest.fixture(scope="module")
def own_hdfs_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for one module, which may stop, kill and start its parts."""
    cluster = Cluster(Path(tmp_path_factory.mktemp("hdfs")))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.wipe()


def pytest_unconfigure() -> None:
    """In a worker and without workers: lets go of the cluster. In a controller: stops it when all workers have left."""
    _shared.leave()
