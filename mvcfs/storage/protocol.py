"""What mvcfs asks of a store: one small protocol, the same promises on every kind of store.

Paths are relative to the store's root, segments joined by `/`, without `.`/`..`, `:` or a leading slash; `""` is the root.
Every call is made as an `Identity`. The promises, which one contract suite checks on every implementation and wrapper:

* A file appears whole or not at all: `Writer.close` makes it durable and visible at its full length; an aborted or
  crashed writer leaves nothing, or a hidden name (`.tmp-…`) that `list_dir` doesn't show.
* `create` is exclusive: of many callers one wins, the others get `AlreadyExists`, at `create` or at `close`. It never
  makes parent directories (a renamed model must not come to life again under its old name): a missing parent is
  `NotFound`, and so is one that is a file. `mkdir` without `parents` is as exclusive.
* `rename` never replaces: of many callers with one target one wins, the others get `AlreadyExists` and keep their
  source. A missing source, or a missing parent of the target, is `NotFound`. It moves files and directories.
* `read_range` returns exactly the bytes asked for, or fails: a range past the end is `CorruptData` (a store file is never
  changed in place, so whoever asks past the end believes in bytes that aren't there). It may use a file that it opened
  earlier, so it is for files whose names are never used again; `read_file` looks anew each time.
* Errors are those of `mvcfs.errors`. `Transient`: nothing happened. `UnknownOutcome`: a changing call failed and may have
  happened, or may yet happen. A call that outlives its deadline is `Transient` when it only reads, else `UnknownOutcome`.
  Until `close` nobody sees a file, so `create` and `Writer.write` change nothing; a writer that failed is of no more use.
  A client may repeat a call that broke off, so a rename's `NotFound` of a source that was there a moment ago, and its
  `AlreadyExists`, may be the answer to a rename that did take place: who cares looks at the target.
* An `Identity` that the store can't act as is `NotSupported`.

Threading: all methods are called on the trio thread; blocking work goes to threads inside the implementation, where
bulk data (ranges, writers) and metadata have separate limits, so that bulk never starves a lookup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mvcfs.types import SELF, Identity


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A name in the store.

    Attributes:
        name: The last segment of the path.
        is_dir: Whether it is a directory.
        size_bytes: Length of a file, 0 for a directory.
        mtime_ns: Last modification by the store's own clock, ns since 1970 (HDFS: whole milliseconds).
    """

    name: str
    is_dir: bool
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Space:
    """Room of a store, in bytes of user data (divided by replication, quotas considered)."""

    total_bytes: int
    free_bytes: int


class Writer(Protocol):
    """A file being written. Not for use from two tasks at once."""

    async def write(self, data: bytes | bytearray) -> None:
        """Appends `data`, whole."""
        ...

    async def close(self) -> None:
        """Makes the file durable and visible. After an error here the file's state is unknown."""
        ...

    async def abort(self) -> None:
        """Gives the file up and removes what is there of it, as far as the store answers. Never raises."""
        ...


class Storage(Protocol):
    """A store's files. See the module for the promises."""

    @property
    def url(self) -> str:
        """The store's address, as messages and the mount table show it."""
        ...

    @property
    def block_bytes(self) -> int:
        """The store's block size; no pack is larger. Local and memory stores say 128 MiB."""
        ...

    async def stat(self, path: str, *, identity: Identity = SELF) -> StoreEntry:
        """What is at `path`; NotFound."""
        ...

    async def list_dir(self, path: str, *, identity: Identity = SELF) -> list[StoreEntry]:
        """The names in a directory, sorted; NotFound, NotADirectory."""
        ...

    async def read_range(self, path: str, offset: int, length: int, *, identity: Identity = SELF) -> bytes:
        """The bytes [offset, offset+length) of a file: all of them, or an error."""
        ...

    async def read_file(self, path: str, *, max_bytes: int, identity: Identity = SELF) -> bytes:
        """A whole file; LimitExceeded (naming it) when it is longer than `max_bytes`."""
        ...

    async def create(self, path: str, *, identity: Identity = SELF) -> Writer:
        """Starts a new file, exclusively; AlreadyExists, NotFound for a missing parent."""
        ...

    async def write_file(self, path: str, data: bytes, *, identity: Identity = SELF) -> None:
        """Makes a new file with `data`, exclusively, durable on return."""
        ...

    async def rename(self, source: str, target: str, *, identity: Identity = SELF) -> None:
        """Moves a file or directory to a name that must be free: the publish primitive."""
        ...

    async def mkdir(self, path: str, *, parents: bool = False, identity: Identity = SELF) -> None:
        """Makes a directory; AlreadyExists unless `parents`."""
        ...

    async def delete(self, path: str, *, recursive: bool = False, identity: Identity = SELF) -> None:
        """Removes a file, or an empty directory, or with `recursive` a whole tree; NotFound, NotEmpty."""
        ...

    async def space(self, *, identity: Identity = SELF) -> Space:
        """Room in the store."""
        ...

    async def aclose(self) -> None:
        """Lets go of connections and threads."""
        ...
