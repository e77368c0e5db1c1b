"""Qwen3-VL: learned positions, DeepStack, normed queries and keys, and a video as blocks with their times in text.

Against Qwen2.5-VL:

- Tower: patches of 16 pixels with a bias; a learned table of positions, resampled to the grid of each frame, added to
  the patches; LayerNorm and a plain MLP with tanh-GELU; no windows.
- DeepStack: the outputs of `deepstack_indexes` have mergers of their own. What these give is added to the hidden states
  of vision tokens behind the language model's first layers (`language.DeepStack`).
- Language model: RMSNorm on every query and key head, no biases, heads wider than the model's share, and M-RoPE with
  the axes in turn.
- A video: each temporal patch (two frames) is a block of its own that lasts no time, behind the text of its time.
- Processor: a budget of pixels for a whole video (frames x height x width).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxvsr.errors import InputError
from jaxvsr.models.families.family import TOKEN_DEFAULTS, VIDEO_BLOCK, Family
from jaxvsr.models.huggingface.config_fields import ConfigFields
from jaxvsr.models.inputs.positions import MediaGrid
from jaxvsr.models.layers import LayerNorm, Linear, ParamInit, at_least_float32, unstacked
from jaxvsr.models.model_config import VIDEO_PROMPTS, ModelConfig, TextConfig, VideoPrompt, VisionConfig
from jaxvsr.models.vision import NORM_EPS, VisionTower
from jaxvsr.pixel_budget import FRAMES_PER_PATCH, PixelLimits, smart_resize_video


@dataclasses.dataclass(frozen=True)
class Qwen3TextConfig(TextConfig):
    """Qwen3's language model: heads have a width of their own."""

    attention_bias: ClassVar[bool] = False
    query_key_norm: ClassVar[bool] = True
    mrope_interleaved: ClassVar[bool] = True

    head_dim: int = 128


@dataclasses.dataclass(frozen=True)
class Qwen3VisionConfig(VisionConfig):
    """The tower with its table of positions and the layers of DeepStack."""

    pixel_mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)

    patch_size: int = 16
    num_position_embeddings: int = 2304  # a square table
    deepstack_indexes: tuple[int, ...] = ()  # ascending

    @property
    def table_side(self) -> int:
        return round(self.num_position_embeddings**0.5)


class TanhGeluMlp(nnx.Module):
    def __init__(self, config: VisionConfig, name: str, init: ParamInit, stack: tuple[int, ...]):
        width, inner = config.embed_dim, config.intermediate_size
        self.linear_fc1 = Linear(f"{name}.linear_fc1", width, inner, bias=True, init=init, stack=stack)
        self.linear_fc2 = Linear(f"{name}.linear_fc2", inner, width, bias=True, init=init, stack=stack)

    def __call__(self, x: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
        return self.linear_fc2(jax.nn.gelu(self.linear_fc1(x), approximate=True))


class Merger(nnx.Module):
    """Each `merge_unit` consecutive patches become one token; DeepStack's (`joined_norm`) are normed when joined."""

    def __init__(
        self, config: VisionConfig, name: str, init: ParamInit, stack: tuple[int, ...] = (), joined_norm: bool = False
    ):
        inner = config.embed_dim * config.merge_unit
        self.norm = LayerNorm(inner if joined_norm else config.embed_dim, eps=NORM_EPS, init=init, stack=stack)
        self.linear_fc1 = Linear(f"{name}.linear_fc1", inner, inner, bias=True, init=init, stack=stack)
        self.linear_fc2 = Linear(f"{name}.linear_fc2", inner, config.out_hidden_size, bias=True, init=init, stack=stack)
        self.joined_norm, self.merge_unit = joined_norm, config.merge_unit

    def __call__(self, x: Float[Array, "B L E"]) -> Float[Array, "B U H"]:
        x = x if self.joined_norm else self.norm(x)
        units = x.reshape(x.shape[0], -1, self.merge_unit * x.shape[-1])
        units = self.norm(units) if self.joined_norm else units
        return self.linear_fc2(jax.nn.gelu(self.linear_fc1(units), approximate=False))


class Qwen3Tower(VisionTower):
    config: Qwen3VisionConfig
    patch_bias = True

    def make_mlp(self, name: str, init: ParamInit, stack: tuple[int, ...]) -> nnx.Module:
        return TanhGeluMlp(self.config, name, init, stack)

    def make_positions(self, init: ParamInit) -> None:
        shape = (self.config.num_position_embeddings, self.config.embed_dim)
        self.pos_embed = nnx.Dict(weight=nnx.Param(init.normal(shape)))

    def make_mergers(self, init: ParamInit) -> None:
        self.merger = Merger(self.config, "visual.merger", init)
        if count := len(self.config.deepstack_indexes):
            self.deepstack_merger_list = Merger(
                self.config, "visual.deepstack_merger_list", init, (count,), joined_norm=True
            )

    def positions(self, coordinates: Int[Array, "B L 2"]) -> Float[Array, "B L E"]:
        """The table, resampled bilinearly so that its corners meet those of the frame; in float32 or wider.

        A row is one frame, so its size is what its coordinates span.
        """
        side, table = self.config.table_side, at_least_float32(self.pos_embed["weight"][...])
        spans = jnp.max(coordinates, axis=1, keepdims=True)
        places = coordinates.astype(table.dtype) * (side - 1) / jnp.maximum(spans, 1)
        low = jnp.minimum(jnp.floor(places).astype(jnp.int32), side - 1)
        high = jnp.minimum(low + 1, side - 1)
        rest = places - low
        total = jnp.zeros((), table.dtype)
        for row, row_weight in ((low[..., 0], 1 - rest[..., 0]), (high[..., 0], rest[..., 0])):
            for column, column_weight in ((low[..., 1], 1 - rest[..., 1]), (high[..., 1], rest[..., 1])):
                total = total + table[row * side + column] * (row_weight * column_weight)[..., None]
        return total

    def merged(self, x: Float[Array, "B L E"], levels: Array | None) -> Float[Array, "B U W"]:
        """The tower's tokens, and beside them what each level adds in the language model."""
        tokens = [self.merger(x)]
        if levels is not None:
            mergers = unstacked(self.deepstack_merger_list, len(levels))
            tokens += [merger(level) for merger, level in zip(mergers, levels, strict=True)]
        return jnp.concatenate(tokens, axis=-1)


def _published(
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    tied: bool,
    tower: tuple[int, int, int],
    deepstack: tuple[int, ...],
) -> ModelConfig:
    text = Qwen3TextConfig(
        151936, hidden, inner, layers, heads, 8, 5_000_000.0, (24, 20, 20), 1e-6, tied, 262144, head_dim=128
    )  # fmt: skip
    width, depth, tower_inner = tower
    vision = Qwen3VisionConfig(
        depth, width, 16, tower_inner, hidden, "gelu_pytorch_tanh", deepstack_indexes=deepstack
    )  # fmt: skip
    return ModelConfig("qwen3_vl", text, vision, **TOKEN_DEFAULTS)


_SMALL_TOWER = (1024, 24, 4096), (5, 11, 17)
_LARGE_TOWER = (1152, 27, 4304), (8, 16, 24)


class Qwen3VL(Family):
    name = "qwen3_vl"
    title = "Qwen3-VL"
    architecture = "Qwen3VLForConditionalGeneration"
    processor_class = "Qwen3VLProcessor"
    video_processor_type = "Qwen3VLVideoProcessor"
    style = "new"
    tower = Qwen3Tower
    video_prompts = VIDEO_PROMPTS
    text_class = Qwen3TextConfig
    text_defaults = Family.text_defaults | {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500_000.0,
        "mrope_section": [24, 20, 20],
    }
    vision_defaults = Family.vision_defaults | {
        "depth": 27,
        "patch_size": 16,
        "hidden_size": 1152,
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": 4304,
        "out_hidden_size": 3584,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    }
    video_limits = PixelLimits(128 * 32 * 32, 768 * 32 * 32)  # of a whole video
    max_video_tokens = 768  # of a frame
    published: ClassVar[dict[str, ModelConfig]] = {
        "qwen3-vl-2b": _published(2048, 6144, 28, 16, True, *_SMALL_TOWER),
        "qwen3-vl-4b": _published(2560, 9728, 36, 32, True, *_SMALL_TOWER),
        "qwen3-vl-8b": _published(4096, 12288, 36, 32, False, *_LARGE_TOWER),
        "qwen3-vl-32b": _published(5120, 25600, 64, 64, False, *_LARGE_TOWER),
    }
    tiny_image_limits = PixelLimits(4 * 32 * 32, 256 * 32 * 32)
    tiny_video_limits = PixelLimits(4 * 32 * 32, 64 * 64 * 32 * 32)
    tiny_sentences = tuple(f"<{tenths / 10} seconds>" for tenths in range(10))

    def serving_note(self) -> str:
        return (
            "Video: every pair of frames stands behind its time, without a further `<|vision_start|>` and "
            "`<|vision_end|>` around the whole video, as in Qwen's own release (transformers 4.57) and vLLM, unless "
            "the config says `video_prompt: wrapped`, which is what transformers 5.12 to 5.24 write."
        )

    def text_extras(self, head_dim: int) -> dict[str, Any]:
        return {"head_dim": head_dim}

    def read_head_dim(self, fields: ConfigFields, hidden: int, heads: int, key_heads: int) -> int:
        fields.require("attention_bias", False, False)
        head_dim = fields.integer("head_dim", 128, minimum=2)
        if head_dim % 2 or heads % key_heads:
            raise InputError(
                f"{fields.where}: head_dim {head_dim} must be even, and {heads} heads split into {key_heads} key heads"
            )
        return head_dim

    def read_vision(self, fields: ConfigFields) -> VisionConfig:
        numbers, defaults = self.vision_numbers(fields), self.vision_defaults
        named = ("hidden_size", "intermediate_size", "out_hidden_size", "num_position_embeddings")
        width, inner, out, table = (fields.integer(name, defaults[name]) for name in named)
        if round(table**0.5) ** 2 != table:
            raise InputError(f"{fields.where}: num_position_embeddings {table} must be a square number")
        indexes = fields.integers("deepstack_visual_indexes", defaults["deepstack_visual_indexes"])
        if sorted(set(indexes)) != list(indexes) or max((0, *indexes)) >= numbers["depth"]:
            raise InputError(
                f"{fields.where}: deepstack_visual_indexes {list(indexes)} must ascend, "
                f"below the tower's {numbers['depth']} layers"
            )
        self.check_heads(fields, width, numbers["num_heads"])
        return Qwen3VisionConfig(
            **numbers, embed_dim=width, intermediate_size=inner, out_hidden_size=out,
            hidden_act=defaults["hidden_act"], num_position_embeddings=table, deepstack_indexes=indexes,
        )  # fmt: skip

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """The nested form of the published checkpoints."""
        text, vision = config.text, config.vision
        rope = {"mrope_interleaved": True, "mrope_section": list(text.mrope_section), "rope_type": "default"}
        return {
            "architectures": [self.architecture],
            "model_type": self.name,
            "text_config": {
                "model_type": "qwen3_vl_text",
                **self.text_json(text),
                "attention_bias": False,
                "head_dim": text.head_dim,
                "rope_scaling": rope,
                "tie_word_embeddings": text.tie_word_embeddings,
                "dtype": config.dtype,
            },
            "tie_word_embeddings": text.tie_word_embeddings,
            **{name: getattr(config, name) for name in TOKEN_DEFAULTS},
            "vision_config": self.vision_json(vision),
        }

    def vision_json(self, vision: VisionConfig) -> dict[str, Any]:
        assert isinstance(vision, Qwen3VisionConfig)
        return {
            "model_type": self.name,
            "depth": vision.depth,
            "hidden_size": vision.embed_dim,
            "hidden_act": vision.hidden_act,
            "intermediate_size": vision.intermediate_size,
            "num_heads": vision.num_heads,
            "in_channels": vision.in_channels,
            "patch_size": vision.patch_size,
            "spatial_merge_size": vision.spatial_merge_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "out_hidden_size": vision.out_hidden_size,
            "num_position_embeddings": vision.num_position_embeddings,
            "deepstack_visual_indexes": list(vision.deepstack_indexes),
        }

    def video_blocks(
        self, grid: MediaGrid, seconds: Float[np.ndarray, " F"] | None, prompt: VideoPrompt
    ) -> tuple[str, list[MediaGrid]]:
        """Every temporal patch is a block behind its time, the mean of its first and last frame, to one decimal:

            <0.3 seconds><|vision_start|>…<|vision_end|><1.3 seconds><|vision_start|>…<|vision_end|>

        The checkpoints were trained with this (`blocks`): it is what Qwen's own code wrote when they were released
        (transformers 4.57), and what vLLM writes. transformers 5.12 to 5.24 leave the template's `<|vision_start|>` and
        `<|vision_end|>` around all of it (`wrapped`; https://github.com/vllm-project/vllm/issues/46817).
        """
        if seconds is None:
            raise InputError("a video needs timestamps: this model's prompt says when each pair of frames was seen")
        first = np.arange(grid.time) * FRAMES_PER_PATCH
        times = (seconds[first] + seconds[np.minimum(first + FRAMES_PER_PATCH - 1, len(seconds) - 1)]) / 2
        text = "".join(f"<{time:.1f} seconds>{VIDEO_BLOCK}" for time in times)
        block = dataclasses.replace(grid, time=1)
        start, end = VIDEO_BLOCK.split("<|video_pad|>")
        return f"{start}{text}{end}" if prompt == "wrapped" else text, [block] * grid.time

    def frames_that_share(self, frames: int) -> int:
        return frames

    def video_size(
        self, frames: int, height: int, width: int, limits: PixelLimits, max_tokens: int | None, vision: VisionConfig
    ) -> tuple[int, int]:
        """The limits are those of the whole video, also for whole patches; `max_tokens`, if set, is that of a frame."""
        unit, pair = vision.merged_patch, vision.temporal_patch_size
        if max_tokens is not None:
            a_frame = max(min(max_tokens * unit**2, limits.maximum // frames), int(limits.minimum * 1.05))
            limits = PixelLimits(limits.minimum, a_frame * frames)
        return smart_resize_video(frames, height, width, limits, unit, pair)

    def tiny_vision(self, width: int, heads: int, layers: int) -> VisionConfig:
        """A table of 8x8 positions, and DeepStack behind every layer but the last."""
        return Qwen3VisionConfig(
            layers, width, heads, 4 * width, width, self.vision_defaults["hidden_act"],
            num_position_embeddings=64, deepstack_indexes=tuple(range(layers - 1)),
        )  # fmt: skip

    def tiny_sections(self, half: int) -> tuple[int, int, int]:
        """The published proportions: 24, 20 and 20 of 64."""
        spatial = 5 * half // 16
        return half - 2 * spatial, spatial, spatial
