"""`config.json` and `generation_config.json` of Qwen2-VL and Qwen2.5-VL folders.

Three forms of `config.json` exist: the flat one of the published checkpoints (text fields at the top level,
`rope_scaling`), one with a nested `text_config`, and transformers 5's (`rope_parameters`). Missing fields have the
defaults of transformers' configuration classes, because transformers writes only what differs from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from jaxvsr.errors import InputError
from jaxvsr.files import read_json_object
from jaxvsr.models.model_config import Family, ModelConfig, TextConfig, VisionConfig

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
ARCHITECTURES: dict[str, str] = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
DTYPES = ("float32", "bfloat16", "float16")
MAX_LAYERS = 1000  # names are made for every layer: a nonsense number must not fill the memory

# Defaults of transformers' configuration classes, under the names in the files.
_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "use_sliding_window": False,
}
_ROPE_THETA = 1_000_000.0
_VISION_SHARED: dict[str, Any] = {
    "depth": 32,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_VISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {**_VISION_SHARED, "embed_dim": 1280, "hidden_size": 3584, "hidden_act": "quick_gelu", "mlp_ratio": 4},
    "qwen2_5_vl": {
        **_VISION_SHARED,
        "hidden_size": 3584,
        "hidden_act": "silu",
        "intermediate_size": 3420,
        "out_hidden_size": 3584,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 4,
    },
}
_TOKEN_DEFAULTS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


def read_config(folder: Path) -> ModelConfig:
    """The model of a Hugging Face folder. A model that this package cannot compute exactly is an `InputError`."""
    path = folder / CONFIG_FILE
    return parse_config(read_json_object(path, missing="a model is a Hugging Face folder"), str(path))


def parse_config(raw: Mapping[str, Any], where: str = CONFIG_FILE) -> ModelConfig:
    """The model in a `config.json` of any form; `where` names the file in errors."""
    found, families = raw.get("model_type"), get_args(Family)
    if found not in families:
        raise InputError(f"{where}: model_type {found!r} is not one of {', '.join(families)}")
    family: Family = families[families.index(found)]
    top = _Fields(raw, where)
    fields = top if raw.get("text_config") is None else top.object("text_config")
    vision = top.object("vision_config")
    dtype = str(fields.first("torch_dtype", "dtype") or top.first("torch_dtype", "dtype") or "float32")
    if dtype not in DTYPES:
        raise InputError(f"{where}: dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    tied = top.flag("tie_word_embeddings") or fields.flag("tie_word_embeddings")
    text = _text_config(fields, tied)
    tower = _vision_config(family, vision)
    if tower.out_hidden_size != text.hidden_size:
        raise InputError(
            f"{where}: the vision tower's tokens have width {tower.out_hidden_size}, "
            f"but the language model's hidden_size is {text.hidden_size}"
        )
    tokens = {name: top.integer(name, default, minimum=0) for name, default in _TOKEN_DEFAULTS.items()}
    return ModelConfig(**tokens, family=family, text=text, vision=tower, dtype=dtype)


def config_json(config: ModelConfig) -> dict[str, Any]:
    """The flat `config.json` of this model, the form that every version of transformers, vLLM and SGLang reads."""
    text, vision = config.text, config.vision
    tower: dict[str, Any] = {
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
    if config.family == "qwen2_vl":
        tower |= {"embed_dim": vision.embed_dim, "hidden_size": vision.out_hidden_size}
        tower |= {"mlp_ratio": vision.intermediate_size // vision.embed_dim}
    else:
        tower |= {"hidden_size": vision.embed_dim, "out_hidden_size": vision.out_hidden_size}
        tower |= {"intermediate_size": vision.intermediate_size, "window_size": vision.window_size}
        tower |= {"fullatt_block_indexes": list(vision.fullatt_block_indexes)}
        tower |= {"tokens_per_second": vision.tokens_per_second}
    return {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
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
        "rope_scaling": {"type": "mrope", "mrope_section": list(text.mrope_section)},
        "tie_word_embeddings": text.tie_word_embeddings,
        "use_sliding_window": False,
        "torch_dtype": config.dtype,
        **{name: getattr(config, name) for name in _TOKEN_DEFAULTS},
        "vision_config": tower,
    }


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """A folder's settings for sampling. Each of `eos_token_ids` ends an answer."""

    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    repetition_penalty: float = 1.0


def read_generation_config(folder: Path) -> GenerationConfig:
    """`generation_config.json`; if it has no end-of-sequence id, then with the token ids of `config.json`."""
    path = folder / GENERATION_FILE
    raw = read_json_object(path) if path.is_file() else {}
    if raw.get("eos_token_id") is None:
        path = folder / CONFIG_FILE
        top = _Fields(read_json_object(path), str(path))
        for given in (top.object("text_config").raw, top.raw):
            raw |= {name: given[name] for name in ("eos_token_id", "pad_token_id") if given.get(name) is not None}
    eos = raw.get("eos_token_id")
    eos = eos if isinstance(eos, list) else [eos]
    if not eos or not all(_is_integer(token) and token >= 0 for token in eos):
        raise InputError(f"{path}: eos_token_id {raw.get('eos_token_id')!r} must be a token id or a list of them")
    fields = _Fields(raw, str(path))
    pad, penalty = fields.integer("pad_token_id", eos[0], minimum=0), fields.positive("repetition_penalty", 1.0)
    return GenerationConfig(tuple(eos), pad, penalty)


class _Fields:
    """Typed access to one object of `config.json`."""

    def __init__(self, raw: Any, where: str):
        if not isinstance(raw, Mapping):
            raise InputError(f"{where}: expected a JSON object, found {type(raw).__name__}")
        self.raw, self.where = raw, where

    def first(self, *names: str) -> Any:
        return next((self.raw[name] for name in names if self.raw.get(name) is not None), None)

    def object(self, name: str) -> _Fields:
        """The object under this name; an empty one if there is none."""
        value = self.raw.get(name)
        return _Fields({} if value is None else value, f"{self.where} {name}")

    def flag(self, name: str) -> bool:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{self.where}: {name} {value!r} must be true or false")
        return bool(value)

    def integer(self, name: str, default: int, minimum: int = 1) -> int:
        value = self.raw.get(name)
        value = default if value is None else value
        if isinstance(value, list) and value and all(side == value[0] for side in value):
            value = value[0]  # patch_size may be written as [14, 14]
        if not _is_integer(value) or value < minimum:
            raise InputError(f"{self.where}: {name} {value!r} must be an integer of at least {minimum}")
        if name in ("num_hidden_layers", "depth") and value > MAX_LAYERS:
            raise InputError(f"{self.where}: {name} {value} must be at most {MAX_LAYERS}")
        return value

    def positive(self, name: str, default: int | float) -> float:
        value = self.raw.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"{self.where}: {name} {value!r} must be a positive number")
        return float(value)

    def require(self, name: str, default: Any, accepted: Any) -> None:
        value = self.raw.get(name)
        if (default if value is None else value) != accepted:
            raise InputError(f"{self.where}: {name} {value!r} is not supported; it must be {accepted!r}")


def _text_config(fields: _Fields, tied: bool) -> TextConfig:
    numbers = {
        name: fields.integer(name, default)
        for name, default in _TEXT_DEFAULTS.items()
        if _is_integer(default) and name != "num_key_value_heads"
    }
    heads, hidden = numbers["num_attention_heads"], numbers["hidden_size"]
    key_heads = heads
    if fields.raw.get("num_key_value_heads", 8) is not None:  # null: as many as attention heads
        key_heads = fields.integer("num_key_value_heads", _TEXT_DEFAULTS["num_key_value_heads"])
    if hidden % heads or (hidden // heads) % 2 or heads % key_heads:
        raise InputError(
            f"{fields.where}: hidden_size {hidden} must split into {heads} heads of even width, "
            f"and these into {key_heads} key heads"
        )
    fields.require("hidden_act", "silu", "silu")
    fields.require("use_sliding_window", False, False)
    fields.require("head_dim", hidden // heads, hidden // heads)
    theta, sections = _rope(fields)
    if sum(sections) != hidden // heads // 2:
        raise InputError(
            f"{fields.where}: mrope_section {list(sections)} must sum to half the head width, {hidden // heads // 2}"
        )
    return TextConfig(
        **numbers,
        num_key_value_heads=key_heads,
        rope_theta=theta,
        mrope_section=sections,
        rms_norm_eps=fields.positive("rms_norm_eps", _TEXT_DEFAULTS["rms_norm_eps"]),
        tie_word_embeddings=tied,
    )


def _rope(fields: _Fields) -> tuple[float, tuple[int, int, int]]:
    """Theta and M-RoPE sections from `rope_scaling` (flat, nested) or `rope_parameters` (transformers 5)."""
    given = fields.first("rope_scaling", "rope_parameters")
    rope = _Fields({} if given is None else given, f"{fields.where} rope")
    kind = rope.first("rope_type", "type") or "default"
    if kind not in ("default", "mrope"):
        raise InputError(f"{rope.where}: type {kind!r} is not supported; it must be 'mrope' or 'default'")
    sections = rope.raw.get("mrope_section")
    if not isinstance(sections, list) or len(sections) != 3 or not all(_is_integer(n) and n >= 0 for n in sections):
        raise InputError(f"{rope.where}: mrope_section {sections!r} must be three integers, for time, height and width")
    theta = rope if rope.raw.get("rope_theta") is not None else fields
    return theta.positive("rope_theta", _ROPE_THETA), (sections[0], sections[1], sections[2])


def _vision_config(family: Family, fields: _Fields) -> VisionConfig:
    defaults = _VISION_DEFAULTS[family]
    numbers = {name: fields.integer(name, defaults[name]) for name in _VISION_SHARED}
    fields.require("hidden_act", defaults["hidden_act"], defaults["hidden_act"])
    window, indexes, rate = 0, [], 0
    if family == "qwen2_vl":
        width = fields.integer("embed_dim", defaults["embed_dim"])
        ratio = fields.positive("mlp_ratio", defaults["mlp_ratio"])
        if not (width * ratio).is_integer():
            raise InputError(f"{fields.where}: mlp_ratio {ratio} times embed_dim {width} must be an integer")
        inner = int(width * ratio)
        out = fields.integer("hidden_size", defaults["hidden_size"])
    else:
        width = fields.integer("hidden_size", defaults["hidden_size"])
        inner = fields.integer("intermediate_size", defaults["intermediate_size"])
        out = fields.integer("out_hidden_size", defaults["out_hidden_size"])
        window = fields.integer("window_size", defaults["window_size"])
        unit = numbers["patch_size"] * numbers["spatial_merge_size"]
        if window % unit:
            raise InputError(
                f"{fields.where}: window_size {window} must be a multiple of {unit} pixels, one merged patch"
            )
        indexes = fields.raw.get("fullatt_block_indexes", defaults["fullatt_block_indexes"])
        if not isinstance(indexes, list) or not all(_is_integer(index) and index >= 0 for index in indexes):
            raise InputError(f"{fields.where}: fullatt_block_indexes {indexes!r} must be a list of layer numbers")
        rate = fields.integer("tokens_per_second", defaults["tokens_per_second"])
    heads = numbers["num_heads"]
    if width % heads or (width // heads) % 4:
        raise InputError(f"{fields.where}: width {width} must split into {heads} heads whose width divides by 4")
    return VisionConfig(
        **numbers,
        embed_dim=width,
        intermediate_size=inner,
        out_hidden_size=out,
        hidden_act=defaults["hidden_act"],
        window_size=window,
        fullatt_block_indexes=tuple(indexes),
        tokens_per_second=rate,
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
