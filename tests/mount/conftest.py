from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.harness import Mount, mvcfs


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An empty store in a local folder."""
    path = tmp_path / "store"
    mvcfs("init", path)
    return str(path)


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    """Makes mounts that are taken away at the end."""
    made: list[Mount] = []

    def make(store: str, *options: str, name: str | None = None) -> Mount:
        mount = Mount(store, tmp_path, *options, name=name or f"mnt{len(made)}")
        made.append(mount)
        return mount

    yield make
    for mount in made:
        mount.close()


@pytest.fixture
def mnt(store: str, mounts: Callable[..., Mount]) -> Mount:
    """A mounted local store with one model `m`."""
    mount = mounts(store).start()
    (mount.point / "m").mkdir()
    return mount


@pytest.fixture
def main(mnt: Mount) -> Path:
    """The branch `main` of the model `m`."""
    return mnt.point / "m" / "main"


@pytest.fixture
def hdfs_store(hdfs_url: str) -> str:
    """An empty store on the real HDFS that the suite runs."""
    url = f"{hdfs_url}/store-{uuid.uuid4().hex[:8]}"
    mvcfs("init", url)
    return url
