"""Where this host keeps what belongs to a store: overlay, staging files, caches. Private to the user who mounts."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from mvcfs.cli.options import StoreOptions
from mvcfs.errors import LimitExceeded, NotPermitted
from mvcfs.fuse.runtime import default_runtime_dir


def default_cache_dir() -> Path:
    """`/var/cache/mvcfs` for root, else the user's own cache folder."""
    if os.geteuid() == 0:
        return Path("/var/cache/mvcfs")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "mvcfs"


def prepare_cache_dir(path: Path) -> Path:
    """Makes the cache folder, mode 0700, or checks the one that is there.

    Args:
        path: The folder.

    Returns:
        Its absolute path.

    Raises:
        NotPermitted: Somebody else's folder, a symbolic link, or no folder: overlays hold unpublished files.
        LimitExceeded: The disk is full.
    """
    absolute = Path(os.path.abspath(path))
    try:
        absolute.parent.mkdir(parents=True, exist_ok=True)
        absolute.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(absolute)
    except FileExistsError:
        found = os.lstat(absolute)
    except OSError as error:
        kind = LimitExceeded if error.errno in (28, 122) else NotPermitted
        raise kind(f"cache directory {absolute}: {error.strerror}; choose another one with --cache-dir") from error
    if stat.S_ISLNK(found.st_mode):
        raise NotPermitted(f"cache directory {absolute} is a symbolic link; name the directory itself with --cache-dir")
    if not stat.S_ISDIR(found.st_mode):
        raise NotPermitted(f"cache directory {absolute} is not a directory")
    if found.st_uid != os.geteuid():
        raise NotPermitted(
            f"cache directory {absolute} belongs to user {found.st_uid}; choose your own with --cache-dir"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        absolute.chmod(0o700)
    return absolute


def log_path(cache_dir: Path, mountpoint: str) -> Path:
    """The log of the mounts on one directory: its name readable in part, distinct always."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", mountpoint).strip("-.")[-40:]
    return cache_dir / "logs" / f"{words or 'root'}-{digest}.log"


def hadoop_conf_dir(stores: StoreOptions) -> Path | None:
    """Hadoop's configuration: the option, else the variable that all Hadoop programs read. Absolute."""
    given = stores.hadoop_conf_dir or os.environ.get("HADOOP_CONF_DIR")
    return Path(os.path.abspath(given)) if given else None


def runtime_dir() -> Path:
    """The folder of the control sockets of this user's mounts."""
    return default_runtime_dir(os.geteuid(), os.environ.get("XDG_RUNTIME_DIR") or None)
