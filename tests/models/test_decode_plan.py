"""How decoding goes through the layers, and when weights are whole."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxvsr.devices.mesh import AXES
from jaxvsr.models.decode_plan import DecodePlan, decode_plan
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.sharding import parameter_shardings

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class _Device:
    id: int
    platform: str
    process_index: int = 0
    device_kind: str = ""


def _plan(
    shape: str,
    gib: float | None,
    platform: str = "tpu",
    fsdp: int = 4,
    unroll: bool | None = None,
    held: jnp.dtype | None = None,
) -> DecodePlan:
    config, dtype = PUBLISHED[shape], jnp.dtype(jnp.bfloat16)
    mesh = Mesh(np.array([_Device(number, platform) for number in range(fsdp)]).reshape(1, fsdp, 1), AXES)
    shapes = parameter_shapes(config, None, held or dtype)
    places = parameter_shardings(shapes, mesh, config)
    parameters = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[name]) for name, leaf in shapes.items()
    }
    memory = None if gib is None else int(gib * GIB)
    return decode_plan(parameters, (), config, dtype, mesh, memory, unroll)


@pytest.mark.parametrize(("shape", "gib", "gathered"), [
    ("qwen2-vl-2b", 15.75, True), ("qwen2-vl-7b", 15.75, False), ("qwen2-vl-7b", 95.74, True),
])  # fmt: skip
def test_weights_are_whole_where_a_device_has_room(shape: str, gib: float, gathered: bool) -> None:
    assert _plan(shape, gib).gathered is gathered


def test_weights_are_whole_where_they_are_not_split_or_memory_is_not_known() -> None:
    assert _plan("qwen2-vl-7b", 15.75, fsdp=1).gathered and _plan("qwen2-vl-7b", None).gathered
    assert _plan("qwen2-vl-7b", 15.75).whole_bytes == 2 * sum(
        leaf.size for leaf in parameter_shapes(PUBLISHED["qwen2-vl-7b"]).values()
    )


def test_layers_are_unrolled_on_cpu_and_scanned_on_cards_unless_said_otherwise() -> None:
    assert _plan("qwen2-vl-2b", 80.0, "gpu").scanned and not _plan("qwen2-vl-2b", None, "cpu").scanned
    assert not _plan("qwen2-vl-2b", 80.0, "gpu", unroll=True).scanned
    assert _plan("qwen2-vl-2b", None, "cpu", unroll=False).scanned


@pytest.mark.parametrize(("shape", "gib", "fsdp", "scanned"), [
    ("qwen2-vl-2b", 15.75, 1, False), ("qwen2-vl-2b", 15.75, 4, False), ("qwen2-vl-7b", 15.75, 4, True),
    ("qwen2-vl-7b", 31.25, 1, True), ("qwen2-vl-7b", 95.74, 1, False), ("qwen2-vl-2b", None, 1, True),
])  # fmt: skip
def test_layers_are_unrolled_on_tpus_where_a_copy_has_room(
    shape: str, gib: float | None, fsdp: int, scanned: bool
) -> None:
    assert _plan(shape, gib, "tpu", fsdp).scanned is scanned
    assert _plan(shape, gib, "tpu", fsdp, unroll=True).scanned is False
    assert _plan(shape, gib, "tpu", fsdp, unroll=False).scanned is True


def test_weights_that_are_cast_take_room_too() -> None:
    """2B: 8.2 GiB in float32, 4.1 of all in bfloat16, 2.4 of the layers."""
    assert not _plan("qwen2-vl-2b", 31.25, "tpu", 1, held=jnp.dtype(jnp.float32)).scanned
    assert _plan("qwen2-vl-2b", 26.0, "tpu", 1, held=jnp.dtype(jnp.float32)).scanned
    assert not _plan("qwen2-vl-2b", 26.0, "tpu", 1).scanned
