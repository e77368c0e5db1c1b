"""The shape of the mesh, before JAX starts: how many devices along data, fsdp and tensor.

`--mesh 8` is eight devices on fsdp; `--mesh fsdp=4,tensor=2` names the axes.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

from jaxvsr.errors import InputError

DeviceKind = Literal["auto", "cpu", "gpu", "tpu"]

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor

    @property
    def scene_shards(self) -> int:
        """Into how many parts the scenes of a step are split."""
        return self.data * self.fsdp

    def __str__(self) -> str:
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in AXES if getattr(self, axis) > 1) or "1"


def parse_mesh(spec: str) -> MeshShape:
    """`8` → eight devices on fsdp; `fsdp=2,tensor=2`, `data=2,fsdp=4` → named axes.

    >>> parse_mesh("fsdp=4,tensor=2")
    MeshShape(data=1, fsdp=4, tensor=2)
    """
    wanted = "--mesh takes a number of devices (8) or axes with numbers (fsdp=4,tensor=2)"
    sizes: dict[str, int] = {}
    for part in spec.split(","):
        axis, _, number = part.strip().rpartition("=")
        axis = axis.strip() or "fsdp"
        if axis not in AXES:
            close = difflib.get_close_matches(axis, AXES, n=1)
            raise InputError(
                f"mesh {spec!r}: no axis {axis!r}; " + (f"did you mean {close[0]!r}? " if close else "") + wanted
            )
        if axis in sizes:
            raise InputError(f"mesh {spec!r}: axis {axis!r} is given twice; {wanted}")
        if not number.strip().isdecimal() or int(number) < 1:
            raise InputError(f"mesh {spec!r}: {number.strip()!r} is not a number of devices; {wanted}")
        sizes[axis] = int(number)
    return MeshShape(**sizes)


def check_mesh(
    shape: MeshShape, *, scenes: int, attention_heads: int | None = None, processes: int = 1, accumulation: int = 1
) -> None:
    """Refuse a mesh that does not divide the batch, the parts it is computed in, or the attention heads."""
    if scenes % shape.scene_shards:
        raise InputError(
            f"data.scenes={scenes} does not divide over mesh {shape}: scenes are split over data × fsdp = "
            f"{shape.scene_shards}; take data.scenes={_next_multiple(scenes, shape.scene_shards)} or a smaller mesh"
        )
    part = scenes // accumulation
    if part % shape.scene_shards:
        raise InputError(
            f"update.accumulation={accumulation}: its parts of {part} scenes do not divide over mesh {shape} (data × "
            f"fsdp = {shape.scene_shards}); take data.scenes={accumulation * _next_multiple(part, shape.scene_shards)}"
            " or a smaller update.accumulation"
        )
    if attention_heads is not None and attention_heads % shape.tensor:
        raise InputError(
            f"mesh {shape}: tensor={shape.tensor} does not divide the model's {attention_heads} attention heads"
        )
    if shape.devices % processes:
        raise InputError(f"mesh {shape}: {shape.devices} devices do not divide over {processes} processes")


def _next_multiple(number: int, factor: int) -> int:
    return -(-number // factor) * factor
