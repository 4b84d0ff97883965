"""One process of a job that knows nothing of mvcfs: `shared_rank.py lock|barrier|dcp RANK RANKS DIRECTORY`.

The ranks talk to each other through files of a shared directory alone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

RANKS_SCRIPT = __file__
ROUNDS = 10
SHARD_BYTES = 300_000
_GIVE_UP_S = 120.0


RANK, RANKS, DIRECTORY = 0, 1, Path()


def wait_for(condition: object) -> None:
    end = time.monotonic() + _GIVE_UP_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "the others did not come"
        time.sleep(0.01)


def barrier(name: str) -> None:
    """Returns once all ranks have called it."""
    place = DIRECTORY / "barriers" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / str(RANK)).touch()
    wait_for(lambda: len(os.listdir(place)) == RANKS)


def rounds() -> None:
    """All write, all meet, all read what the others wrote; and again over the same names."""
    for number in range(ROUNDS // 2):
        (DIRECTORY / f"value-{RANK}").write_text(f"{RANK} in round {number}" * (number + 1))
        barrier(f"written-{number}")
        for other in range(RANKS):
            found = (DIRECTORY / f"value-{other}").read_text()
            assert found == f"{other} in round {number}" * (number + 1), (number, other, found)
        barrier(f"read-{number}")


def lock() -> None:
    """A counter that whoever made a directory may raise."""
    counter = DIRECTORY / "counter"
    for _ in range(ROUNDS):

        def taken() -> bool:
            try:
                os.mkdir(DIRECTORY / "lock")
            except FileExistsError:
                return False
            return True

        wait_for(taken)
        count = int(counter.read_text()) if counter.exists() else 0
        counter.write_text(str(count + 1))
        os.rmdir(DIRECTORY / "lock")


def shard(rank: int) -> bytes:
    return bytes([rank + 1]) * SHARD_BYTES


def dcp() -> None:
    """torch.distributed.checkpoint's files: each rank its shard, then the first rank `.metadata` by rename."""
    step = DIRECTORY / "step-5"
    step.mkdir(exist_ok=True)
    with open(step / f"__{RANK}_0.distcp", "wb") as file:
        file.write(shard(RANK))
        file.flush()
        os.fsync(file.fileno())
    barrier("shards")
    if RANK == 0:
        with open(step / ".metadata.tmp", "wb") as file:
            file.write(b"%d shards" % RANKS)
            file.flush()
            os.fsync(file.fileno())
        os.rename(step / ".metadata.tmp", step / ".metadata")
    wait_for((step / ".metadata").exists)
    assert (step / ".metadata").read_bytes() == b"%d shards" % RANKS
    for other in range(RANKS):
        assert (step / f"__{other}_0.distcp").read_bytes() == shard(other)


if __name__ == "__main__":
    RANK, RANKS, DIRECTORY = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    {"barrier": rounds, "lock": lock, "dcp": dcp}[sys.argv[1]]()
