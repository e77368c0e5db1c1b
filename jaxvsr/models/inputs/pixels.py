"""Frames to rows of patches: resized as by Hugging Face's Qwen2-VL processors, in the order in which the tower reads.

Everything here is uint8; pixels are normalised on the device (`vision.normalise_pixels`).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from jaxvsr.errors import InputError
from jaxvsr.models.model_config import VisionConfig


def resize_frames(
    frames: UInt8[np.ndarray, "F H W 3"], height: int, width: int
) -> UInt8[np.ndarray, "F height width 3"]:
    """Bicubic, by Pillow, frame by frame."""
    if frames.shape[1:3] == (height, width):
        return frames
    from PIL import Image

    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
    return np.stack([np.asarray(frame) for frame in resized])


@dataclasses.dataclass(frozen=True, eq=False)
class RowLayout:
    """Where the patches of one frame are in a row of the tower.

    `raster` is a patch's index in the frame, in reading order (0 for padding). `unit_slot[u]` is the place in the row,
    counted in merge units, of the language model's u-th merged token.
    """

    raster: Int32[np.ndarray, "L"]
    valid: Bool[np.ndarray, "L"]
    coordinates: Int32[np.ndarray, "L 2"]
    unit_slot: Int32[np.ndarray, "U"]


@functools.lru_cache(maxsize=256)
def row_layout(grid_height: int, grid_width: int, config: VisionConfig) -> RowLayout:
    """The order of one frame's `grid_height × grid_width` patches.

    Merge units (2×2 patches) are consecutive. Without windows they run in reading order. With windows (Qwen2.5-VL) the
    windows run in reading order and so do the units of each; a window at the right or lower border is smaller, and is
    padded to full size. Windows of 2×2 units in a frame of 3×3:

        units of the frame    0 1 | 2      order in the row    0 1 3 4 | 2 5 . . | 6 7 . . | 8 . . .
                              3 4 | 5
                              ----+--
                              6 7 | 8
    """
    merge = config.spatial_merge_size
    if grid_height < 1 or grid_width < 1 or grid_height % merge or grid_width % merge:
        raise InputError(f"a frame of {grid_height}×{grid_width} patches: both must be positive multiples of {merge}")
    high, wide = grid_height // merge, grid_width // merge
    units = np.arange(high * wide).reshape(high, wide)
    if config.window_size:
        side = config.window_size // merge // config.patch_size
        rows = []
        for top in range(0, high, side):
            for left in range(0, wide, side):
                inside = units[top : top + side, left : left + side].reshape(-1)
                rows.append(np.pad(inside, (0, side * side - inside.size), constant_values=-1))
        order = np.concatenate(rows)
    else:
        order = units.reshape(-1)
    slots = np.flatnonzero(order >= 0)
    unit_slot = np.empty(high * wide, np.int32)
    unit_slot[order[slots]] = slots
    within = np.arange(merge)
    unit = np.maximum(order, 0)[:, None, None]
    row = np.broadcast_to((unit // wide) * merge + within[:, None], (len(order), merge, merge)).reshape(-1)
    column = np.broadcast_to((unit % wide) * merge + within, (len(order), merge, merge)).reshape(-1)
    valid = np.repeat(order >= 0, merge * merge)
    coordinates = np.stack([row, column], axis=-1) * valid[:, None]
    raster = (row * grid_width + column) * valid
    return RowLayout(raster.astype(np.int32), valid, coordinates.astype(np.int32), unit_slot)


def pack_frames(frames: UInt8[np.ndarray, "F H W 3"], config: VisionConfig) -> UInt8[np.ndarray, "rows L C"]:
    """Frames of a video to rows of patches in `row_layout`'s order; an odd last frame is used twice.

    One image is a video of one frame. C runs over (channel, frame of the pair, height, width). Padding is zero.
    """
    pair, patch = config.temporal_patch_size, config.patch_size
    if spare := -len(frames) % pair:
        frames = np.concatenate([frames, np.repeat(frames[-1:], spare, axis=0)])
    count, height, width, channels = frames.shape
    high, wide = height // patch, width // patch
    layout = row_layout(high, wide, config)
    patches = frames.reshape(count // pair, pair, high, patch, wide, patch, channels)
    patches = patches.transpose(0, 2, 4, 6, 1, 3, 5).reshape(count // pair, high * wide, config.patch_values)
    packed = patches[:, layout.raster]
    packed[:, ~layout.valid] = 0
    return packed
