"""Reading JSON that somebody else wrote: every value is checked, and what is wrong is said with the file's name.

Ref-log records, checkpoints and the store's own description come from other hosts, other versions of mvcfs and damaged
disks. Nothing of them reaches the rest of the program unchecked: any shape of JSON gives values of the right type or
`CorruptData`. Keys that aren't asked for are ignored, as the format says. Pure functions; any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from mvcfs.errors import CorruptData

T = TypeVar("T")

MAX_INTEGER = (1 << 63) - 1


class Fields:
    """One JSON object of a file.

    Attributes:
        where: The file, and the place in it, as messages name it.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise CorruptData(f"{where}: a JSON object is expected, not {_kind(value)}")
        self.where = where
        self._values: dict[str, Any] = value

    @classmethod
    def parse(cls, data: bytes, where: str) -> Fields:
        """The object that a file consists of.

        Raises:
            CorruptData: The bytes are no JSON object.
        """
        try:
            value = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise CorruptData(f"{where}: no valid JSON ({error})") from error
        return cls(value, where)

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def has_key(self, key: str) -> bool:
        """Whether there is such a key, be its value null."""
        return key in self._values

    def _get(self, key: str) -> Any:
        value = self._values.get(key)
        if value is None:
            raise CorruptData(f"{self.where}: {key!r} is missing")
        return value

    def fail(self, key: str, expected: str) -> CorruptData:
        """The error that says what `key` should have been."""
        return CorruptData(f"{self.where}: {key!r} should be {expected}, not {_kind(self._values.get(key))}")

    def integer(self, key: str, default: int | None = None, *, minimum: int = 0) -> int:
        """A whole number from `minimum` up to 63 bits."""
        value = default if default is not None and key not in self else self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= MAX_INTEGER:
            raise self.fail(key, f"a whole number of at least {minimum}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = default if default is not None and key not in self else self._get(key)
        if not isinstance(value, str):
            raise self.fail(key, "a string")
        return value

    def flag(self, key: str) -> bool:
        """A boolean, False where it is missing."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return bool(value)

    def hexadecimal(self, key: str, digits: int) -> str:
        """A string of exactly so many lower-case hex digits."""
        value = self.text(key)
        if not is_hex(value, digits):
            raise self.fail(key, f"{digits} lower-case hex digits")
        return value

    def optional_hexadecimal(self, key: str, digits: int) -> str | None:
        """The same, or None where it is null or missing."""
        return self.hexadecimal(key, digits) if key in self else None

    def matching(self, key: str, pattern: re.Pattern[str], expected: str) -> str:
        """A string that the pattern matches whole."""
        value = self.text(key)
        if not pattern.fullmatch(value):
            raise self.fail(key, expected)
        return value

    def items(self, key: str, parse: Callable[[object, str], T]) -> tuple[T, ...]:
        """A list, each item read by `parse(value, where)`; empty where it is missing."""
        value = self._values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.fail(key, "a list")
        return tuple([parse(item, f"{self.where}: {key}[{index}]") for index, item in enumerate(value)])

    def item(self, key: str, parse: Callable[[object, str], T]) -> T | None:
        """One value read by `parse(value, where)`; None where it is missing."""
        value = self._values.get(key)
        return None if value is None else parse(value, f"{self.where}: {key}")


def is_hex(value: str, digits: int) -> bool:
    """Whether a string is exactly so many lower-case hex digits."""
    return len(value) == digits and not value.strip("0123456789abcdef")


def text_item(value: object, where: str) -> str:
    """A list item that must be a string."""
    if not isinstance(value, str):
        raise CorruptData(f"{where}: a string is expected, not {_kind(value)}")
    return value


def hex_item(digits: int) -> Callable[[object, str], str]:
    """A reader of list items that must be so many hex digits."""

    def read(value: object, where: str) -> str:
        text = text_item(value, where)
        if not is_hex(text, digits):
            raise CorruptData(f"{where}: {digits} lower-case hex digits are expected")
        return text

    return read


def encode(value: object) -> bytes:
    """JSON as mvcfs writes it: one line, ASCII, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    text = names.get(type(value), "null")
    return f"{text} ({json.dumps(value)[:60]})" if isinstance(value, (str, int, float)) else text
