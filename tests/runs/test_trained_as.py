"""What an export says of how its model was asked, to clients that know only Hugging Face's files."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, GenerationConfig
from transformers.video_utils import VideoMetadata

from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.inputs.processor_config import IMAGE_FILE, PROCESSOR_FILE, VIDEO_FILE
from jaxvsr.prompts import PROMPTS
from jaxvsr.runs.trained_as import TrainedAs

FRAMES, HEIGHT, WIDTH = 6, 240, 320


def put_together(folder):
    """As transformers 5 writes a processor: all in one file."""
    parts = {name: json.loads((folder / name).read_text()) for name in (IMAGE_FILE, VIDEO_FILE)}
    whole = {"image_processor": parts[IMAGE_FILE], "video_processor": parts[VIDEO_FILE]}
    (folder / PROCESSOR_FILE).write_text(json.dumps(whole | {"processor_class": parts[IMAGE_FILE]["processor_class"]}))
    for name in parts:
        (folder / name).unlink()


def as_in_2024(folder):
    """As Qwen2-VL was published: one file for images and videos, with the old names of the limits."""
    (folder / VIDEO_FILE).unlink()
    image = json.loads((folder / IMAGE_FILE).read_text()) | {"min_pixels": 3136, "max_pixels": 12845056}
    (folder / IMAGE_FILE).write_text(json.dumps({name: value for name, value in image.items() if name != "size"}))


@pytest.mark.parametrize(
    ("family", "change"),
    [*((family, None) for family in FAMILIES), ("qwen2_vl", as_in_2024), ("qwen3_vl", put_together)],
)
def test_transformers_sees_a_video_as_the_model_was_trained_with(tiny_model, tmp_path, family, change):
    folder = tmp_path / "export"
    shutil.copytree(tiny_model(family), folder)
    if change is not None:
        change(folder)
    unit = open_folder(folder).config.vision.merged_patch
    trained = TrainedAs(PROMPTS["vsgrpo-vanilla-train"], FRAMES, 12 * unit**2 + 5)
    for name, text in trained.export_files(open_folder(folder)).items():
        (folder / name).write_text(text)

    theirs = AutoProcessor.from_pretrained(folder).video_processor
    seen = theirs(
        [torch.zeros(40, 3, HEIGHT, WIDTH, dtype=torch.uint8)],
        video_metadata=[VideoMetadata(40, 10.0)],
        do_sample_frames=True,
        fps=2,
        return_tensors="np",
    )
    ours = SceneProcessor.from_folder(folder, max_pixels=trained.max_pixels)
    size = ours.frame_size(FRAMES, HEIGHT, WIDTH, is_video=True)
    assert np.prod(size) == 12 * unit**2
    patch = unit // 2
    assert seen["video_grid_thw"].tolist() == [[FRAMES // 2, size[0] // patch, size[1] // patch]]
    # Without a budget the folder's own limits give the same.
    assert SceneProcessor.from_folder(folder).frame_size(FRAMES, HEIGHT, WIDTH, is_video=True) == size
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.max_new_tokens == 16 and generation.eos_token_id == list(ours.chat.eos_token_ids)


def test_scenes_in_memory_leave_the_processor_as_the_base_has_it(tiny_model):
    base = open_folder(tiny_model())
    assert sorted(TrainedAs(PROMPTS["question"]).export_files(base)) == ["generation_config.json", "trained_as.json"]
    assert list(TrainedAs(PROMPTS["question"]).export_files(base, adapter=True)) == ["trained_as.json"]
