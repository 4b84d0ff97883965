"""What part of a store a mount shows: all of it, one model, one branch, or one version for good.

Chosen once, before the mount answers. A branch is held by its id, so a rename elsewhere changes nothing here; a version by
its commit, so nothing that happens to the tag or branch it was named by does.

Threading: trio thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mvcfs.config import MountRoot
from mvcfs.versions.store import Store
from mvcfs.vfs.inode import ROOT_INO
from mvcfs.vfs.model import Branch, OpenModel
from mvcfs.vfs.snapshot import SnapshotDir, SnapshotPool, open_snapshot


@dataclass(frozen=True, slots=True)
class Part:
    """What a mount shows.

    Attributes:
        model: The model; None: the whole store.
        revision: The revision as it was asked for, if one was.
        branch: The branch that the root is.
        snapshot: The version that the root is.
    """

    model: OpenModel | None = None
    revision: str | None = None
    branch: Branch | None = None
    snapshot: SnapshotDir | None = None

    def kernel_ino(self, ino: int) -> int:
        """The number by which the kernel knows an inode: the root of every mount is 1 to it."""
        return ROOT_INO if self.branch is not None and ino == self.branch.tree.root.ino else ino


async def names_version(store: Store, root: MountRoot | None) -> bool:
    """Whether the root of a mount is one version for good, and no branch: then nothing of it is ever changed.

    Raises:
        NotFound: There is no such model.
    """
    if root is None or root.revision is None:
        return False
    return root.revision not in (await store.refs_of(root.model)).branches


async def find_part(
    root: MountRoot | None, pool: SnapshotPool, open_model: Callable[[str], Awaitable[OpenModel]], *, pinned: bool
) -> Part:
    """Opens what a mount shall show.

    Args:
        root: What was asked for; None for the whole store.
        pool: The files of snapshots.
        open_model: Opens a model by its name.
        pinned: What `names_version` said.

    Raises:
        NotFound: There is no such model, branch or version.
        InvalidName: The revision is none.
        Conflict: Several commits fit.
    """
    if root is None:
        return Part()
    model = await open_model(root.model)
    if root.revision is None:
        return Part(model)
    if not pinned:
        return Part(model, root.revision, branch=await model.branch(root.revision))
    commit = await model.data.repository.resolve(root.revision)
    return Part(model, root.revision, snapshot=await open_snapshot(model.data, pool, commit))
