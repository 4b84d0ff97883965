"""One of two JAX processes that save a checkpoint with Orbax and restore it: `orbax_rank.py RANK PORT DIRECTORY`.

Each has its own mount under the same path. Prints what it restored; fails where a value differs.
"""

from __future__ import annotations

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
import jax

RANK, PORT, DIRECTORY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
RANKS = 2
ROWS = 256


def main() -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{PORT}", num_processes=RANKS, process_id=RANK)
    import jax.numpy as jnp
    import numpy as np
    import orbax.checkpoint as ocp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("hosts",))
    rows, whole = NamedSharding(mesh, PartitionSpec("hosts")), NamedSharding(mesh, PartitionSpec())

    def spread(values: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    def state(step: int) -> dict[str, np.ndarray]:
        return {
            "weights": np.arange(ROWS * 1024, dtype=np.float32).reshape(ROWS, 1024) * step,
            "bias": np.full(16, step, dtype=np.float32),
        }

    manager = ocp.CheckpointManager(DIRECTORY, options=ocp.CheckpointManagerOptions(max_to_keep=2))
    for step in (1, 2, 3):
        values = state(step)
        arrays = {"weights": spread(values["weights"], rows), "bias": spread(values["bias"], whole)}
        assert manager.save(step, args=ocp.args.StandardSave(arrays))
    manager.wait_until_finished()
    assert sorted(manager.all_steps()) == [2, 3], manager.all_steps()
    manager.close()

    reader = ocp.CheckpointManager(DIRECTORY)
    assert reader.latest_step() == 3, reader.latest_step()
    for step in (2, 3):
        want = state(step)
        # The halves change places: each process reads what the other has written.
        other = NamedSharding(Mesh(np.array(jax.devices()[::-1]), ("hosts",)), PartitionSpec("hosts"))
        shapes = {
            "weights": jax.ShapeDtypeStruct(want["weights"].shape, jnp.float32, sharding=other),
            "bias": jax.ShapeDtypeStruct(want["bias"].shape, jnp.float32, sharding=whole),
        }
        found = reader.restore(step, args=ocp.args.StandardRestore(shapes))
        for name, array in found.items():
            for shard in array.addressable_shards:
                np.testing.assert_array_equal(np.asarray(shard.data), want[name][shard.index])
    print(f"rank {RANK}: steps {sorted(reader.all_steps())} are right", flush=True)
    reader.close()
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
