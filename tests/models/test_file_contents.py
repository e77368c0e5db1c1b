"""Files of model folders as a whole: numbers that are not finite and changed bytes are found, cheaply next time."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import jaxvsr
from jaxvsr.errors import InputError
from jaxvsr.models.huggingface import file_contents
from jaxvsr.models.huggingface.file_contents import SUMS_FILE, check_sums, weights_sha256
from jaxvsr.models.huggingface.model_folder import folder_contents, open_folder
from jaxvsr.models.huggingface.peft_adapter import load_adapter, save_adapter
from jaxvsr.models.huggingface.safetensors_io import is_finite, open_safetensors, write_safetensors
from jaxvsr.models.huggingface.stages import Stage
from jaxvsr.models.huggingface.write_model_folder import save_folder
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.runs.model_source import open_model


def flip(path: Path, at: int, bit: int = 0) -> None:
    """One bit of a file; its size and time stay."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def aged(folder: Path) -> None:
    """As if the files had been written an hour ago: their hashes are kept."""
    for path in folder.iterdir():
        before = path.stat()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 3_600_000_000_000))


@pytest.fixture
def model(tiny_model, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int32"])
@pytest.mark.parametrize("value", ["nan", "-inf", "inf"])
def test_any_number_that_is_not_finite_is_found(dtype: str, value: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    values = np.zeros((3, 1001), kind)
    values[0, :2] = np.array([1, -1]) * (7 if dtype == "int32" else float(jnp.finfo(kind).max))
    assert is_finite(values) and is_finite(values[:, 1:]) and is_finite(values[:0])
    if dtype != "int32":
        values[2, 1000] = kind.type(float(value))
        assert not is_finite(values) and not is_finite(values[:, 1:].T) and is_finite(values[:2])


def test_a_hash_is_that_of_the_whole_file_and_is_kept_by_size_and_time(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = model / "model.safetensors"
    summed = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert weights_sha256(open_safetensors(path)) == summed
    aged(model)
    assert weights_sha256(open_safetensors(path)) == summed
    with monkeypatch.context() as patch:
        patch.setattr(file_contents, "_read_whole", None)  # the second time it is not read
        assert weights_sha256(open_safetensors(path)) == summed
    flip(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match="its bytes have changed, though its time has not"):
        weights_sha256(open_safetensors(path), in_full=True)
    os.utime(path)  # what everyone who writes a file changes
    assert weights_sha256(open_safetensors(path)) != summed


def test_a_cache_that_cannot_be_read_or_written_is_no_matter(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    aged(model)
    path = model / "model.safetensors"
    expected = weights_sha256(open_safetensors(path))
    for text in ("{", "[]", json.dumps({str(path.resolve()): 3})):
        file_contents._cache_file().write_text(text)
        assert weights_sha256(open_safetensors(path)) == expected
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file, below which nothing can be
    assert weights_sha256(open_safetensors(path)) == expected


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "chat_template.jinja", "tokenizer.json", "preprocessor_config.json"]
)
def test_a_flipped_bit_of_what_was_written_is_not_read(model: Path, name: str) -> None:
    assert open_model(str(model)).folder.contents[name]
    rng = np.random.default_rng(len(name))
    data = (model / name).read_bytes()
    for at in rng.integers(0, len(data), 6):
        flip(model / name, int(at), int(rng.integers(8)))
        os.utime(model / name)
        with pytest.raises(InputError, match=rf"{name.replace('.', '[.]')}|config[.]json|not valid"):
            open_model(str(model))
        (model / name).write_bytes(data)
    open_model(str(model))


def test_a_change_that_is_meant_has_a_way_out(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(InputError, match=rf"chat_template.jinja: is not the file .* delete \S+/{SUMS_FILE}$"):
        open_model(str(model))
    (model / SUMS_FILE).unlink()
    open_model(str(model))


def test_sums_are_those_of_sha256sum_and_a_missing_file_is_named(model: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "--quiet", SUMS_FILE], cwd=model, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (model / "README.md").write_text("edited")  # what people write
    (model / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer.json: missing, though SHA256SUMS names it"):
        check_sums(model)
    others = [f"{'0' * 64}  {name}" for name in ("assets/picture.png", "training_args.bin", "README.md")]
    (model / SUMS_FILE).write_text("\n".join(others) + "\n")
    check_sums(model)  # files of a repository that nobody reads
    (model / SUMS_FILE).write_text("../../etc/passwd\n")
    with pytest.raises(InputError, match="SHA256SUMS line 1: expected"):
        check_sums(model)


def test_weights_that_are_not_finite_are_neither_read_nor_written(model: Path, tmp_path: Path) -> None:
    (model / SUMS_FILE).unlink()
    tensors = safetensors.numpy.load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("visual.blocks.0.mlp.fc2.weight"))
    tensors[name][-1, -1] = np.nan
    safetensors.numpy.save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    for opening in (open_model, jaxvsr.load):
        with pytest.raises(InputError, match=f"model.safetensors: '{name}' holds numbers that are not finite"):
            opening(str(model))
    base = open_folder(model)

    def broken(inner: str, layer: int | None) -> np.ndarray:
        return base.read(inner, () if layer is None else (layer,))

    with pytest.raises(InputError, match=f"model.safetensors: '{name}' holds numbers that are not finite"):
        save_folder(tmp_path / "out", base, broken)
    with pytest.raises(InputError, match="'w' holds numbers that are not finite"):
        write_safetensors(tmp_path / "w.safetensors", {"w": (np.dtype("f4"), (1,))}, lambda _: np.full(1, np.inf, "f4"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def adapter_of(config: Any, value: float) -> Stage:
    module = "language_model.layers.self_attn.q_proj"
    layers, fan_out, fan_in = parameter_shapes(config)[f"{module}.weight"].shape
    leaves = {f"{module}.lora_A": np.full((layers, 2, fan_in), 0.5, np.float32)}
    leaves[f"{module}.lora_B"] = np.full((layers, fan_out, 2), value, np.float32)
    return Stage(leaves, LoraConfig(2, 4.0))


def test_adapters_that_are_not_finite_or_have_changed_are_neither_read_nor_written(model: Path, tmp_path: Path) -> None:
    config = open_folder(model).config
    with pytest.raises(InputError, match=r"layers.0.self_attn.q_proj.lora_B.weight' holds numbers that are not finite"):
        save_adapter(tmp_path / "nan", adapter_of(config, np.nan), config, str(model))
    save_adapter(tmp_path / "good", adapter_of(config, 0.25), config, str(model))
    load_adapter(tmp_path / "good", config)
    weights = tmp_path / "good" / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(weights)
    next(iter(tensors.values()))[0, 0] = np.inf
    safetensors.numpy.save_file(tensors, weights)
    with pytest.raises(InputError, match=r"adapter_model.safetensors: .* holds numbers that are not finite"):
        load_adapter(tmp_path / "good", config)
    (tmp_path / "good" / SUMS_FILE).unlink()
    with pytest.raises(InputError, match=r"q_proj.lora_.' holds numbers that are not finite; take another adapter"):
        load_adapter(tmp_path / "good", config)
    save_adapter(tmp_path / "flipped", adapter_of(config, 0.25), config, str(model))
    flip(tmp_path / "flipped" / "adapter_model.safetensors", -5)
    with pytest.raises(InputError, match=r"adapter_model.safetensors: is not the file that was written"):
        load_adapter(tmp_path / "flipped", config)


def test_all_of_a_large_tensor_is_seen(model: Path) -> None:
    """What 4 KiB at each end of a tensor did not tell."""
    (model / SUMS_FILE).unlink()
    before = folder_contents(open_folder(model))
    tensors = safetensors.numpy.load_file(model / "model.safetensors")
    largest = max(tensors, key=lambda name: tensors[name].nbytes)
    assert tensors[largest].nbytes > 3 * 4096
    tensors[largest].reshape(-1)[2048:-2048] = 0
    safetensors.numpy.save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    after = folder_contents(open_folder(model))
    assert [name for name in before if before[name] != after[name]] == ["model.safetensors"]


def test_how_a_model_was_asked_is_not_part_of_its_contents(model: Path) -> None:
    before = folder_contents(open_folder(model))
    (model / "trained_as.json").write_text("{}")
    assert folder_contents(open_folder(model)) == before
