"""The mesh: data, fsdp and tensor axes, and which scenes a process loads.

Scenes are split over data × fsdp, weights over fsdp × tensor. Axis types are always Auto: the compiler places what the
table in `models/sharding.py` leaves open.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvsr.devices.choose_devices import choose_devices, describe_devices
from jaxvsr.devices.mesh_shape import AXES, DeviceKind, MeshShape, parse_mesh
from jaxvsr.errors import InputError

SCENE_AXES = ("data", "fsdp")


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh over these devices, which are as many as the shape asks for."""
    sizes = (shape.data, shape.fsdp, shape.tensor)
    if (
        devices[0].platform == "cpu"
    ):  # virtual devices have no topology; keep their order, so each process has its own block
        return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return jax.make_mesh(sizes, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES))


def open_mesh(
    kind: DeviceKind, spec: str | None, processes: int = 1, *, deterministic: bool = False
) -> tuple[Mesh, str]:
    """The mesh that `--device` and `--mesh` (None: all devices) mean, and a line that describes it."""
    wanted = parse_mesh(spec) if spec else None
    devices = choose_devices(kind, wanted, processes=processes, deterministic=deterministic)
    shape = wanted or MeshShape(fsdp=len(devices))
    return make_mesh(shape, devices), describe_devices(devices, shape)


def scene_sharding(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis is S."""
    return NamedSharding(mesh, PartitionSpec(SCENE_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def scene_shards(mesh: Mesh) -> int:
    """Over how many shards the mesh splits scenes."""
    return int(np.prod([mesh.shape[axis] for axis in SCENE_AXES]))


def scene_rows(mesh: Mesh, scenes: int) -> tuple[int, int]:
    """First row and number of rows of the S scenes of a step that this process holds.

    With `tensor` across processes several processes hold the same scenes, and load the same.
    """
    spans = set()
    for index in scene_sharding(mesh).addressable_devices_indices_map((scenes,)).values():
        rows = index[0] if index else slice(None)
        spans.add((rows.start or 0, scenes if rows.stop is None else rows.stop))
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    held = sum(span[1] - span[0] for span in spans)
    if held != last - first or first % held or scenes % held:
        raise InputError(
            f"mesh {dict(mesh.shape)}: the scenes of one process are not one block of the step's; "
            "let data × fsdp be a multiple of the number of processes"
        )
    return first, held


def loader_share(mesh: Mesh, scenes: int) -> tuple[int, int]:
    """(index, count) of this process among those that load different scenes."""
    first, held = scene_rows(mesh, scenes)
    return first // held, scenes // held
