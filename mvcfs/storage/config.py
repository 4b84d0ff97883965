"""How a store is spoken to: deadlines, retries, and what HDFS shall do with our files."""

from __future__ import annotations

from dataclasses import dataclass, field

from mvcfs.types import MIB

DEFAULT_BLOCK_BYTES = 128 * MIB


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed call is tried again.

    Attributes:
        attempts: Tries in all, the first one included.
        first_pause_s: Pause after the first failure; doubles from one to the next, each one cut at random to 50–100 %.
        max_pause_s: Longest pause.
        total_s: No new try is begun later than this after the first one began.
    """

    attempts: int = 5
    first_pause_s: float = 0.1
    max_pause_s: float = 3.0
    total_s: float = 15.0


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """What `open_storage` needs to know beside the address.

    Attributes:
        metadata_deadline_s: Longest wait for a call that moves no data.
        data_deadline_s: Longest wait for a range, a buffer of a writer, a close.
        retry: When a failed call is tried again.
        block_bytes: Block size of new files on HDFS.
        replication: Replication of new files on HDFS; None leaves it to the cluster.
    """

    metadata_deadline_s: float = 10.0
    data_deadline_s: float = 60.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    block_bytes: int = DEFAULT_BLOCK_BYTES
    replication: int | None = None
