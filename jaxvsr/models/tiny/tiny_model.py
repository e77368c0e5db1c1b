"""A small model of any family as a complete Hugging Face folder, made without torch and without a download.

    python launch/convert.py tiny OUT --seed 0

Weights are random. It differs from the published models in width and depth, in a vocabulary of about a thousand tokens,
and in a rotary base for heads of width 32.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from jaxvsr.errors import InputError
from jaxvsr.models.families.known_families import FAMILIES, family_of
from jaxvsr.models.huggingface.hf_config import config_json
from jaxvsr.models.huggingface.model_folder import SINGLE_FILE
from jaxvsr.models.huggingface.parameter_names import EMBEDDING, file_names
from jaxvsr.models.huggingface.safetensors_io import write_safetensors
from jaxvsr.models.huggingface.write_model_folder import new_folder
from jaxvsr.models.inputs.chat import IM_END, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START
from jaxvsr.models.inputs.processor_config import IMAGE_FILE, VIDEO_FILE
from jaxvsr.models.layers import INITIAL_STD
from jaxvsr.models.model_config import STACKS, FamilyName, ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tiny.tiny_text import tokenizer_corpus

# Qwen2-VL's, in its order; their ids come after the vocabulary.
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# Qwen2's pre-tokenizer: single digits, a word with the space before it.
PRETOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCABULARY_MULTIPLE = 64

CHAT_TEMPLATE = """\
{% for message in messages %}\
{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for content in message['content'] %}\
{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}\
<|vision_start|><|image_pad|><|vision_end|>\
{% elif content['type'] == 'video' or 'video' in content %}\
<|vision_start|><|video_pad|><|vision_end|>\
{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@dataclasses.dataclass(frozen=True)
class TinyShape:
    """Size of a tiny model. The default has 1.6 million parameters, 6.4 MB in float32."""

    width: int = 128  # of language model and vision tower
    text_layers: int = 3
    text_intermediate: int = 384
    heads: int = 4
    key_value_heads: int = 2
    vision_layers: int = 2
    tied: bool = True  # the head is the embedding
    rope_theta: float = 1000.0  # with the published 1e6 a narrow head hears little of places; far below, little else


def shape_of_width(width: int, text_layers: int, vision_layers: int, tied: bool = True) -> TinyShape:
    """The default's proportions at another size: heads of width 32.

    Raises:
        InputError: the width is not that of an even number of heads, which two key heads can share.
    """
    if width % 64:
        raise InputError(f"width {width}: must be a multiple of 64")
    return TinyShape(width, text_layers, 3 * width, width // 32, 2, vision_layers, tied)


def tiny_config(
    tokenizer: Tokenizer, shape: TinyShape, family: FamilyName = "qwen2_vl", dtype: str = "float32"
) -> ModelConfig:
    """The model for a tokenizer."""
    ours, head_dim = FAMILIES[family], shape.width // shape.heads
    size, vocabulary = tokenizer.get_vocab_size(), tokenizer.get_vocab()
    return ModelConfig(
        family=family,
        vision=ours.tiny_vision(shape.width, shape.heads, shape.vision_layers),
        text=ours.text_class(
            vocab_size=-(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE,
            hidden_size=shape.width,
            intermediate_size=shape.text_intermediate,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            rope_theta=shape.rope_theta,
            mrope_section=ours.tiny_sections(head_dim // 2),
            tie_word_embeddings=shape.tied,
            **ours.text_extras(head_dim),
        ),
        image_token_id=vocabulary[IMAGE_PAD],
        video_token_id=vocabulary[VIDEO_PAD],
        vision_start_token_id=vocabulary[VISION_START],
        vision_end_token_id=vocabulary[VISION_END],
        dtype=dtype,
    )


def write_tiny_model(
    out: Path, seed: int, *, shape: TinyShape | None = None, family: FamilyName = "qwen2_vl", dtype: str = "float32"
) -> ModelConfig:
    """Write the folder: the same bytes for the same arguments. `out` must be new."""
    shape = shape or TinyShape()
    if shape.width % (4 * shape.heads) or shape.heads % shape.key_value_heads:
        raise InputError(
            f"width {shape.width} must be a multiple of 4 · {shape.heads} (heads), "
            f"and heads a multiple of {shape.key_value_heads} (key heads)"
        )
    tokenizer = train_tokenizer(FAMILIES[family].tiny_sentences)
    config = tiny_config(tokenizer, shape, family, dtype)
    weights = random_weights(config, seed)
    names = file_names(config, family_of(config).style)
    tensors = {name: weights[ours] if layer is None else weights[ours][layer] for name, (ours, layer) in names.items()}
    with new_folder(out) as folder:
        write_safetensors(
            folder / SINGLE_FILE,
            {name: (array.dtype, array.shape) for name, array in tensors.items()},
            tensors.__getitem__,
        )
        tokenizer.save(str(folder / "tokenizer.json"))
        for file, content in _companions(config, tokenizer).items():
            (folder / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return config


def train_tokenizer(more: Sequence[str] = ()) -> Tokenizer:
    """Byte-level BPE like Qwen2's, merged until every word of the corpus and of `more` sentences is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZER), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator([*tokenizer_corpus(), *more], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def random_weights(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Initial weights under our names.

    Matrices are normal with standard deviation 1/√(fan in), divided by √(2 · layers) if they write to the residual
    stream (GPT-2). Embeddings have Qwen2's standard deviation, norms are one, biases zero.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, leaf in parameter_shapes(config).items():
        shape = leaf.shape
        if name.endswith(".bias"):
            weight = np.zeros(shape)
        elif "norm" in name or "ln_q" in name:
            weight = np.ones(shape)
        elif name == EMBEDDING:
            weight = rng.normal(0, INITIAL_STD, shape)
        else:
            fan_in = math.prod(shape[1:]) if "patch_embed" in name else shape[-1]
            weight = rng.normal(0, fan_in**-0.5, shape)
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "fc2.weight")) and (
                name.startswith(STACKS[:2])
            ):
                weight /= math.sqrt(2 * shape[0])
        weights[name] = weight.astype(config.dtype)
    return weights


def _companions(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, dict]:
    """All JSON files of the folder except the tokenizer."""
    end_of_text, im_end = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id(IM_END)
    pixels = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(config.vision.pixel_mean),
        "image_std": list(config.vision.pixel_std),
        "rescale_factor": 1 / 255,
        "resample": 3,
        "patch_size": config.vision.patch_size,
        "temporal_patch_size": config.vision.temporal_patch_size,
        "merge_size": config.vision.spatial_merge_size,
    }
    family = family_of(config)
    limits = lambda found: {"size": {"shortest_edge": found.minimum, "longest_edge": found.maximum}}  # noqa: E731
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL_TOKENS
    }
    token_ids = {"bos_token_id": end_of_text, "eos_token_id": im_end, "pad_token_id": end_of_text}
    return {
        "config.json": config_json(config) | token_ids,
        "generation_config.json": token_ids | {"eos_token_id": [im_end, end_of_text]},
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": SPECIAL_TOKENS[1:],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": IM_END,
            "errors": "replace",
            "model_max_length": config.text.max_position_embeddings,
            "pad_token": "<|endoftext|>",
            "processor_class": family.processor_class,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
        IMAGE_FILE: pixels
        | limits(family.tiny_image_limits)
        | {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": family.processor_class},
        VIDEO_FILE: pixels
        | limits(family.tiny_video_limits)
        | {
            "video_processor_type": family.video_processor_type,
            "processor_class": family.processor_class,
            "cap_pixels_per_frame": False,
        },
    }
