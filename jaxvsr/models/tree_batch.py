"""The arrays of a scene tree: S scenes, Q questions of each, G rollouts of each question.

    scene (one video) ──┬── question ──┬── rollout
                        │              └── …
                        └── question …

Shapes are static, lengths are arrays. Padding is on the right; only lengths mark it, never a token's value.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

if TYPE_CHECKING:
    AnyArray = Any  # on the device, on the host, or a shape: mypy cannot know; the tests check at run time
else:
    AnyArray = jax.Array | np.ndarray | jax.ShapeDtypeStruct


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VisionInput:
    """The pixels of S scenes: F rows of one temporal patch each, L patches per row, C values per patch.

    A row is one temporal patch of a video (two frames) or one image (its frame twice). Patches are in the order in
    which the tower reads them: every `merge_unit` consecutive patches are one token of the language model; for
    Qwen2.5-VL they are grouped by window, each window padded on its right to the full window. So padding may be inside
    of a row: only `valid` says which patches are real. C runs over (channel, frame of the pair, height, width), as in
    Hugging Face's processors.
    """

    patches: UInt8[AnyArray, "S F L C"]
    valid: Bool[AnyArray, "S F L"]
    coordinates: Int32[AnyArray, "S F L 2"]  # row and column of the patch in its frame, in patches


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VisionFeatures:
    """What the vision tower and the patch merger computed from the pixels of S scenes, in their place.

    U merged vision tokens per scene, row-major over F and L / merge_unit. Their width W is the language model's, with
    DeepStack (Qwen3-VL) so many times it: the tower's output, then what its layers of `deepstack_indexes` add.
    """

    merged: Float[AnyArray, "S U W"]
    pixels: VisionInput | None = None  # kept only if the reference policy has another vision tower


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TreePrompt:
    """Everything above the rollouts.

    The scene segment is all tokens up to the last `<|vision_end|>`, system prompt included; the question segment runs
    through `<|im_start|>assistant\\n`.
    """

    vision: VisionInput | VisionFeatures
    scene_tokens: Int32[AnyArray, "S V"]
    scene_length: Int32[AnyArray, "S"]
    scene_positions: Int32[AnyArray, "S V 3"]  # time, height, width
    vision_index: Int32[AnyArray, "S V"]  # merged vision token (row-major over F and L / merge_unit); -1: text
    question_start: Int32[AnyArray, "S"]  # position of a question's first token: one past the maximum of all axes
    question_tokens: Int32[AnyArray, "S Q T"]
    question_length: Int32[AnyArray, "S Q"]

    @property
    def pixels(self) -> VisionInput | None:
        """The pixels; None if features replace them."""
        return self.vision if isinstance(self.vision, VisionInput) else self.vision.pixels

    def with_features(self, merged: Float[AnyArray, "S U W"], *, keep_pixels: bool = False) -> TreePrompt:
        """The prompt with features in place of its pixels."""
        return dataclasses.replace(self, vision=VisionFeatures(merged, self.pixels if keep_pixels else None))

    def with_pixels(self) -> TreePrompt:
        """The prompt with its pixels again, if they were kept with the features."""
        return self if self.pixels is None else dataclasses.replace(self, vision=self.pixels)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RolloutTokens:
    """Answers. A rollout's length counts its end-of-sequence token, if it has one."""

    tokens: Int32[AnyArray, "S Q G R"]
    length: Int32[AnyArray, "S Q G"]
