"""The `-o` options of a mount: which go to the kernel, which are mvcfs's own, and which only mount(8) means.

`mount -t fuse.mvcfs` and /etc/fstab hand everything over in one `-o`, so all three kinds come together here.
To the kernel go `ro`, `nosuid`, `suid`, `nodev`, `dev`, `noexec`, `exec`, `noatime`, `sync`, `dirsync` and
`allow_other`; `default_permissions` always holds. mvcfs's own are `FLAGS` and `VALUES`, and are the flags of
`mvcfs mount` under the same names; `mvcfs.cli` reads sizes and times in them, so that they are written the same
way everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mvcfs.errors import InvalidArgument

FLAGS = frozenset({"xattr", "show_history", "shared", "writeback"})
"""Own options without a value: keep and show xattrs; list `.history`; let the kernel hold small writes back, which is
faster and loses acknowledged writes if the daemon crashes."""

VALUES = frozenset(
    {
        "refresh",
        "settle",
        "max_settle",
        "live_interval",
        "entry_timeout",
        "drain_timeout",
        "memory",
        "staging",
        "staging_min_free",
        "block_cache",
        "cache_dir",
        "model",
        "revision",
        "hadoop_conf_dir",
        "metadata_timeout",
        "data_timeout",
    }
)
"""Own options with a value."""

_ALIASES = {"cache": "block_cache"}

_PASSED = frozenset({"ro", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "sync", "dirsync"})
_KERNEL = _PASSED | {"allow_other", "rw", "atime", "async"}
_IGNORED = frozenset(
    {
        "auto",
        "comment",
        "default_permissions",
        "defaults",
        "diratime",
        "group",
        "noauto",
        "nodiratime",
        "nofail",
        "norelatime",
        "nouser",
        "owner",
        "relatime",
        "user",
        "users",
        "_netdev",
    }
)
"""Meant for mount(8), or so here anyway. Options that begin with `x-` are, too."""

_OPPOSITES = {"ro": "rw", "rw": "ro", "sync": "async", "async": "sync"}


@dataclass(frozen=True, slots=True)
class ParsedOptions:
    """What `-o` said.

    Attributes:
        kernel: Options to mount with.
        settings: mvcfs's own, with underscores: True for a flag, the text for a value; `read_only` is True for `ro`.
            What wasn't given isn't there.
    """

    kernel: frozenset[str]
    settings: Mapping[str, str | bool]


def parse_options(
    groups: Iterable[str], *, flags: Collection[str] = FLAGS, values: Collection[str] = VALUES
) -> ParsedOptions:
    """Parses the texts of all `-o`, each a comma-separated list; a later option wins.

    Args:
        groups: The texts.
        flags: Own options without a value, with underscores (a user may write `-` for them).
        values: Own options with one.

    Raises:
        InvalidArgument: An option is unknown, has a value that it doesn't take or lacks one; the message names it.
    """
    kernel: set[str] = set()
    settings: dict[str, str | bool] = {}
    for option in (part.strip() for group in groups for part in group.split(",")):
        name, given, value = option.partition("=")
        key = name.replace("-", "_")
        key = _ALIASES.get(key, key)
        if not option or name in _IGNORED or name.startswith("x-"):
            continue
        if name in _KERNEL and not given:
            kernel.discard(_opposite(name))
            kernel.add(name)
        elif key in flags and not given:
            settings[key] = True
        elif key in values and value:
            settings[key] = value
        else:
            raise InvalidArgument(_what_is_wrong(name, key, bool(given), flags, values))
    if "ro" in kernel:
        settings["read_only"] = True
    return ParsedOptions(frozenset(kernel & (_PASSED | {"allow_other"})), settings)


def _opposite(name: str) -> str:
    return _OPPOSITES.get(name, name[2:] if name.startswith("no") else "no" + name)


def _what_is_wrong(name: str, key: str, given: bool, flags: Collection[str], values: Collection[str]) -> str:
    if key in values:
        return f"mount option {name} needs a value: {name}=…"
    if given and (key in flags or name in _KERNEL):
        return f"mount option {name} takes no value"
    return f"unknown mount option {name}; there are those of mount(8) and {', '.join(sorted([*flags, *values]))}"
