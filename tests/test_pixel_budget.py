"""The size at which a model sees a frame, against transformers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2VLVideoProcessor
from transformers.models.qwen2_vl import image_processing_qwen2_vl

from jaxvsr.errors import InputError
from jaxvsr.pixel_budget import PixelLimits, share_pixels, smart_resize, vision_tokens


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 2000), st.integers(0, 20_000))
def test_smart_resize_equals_transformers(height, width, least, more):
    limits = PixelLimits(least * 784, (least + more) * 784)
    arguments = (height, width, 28, limits.minimum, limits.maximum)
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(InputError, match="200 times"):
            smart_resize(height, width, limits)
    else:
        assert smart_resize(height, width, limits) == image_processing_qwen2_vl.smart_resize(*arguments)


@given(st.integers(20, 2000), st.integers(20, 2000), st.integers(3136, 500_000))
def test_a_budget_has_transformers_minimum(height, width, budget):
    theirs = image_processing_qwen2_vl.smart_resize(height, width, 28, 56 * 56, budget)
    assert smart_resize(height, width, PixelLimits.at_most(budget)) == theirs


@given(st.integers(100, 3000), st.integers(100, 3000), st.integers(784, 500_000))
def test_a_size_is_within_its_budget_and_made_of_whole_patches(height, width, budget):
    high, wide = smart_resize(height, width, PixelLimits.at_most(budget))
    assert high % 28 == wide % 28 == 0
    assert high * wide <= budget or min(high, wide) == 28  # a side never falls below one merged patch


@pytest.mark.parametrize("limits", [(0, 5), (6, 5), (-1, 3)])
def test_limits_out_of_order_are_refused(limits):
    with pytest.raises(InputError, match="min_pixels <= max_pixels"):
        PixelLimits(*limits)


def test_a_budget_below_one_merged_patch_is_refused():
    with pytest.raises(InputError, match="max_pixels 783: must be at least 784"):
        PixelLimits.at_most(783)


@given(st.integers(1, 400), st.sampled_from([(64, 192), (480, 640), (1000, 1900)]), st.integers(1000, 200_000))
def test_the_share_of_a_frame_in_the_video_budget_equals_transformers(frames, size, tokens):
    limits = PixelLimits(128 * 784, 768 * 784)
    processor = Qwen2VLVideoProcessor(cap_pixels_per_frame=True, max_video_tokens=tokens)
    meta = torch.empty((1, frames, 3, *size), device="meta", dtype=torch.float32)
    seen = []
    parent = type(processor).__mro__[1]
    original = parent.resize
    parent.resize = lambda self, image, size, **_: seen.append((size.height, size.width))
    try:
        processor.resize(meta, processor.size, 3, 28, 2, cap_pixels_per_frame=True)
    finally:
        parent.resize = original
    assert smart_resize(*size, share_pixels(limits, frames, tokens, 28)) == seen[0]


@pytest.mark.slow
@given(st.integers(1, 64), st.integers(1, 12), st.integers(1, 12))
def test_tokens_of_a_video_are_a_quarter_of_its_patches(frames, high, wide):
    video = torch.zeros((frames, 3, 28 * high, 28 * wide), dtype=torch.uint8)
    processor = Qwen2VLVideoProcessor(cap_pixels_per_frame=False, do_resize=False)
    time, rows, columns = processor(videos=[video], return_tensors="np")["video_grid_thw"][0]
    assert vision_tokens(frames, 28 * high, 28 * wide) == time * rows * columns / 4
