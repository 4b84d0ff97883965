from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse_device import open_to_all
from tests.mount.conftest import hdfs_store, main, mnt, mounts, store  # noqa: F401
from tests.rough.tools import NOBODY, OTHER, User


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("MVCFS_", "HADOOP_"))]:
        if name not in ("MVCFS_HADOOP_JARS", "MVCFS_TEST_KEEP_HDFS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user reaches, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="mvcfs-rough-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def users(reachable: Path) -> Iterator[tuple[User, User]]:
    """Two ordinary users with homes, on a machine whose /dev/fuse is open to all (as it is wherever udev runs)."""
    if os.geteuid() != 0:
        pytest.skip("becomes other users")
    made = (User(NOBODY, reachable / "one"), User(OTHER, reachable / "two"))
    with open_to_all():
        try:
            yield made
        finally:
            for user in made:
                user.close()
