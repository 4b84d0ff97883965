"""Reading files of HDFS, in worker threads.

A file that was closed a moment ago may open too short: where the cluster lets a close return before the last block is
reported (`dfs.namenode.file.close.num-committed-allowed`), the block locations leave that block out, and the client takes
what they say for the length. The file's status has the right one, so it decides.
"""

from __future__ import annotations

import time

from hdfs_native import Client, FileReader

from mvcfs.errors import CorruptData, Transient

_REPORTED_S = 5.0
_FIRST_PAUSE_S = 0.01


def open_reader(client: Client, full: str, needed_bytes: int) -> FileReader:
    """Opens a file. While it should have `needed_bytes` but its last block isn't reported yet, waits a little.

    Raises:
        Transient: The last block was not reported in time.
    """
    end, pause = time.monotonic() + _REPORTED_S, _FIRST_PAUSE_S
    while True:
        reader = client.read(full)
        if needed_bytes <= len(reader) or client.get_file_info(full).length <= len(reader):
            return reader
        if time.monotonic() > end:
            raise Transient(f"{full}: the last block is not readable yet")
        time.sleep(pause)
        pause *= 2


def read_range(reader: FileReader, path: str, offset: int, length: int) -> bytes:
    """All bytes of a range. Checked first, since past the end the client panics; streamed, which is its fastest way."""
    if offset + length > len(reader):
        raise CorruptData(f"{path} has {len(reader)} bytes, {length} were to be read at {offset}")
    data = b"".join(reader.read_range_stream(offset, length)) if length else b""
    if len(data) != length:
        raise Transient(f"{path}: {len(data)} of {length} bytes came at {offset}")
    return data
