"""Where the control sockets of mounts are: a folder of the user, with one socket a mount point.

The folder is what keeps other users out, so it is taken only if it is a real directory of ours with mode 0700: somebody
else could have made `/tmp/mvcfs-1000` first.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from mvcfs.errors import InvalidArgument, NotPermitted
from mvcfs.fuse.mounts import Mount

_SOCKET_PATH_MAX = 107
"""Longest path of a Unix socket on Linux."""


def default_runtime_dir(uid: int, xdg_runtime_dir: str | None = None) -> Path:
    """Returns a user's runtime folder.

    Args:
        uid: The user.
        xdg_runtime_dir: The user's $XDG_RUNTIME_DIR if it is set; not used for root.
    """
    if uid == 0:
        return Path("/run/mvcfs")
    if xdg_runtime_dir:
        return Path(xdg_runtime_dir) / "mvcfs"
    return Path(f"/tmp/mvcfs-{uid}")


def make_runtime_dir(directory: Path) -> None:
    """Makes the runtime folder unless it is there, and checks that it is ours alone.

    Raises:
        NotPermitted: It can't be made, or it is a symlink, somebody else's, or open to others.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise NotPermitted(f"can't make the runtime folder {directory}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise NotPermitted(f"the runtime folder {directory} is no directory; remove it")
    if found.st_uid != os.geteuid():
        raise NotPermitted(f"the runtime folder {directory} belongs to user {found.st_uid}; remove it")
    if found.st_mode & 0o077:
        raise NotPermitted(f"the runtime folder {directory} is open to others: chmod 700 {directory}")


def socket_path(runtime_dir: Path, mountpoint: str) -> Path:
    """Returns where the control socket of a mount point (a real path) is.

    Raises:
        InvalidArgument: The folder's path is too long for a socket in it.
    """
    name = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:24] + ".sock"
    path = runtime_dir / name
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise InvalidArgument(f"the path of the runtime folder {runtime_dir} is too long for a socket; set another")
    return path


def find_socket(mount: Mount, runtime_dir: Path) -> Path:
    """Returns the socket of a mount: in this user's folder, or where its user's daemon would have put it.

    Args:
        mount: The mount.
        runtime_dir: Runtime folder of the user who asks.
    """
    own = socket_path(runtime_dir, mount.mountpoint)
    owner = mount.user_id
    for directory in (
        runtime_dir,
        default_runtime_dir(owner, f"/run/user/{owner}"),
        default_runtime_dir(owner),
    ):
        path = socket_path(directory, mount.mountpoint)
        if path.exists():
            return path
    return own
