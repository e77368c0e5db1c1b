"""Attention in a kernel and without one, in a whole tree: the same log-probabilities and gradients, on meshes too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.forks import said_by

# Devices that have their own scenes and heads, and query heads of a head that all have.
on_meshes = pytest.mark.parametrize(
    "family, mesh, key_heads",
    [("qwen2_vl", "1", 2), ("qwen3_vl", "data=2,fsdp=2,tensor=2", 2), ("qwen2_vl", "fsdp=2,tensor=2", 1)],
)

_LOSSES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jaxvsr.devices.choose_devices import choose_devices
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import parse_mesh
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions, tree_logprobs
from tests.support.trees import random_parameters, random_tree, small_config

shape = parse_mesh(sys.argv[2])
mesh = make_mesh(shape, choose_devices("cpu", shape))  # before anything else asks JAX for a device
config = small_config(sys.argv[1], key_heads=int(sys.argv[3]))
case = random_tree(4, 2, 2)
parameters, definition = random_parameters(config, None, jnp.float32), model_definition(config)
weights = np.random.default_rng(7).normal(size=case.mask.shape) * case.mask
noted = []
exec(sys.argv[4])

def loss(parameters, fused, remat):
    options = ForwardOptions(unroll=False, fused=fused, remat=remat)
    return jnp.sum(tree_logprobs(bind(definition, parameters), *case.on_device, 0.7, options)[0] * weights)

run = jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))
with jax.set_mesh(mesh):
    (expected, theirs), (value, ours) = jax.device_get((run(parameters, False, "none"), run(parameters, True, "dots")))
norm = np.linalg.norm
far = {name: float(norm(ours[name] - leaf) / norm(leaf)) for name, leaf in theirs.items() if "k_proj.bias" not in name}
print(json.dumps({"value": abs(float(value / expected) - 1), "gradients": far, "noted": sorted(set(noted))}))
"""


def check_both_ways(family: str, mesh: str, key_heads: int, before: str = "") -> list[Any]:
    """That `fused` changes nothing but rounding. `before` is run first; returns what it has put into `noted`."""
    seen = json.loads(said_by(_LOSSES, family, mesh, key_heads, before))
    assert seen["value"] <= 2e-6
    assert len(seen["gradients"]) > 10 and max(seen["gradients"].values()) <= 1e-5
    return seen["noted"]
