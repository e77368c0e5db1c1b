"""Model folders against transformers: what it writes we read, what we write it loads with nothing missing."""

import dataclasses
import errno
import json
import os
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from transformers import AutoModelForImageTextToText, AutoProcessor

from jaxvsr.errors import InputError
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.huggingface import write_model_folder
from jaxvsr.models.huggingface.file_contents import SUMS_FILE
from jaxvsr.models.huggingface.model_folder import folder_contents, load_parameters, open_folder
from jaxvsr.models.huggingface.parameter_names import HEAD, file_name, file_names
from jaxvsr.models.huggingface.write_model_folder import LAYOUT_FILE, save_folder, save_stacked_folder
from jaxvsr.models.qwen_vl import parameter_shapes
from tests.support.forks import said_by
from tests.support.models import DEEP

THREE_LAYERS = dataclasses.replace(DEEP, text_layers=3)


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return {family: tiny_model(family, THREE_LAYERS) for family in FAMILIES}


@pytest.fixture(scope="module")
def sharded(tiny, tmp_path_factory):
    """The same models as transformers writes them: its config form, its shards and index."""
    out = {}
    for family in FAMILIES:
        out[family] = tmp_path_factory.mktemp("sharded") / family
        shutil.copytree(tiny[family], out[family])
        model = AutoModelForImageTextToText.from_pretrained(tiny[family])
        for name in ("model.safetensors", SUMS_FILE):
            (out[family] / name).unlink()
        model.save_pretrained(out[family], max_shard_size="200KB")
    return out


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def all_tensors(folder):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= safetensors.numpy.load_file(path)
    return tensors


def write_tensors(folder, tensors):
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def changed_copy(source, target, change):
    """A copy of a one-file folder with its tensors changed in place."""
    shutil.copytree(source, target)
    (target / SUMS_FILE).unlink(missing_ok=True)
    tensors = all_tensors(source)
    change(tensors)
    write_tensors(target, tensors)
    return target


def test_weights_in_transformers_shards_are_read_back_equal(tiny, sharded, family):
    opened = open_folder(sharded[family])
    assert len(opened.files) > 1
    assert opened.config == open_folder(tiny[family]).config
    ours, theirs = load_parameters(tiny[family]), load_parameters(opened)
    shapes = {name: leaf.shape for name, leaf in parameter_shapes(opened.config).items()}
    assert {name: array.shape for name, array in theirs.items()} == shapes
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_layers_are_stacked_in_order(tiny, family):
    parameters, tensors = load_parameters(tiny[family]), all_tensors(tiny[family])
    for layer in range(3):
        np.testing.assert_array_equal(
            parameters["language_model.layers.mlp.up_proj.weight"][layer],
            tensors[file_name("language_model.layers.mlp.up_proj.weight", layer, FAMILIES[family].style)],
        )
    name = "visual.blocks.attn.qkv.bias"
    np.testing.assert_array_equal(parameters[name][1], tensors[file_name(name, 1, FAMILIES[family].style)])


def test_new_names_and_old_names_give_the_same_weights(tiny, tmp_path, family):
    config, published = open_folder(tiny[family]).config, FAMILIES[family].style
    other = "old" if published == "new" else "new"
    names = {pair: name for name, pair in file_names(config, published).items()}
    tensors = all_tensors(tiny[family])
    shutil.copytree(tiny[family], tmp_path / "new")
    write_tensors(tmp_path / "new", {name: tensors[names[pair]] for name, pair in file_names(config, other).items()})
    new = open_folder(tmp_path / "new")
    assert new.style == other
    for name, array in load_parameters(tiny[family]).items():
        np.testing.assert_array_equal(new.read(name), array)


@pytest.mark.parametrize(
    "index", [(), (slice(1, 3),), (2,), (slice(None), slice(3, 9)), (slice(0, 1), slice(4), slice(2, 5)), (1, 7)]
)
def test_a_slice_equals_that_part_of_the_whole_parameter(sharded, family, index):
    folder = open_folder(sharded[family])
    for name in ("language_model.layers.self_attn.q_proj.weight", "language_model.embed_tokens.weight"):
        whole = load_parameters(folder)[name]
        part = index[: whole.ndim]
        np.testing.assert_array_equal(folder.read(name, part), whole[part])
    assert folder.read("language_model.norm.weight", (slice(2, 4),), np.dtype("float16")).dtype == np.float16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_folder_converted_from_hugging_face_and_back_is_bit_for_bit_the_same(sharded, tmp_path, family, dtype):
    source = tmp_path / "source"
    shutil.copytree(sharded[family], source)
    for path in source.glob("*.safetensors"):
        tensors = {name: array.astype(dtype) for name, array in safetensors.numpy.load_file(path).items()}
        safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    (source / "LICENSE").write_text("Apache")
    (source / "modeling_evil.py").write_text("raise SystemExit")
    save_stacked_folder(tmp_path / "stacked", open_folder(source))
    save_folder(tmp_path / "back", open_folder(tmp_path / "stacked"))

    stacked, parameters = load_parameters(tmp_path / "stacked"), load_parameters(source)
    for name, array in parameters.items():
        assert stacked[name].dtype == array.dtype == np.dtype(dtype)
        assert stacked[name].tobytes() == array.tobytes()
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == sorted(
        [SUMS_FILE, *(path.name for path in source.iterdir() if path.suffix != ".py")]
    )
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            before, after = (
                safetensors.numpy.load_file(path),
                safetensors.numpy.load_file(tmp_path / "back" / path.name),
            )
            assert {name: array.tobytes() for name, array in before.items()} == {
                name: array.tobytes() for name, array in after.items()
            }
        elif path.name == "model.safetensors.index.json":
            ours, theirs = (json.loads((folder / path.name).read_text()) for folder in (tmp_path / "back", source))
            assert ours["weight_map"] == theirs["weight_map"]
            assert ours["metadata"]["total_size"] == sum(array.nbytes for array in all_tensors(source).values())
        elif path.suffix != ".py":
            assert path.read_bytes() == (tmp_path / "back" / path.name).read_bytes()


def test_layers_of_several_dtypes_keep_their_dtypes(tiny, tmp_path):
    kept = "model.layers.1.mlp.up_proj.weight"

    def narrow(tensors):
        for name in set(tensors) - {kept}:
            tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)

    base = open_folder(changed_copy(tiny["qwen2_vl"], tmp_path / "mixed", narrow))
    save_folder(tmp_path / "copied", base)
    save_folder(tmp_path / "read", base, lambda ours, layer: base.read(ours, () if layer is None else (layer,)))
    for out in ("copied", "read"):
        written, source = all_tensors(tmp_path / out), all_tensors(tmp_path / "mixed")
        assert written[kept].dtype == np.float32 and written.keys() == source.keys()
        for name, array in source.items():
            assert (written[name].dtype, written[name].tobytes()) == (array.dtype, array.tobytes())


def test_transformers_loads_an_export_with_no_missing_or_unexpected_key(sharded, tmp_path, family):
    base = open_folder(sharded[family])
    changed = {name: array + np.float32(0.25) for name, array in load_parameters(base).items()}
    save_folder(tmp_path / "out", base, lambda name, layer: changed[name] if layer is None else changed[name][layer])
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    theirs = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for new, (name, layer) in file_names(base.config, "new").items():
        np.testing.assert_array_equal(theirs[new], changed[name] if layer is None else changed[name][layer])
    AutoProcessor.from_pretrained(tmp_path / "out")


def test_float32_weights_are_rounded_to_the_bases_dtype(tiny, tmp_path):
    source = tmp_path / "bfloat16"
    shutil.copytree(tiny["qwen2_vl"], source)
    write_tensors(source, {name: array.astype(ml_dtypes.bfloat16) for name, array in all_tensors(source).items()})
    base = open_folder(source)
    wide = np.linspace(-3, 3, 32 * 40, dtype=np.float32).reshape(40, 32)
    name = "language_model.layers.mlp.up_proj.weight"
    save_folder(
        tmp_path / "out",
        base,
        lambda ours, layer: wide if ours == name else base.read(ours, () if layer is None else (layer,)),
    )
    written = all_tensors(tmp_path / "out")["model.layers.1.mlp.up_proj.weight"]
    assert written.dtype == ml_dtypes.bfloat16 and written.tobytes() == wide.astype(ml_dtypes.bfloat16).tobytes()


def test_a_copy_of_the_embedding_as_head_of_a_tied_model_is_kept(tiny, tmp_path):
    def add_head(tensors):
        tensors[HEAD] = tensors["model.embed_tokens.weight"].copy()

    source = changed_copy(tiny["qwen2_vl"], tmp_path / "head", add_head)
    assert HEAD not in load_parameters(source)
    save_stacked_folder(tmp_path / "stacked", open_folder(source))
    save_folder(tmp_path / "back", open_folder(tmp_path / "stacked"))
    assert {k: v.tobytes() for k, v in all_tensors(tmp_path / "back").items()} == {
        k: v.tobytes() for k, v in all_tensors(source).items()
    }

    def other_head(tensors):
        tensors[HEAD] = tensors["model.embed_tokens.weight"] + 1

    with pytest.raises(InputError, match="differs from the embedding"):
        open_folder(changed_copy(tiny["qwen2_vl"], tmp_path / "other", other_head))


def test_the_contents_see_a_change_in_any_tensor(tiny, tmp_path):
    before = folder_contents(open_folder(tiny["qwen2_vl"]))
    shutil.copytree(tiny["qwen2_vl"], tmp_path / "same")
    assert folder_contents(open_folder(tmp_path / "same")) == before

    def nudge(tensors):
        tensors["visual.blocks.1.mlp.fc2.weight"][0, 0] += 1e-3

    assert folder_contents(open_folder(changed_copy(tiny["qwen2_vl"], tmp_path / "nudged", nudge))) != before


def test_an_interrupted_export_leaves_no_folder_that_looks_complete(tiny, tmp_path):
    def interrupt(name, layer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_folder(tmp_path / "out", open_folder(tiny["qwen2_vl"]), interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_export_overwrites_nothing(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        save_folder(tmp_path / "out", open_folder(tiny["qwen2_vl"]))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


_ON_MESH = """
import json, sys
from jaxvsr.devices.choose_devices import choose_devices
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import parse_mesh
shape = parse_mesh("fsdp=2,tensor=2")
mesh = make_mesh(shape, choose_devices("cpu", shape))
import jax, numpy as np
from jaxvsr.runs.model_source import open_model
from jaxvsr.models.huggingface.model_folder import ModelFolder, load_parameters
from jaxvsr.models.sharding import parameter_shardings
model = open_model(sys.argv[1])
whole, read, read_sizes = load_parameters(model.folder), ModelFolder.read, {}
def counted(self, name, index=(), dtype=None):
    part = read(self, name, index, dtype)
    read_sizes.setdefault(name, []).append(part.size)
    return part
ModelFolder.read = counted
placed = model.parameters(parameter_shardings(whole, mesh, model.config))
for name, array in placed.items():
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[name][shard.index])
parts = {name: whole[name].size / max(sizes) for name, sizes in read_sizes.items()}
devices = {name: array.size / array.addressable_shards[0].data.size for name, array in placed.items()}
print(json.dumps({"parts": parts, "devices": devices, "names": len(whole)}))
"""


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("o" * 251, "File name too long"),  # with .partial behind it
        ("o" * 300, "File name too long"),
        ("a\0b", "embedded null"),
        ("a file/out", "cannot be a folder, because .*a file is a file"),
        ("link", "is a link"),
    ],
)
def test_a_name_that_cannot_be_a_new_folder_is_refused_in_one_line(tiny, tmp_path, name, what):
    (tmp_path / "a file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=what):
        save_folder(tmp_path / name, open_folder(tiny["qwen2_vl"]))
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny, tmp_path):
    def full(name, layer):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"out: cannot be written \(No space left on device\)"):
        save_folder(tmp_path / "out", open_folder(tiny["qwen2_vl"]), full)
    assert list(tmp_path.iterdir()) == []


def test_a_partial_folder_is_refused_as_a_model(tiny, tmp_path):
    shutil.copytree(tiny["qwen2_vl"], tmp_path / "out.partial")
    with pytest.raises(InputError, match="was left by an interrupted conversion"):
        open_folder(tmp_path / "out.partial")


@pytest.mark.slow
def test_each_device_of_a_mesh_receives_only_its_slice_and_nothing_more_is_read(sharded):
    seen = json.loads(said_by(_ON_MESH, sharded["qwen2_5_vl"]))
    assert seen["parts"] == seen["devices"] and len(seen["parts"]) == seen["names"]
    assert seen["devices"]["language_model.layers.mlp.up_proj.weight"] == 4
    assert seen["devices"]["visual.blocks.mlp.up_proj.weight"] == 2
    assert seen["devices"]["language_model.norm.weight"] == 1


def remove(name):
    return lambda tensors: tensors.pop(name)


def replace(name, array):
    return lambda tensors: tensors.update({name: array})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("visual.blocks.1.norm1.weight"), "missing weight 'visual.blocks.1.norm1.weight'"),
        (remove("model.norm.weight"), "missing weight 'model.norm.weight'"),
        (replace("model.extra", np.zeros(3, np.float32)), "unexpected weight 'model.extra'"),
        (replace("model.norm.weight", np.ones(31, np.float32)), r"'model.norm.weight' is \[31\], .* \[32\]"),
        (replace("model.norm.weight", np.ones(32, np.int32)), "'model.norm.weight' is int32"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused_by_name(tiny, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        open_folder(changed_copy(tiny["qwen2_vl"], tmp_path / "changed", change))
    assert "\n" not in str(caught.value)


def test_layers_of_two_dtypes_are_refused_unless_one_is_asked_for(tiny, tmp_path):
    def narrow(tensors):
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name].astype(np.float16)

    source = changed_copy(tiny["qwen2_vl"], tmp_path / "mixed", narrow)
    with pytest.raises(InputError, match=r"mlp.up_proj.weight' are float16 and float32"):
        load_parameters(source)
    assert {array.dtype for array in load_parameters(source, "float32").values()} == {np.dtype("float32")}


def break_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_broken_folders_are_one_line_that_names_the_file(sharded, tmp_path):
    def copy(name):
        shutil.copytree(sharded["qwen2_vl"], tmp_path / name)
        return tmp_path / name

    def refused(folder, message):
        with pytest.raises(InputError, match=message) as caught:
            open_folder(folder)
        assert "\n" not in str(caught.value)

    missing = copy("missing")
    (missing / "model-00002-of-00004.safetensors").unlink(missing_ok=True)
    shards = sorted(path.name for path in missing.glob("*.safetensors"))
    (missing / shards[0]).unlink()
    refused(missing, r"model-0000\d-of-0000\d.safetensors: missing")
    cut = copy("cut")
    with (cut / shards[-1]).open("r+b") as file:
        file.truncate((cut / shards[-1]).stat().st_size - 10)
    refused(cut, "cut off")
    moved = copy("moved")
    break_index(moved, lambda where: where.update({next(iter(where)): shards[-1]}))
    refused(moved, "is not in it, though|is in it, but not in")
    outside = copy("outside")
    break_index(outside, lambda where: where.update({next(iter(where)): "../x.safetensors"}))
    refused(outside, "files of this folder")
    pickled = copy("pickled")
    break_index(pickled, lambda where: where.update({next(iter(where)): "pytorch_model.bin"}))
    refused(pickled, "pickled weights are never loaded")
    only_bin = copy("only_bin")
    for path in only_bin.glob("model*"):
        path.unlink()
    refused(only_bin, "has neither model.safetensors nor")
    (only_bin / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    refused(only_bin, "pytorch_model.bin: pickled weights are never loaded")
    refused(tmp_path / "nowhere", "no such folder")


def test_a_stacked_folder_without_its_layout_is_refused(tiny, tmp_path):
    save_stacked_folder(tmp_path / "stacked", open_folder(tiny["qwen2_vl"]))
    layout = tmp_path / "stacked" / LAYOUT_FILE
    content = json.loads(layout.read_text())
    content["files"]["model.safetensors"].pop()
    layout.write_text(json.dumps(content))
    with pytest.raises(InputError, match="does not list the weights"):
        save_folder(tmp_path / "out", open_folder(tmp_path / "stacked"))
    content["files"] = {"model.safetensors": [["a list"]]}
    layout.write_text(json.dumps(content))
    with pytest.raises(InputError, match="does not list the weights"):
        save_folder(tmp_path / "out", open_folder(tmp_path / "stacked"))
    for file in ("../evil", "config.json"):
        content["files"] = {file: []}
        layout.write_text(json.dumps(content))
        with pytest.raises(InputError, match="must have a style and files"):
            save_folder(tmp_path / "out", open_folder(tmp_path / "stacked"))
    layout.unlink()
    with pytest.raises(InputError, match=LAYOUT_FILE):
        save_folder(tmp_path / "out", open_folder(tmp_path / "stacked"))


def test_a_large_stacked_folder_is_split_into_shards(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(write_model_folder, "MAX_SHARD_BYTES", 50_000)
    save_stacked_folder(tmp_path / "stacked", open_folder(tiny["qwen2_vl"]))
    assert len(open_folder(tmp_path / "stacked").files) > 2
    save_folder(tmp_path / "back", open_folder(tmp_path / "stacked"))
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (
        tiny["qwen2_vl"] / "model.safetensors"
    ).read_bytes()
