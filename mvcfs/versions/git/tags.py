"""What a tag says, light or annotated."""

from __future__ import annotations

from dataclasses import dataclass

from mvcfs.types import Author
from mvcfs.versions.git.format import parse_tag
from mvcfs.versions.git.objects import GitObjects


@dataclass(frozen=True, slots=True)
class TagInfo:
    """A tag.

    Attributes:
        name: Its name.
        commit: The commit that it names in the end.
        annotated: Whether it is an object of its own, which says the rest.
        tagger: Who made it.
        time_s: When, seconds since 1970.
        message: Its message.
    """

    name: str
    commit: str
    annotated: bool = False
    tagger: Author | None = None
    time_s: int | None = None
    message: str | None = None


def read_tag(objects: GitObjects, name: str, target: str) -> TagInfo:
    """A tag with this target. Any thread.

    Raises:
        NotFound: An object is missing.
        CorruptData: One is damaged.
    """
    commit = objects.peel(target)
    kind, data = objects.read(target)
    if kind != "tag":
        return TagInfo(name, commit)
    tag = parse_tag(data, target)
    if tag.tagger is None:
        return TagInfo(name, commit, True, None, None, tag.message)
    return TagInfo(name, commit, True, Author(tag.tagger.name, tag.tagger.email), tag.tagger.time_s, tag.message)
