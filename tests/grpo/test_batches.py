"""Scenes to arrays: a video is shown as a video, a set of images as images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxvsr.data.loader import SceneBatch, SceneSample
from jaxvsr.data.questions import Question
from jaxvsr.grpo.batches import BatchBuilder
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.prompts import prompt_from


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
