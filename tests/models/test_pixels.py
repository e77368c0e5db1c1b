"""Resized pixels, patches and window order against transformers' processors and its tower's own index functions."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2VLImageProcessor, Qwen2VLImageProcessorPil, Qwen2VLVideoProcessor
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from jaxvsr.errors import InputError
from jaxvsr.models.families.qwen2_5_vl import Qwen25VisionConfig
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.inputs.pixels import pack_frames, resize_frames, row_layout
from jaxvsr.models.vision import normalise_pixels
from jaxvsr.pixel_budget import PixelLimits, smart_resize
from tests.support.hf_processor import to_uint8

QWEN2, QWEN25 = PUBLISHED["qwen2-vl-2b"].vision, PUBLISHED["qwen2.5-vl-3b"].vision
assert isinstance(QWEN25, Qwen25VisionConfig)
SMALL_WINDOWS = dataclasses.replace(QWEN25, window_size=56)


def in_reading_order(packed, config, height, width):
    """Packed rows back to the order of the language model's tokens: [rows · patches, C]."""
    layout = row_layout(height // 14, width // 14, config)
    units = packed.reshape(len(packed), -1, 4, packed.shape[-1])[:, layout.unit_slot]
    return units.reshape(-1, packed.shape[-1])


@pytest.mark.parametrize("config", [QWEN2, QWEN25, SMALL_WINDOWS], ids=["qwen2", "qwen2.5", "small windows"])
@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize(("height", "width"), [(56, 56), (84, 140), (140, 84), (28, 252)])
def test_patches_of_a_video_equal_transformers(config, frames, height, width):
    video = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    processor = Qwen2VLVideoProcessor(cap_pixels_per_frame=False, size={"shortest_edge": 28, "longest_edge": 28**5})
    theirs = processor(videos=[torch.tensor(video).permute(0, 3, 1, 2)], return_tensors="np")
    packed = pack_frames(video, config)
    assert theirs["video_grid_thw"].tolist() == [[len(packed), height // 14, width // 14]]
    ours = in_reading_order(packed, config, height, width)
    np.testing.assert_array_equal(ours, to_uint8(theirs["pixel_values_videos"]))
    normalised = normalise_pixels(jnp.asarray(ours), config, jnp.dtype("float32"))
    np.testing.assert_allclose(normalised, theirs["pixel_values_videos"], atol=1e-6)


def test_patches_of_an_image_equal_both_of_transformers_processors():
    image = np.random.default_rng(1).integers(0, 256, (112, 84, 3), dtype=np.uint8)
    ours = in_reading_order(pack_frames(image[None], QWEN2), QWEN2, 112, 84)
    for processor in (Qwen2VLImageProcessor(), Qwen2VLImageProcessorPil()):
        np.testing.assert_array_equal(ours, to_uint8(processor(images=[image], return_tensors="np")["pixel_values"]))


def cubic_weights(old, new):
    """Keys' cubic with a = -1/2, as wide as what is left out, for `new` pixels out of `old`: [new, old] in float64."""
    wide = max(old / new, 1.0)
    x = np.abs((np.arange(old) + 0.5 - (np.arange(new)[:, None] + 0.5) * old / new) / wide)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def exactly_resized(image, height, width):
    """Rounded once, where Hugging Face's two kernels round their weights and between their two passes as well."""
    columns = np.einsum("xw,hwc->hxc", cubic_weights(image.shape[1], width), image.astype(np.float64))
    return np.rint(np.einsum("yh,hxc->yxc", cubic_weights(image.shape[0], height), columns)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(97, 141), (480, 640), (33, 60)])
def test_resized_images_equal_transformers_pillow_and_are_within_one_of_exact_as_its_torch_is(height, width):
    """transformers resizes images by Pillow or by torch (what is installed decides) and videos by torch. The two
    differ, by two at worst where nothing clips, so ours, which are Pillow's to the bit, cannot be nearer to both."""
    rng = np.random.default_rng(2)
    # Away from black and white: where a pass leaves them it clips, and the two kernels do not clip alike.
    coarse = rng.integers(64, 192, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    limits = PixelLimits(56 * 56, 28 * 28 * 60)
    size = {"shortest_edge": limits.minimum, "longest_edge": limits.maximum}
    target = smart_resize(height, width, limits)
    ours = in_reading_order(pack_frames(resize_frames(image[None], *target), QWEN2), QWEN2, *target).astype(int)
    pillow = Qwen2VLImageProcessorPil(size=size)(images=[image], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(ours, to_uint8(pillow))
    tensors = Qwen2VLImageProcessor(size=size)(images=[image], return_tensors="np")["pixel_values"]
    video = Qwen2VLVideoProcessor(cap_pixels_per_frame=False, size=size)(
        videos=[torch.tensor(np.stack([image] * 2)).permute(0, 3, 1, 2)], return_tensors="np"
    )["pixel_values_videos"]
    exact = in_reading_order(pack_frames(exactly_resized(image, *target)[None], QWEN2), QWEN2, *target).astype(int)
    assert np.abs(ours - exact).max() <= 1
    for other in map(to_uint8, (tensors, video)):
        assert np.abs(other - exact).max() <= 1 and (np.abs(ours - other) > 1).mean() < 1e-4


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([QWEN25, SMALL_WINDOWS]))
def test_window_order_equals_transformers(high, wide, config):
    layout, grid = row_layout(2 * high, 2 * wide, config), torch.tensor([[1, 2 * high, 2 * wide]])
    order, ends = get_vision_window_index(grid, 2, config.window_size, 14)
    slots = np.flatnonzero(layout.valid[::4])
    np.testing.assert_array_equal(np.argsort(layout.unit_slot), order)
    np.testing.assert_array_equal(np.sort(layout.unit_slot), slots)
    window = (config.window_size // 14) ** 2
    assert len(layout.valid) % window == 0
    per_window = layout.valid.reshape(-1, window).sum(axis=1)
    np.testing.assert_array_equal(per_window, np.diff(ends))
    coordinates = get_vision_position_ids(grid, 2).reshape(-1, 4, 2)[order].reshape(-1, 2)
    np.testing.assert_array_equal(layout.coordinates[layout.valid], coordinates)


@given(st.integers(1, 9), st.integers(1, 9))
def test_without_windows_coordinates_are_in_transformers_order(high, wide):
    layout = row_layout(2 * high, 2 * wide, QWEN2)
    assert layout.valid.all() and layout.unit_slot.tolist() == list(range(high * wide))
    expected = get_vision_position_ids(torch.tensor([[1, 2 * high, 2 * wide]]), 2)
    np.testing.assert_array_equal(layout.coordinates, expected)


def test_padding_within_windows_is_zero_and_marked():
    packed = pack_frames(np.full((2, 84, 84, 3), 200, np.uint8), SMALL_WINDOWS)
    layout = row_layout(6, 6, SMALL_WINDOWS)
    assert packed.shape == (1, 64, 1176) and layout.valid.sum() == 36
    assert (packed[:, layout.valid] == 200).all() and (packed[:, ~layout.valid] == 0).all()


def test_a_grid_that_cannot_be_merged_is_refused():
    with pytest.raises(InputError, match="multiples of 2"):
        row_layout(3, 4, QWEN2)
