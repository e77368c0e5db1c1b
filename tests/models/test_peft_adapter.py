"""Adapters in PEFT's format against PEFT itself, both ways."""

import json
import re
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import torch
from peft import AutoPeftModel, PeftModel, get_peft_model
from peft import LoraConfig as PeftConfig
from transformers import AutoModelForImageTextToText, AutoTokenizer

from jaxvsr.config.algorithm import OptimizerConfig
from jaxvsr.errors import InputError
from jaxvsr.grpo.optimizer import make_optimizer
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.huggingface.file_contents import SUMS_FILE
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.huggingface.parameter_names import file_name
from jaxvsr.models.huggingface.peft_adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    join,
    load_adapter,
    save_adapter,
)
from jaxvsr.models.huggingface.stages import merged_weights
from jaxvsr.models.huggingface.write_model_folder import save_folder
from jaxvsr.models.lora import LANGUAGE_ATTENTION, LANGUAGE_LINEAR, LoraConfig
from jaxvsr.models.model_config import stack_of
from jaxvsr.models.qwen_vl import QwenVL, flat_parameters
from jaxvsr.runs.model_source import open_model
from tests.support.models import DEEP, random_adapter

# PEFT 0.21 still asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def folders(tiny_model):
    return {family: tiny_model(family, DEEP) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def folder(folders, request):
    return folders[request.param]


def torch_model(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def logits(model):
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        return model(input_ids=tokens).logits.numpy()


PATTERNS = [
    LANGUAGE_LINEAR,
    LANGUAGE_ATTENTION,
    (r".*visual\.blocks\.\d+\.attn\.(qkv|proj)"),
    ("q_proj", "v_proj"),
    ("qkv", "down_proj"),
]


@pytest.mark.parametrize("targets", PATTERNS)
def test_patterns_select_the_modules_that_peft_selects(folder, targets):
    config = open_folder(folder).config
    lora = LoraConfig(4, 8.0, targets)
    ours = random_adapter(config, lora).modules
    theirs = PeftConfig(r=4, target_modules=targets if isinstance(targets, str) else list(targets))
    adapted = get_peft_model(torch_model(folder), theirs)
    names = {name.split(".lora_A")[0] for name, _ in adapted.named_parameters() if ".lora_A." in name}
    stacked = {
        re.sub(r"\.(layers|blocks)\.\d+\.", r".\1.", name.removeprefix("base_model.model.model.")) for name in names
    }
    assert set(ours) == stacked


@pytest.mark.parametrize("targets", PATTERNS)
def test_peft_loads_what_we_write_with_the_same_logits_as_the_merged_export(folder, tmp_path, targets):
    base = open_folder(folder)
    adapter = random_adapter(base.config, LoraConfig(4, 2.0, targets))
    save_adapter(tmp_path / "adapter", adapter, base.config, str(folder))
    save_folder(tmp_path / "merged", base, merged_weights(base, [adapter]))
    with warnings.catch_warnings(record=True) as caught:
        adapted = PeftModel.from_pretrained(torch_model(folder), tmp_path / "adapter")
    assert not [warning for warning in caught if "key" in str(warning.message)]
    loaded = {
        name.replace(".default", ""): value.detach().numpy()
        for name, value in adapted.named_parameters()
        if ".lora_" in name
    }
    written = safetensors.numpy.load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS)
    assert loaded.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, loaded[name])
    theirs = logits(adapted.eval())
    np.testing.assert_allclose(logits(torch_model(tmp_path / "merged")), theirs, atol=1e-4 * np.abs(theirs).max())
    assert np.abs(theirs - logits(torch_model(folder))).max() > 0.05 or "visual" in str(targets) or "qkv" in targets


def test_auto_classes_load_an_adapter_with_its_base_and_processor(folder, tmp_path):
    config = open_folder(folder).config
    adapter = random_adapter(config, LoraConfig(4, 2.0, ("q_proj",)))
    save_adapter(tmp_path / "ours", adapter, config, str(folder), processor=folder)
    get_peft_model(torch_model(folder), PeftConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / name / ADAPTER_CONFIG).read_text()) for name in ("ours", "theirs"))
    assert theirs["auto_mapping"] is not None
    assert {name: ours[name] for name in ("auto_mapping", "task_type")} == {
        name: theirs[name] for name in ("auto_mapping", "task_type")
    }
    loaded = logits(AutoPeftModel.from_pretrained(tmp_path / "ours").eval())
    by_hand = logits(PeftModel.from_pretrained(torch_model(folder), tmp_path / "ours").eval())
    np.testing.assert_array_equal(loaded, by_hand)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    text = "Is the chair left of the table?"
    assert tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert not (tmp_path / "ours" / "config.json").exists()
    assert load_adapter(tmp_path / "ours", config).modules == adapter.modules


def test_we_read_what_peft_writes(folder, tmp_path):
    base = open_folder(folder)
    modules = ["q_proj", "down_proj"] if base.config.family == "qwen2_vl" else ["q_proj", "qkv"]
    adapted = get_peft_model(torch_model(folder), PeftConfig(r=3, lora_alpha=5, target_modules=modules))
    torch.manual_seed(0)
    for name, value in adapted.named_parameters():
        if ".lora_" in name:
            value.data.normal_()
    adapted.save_pretrained(tmp_path / "theirs")
    adapter = load_adapter(tmp_path / "theirs", base.config)
    assert (adapter.lora.rank, adapter.lora.alpha) == (3, 5.0)
    assert all(adapter.lora.adapts(module) for module in adapter.modules)
    save_folder(tmp_path / "merged", base, merged_weights(base, [adapter]))
    ours = torch_model(tmp_path / "merged").state_dict()
    for name, value in adapted.merge_and_unload().state_dict().items():
        np.testing.assert_allclose(ours[name].numpy(), value.numpy(), atol=1e-6)


def test_a_written_adapter_is_read_back_equal(folder, tmp_path):
    config = open_folder(folder).config
    for targets in (LANGUAGE_LINEAR, r".*visual\.(blocks\.\d+\.attn\.qkv|merger\.mlp\.[02])"):
        adapter = random_adapter(config, LoraConfig(4, 6.5, targets))
        out = tmp_path / str(len(targets))
        save_adapter(out, adapter, config, "some/base")
        again = load_adapter(out, config)
        assert (again.lora.rank, again.lora.alpha) == (4, 6.5) and again.modules == adapter.modules
        assert json.loads((out / ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == "some/base"
        for name, leaf in adapter.weights.items():
            np.testing.assert_array_equal(again.weights[name], leaf)


def test_adapters_with_names_of_older_transformers_are_read(folders, tmp_path):
    config = open_folder(folders["qwen2_vl"]).config
    adapter = random_adapter(config, LoraConfig(4, 8.0, LANGUAGE_ATTENTION + r"|.*visual\.blocks\.\d+\.attn\.qkv"))
    save_adapter(tmp_path / "a", adapter, config, "x")
    path = tmp_path / "a" / ADAPTER_WEIGHTS
    old = {
        name.replace("model.model.language_model.", "model.model.").replace("model.model.visual", "model.visual"): array
        for name, array in safetensors.numpy.load_file(path).items()
    }
    safetensors.numpy.save_file(old, path)
    (tmp_path / "a" / SUMS_FILE).unlink()
    again = load_adapter(tmp_path / "a", config)
    for name, leaf in adapter.weights.items():
        np.testing.assert_array_equal(again.weights[name], leaf)


def test_an_adapter_with_rank_stabilised_scaling_gives_pefts_logits(folders, tmp_path):
    folder = folders["qwen2_vl"]
    adapted = get_peft_model(
        torch_model(folder), PeftConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj"])
    )
    for name, value in adapted.named_parameters():
        if ".lora_B" in name:
            value.data.normal_()
    adapted.save_pretrained(tmp_path / "rslora")
    base = open_folder(folder)
    adapter = load_adapter(tmp_path / "rslora", base.config)
    save_folder(tmp_path / "merged", base, merged_weights(base, [adapter]))
    np.testing.assert_allclose(logits(torch_model(tmp_path / "merged")), logits(adapted.eval()), atol=1e-4)


def test_a_joined_adapter_equals_the_sum_of_its_adapters(folders, tmp_path):
    folder = folders["qwen2_vl"]
    base = open_folder(folder)
    stages = [
        random_adapter(base.config, LoraConfig(4, 2.0, LANGUAGE_ATTENTION), seed=1),
        random_adapter(base.config, LoraConfig(3, 7.0, LANGUAGE_LINEAR), seed=2),
    ]
    joined = join(stages)
    assert joined.lora.rank == 7 and joined.lora.scaling == 1
    one, many = merged_weights(base, [joined]), merged_weights(base, stages)
    for module in joined.modules:
        np.testing.assert_allclose(one(f"{module}.weight", 1), many(f"{module}.weight", 1), atol=1e-5)
    save_adapter(tmp_path / "joined", joined, base.config, str(folder))
    load_adapter(tmp_path / "joined", base.config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"bias": "all"}, "bias 'all' is not supported; it must be 'none': merge it with PEFT"),
        ({"use_dora": True}, "use_dora True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 3}}, "rank_pattern"),
        ({"layers_to_transform": [1]}, "layers_to_transform 1: goes with names"),
        ({"layers_to_transform": "1"}, "layers_to_transform '1' must be a list of layers"),
        ({"exclude_modules": ["q_proj"]}, "does not choose 'model.language_model.layers.0.self_attn.q_proj', which"),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": [1]},
            "does not choose 'model.*layers.0.self_attn.q_proj'",
        ),
        ({"target_modules": ["v_proj"]}, "correct target_modules"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"some_new_variant": "on"}, "some_new_variant 'on'"),
        ({"r": 5}, r"is \[2, 4, 32\], but must be \[2, 5, 32\] for rank 5"),
        ({"r": "4"}, "r '4'"),
        ({"lora_alpha": None}, "adapter_config.json: lora_alpha None must be a number"),
        ({"lora_alpha": float("nan")}, "adapter_config.json: lora_alpha nan must be a number"),
        ({"lora_alpha": True}, "lora_alpha True must be a number"),
    ],
)
def test_adapters_that_compute_something_else_are_refused(folders, tmp_path, change, message):
    config = open_folder(folders["qwen2_vl"]).config
    save_adapter(tmp_path / "a", random_adapter(config, LoraConfig(4, 8.0, ("q_proj",))), config, "x")
    path = tmp_path / "a" / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (tmp_path / "a" / SUMS_FILE).unlink()
    with pytest.raises(InputError, match=message) as caught:
        load_adapter(tmp_path / "a", config)
    assert "\n" not in str(caught.value)


SOME_LAYERS = [
    {"target_modules": r".*language_model\.layers\.1\.self_attn\.(q|v)_proj"},
    {"target_modules": ["layers.0.mlp.down_proj", "blocks.1.attn.qkv"]},
    {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    {"target_modules": ["q_proj", "proj"], "layers_to_transform": [0], "exclude_modules": ["attn.proj"]},
    {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*layers\.0\..*"},
    {"target_modules": LANGUAGE_LINEAR, "exclude_modules": ["layers.1.mlp.up_proj", "k_proj"]},
    {"target_modules": ["model.language_model.layers.1.self_attn.q_proj", "k_proj"], "layers_to_transform": [0]},
]


def ours(settings):
    return LoraConfig(3, 5.0, **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def peft_model(folder, settings, **more):
    return get_peft_model(torch_model(folder), PeftConfig(r=3, lora_alpha=5, **settings, **more))


def modules_of(names):
    return {
        re.sub(r"\.lora_[AB]\..*", "", name).removeprefix("base_model.model.") for name in names if ".lora_" in name
    }


@pytest.mark.slow
@pytest.mark.parametrize("settings", SOME_LAYERS, ids=str)
def test_some_layers_are_exactly_those_that_peft_adapts_in_and_out(folder, tmp_path, settings):
    base = open_folder(folder)
    theirs = peft_model(folder, settings)
    chosen = modules_of(name for name, _ in theirs.named_parameters())
    # training: these layers and no others
    definition = flat_parameters(QwenVL(base.config, lora=ours(settings)))
    trained = set()
    for name, leaf in definition.items():
        if name.endswith("lora_A"):
            module = name.removesuffix(".lora_A")
            layers = range(len(leaf)) if stack_of(name) else [None]
            for layer in layers:
                if np.asarray(leaf if layer is None else leaf[layer]).any():
                    trained.add(file_name(f"{module}.weight", layer, "new").removesuffix(".weight"))
    assert trained == chosen
    # in
    torch.manual_seed(0)
    for name, value in theirs.named_parameters():
        if ".lora_" in name:
            value.data.normal_()
    theirs.save_pretrained(tmp_path / "theirs")
    adapter = load_adapter(tmp_path / "theirs", base.config)
    save_folder(tmp_path / "merged", base, merged_weights(base, [adapter]))
    # out
    save_adapter(tmp_path / "ours", adapter, base.config, str(folder))
    again = PeftModel.from_pretrained(torch_model(folder), tmp_path / "ours")
    assert modules_of(name for name, _ in again.named_parameters()) == chosen
    assert modules_of(safetensors.numpy.load_file(tmp_path / "ours" / ADAPTER_WEIGHTS)) == chosen
    wanted = theirs.merge_and_unload().state_dict()
    for found in (torch_model(tmp_path / "merged"), again.merge_and_unload()):
        for name, value in found.state_dict().items():
            np.testing.assert_allclose(value.numpy(), wanted[name].numpy(), atol=1e-6)


@pytest.mark.slow
def test_layers_without_an_adapter_stay_as_they_are_in_training(folders):
    config = open_folder(folders["qwen2_vl"]).config
    lora = LoraConfig(2, 4.0, ("q_proj",), layers_to_transform=(1,))
    parameters = flat_parameters(QwenVL(config, lora=lora))
    name = "language_model.layers.self_attn.q_proj"
    x = jnp.ones((3, parameters[f"{name}.weight"].shape[-1]))

    def loss(a, b):
        total = 0.0
        for layer in range(2):
            total += jnp.sum(jnp.sin(x @ a[layer].T @ b[layer].T + x @ parameters[f"{name}.weight"][layer].T))
        return total

    a, b = parameters[f"{name}.lora_A"], parameters[f"{name}.lora_B"]
    gradients = jax.grad(loss, (0, 1))(a, b)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, weight_decay=0.1), 5)
    updates, _ = optimizer.update(gradients, optimizer.init((a, b)), (a, b))
    after = optax.apply_updates((a, b), updates)
    assert not np.asarray(after[0][0]).any() and not np.asarray(after[1][0]).any()
    assert np.asarray(after[1][1]).any()


def test_settings_of_training_alone_are_read_and_said(folder, tmp_path, caplog):
    base = open_folder(folder)
    peft_model(folder, {"target_modules": ["q_proj"]}, lora_dropout=0.05).save_pretrained(tmp_path / "a")
    load_adapter(tmp_path / "a", base.config)
    assert "adapter_config.json: lora_dropout 0.05 is of training alone and changes no answer" in caplog.text


def test_a_raw_state_dict_has_the_adapters_name_in_its_keys(folder, tmp_path):
    base = open_folder(folder)
    peft_model(folder, {"target_modules": ["q_proj"]}).save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / ADAPTER_WEIGHTS
    plain = safetensors.numpy.load_file(path)
    expected = load_adapter(tmp_path / "a", base.config)
    named = {name.replace(".weight", ".default.weight"): array for name, array in plain.items()}
    safetensors.numpy.save_file(named, path)
    for name, leaf in load_adapter(tmp_path / "a", base.config).weights.items():
        np.testing.assert_array_equal(leaf, expected.weights[name])
    safetensors.numpy.save_file({**named, **plain}, path)
    with pytest.raises(InputError, match="are the same matrix"):
        load_adapter(tmp_path / "a", base.config)
    first = next(iter(named))
    two = {**named, first.replace(".default.", ".other."): named.pop(first)}
    safetensors.numpy.save_file({name: array for name, array in two.items() if name != first}, path)
    with pytest.raises(InputError, match=r"holds several adapters \(default, other\)"):
        load_adapter(tmp_path / "a", base.config)


def test_a_base_model_that_is_elsewhere_is_given(folder, tmp_path):
    base = open_folder(folder)
    adapter = random_adapter(base.config, LoraConfig(4, 8.0, ("q_proj",)))
    save_adapter(tmp_path / "a", adapter, base.config, "/home/someone/models/qwen")
    with pytest.raises(
        InputError, match=r"its base model cannot be opened: .*; give the folder .* with --base FOLDER$"
    ):
        open_model(str(tmp_path / "a"))
    opened = open_model(str(tmp_path / "a"), base=str(folder))
    assert opened.folder.path == folder and opened.base == str(folder)
    np.testing.assert_array_equal(
        opened.stages[0].weights["language_model.layers.self_attn.q_proj.lora_A"],
        adapter.weights["language_model.layers.self_attn.q_proj.lora_A"],
    )
    with pytest.raises(InputError, match=r"^--base x: only an adapter or a run has a base model"):
        open_model(str(folder), base="x")


def test_broken_adapter_files_are_refused_by_name(folders, tmp_path):
    config = open_folder(folders["qwen2_vl"]).config
    save_adapter(tmp_path / "a", random_adapter(config, LoraConfig(4, 8.0, ("q_proj",))), config, "x")
    tensors = safetensors.numpy.load_file(tmp_path / "a" / ADAPTER_WEIGHTS)
    (tmp_path / "a" / SUMS_FILE).unlink()

    def refused(changed, message):
        shutil.copytree(tmp_path / "a", tmp_path / "b", dirs_exist_ok=True)
        safetensors.numpy.save_file(changed, tmp_path / "b" / ADAPTER_WEIGHTS)
        with pytest.raises(InputError, match=message):
            load_adapter(tmp_path / "b", config)

    first = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
    refused(
        {name: array for name, array in tensors.items() if name != first},
        "layers.0.self_attn.q_proj.lora_A.* is missing",  # its B is there
    )
    refused(tensors | {"base_model.model.lm_head.lora_A.weight": np.zeros((4, 32), np.float32)}, "is for no linear")
    refused(tensors | {first: np.zeros((3, 32), np.float32)}, "another shape")
    refused({}, "empty")
    (tmp_path / "b" / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(InputError, match="pickled adapters are never loaded"):
        load_adapter(tmp_path / "b", config)
