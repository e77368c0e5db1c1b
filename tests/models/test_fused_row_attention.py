"""Attention of the tower in one kernel, interpreted on CPU: equal to the portable path, forward and backward."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvsr.models import fused_row_attention
from jaxvsr.models.fused_row_attention import fits, row_attention
from jaxvsr.models.vision import attend_in_rows
from tests.support.forks import said_by


@pytest.mark.slow
@pytest.mark.parametrize("dtype, bound", [(jnp.float32, 2e-6), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize(
    "length, heads, dim",
    [
        (80, 16, 80),  # two blocks of eight heads, most of which lie across two registers
        (300, 4, 32),  # more patches than are computed at once, and a rest
        (16, 16, 72),  # all heads in one block
    ],
)
def test_the_kernel_equals_the_portable_path(dtype: jnp.dtype, bound: float, length: int, heads: int, dim: int) -> None:
    """The first row is whole, the second has padding, the third nothing else."""
    rng = np.random.default_rng(1)
    qkv = jnp.asarray(rng.normal(size=(3, length, 3 * heads * dim)), dtype)
    angles = jnp.asarray(rng.uniform(0, 50, (3, length, dim // 2)), jnp.float32)
    valid = jnp.arange(length) < jnp.array([length, length - 5, 0])[:, None]
    weights = rng.normal(size=(3, length, heads * dim))

    def run(attention: object) -> tuple[np.ndarray, np.ndarray]:
        def weighted(qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
            mixed = attention(qkv, jnp.cos(angles), jnp.sin(angles), valid, heads)  # type: ignore[operator]
            return jnp.sum(mixed * weights), mixed

        (_, mixed), gradient = jax.jit(jax.value_and_grad(weighted, has_aux=True))(qkv)
        return np.asarray(mixed, np.float64), np.asarray(gradient, np.float64)

    for ours, theirs in zip(run(row_attention), run(attend_in_rows), strict=True):
        assert np.abs(theirs).max() > 0.1
        assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


_TOWERS = """
import dataclasses, json, sys
import jax, jax.numpy as jnp, numpy as np
from jaxvsr.devices.choose_devices import choose_devices
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import parse_mesh
from jaxvsr.models import fused_row_attention
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions, encode_vision
from tests.support.trees import random_parameters, random_tree, small_config

shape = parse_mesh(sys.argv[2])
mesh = make_mesh(shape, choose_devices("cpu", shape))  # before anything else asks JAX for a device
config = small_config(sys.argv[1])
config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, embed_dim=128))
calls = []
kernel = fused_row_attention._call
fused_row_attention._call = lambda *given: calls.append(given[0].shape[1]) or kernel(*given)
prompt = random_tree(4, 2, 2).prompt
parameters, definition = random_parameters(config, None, jnp.float32), model_definition(config)

def seen(fused):
    run = lambda weights: encode_vision(bind(definition, weights), prompt, ForwardOptions(fused=fused))
    return jax.device_get(jax.jit(run)(parameters))

with jax.set_mesh(mesh):
    theirs, before, ours = seen(False), list(calls), seen(True)
print(json.dumps({"far": float(np.abs(ours - theirs).max() / np.abs(theirs).max()), "before": before, "rows": calls}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, mesh", [("qwen2_vl", "1"), ("qwen2_5_vl", "1"), ("qwen3_vl", "1"), ("qwen2_vl", "data=2,tensor=2")]
)
def test_a_tower_sees_the_same_with_it(family: str, mesh: str) -> None:
    """Also in windows, and on a mesh, where each device has rows of its own."""
    seen = json.loads(said_by(_TOWERS, family, mesh))
    assert seen["far"] <= 2e-5
    assert not seen["before"] and len(set(seen["rows"])) == (2 if family == "qwen2_5_vl" else 1)


def test_rows_that_fill_no_registers_or_not_the_memory_have_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    bfloat16 = jnp.dtype("bfloat16")
    assert fits(256, 16, 80, bfloat16) and fits(64, 4, 32, bfloat16)
    assert not fits(256, 4, 24, bfloat16)  # 96 lanes of 128

    class Core:
        vmem_capacity_bytes = 128 * 2**20

    monkeypatch.setattr(fused_row_attention, "platform", lambda: "tpu")
    monkeypatch.setattr(fused_row_attention.tpu, "get_tpu_info", lambda: Core)
    assert fits(2048, 16, 80, bfloat16) and not fits(8192, 16, 80, bfloat16)
    Core.vmem_capacity_bytes = 16 * 2**20  # a v4's
    assert not fits(256, 16, 80, bfloat16) and fits(64, 16, 80, bfloat16)
