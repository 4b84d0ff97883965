"""How large files are cut, stored and read: the numbers of the content layer, fixed when a mount starts.

The sizes of chunks are part of what makes two uploads share chunks: all writers of a model should use the same ones. A
reader needs none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvcfs.types import MIB

KIB = 1 << 10


@dataclass(frozen=True, slots=True)
class ContentConfig:
    """The numbers of the content layer.

    Attributes:
        small_file_bytes: A file smaller than this is a Git blob and no concern of this layer.
        chunk_min_bytes: No chunk but a file's last is smaller.
        chunk_avg_bytes: Where cutting becomes likely; the mean is this plus about a quarter.
        chunk_max_bytes: No chunk is larger.
        pack_bytes: Target length of a pack, footer included; a smaller block of the store wins.
        piece_bytes: How much of a file is read, hashed and queued for writing at once.
        upload_bytes: Bound of the memory that one upload holds, within the mount's budget.
        upload_files: How many files of one upload are hashed at once; the others wait in `add`.
        packs_in_flight: How many packs one upload writes at once when there is enough for several.
        range_bytes: No read of a pack is longer.
        window_min_bytes: Where a read window starts.
        window_max_bytes: Where it stops growing.
        fetches: How many ranges are read ahead at once, over all files of a model.
        hash_threads: Threads that hash uploads.
        verify_threads: Threads that check what was read.
        dedup_rows: Bound of the local index of known chunks; above it the oldest packs are forgotten.
        manifests_open: How many manifests stay mapped while no reader needs them.
    """

    small_file_bytes: int = 64 * KIB
    chunk_min_bytes: int = 256 * KIB
    chunk_avg_bytes: int = 1 * MIB
    chunk_max_bytes: int = 4 * MIB
    pack_bytes: int = 128 * MIB
    piece_bytes: int = 8 * MIB
    upload_bytes: int = 96 * MIB
    upload_files: int = 4
    packs_in_flight: int = 3
    range_bytes: int = 8 * MIB
    window_min_bytes: int = 1 * MIB
    window_max_bytes: int = 64 * MIB
    fetches: int = 8
    hash_threads: int = 4
    verify_threads: int = 4
    dedup_rows: int = 2_000_000
    manifests_open: int = 64

    def __post_init__(self) -> None:
        if not 64 <= self.chunk_min_bytes < self.chunk_avg_bytes < self.chunk_max_bytes <= 16 * MIB:
            raise ValueError("chunk sizes must satisfy 64 <= min < avg < max <= 16 MiB")
        if min(self.piece_bytes, self.range_bytes, self.window_min_bytes, self.upload_files, self.fetches) <= 0:
            raise ValueError("sizes and counts must be positive")
        if self.packs_in_flight <= 0 or self.window_max_bytes < self.window_min_bytes:
            raise ValueError("packs_in_flight must be positive and window_max_bytes at least window_min_bytes")

    @property
    def reservation_bytes(self) -> int:
        """Memory that one piece of an upload takes: what was read, and its copy with the chunk carried over."""
        return 2 * self.piece_bytes + self.chunk_max_bytes
