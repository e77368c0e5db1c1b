"""What only Qwen3-VL has: a video's prompt with its times, positions of blocks, a budget for a whole video."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3VLConfig, Qwen3VLModel
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from jaxvsr.errors import InputError
from jaxvsr.models.families.qwen3_vl import Qwen3VL
from jaxvsr.models.huggingface.hf_config import config_json, parse_config, read_config
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt, Video
from jaxvsr.models.tiny.random_weights import write_random_folder
from jaxvsr.models.tiny.tiny_model import TinyShape
from jaxvsr.pixel_budget import PixelLimits, smart_resize_video
from tests.support.hf_processor import hugging_face_inputs

QUESTION = "How many chair(s)in the room?"
SMALL = PUBLISHED["qwen3-vl-2b"]


@pytest.fixture(scope="module")
def folder(tiny_model):
    return tiny_model("qwen3_vl", TinyShape())


def seen_at(*seconds):
    return Video(np.zeros((len(seconds), 64, 96, 3), np.uint8), np.array(seconds))


def text_of(processor, video):
    encoded = processor.encode(ScenePrompt((video,), (QUESTION,)))
    text = processor.chat.tokenizer.decode(encoded.tokens)
    return re.sub(r"(<\|video_pad\|>)+", "…", text).partition("user\n")[2]


def test_every_pair_of_frames_stands_behind_its_time(folder):
    block = "<|vision_start|>…<|vision_end|>"
    trained, wrapped = SceneProcessor.from_folder(folder), SceneProcessor.from_folder(folder, video_prompt="wrapped")
    video = seen_at(0.0, 0.5, 9.5, 10.6, 59.04)
    expected = f"<0.2 seconds>{block}<10.1 seconds>{block}<59.0 seconds>{block}"  # 0.25: half to even, as Python prints
    assert text_of(trained, video) == expected
    assert text_of(wrapped, video) == f"<|vision_start|>{expected}<|vision_end|>"


@settings(max_examples=8)
@given(st.lists(st.integers(0, 90_000), min_size=2, max_size=9))
def test_the_wrapped_prompt_is_that_of_the_installed_transformers(folder, milliseconds):
    video = seen_at(*(time / 1000 for time in sorted(milliseconds)))
    tokens = hugging_face_inputs(folder, (video,), QUESTION)["input_ids"][0]
    scene = SceneProcessor.from_folder(folder, video_prompt="wrapped").encode(ScenePrompt((video,), (QUESTION,)))
    assert [*scene.tokens, *scene.questions[0]] == tokens.tolist()


def test_a_scene_of_late_times_has_more_tokens(folder):
    """The times are ordinary text: buckets are made from encoded scenes, so they allow for it."""
    processor = SceneProcessor.from_folder(folder)
    early, late = (processor.encode(ScenePrompt((seen_at(t, t + 1),), (QUESTION,))) for t in (1.0, 1000.0))
    assert len(late.tokens) > len(early.tokens)
    assert processor.shape([early, late]).scene >= len(late.tokens)


def test_a_video_without_times_is_refused(folder):
    video = Video(np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="says when each pair of frames was seen"):
        SceneProcessor.from_folder(folder).encode(ScenePrompt((video,), (QUESTION,)))


def test_other_families_have_one_way_to_write_a_video(tiny_model):
    processor = SceneProcessor.from_folder(tiny_model("qwen2_vl", TinyShape()), video_prompt="wrapped")
    with pytest.raises(InputError, match="'wrapped': a video of Qwen2-VL is one block; it must be 'blocks'"):
        processor.encode(ScenePrompt((seen_at(0.0, 1.0),), (QUESTION,)))


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)), max_size=4))
def test_positions_of_blocks_equal_transformers(parts):
    with torch.device("meta"):
        theirs = Qwen3VLModel(Qwen3VLConfig(**config_json(SMALL)))
    tokens, blocks, thw = [1], [], []
    for before, time, high, wide in parts:
        grid = MediaGrid(time, 2 * high, 2 * wide, True)
        _, own = Qwen3VL().video_blocks(grid, np.arange(2.0 * time), "blocks")
        blocks += own
        thw.append([time, grid.height, grid.width])
        for _ in range(time):
            tokens += [1] * (before + 1) + [SMALL.video_token_id] * (high * wide)
    tokens = np.array([*tokens, 1], np.int32)
    positions, following = mrope_positions(tokens, blocks, SMALL)
    expected, delta = theirs.get_rope_index(
        torch.tensor(tokens)[None].long(),
        mm_token_type_ids=torch.tensor(2 * (tokens == SMALL.video_token_id))[None],
        video_grid_thw=torch.tensor(thw) if thw else None,
    )
    np.testing.assert_array_equal(positions, expected[:, 0].T.numpy())
    assert following == int(delta) + len(tokens)


@given(st.integers(2, 900), st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([4096, 131072]))
def test_frames_of_a_whole_video_have_transformers_size(frames, height, width, least):
    most = 25_165_824
    try:
        expected = smart_resize(frames, height, width, 2, 32, least, most)
    except ValueError:
        with pytest.raises(InputError, match="200 times"):
            smart_resize_video(frames, height, width, PixelLimits(least, most), 32)
        return
    assert smart_resize_video(frames, height, width, PixelLimits(least, most), 32) == expected


# As published with Qwen3-VL-4B-Instruct in 2025, without the fields that say nothing of the shape.
PUBLISHED_2025 = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "qwen3_vl",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": 151936,
    },
    "tie_word_embeddings": True,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": 151656,
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}


def test_the_published_file_is_read():
    assert parse_config(PUBLISHED_2025) == PUBLISHED["qwen3-vl-4b"]


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_config", {"attention_bias": True}, "attention_bias True"),
        ("text_config", {"head_dim": 127}, "head_dim 127 must be even"),
        ("text_config", {"num_key_value_heads": 5}, "32 heads split into 5 key heads"),
        ("text_config", {"rope_scaling": {"mrope_interleaved": False}}, "mrope_interleaved False"),
        ("vision_config", {"deepstack_visual_indexes": [5, 24]}, "must ascend, below the tower's 24 layers"),
        ("vision_config", {"deepstack_visual_indexes": [11, 5]}, "must ascend"),
        ("vision_config", {"num_position_embeddings": 2300}, "2300 must be a square number"),
    ],
)
def test_configs_that_cannot_be_computed_are_refused_by_name(part, change, message):
    with pytest.raises(InputError, match=message):
        parse_config({**PUBLISHED_2025, part: {**PUBLISHED_2025[part], **change}})


def test_random_weights_have_the_published_names(folder, tmp_path):
    write_random_folder(tmp_path / "random", read_config(folder), 0, "bfloat16")
    opened = open_folder(tmp_path / "random")
    assert opened.style == "new"
    assert "model.visual.deepstack_merger_list.0.norm.weight" in opened.where
    assert "model.language_model.layers.2.self_attn.k_norm.weight" in opened.where
