"""What may differ between families of models, with what most of them share.

A family is a subclass in a module of its own: reading it shows everything in which the family differs. What is asked of
a family, and by whom:

    names                 name, title, architecture, style        chat, weights, verify
    exports               serving_note                            cards
    config.json           read_text, read_vision, config_json     hf_config
    vision tower          tower (a subclass of `VisionTower`)     qwen_vl
    language model        flags of its `TextConfig`               language
    prompt and positions  video_blocks, video_prompts             processor, setup_check
    pixels                image_limits, video_limits, video_size  processor_config, processor
    sizes                 published, tiny_*                       published_shapes, tiny_model

To add a family: its name in `model_config.FamilyName`, its module, and its line in `known_families.py`. The tests that
run for every family find it there; docs/models.md says what they need.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float

from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.config_fields import ConfigFields, is_integer
from jaxvsr.models.huggingface.trained_positions import patch_code
from jaxvsr.models.inputs.positions import MediaGrid
from jaxvsr.models.model_config import FamilyName, ModelConfig, TextConfig, VideoPrompt, VisionConfig
from jaxvsr.models.vision import VisionTower
from jaxvsr.pixel_budget import MIN_PIXELS, TOKEN_PIXELS, PixelLimits, share_pixels, smart_resize

# Of parameters in files; `parameter_names.py` shows each.
Style = Literal["stacked", "new", "old"]

VIDEO_BLOCK = "<|vision_start|><|video_pad|><|vision_end|>"  # what chat templates write

# Defaults of transformers' configuration classes, under the names of the files.
TOKEN_DEFAULTS: dict[str, Any] = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


class Family:
    """The base of every family: Qwen2-VL's ways, which the others share but for what they override."""

    name: ClassVar[FamilyName]  # `model_type` in config.json
    title: ClassVar[str]
    architecture: ClassVar[str]  # transformers' class
    style: ClassVar[Style] = "old"  # names of parameters in the published files
    tower: ClassVar[type[VisionTower]]

    # The ways that exist to write a video in the prompt, that of training first.
    video_prompts: ClassVar[tuple[VideoPrompt, ...]] = ("blocks",)

    # config.json
    text_class: ClassVar[type[TextConfig]] = TextConfig
    text_defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "mrope_section": None,
    }
    vision_defaults: ClassVar[dict[str, Any]] = {
        "depth": 32,
        "num_heads": 16,
        "in_channels": 3,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }

    # Defaults of transformers' processors.
    image_limits: ClassVar[PixelLimits] = PixelLimits(MIN_PIXELS, 1280 * TOKEN_PIXELS)
    video_limits: ClassVar[PixelLimits] = PixelLimits(128 * TOKEN_PIXELS, 768 * TOKEN_PIXELS)  # of a frame
    max_video_tokens: ClassVar[int] = 128_000  # with `cap_pixels_per_frame`
    processor_class: ClassVar[str]
    video_processor_type: ClassVar[str] = "Qwen2VLVideoProcessor"

    # Sizes: those of the published checkpoints by name, and the tiny model's.
    published: ClassVar[dict[str, ModelConfig]]
    tiny_image_limits: ClassVar[PixelLimits] = PixelLimits(MIN_PIXELS, 256 * TOKEN_PIXELS)
    tiny_video_limits: ClassVar[PixelLimits] = PixelLimits(MIN_PIXELS, 64 * TOKEN_PIXELS)
    tiny_sentences: ClassVar[tuple[str, ...]] = ()  # for its tokenizer, besides `tiny_text.py`

    def serving_note(self) -> str:
        """For the README.md of an export; docs/serving.md has what each version does."""
        return (
            "Positions: text after a video starts one past the maximum over time, height and width, and Qwen2.5-VL's "
            "seconds are not rounded, as in Qwen's own release. Many versions of transformers compute something else, "
            "for the base model too: `jaxvsr convert positions` says what yours does. `patch_transformers(model)` puts "
            f"it right, from jaxvsr or as it stands here:\n\n```python\n{patch_code()}```"
        )

    def tiny_vision(self, width: int, heads: int, layers: int) -> VisionConfig:
        """The tower of the tiny model: `width` is that of the language model too."""
        raise NotImplementedError

    def tiny_sections(self, half: int) -> tuple[int, int, int]:
        """How the tiny model deals the frequencies of a head to the axes."""
        spatial = 3 * half // 8  # Qwen2-VL's proportions: 16, 24, 24 of 64
        return half - 2 * spatial, spatial, spatial

    def text_extras(self, head_dim: int) -> dict[str, Any]:
        """What the family's `TextConfig` has besides the common fields."""
        return {}

    def read_text(self, fields: ConfigFields, tied: bool) -> TextConfig:
        """The language model, from its object of config.json.

        Raises:
            InputError: it asks for something that this package does not compute.
        """
        defaults, numbers = self.text_defaults, dict[str, Any]()
        for name, default in defaults.items():
            if is_integer(default) and name != "num_key_value_heads":
                numbers[name] = fields.integer(name, default)
        heads, hidden = numbers["num_attention_heads"], numbers["hidden_size"]
        key_heads = heads
        if fields.raw.get("num_key_value_heads", 8) is not None:  # null: as many as attention heads
            key_heads = fields.integer("num_key_value_heads", defaults["num_key_value_heads"])
        head_dim = self.read_head_dim(fields, hidden, heads, key_heads)
        fields.require("hidden_act", "silu", "silu")
        fields.require("use_sliding_window", False, False)
        theta, sections = self._read_rope(fields)
        if sum(sections) != head_dim // 2:
            raise InputError(
                f"{fields.where}: mrope_section {list(sections)} must sum to half the head width, {head_dim // 2}"
            )
        return self.text_class(
            **numbers,
            num_key_value_heads=key_heads,
            rope_theta=theta,
            mrope_section=sections,
            rms_norm_eps=fields.positive("rms_norm_eps", defaults["rms_norm_eps"]),
            tie_word_embeddings=tied,
            **self.text_extras(head_dim),
        )

    def read_head_dim(self, fields: ConfigFields, hidden: int, heads: int, key_heads: int) -> int:
        """The width of a head: here the model's, split evenly."""
        if hidden % heads or (hidden // heads) % 2 or heads % key_heads:
            raise InputError(
                f"{fields.where}: hidden_size {hidden} must split into {heads} heads of even width, "
                f"and these into {key_heads} key heads"
            )
        fields.require("head_dim", hidden // heads, hidden // heads)
        return hidden // heads

    def _read_rope(self, fields: ConfigFields) -> tuple[float, tuple[int, int, int]]:
        """Theta and M-RoPE sections from `rope_scaling` (flat, nested) or `rope_parameters` (transformers 5)."""
        given = fields.first("rope_scaling", "rope_parameters")
        rope = ConfigFields({} if given is None else given, f"{fields.where} rope")
        kind = rope.first("rope_type", "type") or "default"
        if kind not in ("default", "mrope"):
            raise InputError(f"{rope.where}: type {kind!r} is not supported; it must be 'mrope' or 'default'")
        if self.text_class.mrope_interleaved:
            rope.require("mrope_interleaved", True, True)
        sections = rope.raw.get("mrope_section", self.text_defaults["mrope_section"])
        if not isinstance(sections, list) or len(sections) != 3 or not all(is_integer(n) and n >= 0 for n in sections):
            raise InputError(
                f"{rope.where}: mrope_section {sections!r} must be three integers, for time, height and width"
            )
        theta = rope if rope.raw.get("rope_theta") is not None else fields
        return theta.positive("rope_theta", self.text_defaults["rope_theta"]), (sections[0], sections[1], sections[2])

    def read_vision(self, fields: ConfigFields) -> VisionConfig:
        """The tower, from its object of config.json.

        Raises:
            InputError: it asks for something that this package does not compute.
        """
        raise NotImplementedError

    def vision_numbers(self, fields: ConfigFields) -> dict[str, Any]:
        """The fields of a `VisionConfig` that all families name alike."""
        fields.require("hidden_act", self.vision_defaults["hidden_act"], self.vision_defaults["hidden_act"])
        return {name: fields.integer(name, self.vision_defaults[name]) for name in Family.vision_defaults}

    def check_heads(self, fields: ConfigFields, width: int, heads: int) -> None:
        """A head of the tower has a quarter of its width for each of sine and cosine, row and column."""
        if width % heads or (width // heads) % 4:
            raise InputError(f"{fields.where}: width {width} must split into {heads} heads whose width divides by 4")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """The flat form, which every version of transformers, vLLM and SGLang reads."""
        vision = config.vision
        tower = {
            "depth": vision.depth,
            "num_heads": vision.num_heads,
            "in_channels": vision.in_channels,
            "in_chans": vision.in_channels,
            "patch_size": vision.patch_size,
            "spatial_merge_size": vision.spatial_merge_size,
            "spatial_patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "hidden_act": vision.hidden_act,
        }
        return {
            "architectures": [self.architecture],
            "model_type": self.name,
            **self.text_json(config.text),
            "rope_scaling": {"type": "mrope", "mrope_section": list(config.text.mrope_section)},
            "tie_word_embeddings": config.text.tie_word_embeddings,
            "use_sliding_window": False,
            "torch_dtype": config.dtype,
            **{name: getattr(config, name) for name in TOKEN_DEFAULTS},
            "vision_config": tower | self.vision_json(vision),
        }

    def text_json(self, text: TextConfig) -> dict[str, Any]:
        """The fields of the language model that all families name alike."""
        return {
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "hidden_act": "silu",
            "max_position_embeddings": text.max_position_embeddings,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_theta,
        }

    def vision_json(self, vision: VisionConfig) -> dict[str, Any]:
        """The family's own fields of `vision_config`."""
        raise NotImplementedError

    def video_blocks(
        self, grid: MediaGrid, seconds: Float[np.ndarray, " F"] | None, prompt: VideoPrompt
    ) -> tuple[str, list[MediaGrid]]:
        """What stands for a video in the prompt, and the blocks of vision tokens that fill its placeholders.

        Args:
            grid: the whole video.
            seconds: when each of its frames was seen.
            prompt: which of the ways that exist to write it.
        """
        if prompt not in self.video_prompts:
            raise InputError(f"video_prompt {prompt!r}: a video of {self.title} is one block; it must be 'blocks'")
        return VIDEO_BLOCK, [grid]

    def frames_that_share(self, frames: int) -> int:
        """How many frames of a video of so many share the limits that a folder has for videos: each has its own."""
        return 1

    def frame_limits(self, limits: PixelLimits, frames: int) -> PixelLimits:
        """The limits of one frame of a video of so many, by those that the folder has for videos."""
        sharing = self.frames_that_share(frames)
        return PixelLimits(-(-limits.minimum // sharing), limits.maximum // sharing)

    def limits_for(self, max_pixels: int, frames: int, limits: PixelLimits) -> PixelLimits:
        """A folder's limits, in place of `limits`, by which a frame of a video of so many has at most `max_pixels`."""
        most = max_pixels * self.frames_that_share(frames)
        return PixelLimits(min(limits.minimum, most), most)

    def video_size(
        self, frames: int, height: int, width: int, limits: PixelLimits, max_tokens: int | None, vision: VisionConfig
    ) -> tuple[int, int]:
        """(height, width) in pixels of the frames of a video, by the folder's limits; whole patches keep their size."""
        if height % vision.merged_patch == 0 and width % vision.merged_patch == 0:
            return height, width
        if max_tokens is not None:
            limits = share_pixels(limits, frames, max_tokens, vision.merged_patch, vision.temporal_patch_size)
        return smart_resize(height, width, limits, vision.merged_patch)
