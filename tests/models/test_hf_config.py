"""Configs and parameter names against transformers' own classes and models without memory."""

import math

import pytest
import torch
from flax import nnx
from flax.traverse_util import flatten_dict
from transformers import (
    AutoConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.hf_config import config_json, parse_config, read_config, read_generation_config
from jaxvsr.models.huggingface.parameter_names import file_names, file_shape, style_of
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import model_definition, parameter_shapes

HF_CLASSES = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
}
TOWER_2024 = {
    "depth": 32,
    "embed_dim": 1280,
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_chans": 3,
    "hidden_size": 1536,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
}
# As published with Qwen2-VL-2B-Instruct in 2024.
FLAT_2024 = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": TOWER_2024,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}


def hugging_face_config(config: ModelConfig):
    return HF_CLASSES[config.family][0](**config_json(config))


def meta_model(config: ModelConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return HF_CLASSES[config.family][1](hugging_face_config(config))


def nested(flat: dict) -> dict:
    """The form that transformers 4.52 and later 4.x wrote."""
    outer = ("model_type", "architectures", "vision_config", "tie_word_embeddings", "torch_dtype")
    tokens = tuple(name for name in flat if name.startswith(("image_token", "video_token", "vision_")))
    text = {name: value for name, value in flat.items() if name not in outer + tokens}
    return {name: value for name, value in flat.items() if name not in text} | {
        "text_config": text | {"model_type": "qwen2_vl_text"}
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_transformers_parameters(name):
    config = PUBLISHED[name]
    theirs = {name: tuple(value.shape) for name, value in meta_model(config).named_parameters()}
    ours = {new: file_shape(*stacked, config) for new, stacked in file_names(config, "new").items()}
    assert ours == theirs
    assert sum(leaf.size for leaf in parameter_shapes(config).values()) == sum(map(math.prod, theirs.values()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_array_of_the_flax_model_has_a_name_and_a_shape(name):
    _, abstract = model_definition(PUBLISHED[name])
    built = flatten_dict(nnx.to_pure_dict(abstract), sep=".")
    shapes = {name: tuple(leaf.shape) for name, leaf in built.items() if leaf is not None}
    assert shapes == {name: leaf.shape for name, leaf in parameter_shapes(PUBLISHED[name]).items()}


def test_parameters_are_in_the_order_of_the_forward_pass():
    """Random weights are drawn, and files written, in this order."""
    names = list(parameter_shapes(PUBLISHED["qwen2.5-vl-7b"]))
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    block, layer = "visual.blocks", "language_model.layers"
    assert modules == [
        "visual.patch_embed.proj",
        *(f"{block}.{name}" for name in ("norm1", "norm2", "attn.qkv", "attn.proj")),
        *(f"{block}.mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
        *(f"visual.merger.{name}" for name in ("ln_q", "mlp.0", "mlp.2")),
        "language_model.embed_tokens",
        f"{layer}.input_layernorm",
        *(f"{layer}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
        f"{layer}.post_attention_layernorm",
        *(f"{layer}.mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
        "language_model.norm",
        "lm_head",
    ]


def test_parameter_counts_are_those_of_the_hub():
    # Shown on the model pages of the hub as the size of the safetensors.
    hub = {"qwen2-vl-2b": 2_208_985_600, "qwen2-vl-7b": 8_291_375_616, "qwen2.5-vl-3b": 3_754_622_976}
    for name, count in hub.items():
        assert sum(leaf.size for leaf in parameter_shapes(PUBLISHED[name]).values()) == count


def test_the_published_flat_file_is_read():
    assert parse_config(FLAT_2024) == PUBLISHED["qwen2-vl-2b"]


def test_flat_nested_and_transformers_5_files_are_the_same_model(tmp_path):
    for name, config in PUBLISHED.items():
        flat = config_json(config)
        assert parse_config(flat) == config, name
        if config.family != "qwen3_vl":  # which has no flat form
            assert parse_config(nested(flat)) == config, name
        hugging_face_config(config).save_pretrained(tmp_path / name)
        assert read_config(tmp_path / name) == config, name
        assert AutoConfig.from_pretrained(tmp_path / name).vision_config.depth == config.vision.depth


@pytest.mark.parametrize("family", HF_CLASSES)
def test_missing_fields_have_transformers_defaults(family):
    tower = "hidden_size" if family == "qwen2_vl" else "out_hidden_size"
    rope = {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}
    if family == "qwen3_vl":
        theirs, ours = Qwen3VLConfig(), {"text_config": {}}
    else:
        theirs, ours = HF_CLASSES[family][0](**rope), rope
    ours = parse_config({"model_type": family, "vision_config": {tower: theirs.text_config.hidden_size}, **ours})
    text, vision = theirs.text_config, theirs.vision_config
    for name in ("vocab_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps"):
        assert getattr(ours.text, name) == getattr(text, name)
    assert ours.text.rope_theta == text.rope_parameters["rope_theta"]
    for name in ("depth", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size"):
        assert getattr(ours.vision, name) == getattr(vision, name)
    if family == "qwen2_5_vl":
        for name in ("window_size", "tokens_per_second", "intermediate_size"):
            assert getattr(ours.vision, name) == getattr(vision, name)
        assert list(ours.vision.fullatt_block_indexes) == list(vision.fullatt_block_indexes)
    if family == "qwen3_vl":
        assert ours.text.head_dim == text.head_dim and ours.text.mrope_section == (24, 20, 20)
        assert ours.vision.num_position_embeddings == vision.num_position_embeddings
        assert list(ours.vision.deepstack_indexes) == list(vision.deepstack_visual_indexes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "qwen3_vl_moe"},
            "mixture of experts .Qwen3-VL-30B-A3B, .*2B, 4B, 8B and 32B",
        ),
        ({"model_type": "qwen3_5"}, "model_type 'qwen3_5' is not one of qwen2_vl, qwen2_5_vl, qwen3_vl"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"hidden_size": "1536"}, "hidden_size '1536'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers 1000000000000 must be at most 1000"),
        ({"vision_config": {**TOWER_2024, "depth": 10**12}}, "depth 1000000000000 must be at most 1000"),
        ({"num_attention_heads": 7}, "7 heads"),
        ({"torch_dtype": "float8"}, "dtype 'float8'"),
        ({"rope_scaling": {"type": "yarn", "mrope_section": [16, 24, 24]}}, "type 'yarn'"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 23]}}, "must sum to half the head width, 64"),
        ({"rope_scaling": None}, "mrope_section None"),
        ({"vision_config": {**TOWER_2024, "hidden_size": 1024}}, "width 1024"),
        ({"vision_config": [1]}, "vision_config: expected a JSON object"),
        ({"vision_config": ""}, "vision_config: expected a JSON object"),
        ({"vision_config": {**TOWER_2024, "mlp_ratio": 1e308}}, "mlp_ratio 1e\\+308 times embed_dim 1280 must be"),
        ({"vision_config": {**TOWER_2024, "mlp_ratio": 1e-9}}, "mlp_ratio 1e-09 times embed_dim 1280 must be"),
        ({"text_config": [1]}, "text_config: expected a JSON object"),
        ({"rope_scaling": []}, "rope: expected a JSON object"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings 'false' must be true or false"),
        ({"image_token_id": -1}, "image_token_id -1"),
    ],
)
def test_configs_that_cannot_be_computed_are_refused_by_name(change, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_config({**FLAT_2024, **change})
    assert "\n" not in str(caught.value)


def test_the_three_styles_of_names_are_told_apart():
    config = PUBLISHED["qwen2-vl-7b"]
    for style in ("old", "new", "stacked"):
        assert style_of(file_names(config, style)) == style


def test_eos_ids_come_from_the_generation_config_and_else_from_the_config(tmp_path):
    (tmp_path / "config.json").write_text('{"text_config": {"eos_token_id": 7}}')
    assert read_generation_config(tmp_path).pad_token_id == 7
    (tmp_path / "config.json").write_text('{"eos_token_id": 7, "text_config": {"pad_token_id": 3}}')
    assert read_generation_config(tmp_path).eos_token_ids == (7,)
    assert read_generation_config(tmp_path).pad_token_id == 3
    generation = tmp_path / "generation_config.json"
    generation.write_text('{"eos_token_id": [9, 8], "pad_token_id": 8, "repetition_penalty": 1.05}')
    read = read_generation_config(tmp_path)
    assert (read.eos_token_ids, read.pad_token_id, read.repetition_penalty) == ((9, 8), 8, 1.05)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"eos_token_id": "nine"}', "eos_token_id 'nine' must be"),
        ('{"eos_token_id": 9, "pad_token_id": "8"}', "pad_token_id '8' must be"),
        ('{"eos_token_id": 9, "repetition_penalty": 0}', "repetition_penalty 0 must be a positive number"),
        ('{"eos_token_id": 9, "repetition_penalty": true}', "repetition_penalty True must be"),
    ],
)
def test_wrong_generation_settings_are_refused(tmp_path, content, message):
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_generation_config(tmp_path)
