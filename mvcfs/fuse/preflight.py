"""What must hold before a store is mounted, each with a message that says the way out.

Synchronous; runs before the daemon forks, so that what a user can mend is said at once on their terminal. A dead mount
of our own at the mount point is taken off here, and only then: until somebody mounts again, a crashed mount answers
ENOTCONN rather than looking like an empty directory, which a mirroring program would copy.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from mvcfs.errors import Busy, MvcfsError, NotADirectory, NotEmpty, NotFound, NotPermitted
from mvcfs.fuse.mounts import Mount, MountState, detach, mount_at, real_mountpoint, state_of


@dataclass(frozen=True, slots=True)
class FuseHost:
    """Where this machine's FUSE is.

    Attributes:
        device: The kernel's FUSE device.
        helper: The setuid helper that mounts for ordinary users.
        conf: Its settings.
    """

    device: Path = Path("/dev/fuse")
    helper: str = "fusermount3"
    conf: Path = Path("/etc/fuse.conf")


def check_fuse(host: FuseHost, *, allow_other: bool, uid: int) -> None:
    """Checks that this user can mount at all.

    Raises:
        NotFound: /dev/fuse or fusermount3 is missing.
        NotPermitted: The device can't be opened, or others may not be let in.
    """
    try:
        os.close(os.open(host.device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise NotFound(
            f"there is no {host.device}: load the kernel's FUSE with `modprobe fuse` "
            "(a container needs --device /dev/fuse and --cap-add SYS_ADMIN)"
        ) from None
    except OSError as error:
        raise NotPermitted(
            f"can't open {host.device}: {error.strerror}; `chmod 666 {host.device}` lets everybody (as is usual)"
        ) from None
    if uid == 0:
        return
    if shutil.which(host.helper) is None:
        raise NotFound(f"{host.helper} is missing, which ordinary users mount with: apt-get install fuse3")
    if allow_other and not _user_allow_other(host.conf):
        raise NotPermitted(
            f"-o allow_other is off for ordinary users: put a line `user_allow_other` into {host.conf} (as root)"
        )


def _user_allow_other(conf: Path) -> bool:
    try:
        lines = conf.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.partition("#")[0].strip() == "user_allow_other" for line in lines)


def check_mountpoint(path: str | Path, *, uid: int) -> str:
    """Checks a mount point, takes a dead mount of ours off it, and returns its real path.

    Raises:
        NotFound: There is no such directory.
        NotADirectory: It is something else.
        NotEmpty: There is something in it, which a mount would hide.
        Busy: A live or hung mvcfs mount is there, or one of another user.
        NotPermitted: The directory can't be read.
    """
    real = real_mountpoint(path)
    while (mount := mount_at(real)) is not None:
        _clean_up(mount, uid)
    try:
        if not stat.S_ISDIR(os.stat(real).st_mode):
            raise NotADirectory(f"{path} is no directory: a store is mounted on an empty directory")
        with os.scandir(real) as entries:
            first = next(entries, None)
    except FileNotFoundError:
        raise NotFound(f"{path} doesn't exist; make it with: mkdir -p {path}") from None
    except OSError as error:
        raise NotPermitted(f"can't use {path} as a mount point: {error.strerror}") from None
    if first is not None:
        raise NotEmpty(f"{path} isn't empty (there is {first.name!r}): a store is mounted on an empty directory")
    return real


def _clean_up(mount: Mount, uid: int) -> None:
    if uid not in (0, mount.user_id):
        # The kernel tells us nothing of a mount that isn't ours, not even whether it is alive.
        raise Busy(f"user {mount.user_id} has {mount.source} mounted on {mount.mountpoint}; choose another directory")
    state = state_of(mount.mountpoint)
    if state is MountState.ALIVE:
        raise Busy(f"{mount.source} is mounted on {mount.mountpoint} already; `mvcfs umount` takes it off")
    if state is MountState.HUNG:
        raise Busy(f"a mount of {mount.source} on {mount.mountpoint} doesn't answer; see its log, then `mvcfs umount`")
    detach(mount.mountpoint)
    after = mount_at(mount.mountpoint)
    if after is not None and after.mount_id == mount.mount_id:
        raise MvcfsError(f"the dead mount on {mount.mountpoint} can't be taken off")
