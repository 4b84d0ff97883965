"""Uploads: what is known isn't stored again, what fails leaves nothing behind, memory stays bounded."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from mvcfs.content.pack_file import TRAILER_BYTES, decode_footer, footer_bytes
from mvcfs.content.upload import Upload
from mvcfs.errors import Conflict, InvalidArgument, StorageError, Transient, UnknownOutcome
from mvcfs.storage.faults import Fault
from mvcfs.storage.memory import MemoryStorage
from tests.content.content_tools import MODEL, SMALL, BytesSource, noise, open_rig


async def add_and_finish(upload: Upload, count: int) -> None:
    for number in range(count):
        await upload.add(BytesSource(noise(50_000, number)))
    await upload.finish()


async def test_equal_content_is_stored_once_in_an_upload(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        upload = rig.content.upload()
        first = await upload.add(BytesSource(noise(30_000)))
        assert await upload.add(BytesSource(noise(30_000))) == first
        await rig.publish(upload)
        assert upload.stored_bytes == 30_000


async def test_known_content_adds_nothing(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(30_000))
        before = dict(rig.storage.files)
        upload = rig.content.upload()
        assert await upload.add(BytesSource(noise(30_000))) == content
        assert await upload.finish() == ((), ())
        assert rig.storage.files == before


@pytest.mark.parametrize("directory", ["local", "elsewhere"])
async def test_an_edit_uploads_what_changed(tmp_path: Path, directory: str) -> None:
    async with open_rig(tmp_path) as rig:
        data = noise(100_000)
        await rig.store(data)
        edited = data[:50_000] + b"some inserted bytes" + data[50_000:]
        content = rig.another(directory)
        upload = content.upload()
        added = await upload.add(BytesSource(edited))
        assert upload.stored_bytes < 10_000
        manifests, packs = await upload.finish()
        assert len(packs) == 1
        content.set_live([*rig.manifests, *manifests], [*rig.packs, *packs])
        assert bytes(await (await content.open(added)).read(0, len(edited))) == edited
        await content.aclose()


async def test_chunks_of_packs_that_are_gone_are_stored_again(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.store(noise(30_000))
        rig.content.set_live([], [])
        upload = rig.content.upload()
        await upload.add(BytesSource(noise(30_000)))
        assert upload.stored_bytes == 30_000
        await upload.abort()


async def test_a_pack_that_goes_while_uploading_is_a_conflict(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.store(noise(30_000))
        upload = rig.content.upload()
        await upload.add(BytesSource(noise(30_000) + noise(5000, 1)))
        rig.content.set_live([], [])
        with pytest.raises(Conflict, match="packs/"):
            await upload.finish()
        await upload.abort()


async def test_a_manifest_that_goes_while_uploading_is_a_conflict(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        (content,) = await rig.store(noise(30_000))
        upload = rig.content.upload()
        await upload.add(BytesSource(noise(30_000)))
        rig.content.set_live([], rig.packs)
        with pytest.raises(Conflict, match=content.oid):
            await upload.finish()
        await upload.abort()


@pytest.mark.parametrize("damage", ["garbage", "lies", "gone"])
async def test_a_damaged_index_costs_bytes_only(tmp_path: Path, damage: str) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.store(noise(30_000))
        await rig.content.aclose()
        index = tmp_path / "local" / "chunks.sqlite"
        if damage == "garbage":
            index.write_bytes(b"no database" * 1000)
        elif damage == "gone":
            index.unlink()
        else:
            database = sqlite3.connect(index)
            database.execute("UPDATE chunks SET offset = offset / 2")
            database.commit()
            database.close()
        rig.content = rig.another()
        data = noise(30_000) + noise(5000, 1)
        (content,) = await rig.store(data)
        assert bytes(await (await rig.content.open(content)).read(0, len(data))) == data


async def test_the_index_is_bounded(tmp_path: Path) -> None:
    async with open_rig(tmp_path, config=replace(SMALL, dedup_rows=400)) as rig:
        for number in range(4):
            await rig.store(noise(200_000, number))
        await rig.content.aclose()
        database = sqlite3.connect(tmp_path / "local" / "chunks.sqlite")
        (rows,) = database.execute("SELECT count(*) FROM chunks").fetchone()
        database.close()
        assert 100 < rows <= 400


async def test_a_failing_source_ends_its_own_add_only(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        upload = rig.content.upload()
        with pytest.raises(Transient, match="overtaken"):
            await upload.add(BytesSource(noise(50_000, 1), fail_at=30_000))
        with pytest.raises(Conflict):
            await upload.add(BytesSource(noise(50_000, 2), claim=60_000))
        content = await upload.add(BytesSource(noise(50_000)))
        assert upload.total_bytes == upload.uploaded_bytes == 50_000
        await rig.publish(upload)
        assert bytes(await (await rig.content.open(content)).read(0, 50_000)) == noise(50_000)


async def test_an_upload_of_failures_only_publishes_nothing(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        upload = rig.content.upload()
        with pytest.raises(Transient):
            await upload.add(BytesSource(noise(50_000, 1), fail_at=30_000))
        assert await upload.finish() == ((), ())
        assert not rig.storage.files
        with pytest.raises(InvalidArgument):
            await upload.add(BytesSource(b"x"))


@pytest.mark.parametrize("op", ["create", "write", "close", "stat"])
@pytest.mark.parametrize("kind", ["packs", "manifests"])
async def test_a_failing_store_fails_the_upload_and_abort_cleans_up(tmp_path: Path, op: str, kind: str) -> None:
    async with open_rig(tmp_path) as rig:
        upload = rig.content.upload()
        left = 2

        async def fail(called: str, path: str) -> None:
            nonlocal left
            if called == op and f"/{kind}/" in path:
                left -= 1
                if left <= 0 or kind == "manifests":
                    raise Transient("the store is down")

        rig.storage.hook = fail
        with pytest.raises(StorageError):
            await add_and_finish(upload, 3)
        rig.storage.hook = None
        await upload.abort()
        assert not rig.storage.files


@pytest.mark.parametrize("op", ["create", "writer.close"])
@pytest.mark.parametrize("kind", ["packs", "manifests"])
@pytest.mark.parametrize("happened", [False, True])
async def test_a_lost_acknowledgement(tmp_path: Path, op: str, kind: str, happened: bool) -> None:
    async with open_rig(tmp_path) as rig:
        lost = UnknownOutcome("no answer")
        fault = Fault(op, f"*/{kind}/*", after=lost) if happened else Fault(op, f"*/{kind}/*", before=lost)
        rig.storage.add(fault)
        upload = rig.content.upload()
        if op == "writer.close" and happened:
            await add_and_finish(upload, 1)
        else:
            with pytest.raises(StorageError):
                await add_and_finish(upload, 1)
        await upload.abort()
        assert not rig.storage.files


async def test_cancelling_an_add_leaves_the_upload_usable(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        upload = rig.content.upload()

        async def slow(called: str, path: str) -> None:
            if called == "write":
                await trio.sleep(0.01)

        rig.storage.hook = slow
        with trio.move_on_after(0.02):
            await upload.add(BytesSource(noise(500_000, 1)))
        rig.storage.hook = None
        content = await upload.add(BytesSource(noise(50_000)))
        await rig.publish(upload)
        assert bytes(await (await rig.content.open(content)).read(0, 50_000)) == noise(50_000)


async def test_abort_of_a_finished_upload_removes_it(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        upload = rig.content.upload()
        await upload.add(BytesSource(noise(50_000)))
        assert await upload.finish() == await upload.finish()
        await upload.abort()
        assert not rig.storage.files


async def test_memory_is_bounded_while_the_store_is_slow(tmp_path: Path) -> None:
    limit = 50_000
    async with open_rig(tmp_path, budget_bytes=limit) as rig:
        upload = rig.content.upload()
        most = 0

        async def slow(called: str, path: str) -> None:
            nonlocal most
            most = max(most, rig.budget.used_bytes)
            if called == "write":
                await trio.sleep(0.002)

        rig.storage.hook = slow
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(upload.add, BytesSource(noise(60_000, number)))
        await rig.publish(upload)
        assert 0 < most <= limit


async def test_packs_explain_themselves(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.store(noise(40_000))
        for name in rig.pack_files():
            data = rig.storage.files[name]
            length = footer_bytes(data[-TRAILER_BYTES:], len(data))
            footer = decode_footer(data[-TRAILER_BYTES - length : -TRAILER_BYTES])
            assert footer.chunker == "fastcdc2020:min=256,avg=512,max=2048,nc=2"
            assert footer.offsets[0] == 0
            assert footer.offsets[-1] + footer.lengths[-1] == len(data) - TRAILER_BYTES - length


async def test_a_store_with_tiny_blocks_is_refused(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.storage.inner = MemoryStorage(block_bytes=2048)
        with pytest.raises(InvalidArgument, match="blocks of 2048"):
            rig.another()


async def test_local_copies_are_swept(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.store(noise(40_000))
        stray = tmp_path / "local" / "manifests" / "tmp-stray.arrow"
        stray.write_bytes(b"half")
        other = rig.another()
        assert not await other.find("0" * 64)
        assert not stray.exists()
        assert len(list(stray.parent.iterdir())) == 1
        await other.aclose()
        assert rig.manifests[0].name in {name.removeprefix(f"{MODEL}/") for name in rig.storage.files}
