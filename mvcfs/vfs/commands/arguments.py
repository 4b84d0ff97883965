"""The arguments that several commands take, read in one place. Threading: any."""

from __future__ import annotations

from mvcfs.errors import InvalidArgument
from mvcfs.types import Author
from mvcfs.vfs.changes import Json


def name_of(args: Json) -> str:
    """The name that is to be made, removed or moved; InvalidArgument where there is none."""
    name = str(args.get("name") or "")
    if not name:
        raise InvalidArgument("a name is missing")
    return name


def author_given(args: Json) -> Author | None:
    """The author that was given as `NAME <EMAIL>`, None for none."""
    author = args.get("author")
    if not author:
        return None
    name, _, email = str(author).partition("<")
    return Author(name.strip(), email.rstrip("> ").strip())
