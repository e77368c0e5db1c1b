"""Stages merged into a base: one merge for what a run starts from and for what is exported."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxvsr.devices.mesh import make_mesh, replicated
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface.model_folder import load_parameters, open_folder
from jaxvsr.models.huggingface.stages import Stage, merge, merged_weights
from jaxvsr.models.huggingface.write_model_folder import save_folder
from jaxvsr.models.lora import LANGUAGE_ATTENTION, LANGUAGE_LINEAR, LoraConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tiny.tiny_model import write_tiny_model
from jaxvsr.runs.model_source import open_model
from tests.support.models import DEEP, random_adapter

VISION_TOO = LANGUAGE_LINEAR + r"|.*visual\.(blocks\.\d+\.attn\.qkv|merger\.mlp\.[02])"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny") / "model"
    write_tiny_model(out, 1, shape=DEEP, dtype="bfloat16")
    return out


def random_full_weights(config, seed):
    rng = np.random.default_rng(seed)
    leaves = {name: leaf for name, leaf in parameter_shapes(config).items() if name.startswith("language_model.")}
    return Stage({name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in leaves.items()}, None)


def test_a_run_starts_from_the_bytes_that_an_export_writes(folder, tmp_path):
    model = open_model(str(folder))
    stages = (
        random_adapter(model.config, LoraConfig(4, 2.0, LANGUAGE_LINEAR), seed=1),
        random_full_weights(model.config, seed=2),
        random_adapter(model.config, LoraConfig(3, 7.0, VISION_TOO), seed=3),
        random_adapter(model.config, LoraConfig(2, 1.0, LANGUAGE_ATTENTION), seed=4),
    )
    model = dataclasses.replace(model, stages=stages)
    save_folder(tmp_path / "exported", model.folder, model.weight, changed=model.changed)
    exported = load_parameters(tmp_path / "exported")
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    started = model.parameters(dict.fromkeys(exported, replicated(mesh)))
    for name, weight in exported.items():
        assert np.asarray(started[name]).tobytes() == weight.tobytes(), name
        assert (model.read(name) != model.folder.read(name)).any() == (name in model.changed), name


def test_stages_are_merged_in_order_and_rounded_one_by_one(folder):
    base, name = open_folder(folder), "language_model.layers.self_attn.q_proj.weight"
    stages = [random_adapter(base.config, LoraConfig(4, 2.0, LANGUAGE_LINEAR), seed) for seed in (1, 2)]
    expected = base.read(name)
    for stage in stages:
        down, up = stage.matrices(name.removesuffix(".weight"))
        sum_ = expected.astype(np.float32) + np.float32(0.5) * np.einsum("lor,lri->loi", up, down)
        expected = sum_.astype(expected.dtype)
    weight = merged_weights(base, stages)
    merged = np.stack([weight(name, layer) for layer in range(2)]).astype(np.float32)
    np.testing.assert_allclose(merged, expected.astype(np.float32), rtol=2**-7, atol=1e-6)


def test_full_weights_of_a_stage_replace_the_bases(folder):
    base = open_folder(folder)
    norm = np.full(32, 3.0, np.float32)
    weight = merged_weights(base, [Stage({"language_model.norm.weight": norm}, None)])
    np.testing.assert_array_equal(weight("language_model.norm.weight", None), norm)
    np.testing.assert_array_equal(weight("visual.blocks.norm1.weight", 1), np.ones(32, np.float32))


def test_an_adapter_of_another_rank_than_its_config_says_is_not_merged(folder):
    """Scaling is alpha / rank: it would be merged with another weight than it was trained with."""
    base = open_folder(folder)
    adapter = random_adapter(base.config, LoraConfig(4, 2.0, LANGUAGE_ATTENTION), seed=0)
    with pytest.raises(InputError, match=r"is \[2, 4, 32\], but must be \[2, 8, 32\] for rank 8"):
        merged_weights(base, [Stage(adapter.weights, LoraConfig(8, 2.0, LANGUAGE_ATTENTION))])


def test_merging_rounds_once_to_the_weights_dtype():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 6, 5)).astype("bfloat16")
    down, up = rng.normal(size=(2, 3, 5)).astype(np.float32), rng.normal(size=(2, 6, 3)).astype(np.float32)
    exact = weight.astype(np.float64) + 0.5 * np.einsum("lor,lri->loi", up, down, dtype=np.float64)
    merged = merge(weight, down, up, 0.5)
    assert merged.dtype == weight.dtype
    np.testing.assert_allclose(merged.astype(np.float64), exact, rtol=2**-8, atol=1e-6)
