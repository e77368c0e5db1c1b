"""Attention of the tower in one kernel, interpreted on CPU: equal to the portable path, forward and backward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvsr.models import fused_row_attention
from jaxvsr.models.attention import attend_in_rows
from jaxvsr.models.fused_row_attention import fits, row_attention
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
    def weighted(trained):
        features = encode_vision(bind(definition, {**parameters, **trained}), prompt, ForwardOptions(fused=fused))
        return jnp.sum(features * jnp.cos(jnp.arange(features.size).reshape(features.shape))), features

    trained = {name: leaf for name, leaf in parameters.items() if "attn" in name and "visual" in name}
    (_, features), gradients = jax.device_get(jax.jit(jax.value_and_grad(weighted, has_aux=True))(trained))
    return [features, *gradients.values()]

with jax.set_mesh(mesh):
    theirs, before, ours = seen(False), list(calls), seen(True)
far = [float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in zip(ours, theirs)]
print(json.dumps({"far": far, "before": before, "rows": calls}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, mesh",
    [("qwen2_vl", "data=2,tensor=2"), ("qwen2_5_vl", "fsdp=2,tensor=2"), ("qwen3_vl", "1"), ("qwen2_5_vl", "fsdp=8")],
)
def test_a_tower_sees_the_same_with_it(family: str, mesh: str) -> None:
    """Forward and backward, also in windows, and on a mesh, where each device has rows of its own, or eight devices
    all have the twelve rows of four scenes."""
    seen = json.loads(said_by(_TOWERS, family, mesh))
    assert len(seen["far"]) > 4 and max(seen["far"]) <= 2e-5
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
    Core.vmem_capacity_bytes = 64 * 2**20  # a v5p's
    assert fits(1024, 16, 80, bfloat16) and not fits(2048, 16, 80, bfloat16)
    assert fits(256, 16, 72, bfloat16) and not fits(1024, 16, 72, bfloat16)
    assert fused_row_attention._memory(484, 8, 80, bfloat16) >= 18.49 * 2**20  # what v5e's compiler wants in a step
    Core.vmem_capacity_bytes = 16 * 2**20  # a v4's
    assert not fits(256, 16, 80, bfloat16) and fits(64, 16, 80, bfloat16)


_COMPILED = """
import sys
from jaxvsr.devices.targets import parse_target, prepare_compiler, target_devices
target = parse_target("v5e:2x2")
prepare_compiler(target)
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxvsr.models.fused_row_attention import fits, row_attention

mesh = Mesh(np.array(target_devices(target)[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
whole = NamedSharding(mesh, PartitionSpec())
with jax.set_mesh(mesh):
    wide = [20, 384, 576, 784, 1296, 1564, 2900]
    rows = [(length, 80, "bfloat16") for length in wide] + [(600, 80, "float32"), (2048, 64, "bfloat16")]
    for length, dim, dtype in rows + [(300, 72, "bfloat16"), (1148, 72, "bfloat16")]:
        assert fits(length, 16, dim, jnp.dtype(dtype)), length
        given = [jax.ShapeDtypeStruct((2, length, size), kind, sharding=whole)
                 for size, kind in [(3 * 16 * dim, dtype), (dim // 2, "float32"), (dim // 2, "float32")]]
        valid = jax.ShapeDtypeStruct((2, length), bool, sharding=whole)
        jax.jit(lambda *parts: row_attention(*parts, 16)).lower(*given, valid).compile()
        print(length, dim, dtype)
"""


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("libtpu") is None, reason="libtpu is not installed: jaxvsr[compile-tpu]")
def test_the_chips_compiler_takes_rows_of_any_length_that_fits() -> None:
    """Parts of a row must begin at a multiple of a register's rows: 1564 patches in parts of 83 were refused. Those of
    its rest need memory too: 384 patches were refused."""
    done = subprocess.run(
        [sys.executable, "-c", _COMPILED], env=dict(os.environ), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 11
