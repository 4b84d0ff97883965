"""Which names stay out of versions, and which are written all the time: Git's ignore syntax over built-in defaults.

`.mvcfsignore` and `.mvcfslive` in the root of a branch extend the defaults, line by line; `!` takes a pattern back.
A name below an ignored directory is ignored. Immutable; made anew when one of the files changes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pathspec import GitIgnoreSpec

from mvcfs.config import DEFAULT_IGNORED, DEFAULT_LIVE

IGNORE_FILE = b".mvcfsignore"
LIVE_FILE = b".mvcfslive"
# A rule file longer than this is nobody's hand-written list.
MAX_RULE_BYTES = 1 << 20


def _compile(defaults: tuple[str, ...], extra: str) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines([*defaults, *extra.splitlines()])


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The rules of one branch."""

    ignored: GitIgnoreSpec
    live: GitIgnoreSpec

    @classmethod
    def defaults(cls) -> IgnoreRules:
        """The built-in rules alone."""
        return _DEFAULTS

    @classmethod
    def parse(cls, ignore_text: bytes, live_text: bytes) -> IgnoreRules:
        """The defaults extended by the two files' lines.

        Raises:
            ValueError: A pattern that Git's syntax does not have.
        """
        return cls(_compile(DEFAULT_IGNORED, os.fsdecode(ignore_text)), _compile(DEFAULT_LIVE, os.fsdecode(live_text)))

    def is_ignored(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether a path (relative to the branch) stays out of versions."""
        return _match(self.ignored, path, is_dir=is_dir)

    def is_live(self, path: bytes, *, is_dir: bool = False) -> bool:
        """Whether a path neither starts nor delays a version."""
        return _match(self.live, path, is_dir=is_dir)


def _match(spec: GitIgnoreSpec, path: bytes, *, is_dir: bool) -> bool:
    text = os.fsdecode(path)
    return bool(spec.match_file(text + "/" if is_dir else text))


_DEFAULTS = IgnoreRules(_compile(DEFAULT_IGNORED, ""), _compile(DEFAULT_LIVE, ""))
