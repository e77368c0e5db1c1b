"""Encoded scenes, padded to one shape: the arrays of a scene tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from jaxvsr.errors import InputError
from jaxvsr.models.inputs.pixels import RowLayout
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.tree_batch import TreePrompt, VisionInput

# Shapes are rounded up to these, so that scenes of about the same size share a compiled function.
SCENE_MULTIPLE, QUESTION_MULTIPLE, PATCH_MULTIPLE = 64, 16, 16


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedScene:
    """A scene before padding. `vision_row` and `vision_slot` say where a token's merged patch is; -1: text."""

    tokens: Int32[np.ndarray, "V"]
    positions: Int32[np.ndarray, "V 3"]
    vision_row: Int32[np.ndarray, "V"]
    vision_slot: Int32[np.ndarray, "V"]
    question_start: int
    questions: tuple[Int32[np.ndarray, "_"], ...]
    patches: tuple[UInt8[np.ndarray, "_ _ C"], ...]  # rows of each image and video
    layouts: tuple[RowLayout, ...]

    @property
    def rows(self) -> int:
        return sum(len(packed) for packed in self.patches)


@dataclasses.dataclass(frozen=True)
class TreeShape:
    """The padded size of a scene tree's arrays."""

    rows: int  # temporal patches and images per scene
    patches: int  # per row, with the padding of windows
    scene: int  # tokens per scene segment
    question: int  # tokens per question segment


def smallest_shape(scenes: Sequence[EncodedScene], config: ModelConfig) -> TreeShape:
    """The smallest bucket that fits all of these. A scene without media has one row of padding."""
    vision = config.vision
    multiple = vision.window_patches or PATCH_MULTIPLE
    patches = [len(layout.raster) for scene in scenes for layout in scene.layouts]
    return TreeShape(
        rows=max([1, *(scene.rows for scene in scenes)]),
        patches=round_up(max([multiple, *patches]), multiple),
        scene=round_up(max(len(scene.tokens) for scene in scenes), SCENE_MULTIPLE),
        question=round_up(max(len(ids) for scene in scenes for ids in scene.questions), QUESTION_MULTIPLE),
    )


def collate(scenes: Sequence[EncodedScene], shape: TreeShape, config: ModelConfig) -> TreePrompt:
    """Pad S scenes to `shape`. They must fit, and have the same number of questions."""
    counts = {len(scene.questions) for scene in scenes}
    if len(counts) != 1:
        raise InputError(f"scenes of one batch need the same number of questions, found {sorted(counts)}")
    _check_fit(scenes, shape, config)
    count, questions, merge_unit = len(scenes), counts.pop(), config.vision.merge_unit
    vision = VisionInput(
        patches=np.zeros((count, shape.rows, shape.patches, config.vision.patch_values), np.uint8),
        valid=np.zeros((count, shape.rows, shape.patches), bool),
        coordinates=np.zeros((count, shape.rows, shape.patches, 2), np.int32),
    )
    prompt = TreePrompt(
        vision=vision,
        scene_tokens=np.zeros((count, shape.scene), np.int32),
        scene_length=np.array([len(scene.tokens) for scene in scenes], np.int32),
        scene_positions=np.zeros((count, shape.scene, 3), np.int32),
        vision_index=np.full((count, shape.scene), -1, np.int32),
        question_start=np.array([scene.question_start for scene in scenes], np.int32),
        question_tokens=np.zeros((count, questions, shape.question), np.int32),
        question_length=np.array([[len(ids) for ids in scene.questions] for scene in scenes], np.int32),
    )
    for s, scene in enumerate(scenes):
        length = len(scene.tokens)
        prompt.scene_tokens[s, :length] = scene.tokens
        prompt.scene_positions[s, :length] = scene.positions
        flat = scene.vision_row * (shape.patches // merge_unit) + scene.vision_slot
        prompt.vision_index[s, :length] = np.where(scene.vision_row < 0, -1, flat)
        for q, ids in enumerate(scene.questions):
            prompt.question_tokens[s, q, : len(ids)] = ids
        row = 0
        for packed, layout in zip(scene.patches, scene.layouts, strict=True):
            rows, width = slice(row, row + len(packed)), packed.shape[1]
            vision.patches[s, rows, :width] = packed
            vision.valid[s, rows, :width] = layout.valid
            vision.coordinates[s, rows, :width] = layout.coordinates
            row += len(packed)
    return prompt


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def _check_fit(scenes: Sequence[EncodedScene], shape: TreeShape, config: ModelConfig) -> None:
    vision = config.vision
    unit = vision.window_patches or vision.merge_unit
    if shape.patches % unit:
        raise InputError(f"shape: patches {shape.patches} must be a multiple of {unit}")
    needed = {
        "rows": max(scene.rows for scene in scenes),
        "patches": max([0, *(len(layout.raster) for scene in scenes for layout in scene.layouts)]),
        "scene": max(len(scene.tokens) for scene in scenes),
        "question": max(len(ids) for scene in scenes for ids in scene.questions),
    }
    for name, least in needed.items():
        if getattr(shape, name) < least:
            raise InputError(f"shape: {name} {getattr(shape, name)} is too small; these scenes need {least}")
