"""`diff --tensors` on versions and a working tree, without a kernel."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import trio
from safetensors.numpy import save

from mvcfs.errors import CorruptData, LimitExceeded
from mvcfs.vfs.changes import Json
from mvcfs.vfs.commands import diff_tensors
from tests.vfs.test_filesystem_model import ROOT
from tests.vfs.test_part import writing
from tests.vfs.test_review_hosts import Host


async def put(host: Host, directory: int, name: bytes, data: bytes) -> None:
    file, _ = await host.fs.create(directory, name, 0o644, os.O_RDWR, ROOT)
    for at in range(0, len(data), 1 << 20):
        await host.fs.write(file.fh, at, data[at : at + (1 << 20)])
    await host.fs.release(file.fh)


async def compared(host: Host, before: str | None = None, after: str | None = None, path: str = "m") -> Json:
    args = {"mount_path": path} if before is None else {"mount_path": path, "revision": before, "other": after}
    return await host.engine.commands["diff_tensors"](args)


def changes(result: Json) -> list[tuple[str, str, str]]:
    return [
        (row["change"], row["file"] or row["old_file"], row["name"] or row["old_name"]) for row in result["tensors"]
    ]


async def test_directories_are_apart_and_other_files_are_left_alone(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        main = await host.driver.ino(())
        one, two = (save({"a": np.full(4, value, np.float32)}) for value in (1, 2))
        for name, data in ((b"x", one), (b"y", two)):
            directory = (await host.fs.mkdir(main, name, 0o755, ROOT)).ino
            await put(host, directory, b"model.safetensors", data)
            await put(host, directory, b"model.bin", data)
        await host.commit()
        for name, data in ((b"x", two), (b"y", two)):
            directory = await host.driver.ino((name,))
            for file in (b"model.safetensors", b"model.bin"):
                await host.fs.unlink(directory, file, ROOT)
            await put(host, directory, b"moved.safetensors", data)
            await put(host, directory, b"model.bin", one)
        await host.commit()
        result = await compared(host, "main@1", "main@2")
        # Of y the whole file was renamed, which is no change of a tensor.
        assert changes(result) == [("changed", "x/moved.safetensors", "a")]
        assert result["tensors"][0]["old_file"] == "x/model.safetensors"
        assert result["totals"]["moved"] == 1
        assert changes(await compared(host, "main@2", "main@2")) == []


async def test_unpublished_files_are_read_as_they_are(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        main = await host.driver.ino(())
        large = {name: np.zeros(200_000, np.float32) for name in "ab"}
        await put(host, main, b"l.safetensors", save(large))
        await put(host, main, b"s.safetensors", save({"c": np.zeros(3, np.int8)}))
        await host.commit()
        large["b"][9] = 1
        for name in (b"l.safetensors", b"s.safetensors"):
            await host.fs.unlink(main, name, ROOT)
        await put(host, main, b"l.safetensors", save(large))
        await put(host, main, b"s.safetensors", save({"c": np.array([0, 0, -5], np.int8)}))
        result = await compared(host, path="m/main")
        assert [(row["name"], row["differing"], row["largest_difference"]) for row in result["tensors"]] == [
            ("b", 1, 1.0), ("c", 1, 5.0),
        ]  # fmt: skip
        assert result["totals"]["same"] == 1


async def test_a_damaged_file_and_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with writing(tmp_path) as host:
        main = await host.driver.ino(())
        data = save({name: np.zeros(3, np.int8) for name in "abc"})
        await put(host, main, b"good.safetensors", data)
        await put(host, main, b"sub.safetensors", b"\xff" * 20)
        await host.commit()
        with pytest.raises(CorruptData, match=r"sub\.safetensors is no safetensors file"):
            await compared(host, path="m/main@1")
        monkeypatch.setattr(diff_tensors, "_MOST_TENSORS", 2)
        with pytest.raises(LimitExceeded, match="more than 2 tensors"):
            await compared(host, path="m/main@1")


async def test_others_run_while_a_long_list_is_compared(tmp_path: Path) -> None:
    async with writing(tmp_path) as host:
        main = await host.driver.ino(())
        arrays = {f"t{number}": np.zeros(1, np.int8) for number in range(3000)}
        await put(host, main, b"f.safetensors", save(arrays))
        await host.commit()
        arrays["t0"][0] = 1
        await host.fs.unlink(main, b"f.safetensors", ROOT)
        await put(host, main, b"f.safetensors", save(arrays))
        await host.commit()
        rounds = 0
        async with trio.open_nursery() as nursery:

            async def others() -> None:
                nonlocal rounds
                while True:
                    await trio.lowlevel.checkpoint()
                    rounds += 1

            nursery.start_soon(others)
            result = await compared(host, "main@1", "main@2")
            nursery.cancel_scope.cancel()
        assert result["totals"]["same"] == 2999
        assert rounds >= 3000
