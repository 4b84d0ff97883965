"""Which mvcfs mounts there are, whether they are alive, and how they are taken off.

The kernel's own list (/proc/self/mountinfo) is the only source. Nothing here touches what is below a mount point before
it knows that no dead or hung daemon is behind it: a stat would fail or block for ever. Synchronous, without state, so
that command-line programs use it directly; the probe uses a daemon thread because a hung mount never answers.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import re
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from mvcfs.errors import MvcfsError

FSTYPE = "fuse.mvcfs"
MOUNTINFO = Path("/proc/self/mountinfo")

_GONE = (errno.ENOTCONN, errno.ECONNABORTED)
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted store.

    Attributes:
        mountpoint: Where it is mounted, as the kernel names it.
        source: The store's URL.
        user_id: The user whose daemon serves it.
        device: `major:minor`, its name under /sys/class/bdi.
        mount_id: The kernel's number of this mount.
        group_id: That user's group.
    """

    mountpoint: str
    source: str
    user_id: int
    device: str
    mount_id: int
    group_id: int = 0


class MountState(enum.Enum):
    """How a mount answers."""

    ALIVE = "alive"
    DEAD = "dead"
    HUNG = "hung"


def _unescape(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match.group(1), 8)]), field))


def _parse_line(line: bytes) -> Mount | None:
    before, separator, after = line.partition(b" - ")
    left, right = before.split(b" "), after.split(b" ")
    if not separator or len(left) < 5 or len(right) < 3 or _unescape(right[0]) != FSTYPE:
        return None
    options = dict(option.partition(b"=")[::2] for option in right[2].strip().split(b","))
    return Mount(
        mountpoint=_unescape(left[4]),
        source=_unescape(right[1]),
        user_id=int(options.get(b"user_id", b"0")),
        device=left[2].decode(),
        mount_id=int(left[0]),
        group_id=int(options.get(b"group_id", b"0")),
    )


def parse_mountinfo(data: bytes) -> list[Mount]:
    """Returns the mvcfs mounts in the text of a mountinfo file, in its order: of two at one place the last is seen."""
    return [mount for line in data.split(b"\n") if (mount := _parse_line(line)) is not None]


def list_mounts(mountinfo: Path = MOUNTINFO) -> list[Mount]:
    """Returns the mvcfs mounts that this process sees."""
    return parse_mountinfo(mountinfo.read_bytes())


def mount_at(mountpoint: str, mountinfo: Path = MOUNTINFO) -> Mount | None:
    """Returns the mvcfs mount whose mount point this is, written as the kernel does, or None."""
    found = [mount for mount in list_mounts(mountinfo) if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def real_mountpoint(path: str | Path) -> str:
    """Returns the path of a mount point without symlinks, without touching a mount that may be dead or hung."""
    absolute = os.path.abspath(os.fspath(path))
    parent, name = os.path.split(absolute)
    candidate = os.path.join(os.path.realpath(parent), name)
    return candidate if mount_at(candidate) is not None else os.path.realpath(absolute)


def find_mount(path: str | Path, mountinfo: Path = MOUNTINFO) -> Mount | None:
    """Returns the mvcfs mount that an absolute path is in by its words alone: no symlink is followed, nothing touched.

    Of mounts inside mounts the innermost, of mounts on one directory the last.
    """
    absolute = os.path.abspath(os.fspath(path))
    best: Mount | None = None
    for mount in list_mounts(mountinfo):
        inside = absolute == mount.mountpoint or absolute.startswith(mount.mountpoint.rstrip("/") + "/")
        if inside and (best is None or len(mount.mountpoint) >= len(best.mountpoint)):
            best = mount
    return best


def state_of(mountpoint: str, timeout_s: float = 5.0) -> MountState:
    """Asks a mount for something that the kernel can't answer itself.

    After a crash stat goes on succeeding until its timeout; statfs is asked of the daemon every time.
    """
    mount = mount_at(mountpoint)
    if mount is not None and mount.user_id not in (0, os.geteuid()) and os.geteuid() == 0:
        return _state_for_owner(mount, timeout_s)
    answers: list[MountState] = []

    def ask() -> None:
        try:
            os.statvfs(mountpoint)
        except OSError as error:
            answers.append(MountState.DEAD if error.errno in _GONE else MountState.ALIVE)
        else:
            answers.append(MountState.ALIVE)

    thread = threading.Thread(target=ask, name="mount probe", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else MountState.HUNG


def _state_for_owner(mount: Mount, timeout_s: float) -> MountState:
    """Asks as the mount's user: to anybody else, root too, the kernel answers in the daemon's stead."""
    probe = subprocess.Popen(
        ["stat", "-f", "-c", "%T", "--", mount.mountpoint],
        user=mount.user_id,
        group=mount.group_id,
        extra_groups=[],
        cwd="/",
        env={"LC_ALL": "C", "PATH": os.defpath},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, said = probe.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        probe.kill()  # and not waited for: a request that a hung daemon has taken can't be killed
        return MountState.HUNG
    return MountState.DEAD if any(os.strerror(number).encode() in said for number in _GONE) else MountState.ALIVE


def detach(mountpoint: str) -> None:
    """Takes a mount off its mount point at once; it lives on until its last file is closed. May block: use a thread.

    Raises:
        MvcfsError: It couldn't be done; the message says why.
    """
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(mountpoint), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            raise MvcfsError(f"can't unmount {mountpoint}: {os.strerror(ctypes.get_errno())}")
        return
    try:
        done = subprocess.run(
            ["fusermount3", "-u", "-z", "--", mountpoint], capture_output=True, timeout=30, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MvcfsError(f"can't unmount {mountpoint}: {error}") from error
    if done.returncode != 0:
        raise MvcfsError(f"can't unmount {mountpoint}: {done.stderr.strip() or 'fusermount3 failed'}")
