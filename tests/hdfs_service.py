"""The HDFS that tests share: one cluster a checkout, kept while any test process uses it.

Users hold a shared lock on a file; whoever leaves last, seen by getting it exclusively, stops the cluster. So a killed
test run leaves no stale count, and several runs at once don't stop each other's.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from hdfs_cluster import Cluster  # noqa: E402

DIRECTORY = ROOT / "build" / "hdfs-tests"
KEEP = "MVCFS_TEST_KEEP_HDFS"


class SharedCluster:
    """This process's hold on the shared cluster."""

    def __init__(self, directory: Path = DIRECTORY):
        self.cluster = Cluster(directory)
        self._users = directory.with_name(directory.name + ".users")
        self._hold: TextIO | None = None

    def use(self) -> Cluster:
        """Starts the cluster unless it runs, and keeps it running."""
        if self._hold is None:
            self._users.parent.mkdir(parents=True, exist_ok=True)
            self._hold = self._users.open("a")
            fcntl.flock(self._hold, fcntl.LOCK_SH)
            self.cluster.start()
        return self.cluster

    def leave(self) -> None:
        """Lets go; with nobody left the cluster is wiped, unless MVCFS_TEST_KEEP_HDFS is set."""
        if self._hold is not None:
            self._hold.close()
            self._hold = None
        if not self._users.exists() or os.environ.get(KEEP):
            return
        with self._users.open("a") as hold:
            try:
                fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if self.cluster.directory.exists():
                self.cluster.wipe()
