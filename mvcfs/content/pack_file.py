"""The format of packs, the store files that hold chunks: chunks one after another, then a footer that names them.

Threading: functions of values; run them in threads where a pack is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mvcfs.content.chunker import Cut
from mvcfs.errors import CorruptData

PACK_MAGIC = b"MVCFSPK1"
TRAILER_BYTES = 8 + len(PACK_MAGIC)
FOOTER_BASE_BYTES = 2048
FOOTER_ROW_BYTES = 48
"""A footer is never longer than the base and this for each chunk."""
_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(32), nullable=False),
        pa.field("offset", pa.uint64(), nullable=False),
        pa.field("stored", pa.uint32(), nullable=False),
        pa.field("length", pa.uint32(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class PackFooter:
    """What a pack says of itself.

    Attributes:
        chunker: How its chunks were cut.
        codec: How they are stored; `none` is the only one yet.
        hashes: BLAKE3 of each chunk (numpy, S32).
        offsets: Where each begins in the pack.
        lengths: How long each is.
    """

    chunker: str
    codec: str
    hashes: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]


def encode_footer(chunker: str, cuts: Sequence[Cut]) -> bytes:
    """The bytes that end a pack whose chunks are `cuts`, from offset 0 on."""
    lengths = np.fromiter((cut.length for cut in cuts), dtype=np.uint32, count=len(cuts))
    offsets = np.zeros(len(cuts), dtype=np.uint64)
    np.cumsum(lengths[:-1], out=offsets[1:])
    hashes = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(cuts), [None, pa.py_buffer(b"".join(cut.hash for cut in cuts))]
    )
    schema = _SCHEMA.with_metadata({"mvcfs.pack": "1", "mvcfs.chunker": chunker, "mvcfs.codec": "none"})
    batch = pa.record_batch([hashes, pa.array(offsets), pa.array(lengths), pa.array(lengths)], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(batch)
    footer: bytes = sink.getvalue().to_pybytes()
    return footer + len(footer).to_bytes(8, "little") + PACK_MAGIC


def footer_bytes(trailer: bytes, pack_bytes: int) -> int:
    """How long the footer's stream is, by a pack's last 16 bytes; CorruptData."""
    length = int.from_bytes(trailer[:8], "little")
    if len(trailer) != TRAILER_BYTES or trailer[8:] != PACK_MAGIC or length > pack_bytes - TRAILER_BYTES:
        raise CorruptData("the pack doesn't end in a footer")
    return length


def decode_footer(stream: bytes) -> PackFooter:
    """Reads the footer's stream; CorruptData."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(stream)) as reader:
            schema = reader.schema
            table = reader.read_all().combine_chunks()
            table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptData(f"the pack's footer can't be read: {error}") from error
    metadata = schema.metadata or {}
    if metadata.get(b"mvcfs.pack") != b"1" or not schema.remove_metadata().equals(_SCHEMA):
        raise CorruptData("the pack's footer has a schema that is not known")
    if any(column.null_count for column in table.columns):
        raise CorruptData("the pack's footer has nulls")
    codec = metadata.get(b"mvcfs.codec", b"").decode(errors="replace")
    if codec != "none":
        raise CorruptData(f"the pack's codec {codec!r} is not known")
    if not table["stored"].equals(table["length"]):
        raise CorruptData("the pack's footer has chunks of two lengths")
    hashes = b"".join(chunk.buffers()[1][chunk.offset * 32 :][: len(chunk) * 32] for chunk in table["hash"].chunks)
    return PackFooter(
        chunker=metadata.get(b"mvcfs.chunker", b"").decode(errors="replace"),
        codec=codec,
        hashes=np.frombuffer(hashes, dtype="S32"),
        offsets=table["offset"].to_numpy(),
        lengths=table["length"].to_numpy(),
    )
