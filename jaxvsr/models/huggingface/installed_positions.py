"""What the installed transformers does to positions, beside the rule that the checkpoints were trained with.

Its own `get_rope_index` is called, on two videos and without any weights; docs/serving.md has the results by version.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxvsr.errors import InputError, one_line
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.huggingface.transformers_class import transformers_class
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from jaxvsr.models.model_config import ModelConfig

_START = 4  # text tokens before the video, and after it
_TEXT, _VISION_START = 5, 151652


@dataclasses.dataclass(frozen=True)
class Case:
    """A video of a model family: its words, the model's shape, and what the tower reads."""

    words: str
    shape: str
    grid: MediaGrid


CASES = (
    Case("Qwen2-VL, 32 frames of 224 × 224", "qwen2-vl-2b", MediaGrid(16, 16, 16, True)),
    Case("Qwen2.5-VL, 16 frames of 224 × 224, one every 3.75 s", "qwen2.5-vl-3b", MediaGrid(8, 16, 16, True, 7.5)),
)


@dataclasses.dataclass(frozen=True)
class PositionDifference:
    """How positions of one case compare with the trained rule's."""

    words: str
    times: tuple[int, ...]  # of the video's temporal patches, counted from its first position
    trained_times: tuple[int, ...]
    places_as_trained: bool  # rows and columns
    text_at: int  # the position of the first text behind the video
    trained_text_at: int

    @property
    def as_trained(self) -> bool:
        """Whether nothing differs."""
        return self.times == self.trained_times and self.places_as_trained and self.text_at == self.trained_text_at

    def to_text(self) -> str:
        """One line."""
        times = "times as trained"
        if self.times != self.trained_times:
            shown = ", ".join(map(str, self.times[:4]))
            times = f"times {shown}, … (trained: {', '.join(map(str, self.trained_times[:4]))}, …)"
        places = "rows and columns " + ("as trained" if self.places_as_trained else "in another order")
        trained = "as trained" if self.text_at == self.trained_text_at else f"trained: {self.trained_text_at}"
        return f"{self.words}: {times}; {places}; text after it at {self.text_at} ({trained})"


def position_differences(class_of: Callable[[str], Any] = transformers_class) -> list[PositionDifference]:
    """Every case by the classes that `class_of` gives, the installed transformers' unless given.

    Raises:
        InputError: transformers has no such function here, or torch is missing.
    """
    return [_difference(case, class_of) for case in CASES]


def _difference(case: Case, class_of: Callable[[str], Any]) -> PositionDifference:
    config = PUBLISHED[case.shape]
    merged = case.grid.time * (case.grid.height // 2) * (case.grid.width // 2)
    tokens = np.array(
        [*[_TEXT] * (_START - 1), _VISION_START, *[config.video_token_id] * merged, *[_TEXT] * _START], np.int32
    )
    ours, _ = mrope_positions(tokens, [case.grid], config)
    theirs = _their_positions(tokens, case.grid, config, class_of)
    video = slice(_START, _START + merged)
    per_patch = merged // case.grid.time
    return PositionDifference(
        words=case.words,
        times=tuple(int(time) - _START for time in theirs[video][::per_patch, 0]),
        trained_times=tuple(int(time) - _START for time in ours[video][::per_patch, 0]),
        places_as_trained=bool(np.array_equal(theirs[video][:, 1:], ours[video][:, 1:])),
        text_at=int(theirs[video.stop, 0]),
        trained_text_at=int(ours[video.stop, 0]),
    )


def _their_positions(
    tokens: Int[np.ndarray, "X"], grid: MediaGrid, config: ModelConfig, class_of: Callable[[str], Any]
) -> Int[np.ndarray, "X 3"]:
    """`get_rope_index`, which is a method of the model, or of the one with a head before 4.52."""
    prefix = "Qwen2_5_VL" if config.vision.tokens_per_second else "Qwen2VL"
    classes = (class_of(f"{prefix}{name}") for name in ("Model", "ForConditionalGeneration"))
    owner = next((one for one in classes if hasattr(one, "get_rope_index")), None)
    if owner is None:
        raise InputError(f"transformers' {prefix}: has no get_rope_index; docs/serving.md says what is known")
    import torch

    vision = types.SimpleNamespace(spatial_merge_size=2, tokens_per_second=config.vision.tokens_per_second)
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(
            image_token_id=config.image_token_id,
            video_token_id=config.video_token_id,
            vision_start_token_id=_VISION_START,
            vision_config=vision,
        )
    )
    if hasattr(owner, "get_vision_position_ids"):  # from 5.3 on a method of its own
        model.get_vision_position_ids = types.MethodType(owner.get_vision_position_ids, model)
    given = {
        "mm_token_type_ids": torch.tensor(2 * (tokens == config.video_token_id))[None],
        "video_grid_thw": torch.tensor([[grid.time, grid.height, grid.width]]),
        "second_per_grid_ts": torch.tensor([grid.seconds_per_patch]),
    }
    accepted = inspect.signature(owner.get_rope_index).parameters
    given = {name: value for name, value in given.items() if name in accepted}
    try:
        positions, _ = owner.get_rope_index(model, torch.tensor(tokens)[None].long(), **given)
    except Exception as error:  # another version may want more of the model than this
        raise InputError(f"transformers' {prefix}: get_rope_index cannot be called ({one_line(error)})") from None
    return np.asarray(positions[:, 0].T)
