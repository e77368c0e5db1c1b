"""Scenes to arrays: a video is shown as a video, a set of images as images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from jaxvsr.data.loader import SceneBatch, SceneSample
from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.grpo.batches import BatchBuilder
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.prompts import prompt_from
from tests.support.models import thinking_copy


@pytest.mark.parametrize("images", [False, True])
def test_image_sets_become_image_tokens_and_videos_video_tokens(tiny_model: Callable[..., Path], images: bool) -> None:
    processor = SceneProcessor.from_folder(tiny_model())
    frames = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), dtype=np.uint8)
    asked = (Question("a", "scene", "object_counting", "How many chairs?", None, "2", "number"),)
    scene = SceneSample("scene", frames, np.arange(4.0), asked, images=images)
    batch = BatchBuilder(processor, prompt_from("question"), "grpo", 4)(SceneBatch(0, (scene,)))
    tokens = np.asarray(batch.prompt.scene_tokens)[0, : batch.prompt.scene_length[0]]
    config = processor.config
    a_frame = 4  # merged tokens of 56 x 56 pixels; two frames of a video make one temporal patch
    assert (tokens == config.image_token_id).sum() == (4 * a_frame if images else 0)
    assert (tokens == config.video_token_id).sum() == (0 if images else 2 * a_frame)
    assert (tokens == config.vision_start_token_id).sum() == (4 if images else 1)


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_bare_answer_is_refused_if_the_template_begins_with_a_thought(
    tiny_model: Callable[..., Path], tmp_path: Path, objective: Literal["sft", "dpo"]
) -> None:
    processor = SceneProcessor.from_folder(thinking_copy(tiny_model("qwen3_vl"), tmp_path / "thinking"))
    thinking = prompt_from("vsgrpo-vanilla-train-thinking")
    question = Question("a", "scene", "object_counting", "How many chairs?", None, "2", "number")
    builder = BatchBuilder(processor, thinking, objective, 16)
    with pytest.raises(InputError, match="question 'a': this model's template begins every answer with <think>"):
        builder.check_answers([question])
    if objective == "sft":
        builder.check_answers([dataclasses.replace(question, response="Two.</think>2")])
    BatchBuilder(processor, thinking, "grpo", 16).check_answers([question])
    with pytest.raises(InputError, match="prompt question: this model's template begins every answer with <think>"):
        BatchBuilder(processor, prompt_from("question"), "grpo", 16).check_answers([question])
