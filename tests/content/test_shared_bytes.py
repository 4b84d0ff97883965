"""How many bytes of a large file another one has, from their chunk lists alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcfs.types import LargeContent
from tests.content.content_tools import noise, open_rig


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20_000), st.integers(1, 20_000)), max_size=5),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20_000), st.integers(1, 20_000)), max_size=5),
)
def test_shared_bytes_are_those_of_equal_chunks(
    one: list[tuple[int, int, int]], other: list[tuple[int, int, int]]
) -> None:
    """Files are put together of parts of four contents."""
    sources = [noise(40_000, seed) for seed in range(4)]

    async def main(folder: Path) -> None:
        async with open_rig(folder) as rig:
            data = [
                b"".join(sources[n][start : start + length] for n, start, length in parts) for parts in (one, other)
            ]
            before, after = [(await rig.store(each))[0] for each in data]
            chunks = []
            for content in (before, after):
                found = await rig.content._manifests.find(content.oid)
                assert found is not None
                chunks.append(found.refs(0, content.size_bytes))
            known = {chunk.hash for chunk in chunks[0]}
            expected = sum(chunk.length for chunk in chunks[1] if chunk.hash in known)
            assert await rig.content.shared_bytes(before, after) == expected
            assert await rig.content.shared_bytes(after, after) == after.size_bytes

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder))


async def test_an_expired_file_shares_nobody_knows_what(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(10_000))
        assert await rig.content.shared_bytes(LargeContent("0" * 64, 10_000), content) is None
        assert await rig.content.shared_bytes(content, LargeContent("0" * 64, 10_000)) is None
