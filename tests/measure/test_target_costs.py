"""A small step compiled for a chip that is not here. Needs the compiler: `pip install jaxvsr[compile-tpu]`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape, check_mesh, parse_mesh
from jaxvsr.devices.targets import CHIPS, parse_target
from jaxvsr.measure.compiled_text import CompiledText
from jaxvsr.measure.flops import StepSizes
from jaxvsr.measure.named_shapes import shape_named
from jaxvsr.measure.target_costs import BLOCK_CYCLES, ROW_CYCLES, StepOnTarget, first_knob, kernel_cycles
from jaxvsr.models.fused_attention import block_size, computed_blocks
from jaxvsr.models.tree_sizes import TreeSizes
from tests.support.trees import small_config

_PROGRAM = """
import dataclasses, json, sys
from jaxvsr.devices.targets import parse_target, prepare_compiler
target = parse_target(sys.argv[1])
prepare_compiler(target)
from jaxvsr.measure.compiled_costs import abstract_bench
from jaxvsr.measure.step_bench import Workload
from jaxvsr.measure.target_costs import target_mesh
from jaxvsr.measure.target_plan import on_target, step_lines
from jaxvsr.models.tree import ForwardOptions
from tests.support.trees import small_config

config = small_config("qwen2_vl")
text = dataclasses.replace(config.text, vocab_size=151936, num_hidden_layers=3)
config = dataclasses.replace(config, text=text, vision=dataclasses.replace(config.vision, embed_dim=128))
work = Workload(scenes=4, questions=4, rollouts=14, frames=4, max_pixels=224 * 224, answer_tokens=6)
mesh = target_mesh(target, None)
abstract, programs = abstract_bench(config, work, ForwardOptions("bfloat16", "full", unroll=False), mesh)
results = {}
for line in step_lines(on_target(target, mesh, config, abstract, work.sizes(config)), programs, results):
    print(line, file=sys.stderr)
print(json.dumps(results))
"""


def _compiled(target: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, target], env=dict(os.environ), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _numbers(results: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        name: {kind: row["number"] for kind, row in program["collectives"].items()}
        for name, program in results["programs"].items()
    }


def _at_most(numbers: dict[str, dict[str, int]], kept: dict[str, dict[str, int]]) -> bool:
    """Whether no program has more collectives of a kind, nor another kind, than those that were counted once."""
    return numbers.keys() == kept.keys() and all(
        count <= kept[name].get(kind, 0) for name, counts in numbers.items() for kind, count in counts.items()
    )


_KERNELS = """
HloModule m

%body (p: (s32[], bf16[4])) -> (s32[], bf16[4]) {
  %splash_mqa_fwd_segmented_residuals.3 = (f32[2,512,128]{2,1,0}, bf16[2,3,1536,128]{3,2,1,0}, f32[2,3,1536,128]{3,2,1,0}) custom-call(%p), custom_call_target="tpu_custom_call"
}

%condition (p: (s32[], bf16[4])) -> pred[] {
  %c = s32[] constant(5)
}

ENTRY %main (x: bf16[4]) -> bf16[4] {
  %while.1 = (s32[], bf16[4]) while(%x), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %row_attention.2 = bf16[3,512,1280]{2,1,0} custom-call(%x), custom_call_target="tpu_custom_call"
  %row_attention.3 = bf16[8,64,1280]{2,1,0} custom-call(%x), custom_call_target="tpu_custom_call"
  %splash_mqa_dkv_segmented_no_residuals.1 = (bf16[2,1536,128]{2,1,0}, bf16[2,1536,128]{2,1,0}) custom-call(%x), custom_call_target="tpu_custom_call"
  %splash_mqa_dq_segmented_no_residuals.1 = (bf16[2,3,1536,128]{3,2,1,0}) custom-call(%x), custom_call_target="tpu_custom_call"
}
"""  # noqa: E501


def test_cycles_of_attentions_kernel_are_those_of_the_blocks_that_somebody_sees() -> None:
    """Two key heads of three query heads; a scene of 1,000, two questions of 150: three rows of blocks."""
    model = small_config("qwen2_vl")
    config = dataclasses.replace(model.text, num_attention_heads=6, num_key_value_heads=2, hidden_size=6 * 128)
    model = dataclasses.replace(model, text=config, vision=dataclasses.replace(model.vision, num_heads=16))
    tree, each = TreeSizes(1000, 2, 150), BLOCK_CYCLES["v5e"][512]
    assert config.head_dim == 128
    assert block_size(tree) == 512 and computed_blocks(tree, 512) == 1 + 2 + 3
    expected = 6 * 6 * (5 * each["fwd"] + each["dq"] + each["dkv"])
    expected += 16 * ROW_CYCLES["v5e"] * (3 * 4 + 2)  # the tower's: 3 rows of 512 patches, 8 windows of 64
    assert kernel_cycles(CompiledText.parse(_KERNELS), CHIPS["v5e"], model, tree) == expected
    # Two rollouts of 600 that do not see each other, behind a short prompt: of 4 rows of blocks one is not computed.
    assert computed_blocks(TreeSizes(500, 1, 12, 2, 768), 512) == 1 + 2 + 3 + 3
    # A program of larger blocks.
    larger, each = CompiledText.parse(_KERNELS.replace("1536", "1920")), BLOCK_CYCLES["v5e"][640]
    tree = TreeSizes(1700, 2, 100)
    assert block_size(tree) == 640 and computed_blocks(tree, 640) == 1 + 2 + 3
    expected = 6 * 6 * (5 * each["fwd"] + each["dq"] + each["dkv"]) + 16 * ROW_CYCLES["v5e"] * (3 * 4 + 2)
    assert kernel_cycles(larger, CHIPS["v5e"], model, tree) == expected


def _knob(program: str, shape: MeshShape, scenes: int, accumulation: int, remat: str = "full") -> str:
    """What a plan of Qwen2-VL-2B advises, which has 12 heads and 2 of keys. Of the devices only the number counts."""
    mesh = make_mesh(shape, jax.devices()[:1] * shape.devices)
    sizes = StepSizes(scenes, 1000, 4, 64, 14, 16, 8, 256)
    target, model = parse_target(f"h100:{shape.devices}"), shape_named("qwen2-vl-2b")
    return first_knob(StepOnTarget(target, mesh, model, sizes, 2, 0, 0, remat, accumulation), program)


def test_what_is_advised_first_helps_and_keeps_to_the_mesh() -> None:
    four = MeshShape(fsdp=4)
    assert _knob("update", four, 12, 1) == "--set update.accumulation=3"
    assert _knob("sample", four, 12, 1) == "--set data.scenes=4"
    assert _knob("sample", four, 16, 4) == "--set data.scenes=8 --set update.accumulation=2"
    assert _knob("update", MeshShape(fsdp=8), 24, 2) == "--set update.accumulation=3"
    assert _knob("update", MeshShape(), 8, 8, "dots") == "--set model.remat=full"
    assert _knob("update", MeshShape(), 8, 8) == "more chips than h100:1"


@pytest.mark.parametrize("program", ["sample", "update"])
def test_a_run_takes_all_that_is_advised_one_after_the_other(program: str) -> None:
    for data, fsdp, tensor, each in itertools.product((1, 3), (1, 4), (1, 2), range(1, 13)):
        for parts in (number for number in range(1, each + 1) if each % number == 0):
            shape, accumulation, remat = MeshShape(data, fsdp, tensor), parts, "dots"
            scenes = each * shape.scene_shards
            seen = set[str]()
            while not (knob := _knob(program, shape, scenes, accumulation, remat)).startswith("more chips"):
                assert knob not in seen
                seen.add(knob)
                words, before = knob.split(" (")[0].split(), (scenes, scenes // accumulation)
                for flag, text in zip(words[::2], words[1::2], strict=True):
                    field, _, value = text.partition("=")
                    if flag == "--mesh":
                        shape = parse_mesh(text)
                    elif field == "model.remat":
                        remat = value
                    elif field == "data.scenes":
                        scenes = int(value)
                    else:
                        accumulation = int(value)
                check_mesh(shape, scenes=scenes, accumulation=accumulation, attention_heads=12)
                assert scenes % accumulation == 0
                assert scenes <= before[0] and scenes // accumulation <= before[1]


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("libtpu") is None, reason="libtpu is not installed: jaxvsr[compile-tpu]")
def test_the_draw_and_the_collectives_of_a_step_on_tpus_are_as_few_as_they_were() -> None:
    seen = _compiled("v5e:2x2")
    assert seen["fits"] and seen["seconds_per_step"] > 0
    assert seen["decode"]["draw_share"] < 0.45  # 0.38 seen; 0.82 where logits are cut into blocks after the product
    for name, program in seen["programs"].items():
        assert 0 < program["kernel_cycles"] < program["cycles"], name
    kept = {
        "sample": {"all-gather": 21, "all-to-all": 2},
        "reference": {"all-gather": 25, "all-to-all": 3},
        "update": {"all-gather": 70, "all-reduce": 36, "all-to-all": 3},
    }  # libtpu 0.0.42.1
    assert _at_most(_numbers(seen), kept), _numbers(seen)


_MESHES = """
from jaxvsr.devices.targets import parse_target, prepare_compiler
targets = [parse_target(name) for name in
           ("v4:1x1x1", "v4:2x2x1", "v5e:1x1", "v5e:16x16", "v5p:1x1x1", "v5p:4x4x4", "v6e:4x8", "TPU7x:2x2x2")]
prepare_compiler(targets[0])
from jaxvsr.measure.target_costs import target_mesh
print(*(target_mesh(target, None).devices.size == target.devices for target in targets))
print(target_mesh(targets[0], None).devices.size)
"""


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("libtpu") is None, reason="libtpu is not installed: jaxvsr[compile-tpu]")
def test_slices_of_every_chip_have_a_mesh_of_all_their_devices() -> None:
    """A v4 is one device. Its compiler, if not told otherwise, takes each of its two cores for one, and JAX then
    refuses to make a mesh."""
    done = subprocess.run([sys.executable, "-c", _MESHES], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True"] * 8 + ["1"], done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("jax_cuda12_plugin") is None, reason="jaxvsr[compile-cuda] is not installed")
def test_the_collectives_of_a_step_on_gpus_are_as_few_as_they_were() -> None:
    kept = {
        "sample": {"all-gather": 21, "all-to-all": 4},
        "reference": {"all-gather": 25, "all-to-all": 6},
        "update": {"all-gather": 72, "all-reduce": 4, "all-to-all": 6, "reduce-scatter": 24},
    }  # jax-cuda12-pjrt 0.10.2
    numbers = _numbers(_compiled("h100:4"))
    assert _at_most(numbers, kept), numbers


@pytest.mark.slow
@pytest.mark.skipif("JAXVSR_ALL_TARGETS" not in os.environ, reason="takes hours: JAXVSR_ALL_TARGETS=1")
def test_every_recipe_compiles_for_every_chip_of_the_table() -> None:
    """Compiles what docs/hardware.json does not have as compiled, and keeps each cell there."""
    from jaxvsr.measure.hardware_table import RECIPES, TARGETS, read_cells

    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, str(root / "launch" / "bench.py"), "--table", "compile"])
    assert done.returncode == 0
    cells = read_cells(root / "docs" / "hardware.json")
    assert {(recipe, target) for recipe in RECIPES for target in TARGETS} == cells.keys()
    assert all(cell.by or not cell.fits for cell in cells.values())
