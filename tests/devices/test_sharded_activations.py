"""What eight devices hold and send each other, read from the compiled programs of a training step."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from jaxvsr.models.sharding import axes_of
from tests.support.forks import said_by

_PROGRAM = """
import dataclasses, json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import parse_mesh
from jaxvsr.measure.compiled_costs import program_costs
from jaxvsr.measure.step_bench import ATTENTION_LORA, Workload
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree import ForwardOptions
from tests.support.trees import small_config

family, mesh, lora, vocabulary = sys.argv[1:]
config = small_config(family)
config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=int(vocabulary)))
work = Workload(scenes=8, questions=2, rollouts=4, frames=16, max_pixels=112 * 112, answer_tokens=6, beta=0.01,
                lora=ATTENTION_LORA if lora == "lora" else None)
forward = ForwardOptions(remat="full", unroll=False)
shape = parse_mesh(mesh)
many = program_costs(config, work, forward, make_mesh(shape, jax.devices()[: shape.devices]))
one = program_costs(config, dataclasses.replace(work, scenes=8 // shape.scene_shards), forward)
print(json.dumps({
    "many": {name: dataclasses.asdict(cost) for name, cost in many.items()},
    "one": {name: dataclasses.asdict(cost) for name, cost in one.items()},
    "parameters": {name: leaf.shape for name, leaf in parameter_shapes(config, work.lora).items()},
}))
"""


def _costs(family: str, mesh: str, lora: str = "lora", vocabulary: int = 96) -> dict[str, Any]:
    return json.loads(said_by(_PROGRAM, family, mesh, lora, vocabulary))


def _layers(shapes: dict[str, list[int]]) -> set[tuple[int, ...]]:
    """Shapes of parameters: whole, a layer at a time, and as matrices (the patch embedding)."""
    whole = {tuple(shape) for shape in shapes.values()}
    return whole | {shape[1:] for shape in whole} | {(shape[0], math.prod(shape[1:])) for shape in whole}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "trained"), [("qwen2_vl", "weights"), ("qwen2_5_vl", "lora")])
def test_over_fsdp_devices_send_weights_and_gradients_and_hold_only_their_own_scenes(family: str, trained: str) -> None:
    seen = _costs(family, "fsdp=8", trained)
    weights = _layers(seen["parameters"])
    gradients = _layers(
        {name: shape for name, shape in seen["parameters"].items() if trained in name or trained == "weights"}
    )
    for name, cost in seen["many"].items():
        assert cost["need"]["temporary"] < 1.2 * seen["one"][name]["need"]["temporary"], name
        for collective in cost["collectives"]:
            shape, kind = tuple(collective["shape"]), collective["kind"]
            if kind == "all-reduce":  # gradients, and the sums of loss and metrics
                assert shape == () or (name == "update" and shape in gradients), (name, collective)
            elif kind == "reduce-scatter":  # gradients of layers' weights
                assert trained == "weights" and name == "update", (name, collective)
                assert _either_way(shape) in {_either_way(one) for one in gradients}, (name, collective)
            elif kind == "all-gather" and collective["dtype"] == "f32":
                assert shape in weights, (name, collective)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["fsdp=8", "data=2,fsdp=2,tensor=2", "fsdp=4,tensor=2"])
def test_a_device_is_sent_its_own_part_of_the_gradient_of_a_layers_weight(mesh: str) -> None:
    sizes = {"data": 1, "fsdp": 1, "tensor": 1}
    sizes |= {axis: int(size) for axis, size in (part.split("=") for part in mesh.split(","))}
    seen = _costs("qwen2_vl", mesh, "weights", vocabulary=104)  # of 96 the table is as large as the tower's qkv
    summed = Counter[tuple[int, ...]]()
    for name, (_, *shape) in seen["parameters"].items():
        if len(shape) == 2 and "fsdp" in axes_of(name):  # the language model's and the tower's, which has 32 × 32 too
            by = (sizes["tensor"] if axis == "tensor" else 1 for axis in axes_of(name))
            summed[_either_way(size // parts for size, parts in zip(shape, by, strict=True))] += 1
    collectives = [one for one in seen["many"]["update"]["collectives"] if len(one["shape"]) == 2]
    scattered = Counter(_either_way(one["shape"]) for one in collectives if one["kind"] == "reduce-scatter")
    assert summed.total() == 11 and not summed - scattered
    if mesh == "fsdp=8":  # else parts, which are then summed over the other axes, may have the shape of another weight
        assert not [one for one in collectives if one["kind"] == "all-reduce" and _either_way(one["shape"]) in summed]


def _either_way(shape: Iterable[int]) -> tuple[int, ...]:
    """A gradient that is scattered along its last axis is turned around for that."""
    return tuple(sorted(shape))


@pytest.mark.slow
def test_over_tensor_devices_hold_their_share_of_heads_vocabulary_and_frames() -> None:
    seen = _costs("qwen2_vl", "fsdp=2,tensor=2", "lora")
    for name in ("sample", "reference", "update"):
        need = seen["many"][name]["need"]["temporary"]
        assert need < 0.75 * seen["one"][name]["need"]["temporary"], name


@pytest.mark.slow
def test_with_three_axes_no_device_looks_up_the_tokens_of_all_scenes() -> None:
    """As XLA does by itself for CPU devices, where the table of tokens is large."""
    for name, cost in _costs("qwen3_vl", "data=2,fsdp=2,tensor=2", vocabulary=4096)["many"].items():
        gathered = [
            one["shape"] for one in cost["collectives"] if one["kind"] == "all-gather" and one["dtype"] == "f32"
        ]
        assert not [shape for shape in gathered if len(shape) > 2 and shape[0] == 8], (name, gathered)
