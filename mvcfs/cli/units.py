"""Sizes and durations as people write them: `20G`, `512MiB`, `2s`, `1h30m`."""

from __future__ import annotations

import re
from typing import Final

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)
_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    **{prefix: 1024**power for power, prefix in enumerate("kmgtp", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", start=1)},
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", start=1)},
}
_TIME_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Reads a size: a number with an optional unit, `K M G T P` or `KiB …` by 1024, `KB …` by 1000.

    Args:
        text: For example `20G`, `512MiB`, `1.5T` or `0`.

    Raises:
        ValueError: With a message that shows how a size is written.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is no size; write for example 512MiB, 20G or 1.5T")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def parse_duration(text: str) -> float:
    """Reads a duration in seconds: `500ms`, `2s`, `5m`, `1h30m`, `1d`; a bare number is seconds.

    Args:
        text: What the user wrote.

    Raises:
        ValueError: With a message that shows how a duration is written.
    """
    rest = text.strip().lower()
    parts = list(_PART.finditer(rest))
    whole = "".join(part[0] for part in parts) == rest.replace(" ", "") or _PART.fullmatch(rest) is not None
    if not parts or not whole or any(part[2] not in _TIME_UNITS for part in parts):
        raise ValueError(f"{text!r} is no duration; write for example 2s, 500ms, 5m or 1h30m")
    if len(parts) > 1 and any(not part[2] for part in parts):
        raise ValueError(f"{text!r} is no duration: each number needs its unit, as in 1h30m")
    return sum(float(part[1]) * _TIME_UNITS[part[2]] for part in parts)


def format_size(count: int) -> str:
    """Writes a number of bytes for people: `12.4 GB` (powers of 1000, as disks are sold)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.95:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def format_duration(seconds: float) -> str:
    """Writes a duration for people: `3.2 s`, `4m 10s`, `2h 5m`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m"
