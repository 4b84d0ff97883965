"""What a path argument names: a place below a mount, or `MODEL/BRANCH/…` of a store.

Only words and the kernel's mount table are looked at. A path below a mount is never touched here, since its daemon may
be dead or hang, and since `llama/main@42` need not be listed anywhere to be meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from mvcfs.errors import InvalidArgument, NotFound
from mvcfs.fuse.mounts import Mount, find_mount, list_mounts, mount_at, real_mountpoint

_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works.

    Attributes:
        path: Below the mount point or the store's root, without a slash at either end; `""` is the root itself.
        mount: The mount it is in; None for a store that is reached directly.
        store: The store's address where there is no mount.
    """

    path: str
    mount: Mount | None = None
    store: str | None = None

    @property
    def shown(self) -> str:
        """The place as messages show it."""
        return self.mount.mountpoint if self.mount else str(self.store)

    def target(self) -> dict[str, str]:
        """The place as an argument of the engine's commands."""
        return {"mount_path": self.path}

    def model(self) -> str:
        """The model that the place is, or is in."""
        if not self.path:
            raise InvalidArgument(f"{self.shown} is no model; name one: MODEL or {self.shown}/MODEL")
        return self.path.split("/", 1)[0]


def locate(path: str, store: str | None) -> Place:
    """Finds what `path` names.

    Args:
        path: A path of the file system; or with `store`, unless it starts with `/` or `.`, one below that store's root.
        store: Address of a store, from `--store`.

    Raises:
        NotFound: No mount is there, and no store was given.
    """
    if store is not None and not path.startswith(("/", "./", "../")) and path not in {".", ".."}:
        return Place(_clean(path), store=store)
    absolute = os.path.abspath(path)
    mount = find_mount(absolute)
    if mount is None:
        absolute = _resolve_links(absolute)
        mount = find_mount(absolute)
    if mount is None:
        raise NotFound(f"{path} is in no mvcfs mount; mount the store first, or name it with --store STORE")
    return Place(_clean(os.path.relpath(absolute, mount.mountpoint)), mount=mount)


def store_place(store: str) -> Place:
    """A store as a whole, named by its address or by a directory that it is mounted on."""
    if ":/" not in store:
        mount = mount_at(real_mountpoint(store))
        if mount is not None:
            return Place("", mount=mount)
    return Place("", store=store)


def every_mount() -> Iterator[Place]:
    """The mounts of this host."""
    return (Place("", mount=mount) for mount in list_mounts())


def _clean(path: str) -> str:
    cleaned = os.path.normpath(path.strip("/")) if path.strip("/") else "."
    if cleaned == ".." or cleaned.startswith("../"):
        raise InvalidArgument(f"{path} leads out of the store")
    return "" if cleaned == "." else cleaned


def _resolve_links(path: str) -> str:
    """Follows symbolic links up to the first mvcfs mount on the way, and no further."""
    done = "/"
    rest = [part for part in path.split("/") if part]
    links = 0
    while rest:
        step = os.path.join(done, rest.pop(0))
        if find_mount(step) is not None:
            return os.path.normpath(os.path.join(step, *rest))
        try:
            text = os.readlink(step)
        except OSError:
            done = step
            continue
        links += 1
        if links > _MAX_LINKS:
            raise InvalidArgument(f"{path}: too many symbolic links")
        target = os.path.normpath(os.path.join(done, text))
        done, rest = "/", [part for part in target.split("/") if part] + rest
    return done
