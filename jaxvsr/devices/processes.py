"""What passes between processes: each holds its own scenes of a step, and what a step needs of all is gathered here.

Axes: `s` is this process's scenes, `S` those of all processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

from jaxvsr.devices.mesh import scene_rows, scene_sharding


def meant_transfer() -> contextlib.AbstractContextManager[None]:
    """Inside, JAX may copy what only looks as if nobody had asked for it: the loop's guard refuses such copies."""
    return jax.transfer_guard("allow")


@dataclasses.dataclass(frozen=True)
class SceneAxis:
    """The S scenes of a step: over the mesh, and over the processes that load them."""

    mesh: Mesh
    size: int  # S

    def place(self, tree: Any) -> Any:
        """Arrays [s, …] of this process's scenes as arrays [S, …] on the mesh."""
        sharding = scene_sharding(self.mesh)

        def put(leaf: np.ndarray) -> jax.Array:
            if jax.process_count() == 1:
                return jax.device_put(leaf, sharding)
            with meant_transfer():
                return jax.make_array_from_process_local_data(sharding, leaf, (self.size, *leaf.shape[1:]))

        return jax.tree.map(put, tree)

    def all_rows(self, rows: Shaped[np.ndarray, "s ..."]) -> Shaped[np.ndarray, "S ..."]:
        """The rows of all processes in the order of the whole step, bit for bit."""
        if jax.process_count() == 1:
            return rows
        from jax.experimental import multihost_utils

        # JAX would round 8 bytes to 4, and a reward of 0.1 would exceed a threshold of 0.1: they travel as two words.
        words = np.ascontiguousarray(rows)
        if rows.dtype.itemsize == 8:
            words = words.reshape(-1).view(np.uint32).reshape(*rows.shape, 2)
        with meant_transfer():
            gathered = np.asarray(multihost_utils.process_allgather(self.place(words), tiled=True))
        return gathered.reshape(-1).view(rows.dtype).reshape(self.size, *rows.shape[1:])

    @property
    def own(self) -> slice:
        """This process's scenes among the S."""
        first, held = scene_rows(self.mesh, self.size)
        return slice(first, first + held)


def own_rows(array: jax.Array | np.ndarray) -> Shaped[np.ndarray, "s ..."]:
    """This process's scenes of an array on the mesh, in host memory."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    pieces = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])


def texts_of_all_processes(text: str) -> list[str]:
    """One text of each process, in their order."""
    if jax.process_count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    own = np.frombuffer(text.encode(), np.uint8)
    with meant_transfer():
        sizes = multihost_utils.process_allgather(np.array(own.size))
        padded = multihost_utils.process_allgather(np.pad(own, (0, int(sizes.max()) - own.size)))
    return [row[:size].tobytes().decode() for row, size in zip(padded, sizes, strict=True)]


def largest_of_processes(numbers: Any) -> np.ndarray:
    """The largest of the numbers that the processes give, each by itself, so that all of them decide alike."""
    return np.asarray(numbers_of_processes(numbers).max(axis=0))


def sum_of_processes(numbers: Any) -> np.ndarray:
    """The sums of the numbers that the processes give, each by itself; all wait for the last."""
    return np.asarray(numbers_of_processes(numbers).sum(axis=0))


def numbers_of_processes(numbers: Any) -> np.ndarray:
    """The numbers that each process gives, in the order of the processes; all wait for the last."""
    if jax.process_count() == 1:
        return np.asarray(numbers)[None]
    from jax.experimental import multihost_utils

    with meant_transfer():
        return np.asarray(multihost_utils.process_allgather(np.asarray(numbers)))
