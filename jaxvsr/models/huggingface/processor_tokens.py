"""The prompt that transformers' own processor makes, beside ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxvsr.errors import InputError, one_line
from jaxvsr.models.inputs.processor import SceneProcessor, ScenePrompt, Video
from jaxvsr.models.model_config import VideoPrompt

_FRAMES, _MERGED_SIDE, _QUESTION = 4, 4, "How many chairs are there?"
_ANY_SIZE = {"size": {"shortest_edge": 1, "longest_edge": 2**24}}  # the frames keep theirs


@dataclasses.dataclass(frozen=True)
class PromptComparison:
    """Tokens of one video and question."""

    ours: Int[np.ndarray, " X"]
    theirs: Int[np.ndarray, " Y"]

    @property
    def first_difference(self) -> int | None:
        """Where the first token is that differs; None if none does."""
        if np.array_equal(self.ours, self.theirs):
            return None
        both = min(len(self.ours), len(self.theirs))
        unequal = np.flatnonzero(self.ours[:both] != self.theirs[:both])
        return int(unequal[0]) if len(unequal) else both


def compare_prompts(folder: Path, video_prompt: VideoPrompt) -> PromptComparison:
    """The prompt of a short grey video and a question, by the processor of a model folder and by ours.

    Raises:
        InputError: transformers' processor cannot be used here: it needs torch and torchvision.
    """
    ours = SceneProcessor.from_folder(folder, video_prompt=video_prompt)
    side = _MERGED_SIDE * ours.config.vision.merged_patch
    ours = dataclasses.replace(ours, max_pixels=side * side)  # here too
    video = Video(np.full((_FRAMES, side, side, 3), 128, np.uint8), np.arange(_FRAMES, dtype=np.float64))
    scene = ours.encode(ScenePrompt((video,), (_QUESTION,)))
    try:
        theirs = _their_tokens(folder, video)
    except Exception as error:  # the library raises many kinds where a part of it is missing
        raise InputError(f"transformers' processor cannot be used here ({one_line(error)})") from None
    return PromptComparison(np.concatenate([scene.tokens, scene.questions[0]]), theirs)


def _their_tokens(folder: Path, video: Video) -> Int[np.ndarray, " Y"]:
    import torch
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    processor: Any = AutoProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    content = [{"type": "video"}, {"type": "text", "text": _QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    seen = VideoMetadata(total_num_frames=_FRAMES, fps=1.0, frames_indices=list(range(_FRAMES)))
    made = processor(
        text=[text],
        videos=[torch.from_numpy(video.frames).permute(0, 3, 1, 2)],
        videos_kwargs={"do_sample_frames": False, "video_metadata": [seen], **_ANY_SIZE},
        return_tensors="np",
    )
    return np.asarray(made["input_ids"][0])
