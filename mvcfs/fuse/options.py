"""The `-o` options of a mount: which go to the kernel, which are mvcfs's own, and which only mount(8) means.

`mount -t fuse.mvcfs` and /etc/fstab hand everything over in one `-o`, so all three kinds come together here.

| option | meaning |
| --- | --- |
| `ro`, `rw`, `nosuid`, `suid`, `nodev`, `dev`, `noexec`, `exec`, `noatime`, `nodiratime`, `sync`, `dirsync`, `allow_other` | to the kernel |
| `xattr` | user xattrs are kept and versioned, `user.mvcfs.*` shown; costs speed |
| `show-history` | `.history` is listed |
| `writeback` | the kernel holds small writes back: faster, and a crash of the daemon loses what write() returned for |
| `refresh=TIME` | how often other hosts' publishes are looked for |
| `settle=TIME`, `max_settle=TIME` | when writes become a version |
| `memory=SIZE`, `staging=SIZE`, `cache=SIZE` | bounds of memory, staging files and block cache |
| `cache_dir=DIR`, `drain_timeout=TIME` | as the flags of the same names |

TIME is seconds, or has a unit: `500ms`, `5s`, `2m`, `1h`. SIZE is bytes, or has a unit: `512M`, `20G`, `1T` (1024s).
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mvcfs.errors import InvalidArgument

Setting = bool | float | int | str

_KERNEL = frozenset(
    [
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "sync",
        "async",
        "dirsync",
        "allow_other",
    ]
)
_NOT_FOR_LIBFUSE = frozenset({"rw", "atime", "diratime", "nodiratime", "async"})
"""Kernel defaults and options that libfuse doesn't know; leaving them out changes nothing."""

_ONLY_FOR_MOUNT = frozenset(
    [
        "defaults",
        "auto",
        "noauto",
        "user",
        "nouser",
        "users",
        "group",
        "owner",
        "nofail",
        "_netdev",
        "default_permissions",
        "relatime",
        "norelatime",
    ]
)
"""Meant for mount(8) or always so here. `x-…` and `comment=…` are, too."""

_FLAGS = frozenset({"xattr", "show_history", "writeback"})
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNITS_BYTES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True, slots=True)
class ParsedOptions:
    """What `-o` said.

    Attributes:
        kernel: Options to mount with.
        settings: mvcfs's own, with underscores: `xattr`, `show_history`, `writeback`, `read_only` are True if given;
            `refresh`, `settle`, `max_settle`, `drain_timeout` are seconds; `memory`, `staging`, `cache` bytes;
            `cache_dir` text. What wasn't given isn't there.
    """

    kernel: frozenset[str]
    settings: Mapping[str, Setting]


def parse_duration(text: str) -> float:
    """Returns seconds for `5`, `0.5s`, `500ms`, `2m`, `1h`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)", text.strip())
    if match is None:
        raise InvalidArgument(f"{text!r} is no time; write 5, 500ms, 5s, 2m or 1h")
    return float(match.group(1)) * _UNITS_S[match.group(2)]


def parse_size(text: str) -> int:
    """Returns bytes for `4096`, `512M`, `20G`, `1.5T`; `20GiB` and `20GB` are the same as `20G`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)(?:iB|B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidArgument(f"{text!r} is no size; write 4096, 512M, 20G or 1T")
    return int(float(match.group(1)) * (1 << _UNITS_BYTES[match.group(2).upper()]))


_VALUES: dict[str, Callable[[str], Setting]] = {
    "refresh": parse_duration,
    "settle": parse_duration,
    "max_settle": parse_duration,
    "drain_timeout": parse_duration,
    "memory": parse_size,
    "staging": parse_size,
    "cache": parse_size,
    "cache_dir": str,
}


def parse_options(groups: Iterable[str]) -> ParsedOptions:
    """Parses the values of all `-o` flags, each a comma-separated list; a later one wins.

    Raises:
        InvalidArgument: An option is unknown or its value can't be read; the message names it.
    """
    kernel: set[str] = set()
    settings: dict[str, Setting] = {}
    for option in (part.strip() for group in groups for part in group.split(",")):
        if not option:
            continue
        name, given, value = option.partition("=")
        if name in _KERNEL and not given:
            _add_kernel(kernel, name)
        elif name in _ONLY_FOR_MOUNT or name.startswith("x-") or name == "comment":
            continue
        else:
            settings[name.replace("-", "_")] = _parse_setting(name, given == "=", value)
    if "ro" in kernel:
        settings["read_only"] = True
    return ParsedOptions(frozenset(kernel - _NOT_FOR_LIBFUSE), settings)


def _add_kernel(kernel: set[str], name: str) -> None:
    """Adds an option; the opposite said before is taken back."""
    opposite = {"ro": "rw", "rw": "ro", "sync": "async", "async": "sync"}.get(
        name, name[2:] if name.startswith("no") else "no" + name
    )
    kernel.discard(opposite)
    kernel.add(name)


def _parse_setting(name: str, has_value: bool, value: str) -> Setting:
    key = name.replace("-", "_")
    if key in _FLAGS:
        if has_value:
            raise InvalidArgument(f"mount option {name} takes no value")
        return True
    parse = _VALUES.get(key)
    if parse is None:
        known = ", ".join(sorted([*_FLAGS, *_VALUES]))
        raise InvalidArgument(f"unknown mount option {name}; there are the usual ones of mount(8) and {known}")
    if not value:
        raise InvalidArgument(f"mount option {name} needs a value: {name}=…")
    try:
        return parse(value)
    except InvalidArgument as error:
        raise InvalidArgument(f"mount option {name}: {error}") from error
