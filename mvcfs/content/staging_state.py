"""What the overlay's row keeps of a staged file, as JSON text: the names of its layers, and what of them is durable.

The row is not written at each write: within one boot the layers' own files say what they hold. Under another boot only
the durable facts count, which a fsync took down after the data had reached the disk.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from dataclasses import dataclass

import numpy as np

from mvcfs.errors import CorruptData

_FORMAT = 1
LAYER_NAME = re.compile(r"[0-9a-f]{32}")
MAP_SUFFIX = ".map"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known to be on disk of a layer.

    Attributes:
        size_bytes: Its size.
        base_bytes: How many bytes at most come from below.
        blocks: One byte a block, 1 where the block is the layer's own; empty for a layer with nothing below.
    """

    size_bytes: int
    base_bytes: int
    blocks: bytes


@dataclass(frozen=True, slots=True)
class LayerState:
    """A layer as a row names it.

    Attributes:
        name: Name of its data file.
        mapped: Whether a map file stands beside it.
        durable: What is known to be on disk; None if nothing.
    """

    name: str
    mapped: bool
    durable: Facts | None


@dataclass(frozen=True, slots=True)
class FileState:
    """A staged file as a row names it.

    Attributes:
        synced: Whether the file was ever fsynced, so that it exists after a power loss even without a layer or base.
        layers: From the lowest to the topmost.
    """

    synced: bool
    layers: tuple[LayerState, ...]


def encode_state(state: FileState) -> str:
    """The text of a state."""
    layers = [[layer.name, layer.mapped, _encode_facts(layer.durable)] for layer in state.layers]
    return json.dumps({"format": _FORMAT, "synced": state.synced, "layers": layers}, separators=(",", ":"))


def decode_state(text: str) -> FileState:
    """The state of a text; CorruptData if it is none."""
    try:
        value = json.loads(text)
        if value["format"] != _FORMAT:
            raise CorruptData(f"a staging state of format {value['format']}; this mvcfs reads format {_FORMAT}")
        layers = tuple(LayerState(_name(n), bool(mapped), _decode_facts(d)) for n, mapped, d in value["layers"])
        return FileState(bool(value["synced"]), layers)
    except (ValueError, KeyError, TypeError, zlib.error, binascii.Error) as error:
        raise CorruptData(f"a staging state that can't be read: {text[:100]!r} ({error})") from error


def file_names(layer: LayerState) -> tuple[str, ...]:
    """The names of a layer's files."""
    return (layer.name, layer.name + MAP_SUFFIX) if layer.mapped else (layer.name,)


def _name(value: object) -> str:
    if not isinstance(value, str) or not LAYER_NAME.fullmatch(value):
        raise ValueError(f"{value!r} names no staging file")
    return value


def _encode_facts(facts: Facts | None) -> list[object] | None:
    if facts is None:
        return None
    bits = np.packbits(np.frombuffer(facts.blocks, np.uint8)).tobytes()
    text = base64.b64encode(zlib.compress(bits, 1)).decode("ascii") if bits else ""
    return [facts.size_bytes, facts.base_bytes, len(facts.blocks), text]


def _decode_facts(value: list[object] | None) -> Facts | None:
    if value is None:
        return None
    size, base, count, text = value
    if not (isinstance(size, int) and isinstance(base, int) and isinstance(count, int) and isinstance(text, str)):
        raise ValueError(f"{value!r} are no durable facts")
    blocks = b""
    if count:
        bits = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
        blocks = np.unpackbits(bits, count=count).tobytes()
    return Facts(size, base, blocks)
