"""The device of all mounts, open to all users for a while. One test of all workers at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def open_to_all() -> Iterator[None]:
    """Gives /dev/fuse the mode that it has wherever udev runs, while nobody else changes it."""
    lock = os.open(
        "/run/lock/mvcfs-test-dev-fuse" if os.path.isdir("/run/lock") else "/tmp/mvcfs-test-dev-fuse",
        os.O_RDWR | os.O_CREAT,
        0o600,
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mode = os.stat("/dev/fuse").st_mode
        os.chmod("/dev/fuse", 0o666)
        try:
            yield
        finally:
            os.chmod("/dev/fuse", mode)
    finally:
        os.close(lock)
