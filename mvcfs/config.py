"""Configuration values, built once in `mvcfs.cli` and passed down. Nothing below `cli` reads the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvcfs.types import MIB

GIB = 1 << 30

DEFAULT_IGNORED = (
    "*.tmp",
    "tmp-checkpoint*/",
    "*.orbax-checkpoint-tmp*",
    "*.incomplete",
    ".~*",
    ".#*",
    "*.swp",
    "*.swo",
    "4913",
    ".nfs*",
    ".fuse_hidden*",
)
"""Names that stay in the working tree and out of versions, in Git's ignore syntax; `.mvcfsignore` extends them.
The temporary names of the programs that write checkpoints: transformers, Orbax, huggingface_hub, DCP, editors."""

DEFAULT_LIVE = ("events.out.tfevents.*", "*.log", "wandb/")
"""Files that are written all the time and start no version; `.mvcfslive` extends them."""


@dataclass(frozen=True, slots=True)
class VersionRules:
    """When writes become a version.

    Attributes:
        settle_s: How long all closed changed files of a branch must have been quiet before they are committed.
        max_settle_s: After this long unrest the quiet ones are committed anyway.
        finished_settle_s: What `settle_s` shrinks to once a rename took a name out of the ignored ones.
        live_interval_s: A version at least this often takes live files as they stand.
    """

    settle_s: float = 5.0
    max_settle_s: float = 60.0
    finished_settle_s: float = 0.5
    live_interval_s: float = 600.0


@dataclass(frozen=True, slots=True)
class MountRoot:
    """What the root of a mount is, where it isn't the whole store.

    Attributes:
        model: The name of a model.
        revision: A branch of it, which the mount follows, or any other revision, which it stays at; None: the model.
    """

    model: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """All that the engine of one store needs to know.

    Attributes:
        cache_dir: Folder of this store's local state: overlay, staging files, Git packs, block cache. Private to the user.
        host: This host's name, as records and conflict branches show it.
        user: Who publishes, where no writing process is known.
        memory_bytes: Budget of read windows and upload buffers together.
        block_cache_bytes: Bound of the block cache on local disk; 0 turns it off.
        staging_bytes: Bound of the staging files.
        staging_min_free_bytes: Space of the local disk that is left alone.
        rules: When writes become a version.
        xattr: Whether user xattrs are kept and `user.mvcfs.*` shown.
        show_history: Whether `.history` is listed.
        refresh_s: How often other hosts' publishes are looked for.
        read_only: Nothing is written: neither to the store nor to the overlay, which belongs to a writable mount.
        fsync_publish: Whether fsync returns only when the content is in a published version.
        entry_timeout_s: How long the kernel may keep names and attributes of the working tree.
        shared: Whether hosts see each other's closes, renames and removals at once; see `mvcfs.vfs.working_tree.shared`.
        root: What a mount shows; None for the whole store.
    """

    cache_dir: Path
    host: str
    user: str
    memory_bytes: int = 512 * MIB
    block_cache_bytes: int = 20 * GIB
    staging_bytes: int = 100 * GIB
    staging_min_free_bytes: int = 1 * GIB
    rules: VersionRules = VersionRules()
    xattr: bool = False
    show_history: bool = False
    refresh_s: float = 2.0
    read_only: bool = False
    fsync_publish: bool = False
    entry_timeout_s: float = 60.0
    shared: bool = False
    root: MountRoot | None = None
