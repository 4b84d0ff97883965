from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.tools import build_checkout
from tests.mount.conftest import hdfs_store, mounts, store  # noqa: F401
from tests.mount.harness import Mount


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git checkout of some thousand real files. Not to be changed."""
    return build_checkout(tmp_path_factory.mktemp("checkout") / "tree")


@pytest.fixture(params=["local", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def any_store(request: pytest.FixtureRequest) -> str:
    """An empty store, in a local folder and on real HDFS."""
    return str(request.getfixturevalue("store" if request.param == "local" else "hdfs_store"))


@pytest.fixture
def patient(mounts: Callable[..., Mount]) -> Callable[[str], Mount]:  # noqa: F811
    """Mounts a store, with an empty local folder, so that only `mvcfs commit` and `umount` make versions."""

    def make(store: str) -> Mount:  # noqa: F811
        return mounts(store).start("--settle", "1h", "--max-settle", "1h")

    return make
