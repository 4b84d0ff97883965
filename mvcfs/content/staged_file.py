"""A changed file: layers of written blocks over an unchanged base, and frozen views of it.

Writes go to the topmost layer; while a frozen view shows that layer, the next write makes a new one above it. So freezing
costs nothing and what a view shows never changes, whatever is written, cut off or destroyed meanwhile.

**A write that waits** (for a block of the base, or for room) has changed nothing yet. All its changes are made together,
after its last await, in the stack as it is then: if the file was frozen meanwhile, the write lands wholly in the new
layer; if it was truncated, the write comes after the truncation. The same holds for `truncate`.

**Rows.** `state_version` differs from the one that the caller stored last whenever its row must be written again, before
the call that it serves returns: compare after every `write`, `truncate`, `settle` and `fsync`, also when another task made
the change. `state()` promises that the row is committed before the caller's next await: files that the new state doesn't
name may be removed by `Staging.reap` from then on.

Threading: trio thread only. No locks: nothing awaits with a change half made.
"""

from __future__ import annotations

import errno

from mvcfs.content.staging_layer import BLOCK_BYTES, Layer, partial_blocks
from mvcfs.content.staging_read import Base, plan, read_stack
from mvcfs.content.staging_room import StagingRoom, is_full
from mvcfs.content.staging_state import FileState, LayerState, encode_state, file_names
from mvcfs.content.staging_sync import fold_layers, sync_layers
from mvcfs.errors import LimitExceeded, NotFound

LAYERS_MAX = 4
"""A stack that is as high is folded before it grows, where views allow it."""

_NOTHING: dict[int, bytes] = {}


class StagedFile:
    """The data of one changed file. Made by `Staging.create` and `Staging.load`."""

    def __init__(
        self,
        room: StagingRoom,
        base: Base | None,
        layers: list[Layer],
        *,
        synced: bool = False,
        lost: tuple[LayerState, ...] = (),
    ) -> None:
        self._room = room
        self._base = base
        self._layers = layers
        self._top: Layer | None = layers[-1] if layers else None
        self._views: list[FrozenFile] = []
        self._dropped: list[Layer] = []
        self._version = 0
        self._state_version = 0
        self._synced = synced
        self._lost = lost
        self._folding = False
        self._destroyed = False

    @property
    def size_bytes(self) -> int:
        """The file's length."""
        if self._top is not None:
            return self._top.size
        return self._base.size_bytes if self._base is not None else 0

    @property
    def base_bytes(self) -> int:
        """How many of its bytes are still those of the base, at the same place."""
        segments = plan(self._layers, self._base, 0, self.size_bytes)
        return sum(segment.end - segment.start for segment in segments if segment.base is not None)

    @property
    def state_version(self) -> int:
        """Changes when `state` does: layers came or went, or more became durable. Not at each write."""
        return self._state_version

    def state(self) -> str:
        """What the caller's row keeps of the file. The row must be committed before the caller's next await."""
        for layer in self._dropped:
            _let_go(layer)
        for lost in self._lost:
            self._room.doom(file_names(lost), 0)
        self._dropped.clear()
        self._lost = ()
        return encode_state(FileState(self._synced, tuple(layer.state() for layer in self._layers)))

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """The bytes [offset, offset+length), cut at the end: as they were when the call was made."""
        end = min(offset + length, self.size_bytes)
        if offset >= end:
            return b""
        data = await read_stack(self._room, self._layers, self._base, offset, end, inline=True)
        return memoryview(data) if isinstance(data, bytearray) else data

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes `data` at `offset`. Without an await, unless a block of the base or room must be waited for.

        Raises:
            LimitExceeded: There is no room, and nothing can be freed. A part of the data may be written.
        """
        length = len(data)
        if not length:
            return
        top = self._top
        if top is not None and not top.views and self._room.admit(length) and top.is_own(offset, offset + length):
            self._version += 1
            try:
                top.write(offset, data, _NOTHING)
                return
            except OSError as error:
                await self._make_room(error, length)
        await self._write_slowly(offset, data)

    async def truncate(self, size: int) -> None:
        """Sets the length; bytes cut off never come back, bytes added are zero."""
        while size != self.size_bytes:
            if self._must_add_layer() and len(self._layers) >= LAYERS_MAX and await self._fold():
                continue
            self._version += 1
            try:
                if self._top is None or self._top.views:
                    self._add_layer(size)
                else:
                    self._top.truncate(size)
            except OSError as error:
                await self._make_room(error, 0)

    def freeze(self) -> FrozenFile:
        """A view of the content as it is now. Writes that wait at this moment are not in it."""
        if self._top is not None:
            self._top.resync()
        view = FrozenFile(self, tuple(self._layers), self._base, self.size_bytes, self._version)
        self._views.append(view)
        for layer in view.layers:
            layer.views += 1
        return view

    def unchanged_since(self, frozen: FrozenFile) -> bool:
        """Whether nothing was written or cut off since `frozen` was made."""
        return frozen.version == self._version

    def settle(self, frozen: FrozenFile, base: Base) -> None:
        """Takes over that the content of `frozen` is now stored elsewhere: its layers go, what was written since stays.

        A later settled view wins: settling an older one afterwards changes nothing.

        Args:
            frozen: A view of this file that is not released.
            base: Where its content is; of the same size.
        """
        if frozen not in self._views:
            raise ValueError("a view that was released can't be settled")
        if base.size_bytes != frozen.size_bytes:
            raise ValueError(f"a base of {base.size_bytes} bytes can't stand for a view of {frozen.size_bytes}")
        if frozen.base is not self._base:
            return
        self._dropped += [layer for layer in self._layers if layer in frozen.layers]
        self._layers = [layer for layer in self._layers if layer not in frozen.layers]
        self._top = self._layers[-1] if self._layers else None
        self._base = base
        self._state_version += 1

    async def fsync(self) -> None:
        """Makes the content durable, so that `state` says so; the caller then makes its row durable."""
        changed = await sync_layers(self._room, list(self._layers))
        if changed or not self._synced:
            self._synced = True
            self._state_version += 1

    def close(self) -> None:
        """Closes descriptors, and counts what the file really takes. The file stays usable."""
        for layer in self._layers:
            if layer is self._top:
                layer.resync()
            layer.close()

    def destroy(self) -> None:
        """Gives the data up, after the caller's row is gone. Files go with the next `Staging.reap`, frozen ones later."""
        for layer in self._dropped + self._layers:
            _let_go(layer)
        self._dropped.clear()
        self._layers = []
        self._top = None
        self._base = None
        self._destroyed = True
        self._version += 1

    def release(self, view: FrozenFile) -> None:
        """Forgets a view; `FrozenFile.release` calls it."""
        if view not in self._views:
            return
        self._views.remove(view)
        for layer in view.layers:
            layer.views -= 1
            if layer.let_go and not layer.views:
                layer.doom()

    @property
    def room(self) -> StagingRoom:
        """Where the layers live."""
        return self._room

    def _must_add_layer(self) -> bool:
        return self._top is None or self._top.views > 0

    def _add_layer(self, size: int) -> Layer:
        if self._destroyed:
            raise NotFound("the file was removed while a write to it waited")
        layer = Layer.create(self._room, size, min(size, self.size_bytes))
        self._layers.append(layer)
        self._top = layer
        self._state_version += 1
        return layer

    async def _write_slowly(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        end = offset + len(data)
        blocks: dict[int, bytes] = {}
        below: object = None
        while True:
            # What is below the layer to be written stays the same as long as that layer does; below a layer yet to be
            # made is the whole file, which stays the same as long as nothing is written.
            now = (None, self._version) if self._must_add_layer() else (self._top, 0)
            if below != now:
                below, blocks = now, {}
            missing = [block for block in self._partial_blocks(offset, end) if block not in blocks]
            if missing:
                blocks[missing[0]] = await self._read_below(missing[0])
                continue
            need = len(data) + len(blocks) * BLOCK_BYTES
            if not self._room.admit(need):
                await self._room.wait(need)
                continue
            if self._must_add_layer() and len(self._layers) >= LAYERS_MAX and await self._fold():
                continue
            try:
                top = self._top
                if top is None or top.views:
                    top = self._add_layer(self.size_bytes)
                self._version += 1
                top.write(offset, data, blocks)
                return
            except OSError as error:
                await self._make_room(error, need)

    def _partial_blocks(self, offset: int, end: int) -> list[int]:
        if self._top is None or self._top.views:
            return partial_blocks(self.size_bytes, offset, end)
        return self._top.partial_blocks(offset, end)

    async def _read_below(self, block: int) -> bytes:
        start = block * BLOCK_BYTES
        if self._top is None or self._top.views:
            layers, limit = self._layers, self.size_bytes
        else:
            layers, limit = self._layers[:-1], self._top.base_bytes
        end = min(start + BLOCK_BYTES, limit)
        return bytes(await read_stack(self._room, layers, self._base, start, end, inline=True))

    async def _make_room(self, error: OSError, need: int) -> None:
        if error.errno == errno.EFBIG:
            raise LimitExceeded(f"the local disk of {self._room.directory} takes no file that large") from error
        if not is_full(error):
            raise error
        await self._room.wait(need, full=True)

    async def _fold(self) -> bool:
        """Joins the two topmost layers where that can be done; says whether it did."""
        lower, upper = self._layers[-2:]
        if self._folding or lower.readers:
            return False
        if any(lower in view.layers and upper not in view.layers for view in self._views):
            return False
        self._folding = True
        hold = self.freeze()
        try:
            folded = await fold_layers(
                self._room, lower, upper, lambda: lower in self._layers and upper in self._layers
            )
            if folded:
                self._layers.remove(upper)
                self._top = self._layers[-1]
                self._dropped.append(upper)
                self._state_version += 1
        finally:
            hold.release()
            self._folding = False
        return folded


class FrozenFile:
    """A file's content at one moment, readable until it is released.

    Attributes:
        layers: The layers it shows.
        base: What was below them.
        size_bytes: The content's length.
        version: Which change of the file it was made after.
    """

    def __init__(
        self, file: StagedFile, layers: tuple[Layer, ...], base: Base | None, size_bytes: int, version: int
    ) -> None:
        self._file = file
        self.layers = layers
        self.base = base
        self.size_bytes = size_bytes
        self.version = version

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes [offset, offset+length), cut at the end; read in a thread."""
        end = min(offset + length, self.size_bytes)
        if offset >= end:
            return b""
        return bytes(await read_stack(self._file.room, self.layers, self.base, offset, end, inline=False))

    def release(self) -> None:
        """Lets the view go. More than once is allowed."""
        self._file.release(self)


def _let_go(layer: Layer) -> None:
    layer.let_go = True
    if not layer.views:
        layer.doom()
