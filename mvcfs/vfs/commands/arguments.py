"""The arguments that several commands take, read in one place. Threading: any."""

from __future__ import annotations

import os

from mvcfs.errors import InvalidArgument
from mvcfs.types import Author
from mvcfs.vfs.changes import Json
from mvcfs.vfs.working_tree.messages import author_of


def name_of(args: Json) -> str:
    """The name that is to be made, removed or moved; InvalidArgument where there is none."""
    return text_of(args, "name")


def text_of(args: Json, key: str) -> str:
    """A text that a command needs; InvalidArgument where there is none."""
    text = str(args.get(key) or "")
    if not text:
        raise InvalidArgument(f"a {key.replace('_', ' ')} is missing")
    return text


def author_given(args: Json) -> Author | None:
    """The author that was given as `NAME <EMAIL>`, None for none."""
    author = args.get("author")
    if not author:
        return None
    name, _, email = str(author).partition("<")
    return Author(name.strip(), email.rstrip("> ").strip())


def author_of_request(args: Json, host: str) -> Author:
    """Who asks: the author that was given, else the user of the number `uid`, else the user of this process."""
    uid = args.get("uid")
    return author_given(args) or author_of(int(uid) if uid is not None else os.getuid(), host)
