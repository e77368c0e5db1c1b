"""The formulas of FLOPs are what XLA counts in the programs themselves."""

import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from jaxvsr.measure.compiled_costs import program_costs, program_flops
from jaxvsr.measure.flops import needed_flops
from jaxvsr.measure.step_bench import ATTENTION_LORA, VIDEO_SECONDS, Workload, random_prompt
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt, Video
from jaxvsr.models.model_config import FamilyName, ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tree import ForwardOptions
from tests.support.trees import small_config


def _config(family: FamilyName) -> ModelConfig:
    """Wide enough for matrix products to be nearly all there is to count."""
    small = small_config(family)
    wider: dict[str, Any] = {"head_dim": 96} if family == "qwen3_vl" else {}  # than the model's share
    text = dataclasses.replace(
        small.text, hidden_size=256, intermediate_size=768, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=2048, mrope_section=(24, 12, 12) if wider else (8, 12, 12), **wider,
    )  # fmt: skip
    vision = dataclasses.replace(
        small.vision, embed_dim=256, num_heads=4, intermediate_size=512, out_hidden_size=256, patch_size=14,
    )  # fmt: skip
    return dataclasses.replace(small, text=text, vision=vision)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [ATTENTION_LORA, None], ids=["lora", "all weights"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_formulas_count_what_xla_counts(family, lora):
    config = _config(family)
    work = Workload(scenes=2, questions=3, rollouts=4, frames=4, max_pixels=112 * 112, lora=lora)
    if config.vision.window_size:
        config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, window_size=112))
    counted = program_flops(config, work, ForwardOptions(dtype="float32"))
    needed = needed_flops(config, work.sizes(config))
    # XLA counts softmax, norms, rotary embedding and the entropy too; in the update also LoRA and the loss, but not the
    # gradient of the first layer's input, which the formula has.
    assert counted["sample"] == pytest.approx(needed["vision"] + needed["prefill"] + needed["decode"], rel=0.06)
    assert counted["reference"] == pytest.approx(needed["reference"], rel=0.06)
    assert 0.97 * needed["update"] < counted["update"] < 1.15 * needed["update"]


@pytest.mark.slow
def test_compiled_costs_of_a_step_without_kl_are_those_of_sample_and_update():
    config = small_config("qwen2_vl")
    work = Workload(scenes=1, questions=1, rollouts=2, frames=2, max_pixels=56 * 56, answer_tokens=3, beta=0.0)
    start = time.perf_counter()
    costs = program_costs(config, work, ForwardOptions())
    elapsed = time.perf_counter() - start
    assert list(costs) == ["sample", "update"]
    seconds = [cost.compile_seconds for cost in costs.values()]
    assert min(seconds) > 0 and sum(seconds) < elapsed

    shapes = parameter_shapes(config, work.lora)
    size = {name: leaf.size * leaf.dtype.itemsize for name, leaf in shapes.items()}
    tower, adapters = (sum(size[name] for name in size if part in name) for part in ("visual", "lora_"))
    pixels = 16 * 1176  # 4×4 patches of two frames, one byte a value
    small = 2000  # tokens, positions, masks
    sample, update = (cost.need.arguments for cost in costs.values())
    assert 0 < sample - (sum(size.values()) + pixels) < small
    # Features in place of the tower and its pixels; two moments of each adapter.
    assert 0 < update - (sum(size.values()) - tower + 2 * adapters) < small
    # XLA's count is within a factor of the formulas, which leave out what is not a matrix product.
    needed, flops = needed_flops(config, work.sizes(config)), program_flops(config, work, ForwardOptions())
    phases = {"sample": needed["vision"] + needed["prefill"] + needed["decode"], "update": needed["update"]}
    assert all(phases[name] < flops[name] < 2 * phases[name] for name in costs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scene_of_a_plan_is_laid_out_as_a_prompt_of_its_family(family, tiny_model):
    """Qwen3-VL's with the text of its times."""
    processor = SceneProcessor.from_folder(tiny_model(family), max_pixels=64 * 64)
    work = Workload(scenes=2, frames=5, max_pixels=64 * 64)
    side = work.frame_side(processor.config)
    video = Video(np.zeros((5, side, side, 3), np.uint8), np.linspace(0, VIDEO_SECONDS, 5))
    real = processor.tree_prompt([ScenePrompt((video,), ("How many?",))] * 2)
    planned, length = random_prompt(processor.config, work), real.scene_length[0]
    assert planned.scene_length.tolist() == real.scene_length.tolist()
    assert work.sizes(processor.config).scene_tokens == length
    np.testing.assert_array_equal(planned.question_start, real.question_start)
    np.testing.assert_array_equal(planned.scene_positions, real.scene_positions[:, :length])
    np.testing.assert_array_equal(planned.vision_index >= 0, real.vision_index[:, :length] >= 0)
