"""Trailers of commit messages: the `Key: value` lines of the last paragraph, as Git reads them. Pure."""

from __future__ import annotations

import re

_TRAILER = re.compile(r"([A-Za-z0-9-]+): (.*)")


def parse_trailers(message: str) -> tuple[tuple[str, str], ...]:
    """The trailers of a message in their order; none if its last paragraph is anything else as well."""
    _, separator, last = message.rstrip().rpartition("\n\n")
    matches = [_TRAILER.fullmatch(line) for line in last.split("\n")] if separator else []
    found = [(match[1], match[2]) for match in matches if match is not None]
    return tuple(found) if len(found) == len(matches) else ()
