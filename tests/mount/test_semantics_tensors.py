"""Comparing tensors, as docs/semantics.md states it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tests.mount.harness import Mount, mvcfs


def diff(*words: str | Path) -> dict[str, Any]:
    return dict(json.loads(mvcfs("diff", "--tensors", *words, "--json").stdout))


def test_tensors_that_changed(mnt: Mount, main: Path) -> None:
    """`mvcfs diff --tensors` says which tensors of safetensors files changed, in which shard they ever are, and by how much; it reads only what isn't in the same chunks."""
    random = np.random.default_rng(0)
    large = {f"layer{number}": random.normal(size=(1500, 1000)).astype(np.float32) for number in range(4)}
    small = {"bias": np.ones(10, ml_dtypes.bfloat16), "step": np.array([1], np.int64)}
    checkpoint = main / "checkpoint"
    checkpoint.mkdir()
    save_file({"layer0": large["layer0"], "layer1": large["layer1"], **small}, checkpoint / "model-1-of-2.safetensors")
    save_file({"layer2": large["layer2"], "layer3": large["layer3"]}, checkpoint / "model-2-of-2.safetensors")
    (checkpoint / "config.json").write_text("{}")
    mnt.commit()
    for path in checkpoint.iterdir():
        path.unlink()
    changed = large["layer2"].copy()
    changed[700, 3] += 4
    changed[700, 4] = np.nan
    small = {"bias": np.full(10, 1.5, ml_dtypes.bfloat16), "step": np.array([[1]], np.int64), "new": np.ones(3, bool)}
    save_file({"layer0": large["layer0"], **small}, checkpoint / "model-1-of-3.safetensors")
    save_file({"layer1": large["layer1"]}, checkpoint / "model-2-of-3.safetensors")
    save_file({"layer2": changed}, checkpoint / "model-3-of-3.safetensors")
    mnt.commit()
    found = diff(mnt.snapshot(1), mnt.snapshot(2))
    rows = {row["name"] or row["old_name"]: row for row in found["tensors"]}
    assert {name: row["change"] for name, row in rows.items()} == {
        "bias": "changed", "step": "changed", "new": "added", "layer2": "changed", "layer3": "removed",
    }  # fmt: skip
    assert found["totals"] == {"added": 1, "removed": 1, "changed": 3, "same": 2, "moved": 5}
    layer = rows["layer2"]
    assert (layer["dtype"], layer["shape"], layer["differing"], layer["not_finite"]) == ("F32", [1500, 1000], 2, 1)
    assert abs(layer["largest_difference"] - 4) < 1e-5
    assert abs(layer["mean_difference"] - 4 / (1_500_000 - 1)) < 1e-9
    assert (rows["bias"]["dtype"], rows["bias"]["largest_difference"], rows["bias"]["mean_difference"]) == (
        "BF16",
        0.5,
        0.5,
    )
    assert (rows["step"]["old_shape"], rows["step"]["shape"], rows["step"]["differing"]) == ([1], [1, 1], None)
    assert (layer["old_file"], layer["file"]) == (
        "checkpoint/model-2-of-2.safetensors",
        "checkpoint/model-3-of-3.safetensors",
    )
    # Of 18 MB in three tensors that both versions have: the chunks at their edges and round what changed.
    assert 0 < found["read_bytes"] < 16_000_000
    shown = mvcfs("diff", "--tensors", mnt.snapshot(1), mnt.snapshot(2)).stdout
    assert "F32 [1500, 1000]" in shown
    assert "2 of 1500000; largest 4, mean 2.67e-06; 1 NaN or infinite" in shown
    direct = json.loads(
        mvcfs(
            "diff", "--tensors", "--store", mnt.store, "m", "main@1", "main@2", "--json", "--cache-dir", mnt.cache / "x"
        ).stdout
    )
    assert direct["tensors"] == found["tensors"]


def test_tensors_of_a_working_tree(store: str, mounts: Callable[..., Mount]) -> None:
    """`mvcfs diff --tensors PATH` of a branch shows what its unpublished files change."""
    mnt = mounts(store, "--settle", "1h", "--max-settle", "2h").start()
    main = mnt.point / "m/main"
    main.parent.mkdir()
    file = main / "model.safetensors"
    tensors = {name: np.zeros(100_000, np.float32) for name in "ab"}
    save_file(tensors, file)
    mnt.commit()
    tensors["b"][7] = 3
    save_file(tensors, file)
    found = diff(main)
    (row,) = found["tensors"]
    assert (row["change"], row["name"], row["differing"], row["largest_difference"]) == ("changed", "b", 1, 3)
    assert found["totals"]["same"] == 1


def test_two_files_and_damaged_ones(mnt: Mount, main: Path) -> None:
    """`mvcfs diff --tensors` compares two files as well; a header that can't be is an error that says why, with exit code 5."""
    save_file({"a": np.zeros(4, np.float32)}, main / "one.safetensors")
    save_file({"a": np.array([0, 0, 0, 2], np.float32)}, main / "two.bin")
    (main / "bad.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    mnt.commit()
    at = mnt.snapshot(1)
    (row,) = diff(at / "one.safetensors", at / "two.bin")["tensors"]
    assert (row["old_file"], row["file"], row["largest_difference"]) == ("one.safetensors", "two.bin", 2)
    assert (
        mvcfs("diff", "--tensors", "--exit-code", at / "one.safetensors", at / "two.bin", check=False).returncode == 1
    )
    result = mvcfs("diff", "--tensors", at / "one.safetensors", at / "bad.safetensors", check=False)
    assert result.returncode == 5
    assert "bad.safetensors is no safetensors file" in result.stderr
