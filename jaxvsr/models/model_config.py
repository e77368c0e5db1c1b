"""The shape of a model, independent of the form of its `config.json`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, get_args

# Modules made of equal layers: their parameters have the layers on the leading axis.
STACKS = ("language_model.layers.", "visual.blocks.", "visual.deepstack_merger_list.")

FamilyName = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]  # a module each in `families/`
VideoPrompt = Literal["blocks", "wrapped"]  # wrapped: only of families that have it in `Family.video_prompts`
VIDEO_PROMPTS: tuple[VideoPrompt, ...] = get_args(VideoPrompt)
ComputeDtype = Literal["float32", "bfloat16"]  # of activations
DtypeSetting = Literal["auto", "float32", "bfloat16"]
Remat = Literal["none", "full", "dots"]  # recomputed in the backward pass: nothing, layers, all but matrix products
KEPT = "kept with products"  # the name of what `dots` does not compute again either


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower and its patch merger; what the tower is made of is its family's (`families/`).

    A family that has one of the properties that are 0 or empty here has it as a field of its own subclass.
    """

    # OpenAI CLIP's, as in Hugging Face's Qwen2-VL processors.
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.26862954, 0.26130258, 0.27577711)

    gated_mlp: ClassVar[bool] = False  # three matrices, not two

    depth: int
    embed_dim: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    hidden_act: str
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch: channels x temporal patch x height x width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_unit(self) -> int:
        """Patches that become one token of the language model."""
        return self.spatial_merge_size**2

    @property
    def merged_patch(self) -> int:
        """Pixels of a side of what becomes one token."""
        return self.patch_size * self.spatial_merge_size

    @property
    def window_size(self) -> int:
        """Pixels of a side of a window of attention; 0: there are no windows."""
        return 0

    @property
    def window_patches(self) -> int:
        """Patches of a window; 0 without windows."""
        return (self.window_size // self.patch_size) ** 2

    @property
    def fullatt_block_indexes(self) -> tuple[int, ...]:
        """Layers that attend to the whole frame where the others attend in windows."""
        return ()

    @property
    def tokens_per_second(self) -> int:
        """Of absolute time in positions; 0: they count temporal patches."""
        return 0

    @property
    def deepstack_indexes(self) -> tuple[int, ...]:
        """Layers of the tower whose outputs also enter the language model (DeepStack); none but in Qwen3-VL."""
        return ()

    @property
    def feature_parts(self) -> tuple[str, ...]:
        """What the tower gives for each token, a vector each, by what made it."""
        return ("merger", *(f"deepstack of layer {index}" for index in self.deepstack_indexes))

    @property
    def feature_width(self) -> int:
        """Numbers that the tower gives for each token."""
        return self.out_hidden_size * len(self.feature_parts)

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The language model: Qwen2's layers with M-RoPE. A family that differs has its own values of the first three."""

    attention_bias: ClassVar[bool] = True  # of query, key and value projections
    query_key_norm: ClassVar[bool] = False  # RMSNorm of every query and key head before they are rotated
    mrope_interleaved: ClassVar[bool] = False  # frequencies dealt to the axes in turn, not in runs

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rope_theta: float
    mrope_section: tuple[int, int, int]  # how many rotary frequencies time, height, width have; head_dim / 2 in all
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32768

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole model. `dtype` is that of the checkpoint (`float32`, `bfloat16` or `float16`)."""

    family: FamilyName
    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    dtype: str = "bfloat16"


def stack_of(name: str) -> str | None:
    """The stack of a parameter or module (our name), as a prefix of its name; None outside of stacks."""
    return next((stack for stack in STACKS if name.startswith(stack)), None)


def compute_dtype(setting: DtypeSetting, platform: str) -> ComputeDtype:
    """What `model.dtype` means on a JAX platform (`cpu`, `gpu`, `tpu`); auto: float32 on CPU, else bfloat16."""
    if setting != "auto":
        return setting
    return "float32" if platform == "cpu" else "bfloat16"
