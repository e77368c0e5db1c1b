"""What passes between processes: each holds its own scenes of a step, and what a step needs of all is gathered here."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

from jaxvsr.devices.mesh import scene_sharding


def place(tree: Any, mesh: Mesh, scenes: int) -> Any:
    """Arrays of this process's scenes (first axis) as arrays of all S scenes on the mesh."""
    sharding = scene_sharding(mesh)

    def put(leaf: np.ndarray) -> jax.Array:
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_process_local_data(sharding, leaf, (scenes, *leaf.shape[1:]))

    return jax.tree.map(put, tree)


def own_rows(array: jax.Array | np.ndarray) -> Shaped[np.ndarray, "S ..."]:
    """This process's scenes of an array that is split over scenes, in host memory."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    pieces = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])


def all_rows(rows: Shaped[np.ndarray, "s ..."], mesh: Mesh, scenes: int) -> Shaped[np.ndarray, "S ..."]:
    """The rows of all processes, in the order of the whole step, bit for bit; `rows` are this process's scenes."""
    if jax.process_count() == 1:
        return rows
    from jax.experimental import multihost_utils

    # JAX would round 8 bytes to 4, and a reward of 0.1 would lie above a threshold of 0.1: they travel as two words.
    words = np.ascontiguousarray(rows)
    if rows.dtype.itemsize == 8:
        words = words.reshape(-1).view(np.uint32).reshape(*rows.shape, 2)
    gathered = np.asarray(multihost_utils.process_allgather(place(words, mesh, scenes), tiled=True))
    return gathered.reshape(-1).view(rows.dtype).reshape(scenes, *rows.shape[1:])


def texts_of_all_processes(text: str) -> list[str]:
    """One text of each process, in their order."""
    if jax.process_count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    own = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(own.size))
    padded = multihost_utils.process_allgather(np.pad(own, (0, int(sizes.max()) - own.size)))
    return [row[:size].tobytes().decode() for row, size in zip(padded, sizes, strict=True)]


def largest_of_processes(number: int) -> int:
    """The largest of the numbers that the processes give, so that all of them decide alike."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.array([number]))))
