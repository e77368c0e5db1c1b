"""Scenes and questions to the arrays of a scene tree, and answers to tokens and back.

    scene     <|im_start|>user\\n <|vision_start|> <|video_pad|> × merged tokens <|vision_end|>  shared by all questions
    question  How many chairs …<|im_end|>\\n<|im_start|>assistant\\n                             one per question

Every prompt is one user turn: the media, with text before or between them, then the question. It is tokenized whole and
split after the last `<|vision_end|>`, so the two segments together are exactly Hugging Face's tokens. In some families
a video is several blocks with text between them (`Family.video_blocks`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32, UInt8

from jaxvsr.errors import InputError
from jaxvsr.models.families.family import VIDEO_BLOCK
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.hf_config import read_config
from jaxvsr.models.inputs.chat import VISION_END, Chat, Message, check_text
from jaxvsr.models.inputs.collate import EncodedScene, TreeShape, collate, round_up, smallest_shape
from jaxvsr.models.inputs.pixels import RowLayout, pack_frames, resize_frames, row_layout
from jaxvsr.models.inputs.positions import MediaGrid, mrope_positions
from jaxvsr.models.inputs.processor_config import ProcessorConfig, read_processor_config
from jaxvsr.models.model_config import ModelConfig, VideoPrompt
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt
from jaxvsr.pixel_budget import PixelLimits, smart_resize

ANSWER_MULTIPLE = 8  # answer lengths are rounded up to a multiple of it


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
    """Frames in order, and the time of each in seconds, which Qwen2.5-VL's positions and Qwen3-VL's prompt need."""

    frames: UInt8[np.ndarray, "F H W 3"]
    timestamps: Float[np.ndarray, "F"] | None = None

    @property
    def seconds_per_frame(self) -> float | None:
        """Mean time between neighbouring frames: the models take one constant rate."""
        if self.timestamps is None:
            return None
        count = len(self.timestamps)
        return float(self.timestamps[-1] - self.timestamps[0]) / (count - 1) if count > 1 else 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    pixels: UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class ScenePrompt:
    """One scene and the questions about it. Strings among the media are text before and between them."""

    media: tuple[Video | Image | str, ...]
    questions: tuple[str, ...]
    system: str | None = None  # None: the chat template's default


@dataclasses.dataclass(frozen=True, eq=False)
class SceneProcessor:
    """Turns frames and text into a model's arrays. Get one with `SceneProcessor.from_folder`."""

    config: ModelConfig
    chat: Chat
    limits: ProcessorConfig
    max_pixels: int | None = None
    video_prompt: VideoPrompt = "blocks"
    min_pixels: int | None = None

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        max_pixels: int | None = None,
        video_prompt: VideoPrompt = "blocks",
        min_pixels: int | None = None,
    ) -> SceneProcessor:
        """Read tokenizer, chat template and pixel limits of a model folder.

        `max_pixels` is the most pixels per frame or image: larger ones are made smaller; beside it `min_pixels`, or the
        folder's, is the least. Without it, frames whose sides
        are multiples of a merged patch (28 pixels; 32 in Qwen3-VL) keep their size, and others are resized within the
        folder's limits; a video of Qwen3-VL keeps within them anyway. For `video_prompt` see `Family.video_blocks`.
        """
        config = read_config(folder)
        if max_pixels is not None:
            PixelLimits.at_most(max_pixels, factor=config.vision.merged_patch)  # refuses a budget below a merged patch
        chat = Chat.from_folder(folder, config)
        return cls(config, chat, read_processor_config(folder, config), max_pixels, video_prompt, min_pixels)

    def tree_prompt(self, scenes: Sequence[ScenePrompt], shape: TreeShape | None = None) -> TreePrompt:
        """The arrays of S scenes with Q questions each; `shape` None is the smallest bucket that fits."""
        return self.collate([self.encode(scene) for scene in scenes], shape)

    def encode(self, scene: ScenePrompt) -> EncodedScene:
        """Tokens, positions and patches of one scene."""
        if not scene.questions:
            raise InputError("a scene needs at least one question")
        media = [item for item in scene.media if not isinstance(item, str)]
        if not media:
            raise InputError("a scene needs at least one video or image among its media")
        packed, grids, blocks, video_texts = [], [], list[MediaGrid](), list[str]()
        for item in media:
            frames = item.frames if isinstance(item, Video) else item.pixels[None]
            resized = self._resize(frames, isinstance(item, Video))
            packed.append(pack_frames(resized, self.config.vision))
            grids.append(self._grid(item, resized.shape[1:3], len(packed[-1])))
            if isinstance(item, Video):
                text, own = family_of(self.config).video_blocks(grids[-1], item.timestamps, self.video_prompt)
                video_texts.append(text)
                blocks += own
            else:
                blocks.append(grids[-1])
        layouts = tuple(row_layout(grid.height, grid.width, self.config.vision) for grid in grids)
        tokens, questions = self._segments(scene, blocks, video_texts)
        positions, question_start = mrope_positions(tokens, blocks, self.config)
        row, slot = self._vision_places(tokens, [len(rows) for rows in packed], layouts)
        return EncodedScene(tokens, positions, row, slot, question_start, questions, tuple(packed), layouts)

    def shape(self, scenes: Sequence[EncodedScene]) -> TreeShape:
        """The smallest bucket that fits all of these."""
        return smallest_shape(scenes, self.config)

    def collate(self, scenes: Sequence[EncodedScene], shape: TreeShape | None = None) -> TreePrompt:
        """Pad to a common shape. Every scene must have the same number of questions."""
        return collate(scenes, shape or self.shape(scenes), self.config)

    def encode_answers(self, answers: Sequence[Sequence[Sequence[str]]], length: int | None = None) -> RolloutTokens:
        """Answers `[S][Q][G]` as rollouts that end in `<|im_end|>`; `length` None is the smallest bucket that fits."""
        tokens = [[[self.chat.answer_tokens(text) for text in group] for group in scene] for scene in answers]
        lengths = np.array([[[len(ids) for ids in group] for group in scene] for scene in tokens], np.int32)
        longest = int(lengths.max())
        length = length or round_up(longest, ANSWER_MULTIPLE)
        if longest > length:
            raise InputError(f"an answer has {longest} tokens, but only {length} fit; raise the answer length")
        padded = np.zeros((*lengths.shape, length), np.int32)
        for s, q, g in np.ndindex(*lengths.shape):
            padded[s, q, g, : lengths[s, q, g]] = tokens[s][q][g]
        return RolloutTokens(padded, lengths)

    def decode(self, rollouts: RolloutTokens) -> list[list[list[str]]]:
        """The text of every rollout, `[S][Q][G]`, without special tokens."""
        tokens, length = np.asarray(rollouts.tokens), np.asarray(rollouts.length)
        return [
            [self.texts(*group) for group in zip(*scene, strict=True)] for scene in zip(tokens, length, strict=True)
        ]

    def texts(self, tokens: Int32[np.ndarray, "N R"], length: Int32[np.ndarray, " N"]) -> list[str]:
        """The text of every answer, without special tokens."""
        return [self.chat.text(ids[:n]) for ids, n in zip(tokens, length, strict=True)]

    def frame_size(self, count: int, height: int, width: int, *, is_video: bool) -> tuple[int, int]:
        """(height, width) in pixels to which `count` frames of `height` × `width` are resized for the model."""
        vision, limits = self.config.vision, self.limits.video if is_video else self.limits.image
        unit = vision.merged_patch
        if self.max_pixels is not None:
            least = self.min_pixels
            if least is None:
                least = (family_of(self.config).frame_limits(limits, count) if is_video else limits).minimum
            return smart_resize(height, width, PixelLimits.at_most(self.max_pixels, least, unit), unit)
        if is_video:
            most = self.limits.max_video_tokens
            return family_of(self.config).video_size(count, height, width, limits, most, vision)
        if height % unit == 0 and width % unit == 0:
            return height, width
        return smart_resize(height, width, limits, unit)

    def _resize(self, frames: UInt8[np.ndarray, "F H W 3"], is_video: bool) -> UInt8[np.ndarray, "F h w 3"]:
        count, height, width, _ = frames.shape
        if not count or not height or not width:
            raise InputError(f"a video or image of shape {frames.shape} has no pixels")
        return resize_frames(frames, *self.frame_size(count, height, width, is_video=is_video))

    def _grid(self, item: Video | Image, size: tuple[int, ...], rows: int) -> MediaGrid:
        vision = self.config.vision
        seconds = 1.0
        if isinstance(item, Video) and vision.tokens_per_second:
            if item.seconds_per_frame is None:
                raise InputError("a video needs timestamps: this model's positions are in seconds")
            seconds = item.seconds_per_frame * vision.temporal_patch_size
        return MediaGrid(
            rows, size[0] // vision.patch_size, size[1] // vision.patch_size, isinstance(item, Video), seconds
        )

    def _segments(
        self, scene: ScenePrompt, blocks: Sequence[MediaGrid], video_texts: Sequence[str]
    ) -> tuple[Int32[np.ndarray, "V"], tuple[Int32[np.ndarray, "T"], ...]]:
        """Expanded tokens up to the last `<|vision_end|>`, and those of each question after it."""
        shared: np.ndarray | None = None
        questions = []
        for question in scene.questions:
            text = self.chat.render(_messages(scene, question))
            media, found = sum(not isinstance(item, str) for item in scene.media), text.count(VISION_END)
            if found != media or text.count(VIDEO_BLOCK) != len(video_texts):
                raise InputError(f"chat template: writes {found} vision blocks for {media} images and videos")
            tokens = self.chat.tokens(_with_videos(text, video_texts))
            ends = np.flatnonzero(tokens == self.config.vision_end_token_id)
            split = int(ends[-1]) + 1 if len(ends) else 0
            if shared is not None and not np.array_equal(shared, tokens[:split]):
                raise InputError(
                    f"question {question[:40]!r}: its scene has other tokens than the first question's scene"
                )
            shared = tokens[:split]
            questions.append(tokens[split:])
        assert shared is not None
        repeats = np.ones(len(shared), np.int64)
        places = np.flatnonzero((shared == self.config.image_token_id) | (shared == self.config.video_token_id))
        if len(places) != len(blocks):
            raise InputError(f"chat template: writes {len(places)} placeholders for {len(blocks)} blocks of vision")
        for place, block in zip(places, blocks, strict=True):
            time, height, width = block.merged(self.config.vision.spatial_merge_size)
            repeats[place] = time * height * width
        return np.repeat(shared, repeats), tuple(questions)

    def _vision_places(
        self, tokens: Int32[np.ndarray, "V"], rows: Sequence[int], layouts: Sequence[RowLayout]
    ) -> tuple[Int32[np.ndarray, "V"], Int32[np.ndarray, "V"]]:
        """Row and slot, in merge units, of every vision token; -1 for text."""
        row, slot = np.full(len(tokens), -1, np.int32), np.full(len(tokens), -1, np.int32)
        if layouts:
            places = (tokens == self.config.image_token_id) | (tokens == self.config.video_token_id)
            units = np.repeat([len(layout.unit_slot) for layout in layouts], rows)
            row[places] = np.repeat(np.arange(sum(rows)), units)
            slot[places] = np.concatenate(
                [np.tile(layout.unit_slot, count) for layout, count in zip(layouts, rows, strict=True)]
            )
        return row, slot


def _with_videos(text: str, video_texts: Sequence[str]) -> str:
    """A rendered conversation with the texts of its videos, one after the other, where the template has its block."""
    parts = text.split(VIDEO_BLOCK)
    return "".join(part + video for part, video in zip(parts, [*video_texts, ""], strict=True))


def _messages(scene: ScenePrompt, question: str) -> list[Message]:
    """One user turn, as chat templates take it."""
    content: list[Message] = []
    for item in (*scene.media, question):
        if isinstance(item, str):
            check_text(item, f"prompt {item[:40]!r}")
            content.append({"type": "text", "text": item})
        else:
            content.append({"type": "video" if isinstance(item, Video) else "image"})
    messages: list[Message] = [{"role": "user", "content": content}]
    if scene.system is not None:
        check_text(scene.system, "system prompt")
        messages.insert(0, {"role": "system", "content": scene.system})
    return messages
