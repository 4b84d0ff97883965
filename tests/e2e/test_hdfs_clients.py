"""Ordinary programs on a mount of a store on real HDFS, with a real tree and a checkpoint of real size."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.tools import copy_store, differences, git, list_store, pack_bytes, watched_memory
from tests.mount.harness import Mount, run

pytestmark = [pytest.mark.hdfs, pytest.mark.mount]


def check_checkout(directory: Path) -> None:
    assert git(directory, "status", "--porcelain").stdout == ""
    git(directory, "fsck", "--strict", "--no-dangling")
    assert git(directory, "describe").stdout == "v1\n"


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_real_tree(checkout: Path, hdfs_store: str, patient: Callable[[str], Mount], tmp_path: Path) -> None:
    files = sum(len(names) for _, _, names in os.walk(checkout))
    assert files > 3000
    mnt = patient(hdfs_store)
    main = mnt.point / "m" / "main"
    main.parent.mkdir()
    run("cp", "-a", f"{checkout}/.", main, timeout=280)
    assert differences(checkout, main) == ""
    check_checkout(main)
    assert mnt.commit(message="the tree")["version"] == 1
    assert differences(checkout, main) == ""
    assert differences(checkout, mnt.snapshot(1)) == ""
    check_checkout(mnt.snapshot(1))
    assert mnt.commit()["unchanged"] is True
    mnt.umount()

    again = patient(hdfs_store)
    assert differences(checkout, again.point / "m/main") == ""
    assert differences(checkout, again.snapshot(1)) == ""
    check_checkout(again.point / "m/main")
    assert again.commit()["unchanged"] is True
    again.umount()

    assert again.fsck()["problems"] == []
    await copy_store(hdfs_store, tmp_path / "copy")
    copied = patient(str(tmp_path / "copy"))
    assert differences(checkout, copied.point / "m/main") == ""
    assert differences(checkout, copied.snapshot(1)) == ""
    assert copied.fsck()["problems"] == []


SHARDS, TENSORS, TENSOR_BYTES = 4, 8, 64 << 20

# An ordinary training program: knows nothing of mvcfs.
TRAINER = f"""
import json, os, sys
import numpy as np
from safetensors.numpy import save_file

target, step, changed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
temporary = os.path.join(target, f"tmp-checkpoint-{{step}}")
os.mkdir(temporary)
dtypes = (np.float32, np.float16, np.int8, np.int64)
weights = {{}}
for shard in range({SHARDS}):
    tensors = {{}}
    for number in range({TENSORS}):
        name = f"layer.{{shard}}.{{number}}"
        seed = (shard, number, step if name == changed else 0)
        data = np.random.default_rng(seed).integers(0, 1 << 64, {TENSOR_BYTES} // 8, dtype=np.uint64)
        tensors[name] = data.view(dtypes[number % 4]).reshape(1024, -1)
    file = f"model-{{shard + 1:05}}-of-{SHARDS:05}.safetensors"
    save_file(tensors, os.path.join(temporary, file), metadata={{"format": "np"}})
    weights |= dict.fromkeys(tensors, file)
with open(os.path.join(temporary, "model.safetensors.index.json"), "w") as index:
    json.dump({{"weight_map": weights}}, index)
with open(os.path.join(temporary, "trainer_state.json"), "w") as state:
    json.dump({{"step": step}}, state)
os.rename(temporary, os.path.join(target, f"checkpoint-{{step}}"))
"""

# An ordinary loading program: compares every tensor with what was written.
LOADER = f"""
import json, os, sys
import numpy as np
from safetensors import safe_open

folder, step, changed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
weights = json.load(open(os.path.join(folder, "model.safetensors.index.json")))["weight_map"]
assert len(weights) == {SHARDS * TENSORS}
for file in sorted(set(weights.values())):
    with safe_open(os.path.join(folder, file), "np") as tensors:
        for name in tensors.keys():
            _, shard, number = name.split(".")
            seed = (int(shard), int(number), step if name == changed else 0)
            data = np.random.default_rng(seed).integers(0, 1 << 64, {TENSOR_BYTES} // 8, dtype=np.uint64)
            found = tensors.get_tensor(name)
            assert np.array_equal(found.reshape(-1).view(np.uint64), data), name
            del weights[name]
assert not weights
"""


def python(program: str, *words: str | Path) -> None:
    run(sys.executable, "-c", program, *words, timeout=400)


@pytest.mark.long
@pytest.mark.timeout(1500)
async def test_checkpoints(hdfs_store: str, mounts: Callable[..., Mount]) -> None:
    mnt = mounts(hdfs_store).start()
    main = mnt.point / "m" / "main"
    main.parent.mkdir()
    with watched_memory(mnt.pid()) as writing:
        python(TRAINER, main, "1", "none")
        first = settled(mnt, 1)
        size = sum(path.stat().st_size for path in (main / "checkpoint-1").iterdir())
        assert size > 2 << 30
        first_bytes = pack_bytes(await list_store(hdfs_store))
        assert size <= first_bytes * 1.001 < size * 1.01
        python(TRAINER, main, "2", "layer.2.3")
        settled(mnt, 2)
    second_bytes = pack_bytes(await list_store(hdfs_store)) - first_bytes
    assert first[0]["message"].startswith("Add checkpoint-1/ (6 files")
    assert TENSOR_BYTES <= second_bytes <= first_bytes * 0.3
    print(f"packs: {first_bytes:,} then {second_bytes:,} bytes; RssAnon {writing.anonymous_bytes:,}")
    for path in sorted((main / "checkpoint-1").iterdir()):
        assert path.stat().st_size == (mnt.snapshot(1) / "checkpoint-1" / path.name).stat().st_size
        assert path.stat().st_size == (mnt.snapshot(2) / "checkpoint-1" / path.name).stat().st_size
    result = run("diff", "-r", mnt.snapshot(1), mnt.snapshot(2), check=False, timeout=280)
    assert result.stdout == f"Only in {mnt.snapshot(2)}: checkpoint-2\n"
    mnt.umount()

    again = mounts(hdfs_store).start()
    with watched_memory(again.pid()) as reading:
        python(LOADER, again.snapshot(1) / "checkpoint-1", "1", "none")
        python(LOADER, again.snapshot(2) / "checkpoint-2", "2", "layer.2.3")
        python(LOADER, again.snapshot(2) / "checkpoint-1", "1", "none")
    one, two = again.snapshot(2) / "checkpoint-1", again.snapshot(2) / "checkpoint-2"
    result = run("diff", "-rq", one, two, check=False, timeout=280)
    differing = ["model-00003-of-00004.safetensors", "trainer_state.json"]
    assert result.stdout.splitlines() == [f"Files {one}/{name} and {two}/{name} differ" for name in differing]
    assert len(again.versions()) == 2
    print(f"RssAnon reading {reading.anonymous_bytes:,}")
    assert max(writing.anonymous_bytes, reading.anonymous_bytes) < 1.2 * (1 << 30)


def settled(mnt: Mount, count: int) -> list[dict[str, object]]:
    """Like `Mount.settled`, for uploads that take longer."""
    end = time.monotonic() + 400
    while len(mnt.versions()) < count:
        assert time.monotonic() < end
        time.sleep(1)
    return mnt.settled(count)
