"""M-RoPE positions by the rule that the published checkpoints were trained with.

Text has equal positions on all three axes. A vision block that starts at position p has time p + t, height p + row and
width p + column, in merged tokens; Qwen2.5-VL's time is absolute. The text after it starts one past the maximum over
**all three** axes:

    A video of 3 temporal patches of 2 × 4 patches (1 × 2 merged tokens) between two text tokens:

    token    a  v v v v v v  b
    time     0  1 1 2 2 3 3  4
    height   0  1 1 1 1 1 1  4
    width    0  1 2 1 2 1 2  4

This is the rule of Qwen's code. Versions of transformers differ in times and in where text starts: docs/serving.md has
them all, and `convert.py positions` says what the installed one does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from jaxvsr.errors import InputError
from jaxvsr.models.model_config import ModelConfig


@dataclasses.dataclass(frozen=True)
class MediaGrid:
    """One image or video as the tower reads it."""

    time: int  # temporal patches; 1 for an image
    height: int  # patches
    width: int  # patches
    is_video: bool
    seconds_per_patch: float = 1.0  # seconds from one temporal patch to the next; only Qwen2.5-VL uses it

    def merged(self, merge_size: int) -> tuple[int, int, int]:
        """(time, height, width) in tokens of the language model."""
        return self.time, self.height // merge_size, self.width // merge_size


def mrope_positions(
    tokens: Int[np.ndarray, "X"], grids: Sequence[MediaGrid], config: ModelConfig
) -> tuple[Int32[np.ndarray, "X 3"], int]:
    """Positions (time, height, width) of every token of one sequence, and the position of the next token.

    `tokens` has expanded placeholders: one per merged token of each grid.

    Raises:
        InputError: the placeholders are not exactly those of `grids`.
    """
    positions = np.empty((len(tokens), 3), np.int32)
    placeholder = (tokens == config.image_token_id) | (tokens == config.video_token_id)
    starts = np.flatnonzero(placeholder)
    at = next_position = 0
    for grid in grids:
        remaining = starts[np.searchsorted(starts, at) :]
        if not len(remaining):
            raise InputError(f"prompt: {len(grids)} images and videos, but the tokens have places for fewer")
        start = int(remaining[0])
        next_position = _count_up(positions, at, start, next_position)
        block = vision_positions(grid, config)
        at = start + len(block)
        expected = config.video_token_id if grid.is_video else config.image_token_id
        if at > len(tokens) or not np.all(tokens[start:at] == expected):
            kind = "video" if grid.is_video else "image"
            raise InputError(f"prompt: the {kind} at token {start} needs {len(block)} {kind} tokens there")
        positions[start:at] = next_position + block
        next_position += int(block.max()) + 1
    if placeholder[at:].any():
        raise InputError(f"prompt: {int(placeholder[at:].sum())} more image or video tokens than the media have")
    return positions, _count_up(positions, at, len(tokens), next_position)


def vision_positions(grid: MediaGrid, config: ModelConfig) -> Int32[np.ndarray, "U 3"]:
    """Positions of a block's merged tokens, counted from the block's start.

    In a video of Qwen2.5-VL, temporal patch t has time `int(t · tokens_per_second · seconds_per_patch)` in float32, as
    in Hugging Face.
    """
    time, height, width = grid.merged(config.vision.spatial_merge_size)
    steps = np.arange(time, dtype=np.float32)
    if grid.is_video and config.vision.tokens_per_second:
        steps = steps * (np.float32(config.vision.tokens_per_second) * np.float32(grid.seconds_per_patch))
    axes = np.meshgrid(steps.astype(np.int32), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([axis.reshape(-1) for axis in axes], axis=-1).astype(np.int32)


def _count_up(positions: Int32[np.ndarray, "X 3"], start: int, stop: int, first: int) -> int:
    """Fill in text positions; returns the next one."""
    positions[start:stop] = np.arange(first, first + stop - start)[:, None]
    return first + stop - start
