"""M-RoPE positions against a restatement of the trained rule, and against transformers where its own rule agrees."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen2VLConfig, Qwen2VLModel

from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.hf_config import config_json, parse_config
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions

TEXT, IMAGE, VIDEO = 5, 151655, 151656
QWEN2, QWEN25 = PUBLISHED["qwen2-vl-2b"], PUBLISHED["qwen2.5-vl-3b"]


def expand(segments):
    """Segments are text lengths and grids."""
    tokens, grids = [], []
    for segment in segments:
        if isinstance(segment, int):
            tokens += [TEXT] * segment
        else:
            tokens += [VIDEO if segment.is_video else IMAGE] * (segment.time * segment.height * segment.width // 4)
            grids.append(segment)
    return np.array(tokens, np.int32), grids


def trained_rule(segments, tokens_per_second):
    """Qwen's rule, token by token."""
    rows, start = [], 0
    for segment in segments:
        if isinstance(segment, int):
            rows += [(start + i,) * 3 for i in range(segment)]
        else:
            for t in range(segment.time):
                time = t
                if segment.is_video and tokens_per_second:
                    time = int(torch.tensor(segment.seconds_per_patch) * t * tokens_per_second)
                for row in range(segment.height // 2):
                    for column in range(segment.width // 2):
                        rows.append((start + time, start + row, start + column))
        start = max([max(row) for row in rows], default=-1) + 1
    return np.array(rows, np.int32).reshape(-1, 3), start


grids = st.builds(
    lambda time, height, width, is_video, seconds: MediaGrid(
        time if is_video else 1, 2 * height, 2 * width, is_video, seconds
    ),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([1.0, 0.5, 2.0, 0.4, 1.3333, 7.5]),
)
conversations = st.lists(st.one_of(st.integers(1, 5), grids), max_size=7).filter(
    lambda parts: all(isinstance(a, int) or isinstance(b, int) for a, b in itertools.pairwise(parts))
)


@given(conversations, st.sampled_from([QWEN2, QWEN25]))
def test_positions_follow_the_trained_rule(segments, config):
    positions, following = mrope_positions(*expand(segments), config)
    expected, expected_next = trained_rule(segments, config.vision.tokens_per_second)
    np.testing.assert_array_equal(positions, expected)
    assert following == expected_next


@pytest.fixture(scope="module")
def hugging_face():
    """Models without memory, for their position rule alone."""
    with torch.device("meta"):
        return {
            "qwen2_vl": Qwen2VLModel(Qwen2VLConfig(**config_json(QWEN2))),
            "qwen2_5_vl": Qwen2_5_VLModel(Qwen2_5_VLConfig(**config_json(QWEN25))),
        }


@given(conversations, st.sampled_from([QWEN2, QWEN25]))
def test_positions_equal_transformers_if_no_video_has_more_temporal_patches_than_its_sides(
    hugging_face, segments, config
):
    tokens, media = expand(segments)
    positions, following = mrope_positions(tokens, media, config)
    for grid in media:
        rate = config.vision.tokens_per_second * grid.seconds_per_patch if config.vision.tokens_per_second else 1
        if grid.is_video and int((grid.time - 1) * rate) >= max(grid.height, grid.width) // 2:
            return
    if not len(tokens):
        return
    videos = [grid for grid in media if grid.is_video]
    images = [grid for grid in media if not grid.is_video]
    thw = lambda found: torch.tensor([[grid.time, grid.height, grid.width] for grid in found]) if found else None  # noqa: E731
    seconds = {"second_per_grid_ts": torch.tensor([grid.seconds_per_patch for grid in videos])} if videos else {}
    theirs, delta = hugging_face[config.family].get_rope_index(
        torch.tensor(tokens)[None].long(),
        mm_token_type_ids=torch.tensor(np.select([tokens == IMAGE, tokens == VIDEO], [1, 2]))[None],
        image_grid_thw=thw(images),
        video_grid_thw=thw(videos),
        **(seconds if config is QWEN25 else {}),
    )
    np.testing.assert_array_equal(positions, theirs[:, 0].T.numpy())
    assert following == int(delta) + len(tokens)


def test_text_after_a_long_video_starts_after_its_last_time():
    # Worked out by hand: the video starts at 4; 16 temporal patches end at 4 + 15; 30 · 3.75 s · 2 a second is 105.
    video = MediaGrid(16, 16, 16, True)
    assert mrope_positions(*expand([4, video]), QWEN2)[1] == 20
    slow = MediaGrid(8, 16, 16, True, seconds_per_patch=7.5)
    assert mrope_positions(*expand([4, slow]), QWEN25)[1] == 4 + 7 * 15 + 1


def test_time_of_an_image_is_not_scaled():
    positions, _ = mrope_positions(*expand([1, MediaGrid(1, 4, 4, False, seconds_per_patch=9.0)]), QWEN25)
    assert set(positions[1:, 0]) == {1}


@pytest.mark.parametrize(
    ("tokens", "media", "message"),
    [
        ([TEXT, VIDEO], [MediaGrid(1, 2, 4, True)], "the video at token 1 needs 2 video tokens"),
        ([IMAGE, IMAGE], [MediaGrid(1, 2, 4, True)], "the video at token 0 needs 2 video tokens"),
        ([VIDEO] * 3, [MediaGrid(1, 2, 4, True)], "1 more image or video tokens"),
        ([TEXT], [MediaGrid(1, 2, 2, False)], "places for fewer"),
    ],
)
def test_media_that_do_not_fill_their_tokens_are_refused(tokens, media, message):
    with pytest.raises(InputError, match=message):
        mrope_positions(np.array(tokens, np.int32), media, QWEN2)


def test_a_spatial_merge_of_one_is_honoured():
    flat = config_json(QWEN2)
    flat["vision_config"]["spatial_merge_size"] = 1
    positions, following = mrope_positions(
        np.array([VIDEO] * 6, np.int32), [MediaGrid(1, 2, 3, True)], parse_config(flat)
    )
    assert positions[:, 2].tolist() == [0, 1, 2, 0, 1, 2] and following == 3
