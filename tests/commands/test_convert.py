"""The convert command, in process: folders out and in, runs out, refusals as one line and exit code 2."""

import base64
import dataclasses
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from jaxvsr.command_line import run
from jaxvsr.config.train_config import DataSettings, ModelSettings, TrainConfig
from jaxvsr.grpo.compiled_step import start_state
from jaxvsr.models.families.known_families import FAMILIES
from jaxvsr.models.huggingface.model_card import model_card
from jaxvsr.models.huggingface.model_folder import open_folder
from jaxvsr.models.huggingface.published_shapes import PUBLISHED
from jaxvsr.models.lora import LANGUAGE_ATTENTION, LoraConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.models.tiny.random_weights import write_random_folder
from jaxvsr.models.tiny.tiny_model import TinyShape, shape_of_width, write_tiny_model
from jaxvsr.prompts import prompt_from
from jaxvsr.runs import named_models
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord, step_of_run
from jaxvsr.runs.model_source import open_model, start_record, write_stages
from jaxvsr.runs.run_card import evaluations_of, loaded_by, note_evaluation
from jaxvsr.runs.run_folder import make_run_folder
from jaxvsr.runs.trained_as import TrainedAs, trained_as
from launch import convert
from tests.support.models import DEEP

# PEFT 0.21 still asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LORA = LoraConfig(4, 8.0, LANGUAGE_ATTENTION)


def command(*arguments):
    return run(convert._command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    out = tmp_path_factory.mktemp("tiny") / "model"
    shutil.copytree(tiny_model(shape=DEEP), out)
    (out / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    return out


def write_run(path, start, trainable, lora=LORA, step=7, data=("data/rooms",)):
    """A run folder with one checkpoint, as the trainer leaves it."""
    settings = DataSettings(folders=data)
    config = TrainConfig(model=ModelSettings(path=str(start)), lora=lora, objective="sft", data=settings)
    run_folder = make_run_folder(path, config)
    model = open_model(str(start))
    write_stages(model, path)
    record = start_record(model)
    checkpoints = Checkpoints(run_folder.checkpoints, keep=1)
    checkpoints.save(step, start_state({k: jnp.asarray(v) for k, v in trainable.items()}, optax.sgd(0.1), 0), record)
    checkpoints.close()
    return path


def random_lora(config, seed):
    rng, leaves = np.random.default_rng(seed), {}
    for name, leaf in parameter_shapes(config).items():
        shape = leaf.shape
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and LORA.adapts(module):
            leaves[f"{module}.lora_A"] = rng.normal(size=(shape[0], 4, shape[2])).astype(np.float32)
            leaves[f"{module}.lora_B"] = rng.normal(size=(shape[0], shape[1], 4)).astype(np.float32) * np.float32(0.1)
    return leaves


@pytest.fixture(scope="module")
def lora_run(folder, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "first", folder, random_lora(open_folder(folder).config, 1))


@pytest.fixture(scope="module")
def second_run(lora_run, folder, tmp_path_factory):
    """A run that started from the first one."""
    return write_run(tmp_path_factory.mktemp("runs") / "second", lora_run, random_lora(open_folder(folder).config, 2))


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 30)[None]).logits.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["lora_run", "second_run"])
def test_merged_weights_and_adapter_of_a_run_are_the_same_model(which, folder, tmp_path, request, capsys):
    source = request.getfixturevalue(which)
    assert command("to-hf", source, tmp_path / "merged") == 0
    assert command("to-hf", f"{source}@7", tmp_path / "adapter", "--adapter") == 0
    printed = capsys.readouterr().out
    assert "move logits by at most" in printed and str(tmp_path / "merged") in printed
    base = AutoModelForImageTextToText.from_pretrained(folder)
    plain = logits(base)
    merged = logits(AutoModelForImageTextToText.from_pretrained(tmp_path / "merged"))
    adapted = logits(PeftModel.from_pretrained(base, tmp_path / "adapter"))
    np.testing.assert_allclose(merged, adapted, atol=1e-4 * np.abs(merged).max())
    assert np.abs(merged - plain).max() > 0.1
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["r"] == (4 if which == "lora_run" else 8)
    assert settings["base_model_name_or_path"] == str(folder)
    # A front matter that names a folder as base model is refused by the hub.
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "base_model:" not in card and f"Base model: `{folder}`; its licence (apache-2.0) applies." in card
    assert "license: apache-2.0" in card and "    python launch/convert.py to-hf" in card


def test_the_card_of_a_run_names_base_licence_sources_scores_and_commands(folder, tmp_path, capsys, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    terms = "scans under ScanNet's terms of use (http://www.scan-net.org)"
    (data / "card.md").write_text(f"# data\n\n## Questions\n\n- source: {terms}\n- seed: 3\n")
    config = open_folder(folder).config
    source = write_run(tmp_path / "run", folder, random_lora(config, 1), data=(f"{data}:2", "nowhere"))
    rows = [{"step": 5, "eval/overall": 31.25, "loss": 1}, {"step": 6, "loss": 1}, {"step": 9, "eval/overall": 99.0}]
    (source / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = tmp_path / "scores"
    scores.mkdir()
    (scores / "scores.json").write_text(
        '{"overall": 40.5, "benchmark": "vsi-bench", "model": "runs/x", "frames": 8, '
        '"revision": "v2", "split": "train", "subset": "debiased", "limit": 9, "blank": true}'
    )
    assert command("to-hf", source, tmp_path / "out", "--scores", scores) == 2
    assert "has no table.md" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (scores / "table.md").write_text("## Official\n\n| task | score |\n| --- | --- |\n| overall | 40.5 |\n\n### More\n")
    replace, whole = os.replace, set()

    def replace_folder(partial, final):  # a kill after this leaves what is in the folder by now
        whole.update(path.name for path in Path(partial).glob("*"))
        replace(partial, final)

    with monkeypatch.context() as patch:
        patch.setattr("jaxvsr.locks.os.replace", replace_folder)
        assert command("to-hf", source, tmp_path / "out", "--scores", scores) == 0
    assert {"trained_as.json", "README.md", "SHA256SUMS"} <= whole
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- Trained on `{data}`:\n  - {terms}\n" in card and "`nowhere`:\n  - its card names no source" in card
    assert "after step 5" in card and "| overall | 31.25 |" in card and "| 99 |" not in card
    part = "revision v2, split train, subset debiased, limit 9, frames 8, on blank video"
    assert (
        f"vsi-bench (model runs/x, {part})" in card
        and "greedy, per cent, after" in card
        and "| overall | 40.5 |" in card
    )
    assert "python launch/train.py --config config.yaml" in card and "objective: sft" in card
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings[1:5] == ["## Base model and data", "## Scores", "### Official", "#### More"]
    assert command("to-hf", folder, tmp_path / "plain", "--scores", scores) == 2
    assert "keeps its own README" in capsys.readouterr().err


def test_the_card_has_the_scores_that_were_written_of_the_exported_checkpoint(folder, tmp_path):
    source = str(write_run(tmp_path / "run", folder, random_lora(open_folder(folder).config, 1)))
    for name, model, value in (("own", source, 40.5), ("other", "runs/other", 12.5), ("gone", source, 7.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(json.dumps({"benchmark": "vsi-bench", "model": model}))
        (tmp_path / name / "table.md").write_text(f"| overall | {value} |\n")
        note_evaluation(source, tmp_path / name)  # "other" was written to again since, with another model
    note_evaluation("rooms-base", tmp_path / "own")  # no run
    note_evaluation(source, tmp_path / "own")
    (tmp_path / "gone" / "table.md").unlink()
    run_folder, step = step_of_run(source)
    assert evaluations_of(run_folder, step) == [tmp_path / "own"] and evaluations_of(run_folder, step - 1) == []
    assert command("to-hf", source, tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("| overall | 40.5 |") == 1 and "12.5" not in card and "None were measured" not in card


@pytest.mark.slow
def test_the_hub_id_of_a_base_is_what_peft_loads_and_the_card_names():
    def record(base, base_folder):
        return RunRecord(base, base_folder, None, "0" * 64)

    cached = "/cache/hub/models--Qwen--Qwen2-VL-2B-Instruct/snapshots/0a1b"
    assert loaded_by(record("Qwen/Qwen2-VL-2B-Instruct", cached)) == "Qwen/Qwen2-VL-2B-Instruct"
    for given in ("models/2b", "./models/2b", "../models/2b", "/data/models/2b"):
        assert loaded_by(record(given, "/data/models/2b")) == "/data/models/2b"
    front = model_card(
        base="Qwen/Qwen2.5-VL-3B-Instruct",
        on_hub=True,
        licence={"license": "other", "license_name": "qwen-research", "license_link": "https://x.org/LICENSE"},
        what="",
        origin="",
        commands=[],
        serving="",
    )
    assert front.startswith("---\nbase_model: Qwen/Qwen2.5-VL-3B-Instruct\n")
    assert "license: other\nlicense_name: qwen-research\nlicense_link: https://x.org/LICENSE\n---" in front
    assert "its licence (qwen-research, https://x.org/LICENSE) applies" in front


@pytest.mark.slow
def test_a_peft_adapter_is_a_model(lora_run, folder, tmp_path, capsys):
    assert command("to-hf", lora_run, tmp_path / "adapter", "--adapter") == 0
    assert command("to-hf", lora_run, tmp_path / "expected") == 0
    assert command("to-hf", tmp_path / "adapter", tmp_path / "merged") == 0
    expected, merged = (tmp_path / name / "model.safetensors" for name in ("expected", "merged"))
    assert merged.read_bytes() == expected.read_bytes()
    card = (tmp_path / "merged" / "README.md").read_text()
    assert str(tmp_path / "adapter") in card and "its licence (apache-2.0) applies" in card
    capsys.readouterr()
    path = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    (tmp_path / "adapter" / "SHA256SUMS").unlink()
    for change, words in (
        ({"base_model_name_or_path": str(tmp_path / "gone")}, "its base model cannot be opened"),
        ({"base_model_name_or_path": None}, "must name the base model"),
        ({"base_model_name_or_path": str(tmp_path / "adapter")}, "names the adapter itself as its base model"),
        ({"revision": 3}, "revision 3 must be a branch, tag or commit"),
        ({"revision": "v2"}, "revision 'v2': only a hub id has revisions"),
        ({"bias": "all"}, "bias 'all' is not supported"),
    ):
        path.write_text(json.dumps(settings | change))
        assert command("to-hf", tmp_path / "adapter", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert words in error and "adapter_config.json" in error and error.count("\n") == 1


@pytest.fixture
def hub(folder, lora_run, tmp_path, monkeypatch):
    """A hub with the tiny model and an adapter of it."""
    places = {"org/tiny": tmp_path / "cache" / "models--org--tiny" / "snapshots" / "0a1b"}
    shutil.copytree(folder, places["org/tiny"])
    places["org/adapter"] = places["org/tiny"].parents[2] / "adapter"
    assert command("to-hf", lora_run, places["org/adapter"], "--adapter") == 0
    path = places["org/adapter"] / "adapter_config.json"
    named = {"base_model_name_or_path": "org/tiny", "revision": "v1"}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    (places["org/adapter"] / "SHA256SUMS").unlink()
    monkeypatch.setattr(named_models, "_download", lambda name, revision: places[name])
    return places


@pytest.mark.slow
@pytest.mark.parametrize("start", ["org/adapter", "run"])
def test_an_adapter_trained_from_a_run_or_adapter_names_the_hub_id_of_the_base(start, hub, folder, tmp_path):
    leaves = random_lora(open_folder(folder).config, 5)
    if start == "run":
        start = write_run(tmp_path / "run", "org/tiny", leaves)
    second = write_run(tmp_path / "second", start, leaves)
    assert command("to-hf", second, tmp_path / "adapter", "--adapter") == 0
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert settings["base_model_name_or_path"] == "org/tiny" and "\nbase_model: org/tiny\n" in card
    assert "models--org--tiny" not in card


def test_an_adapter_from_the_hub_is_merged_and_its_card_names_base_and_revision(hub, tmp_path):
    trained = TrainedAs(prompt_from("question"), frames=8)
    trained.write(hub["org/adapter"])
    assert command("to-hf", "org/adapter", tmp_path / "out", "--revision", "main") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "\nbase_model: org/tiny\n" in card and "at revision `v1`" in card
    assert "the adapter `org/adapter` merged in" in card and "to-hf org/adapter OUT --revision main\n" in card
    assert "## How to ask it\n\nAs in training: prompt question, 8 frames" in card
    assert trained_as("org/adapter") == trained_as(str(tmp_path / "out")) == trained and trained_as("org/tiny") is None


def test_a_revision_needs_a_hub_id_and_a_missing_one_is_named(folder, lora_run, tmp_path, capsys, monkeypatch):
    for model in (folder, lora_run, f"{lora_run}@7", "rooms-base"):
        assert command("to-hf", model, tmp_path / "out", "--revision", "v2") == 2
        error = capsys.readouterr().err
        assert "revision 'v2': only a hub id has revisions" in error and error.count("\n") == 1
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: 1 / 0)
    assert command("to-hf", "org/tiny", tmp_path / "out", "--revision", "v2") == 2
    assert "'org/tiny'" in (error := capsys.readouterr().err) and "at revision 'v2'" in error


@pytest.mark.slow
def test_a_fully_trained_run_replaces_the_bases_weights(folder, tmp_path):
    config = open_folder(folder).config
    name = "language_model.layers.mlp.up_proj.weight"
    weight = np.random.default_rng(3).normal(size=parameter_shapes(config)[name].shape).astype(np.float32)
    source = write_run(tmp_path / "full", folder, {name: weight}, lora=None)
    assert command("to-hf", source, tmp_path / "out") == 0
    written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    before = safetensors.numpy.load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(written["model.layers.1.mlp.up_proj.weight"], weight[1])
    np.testing.assert_array_equal(written["model.norm.weight"], before["model.norm.weight"])
    assert command("to-hf", source, tmp_path / "adapter", "--adapter") == 2
    assert not (tmp_path / "adapter").exists()


def test_to_hf_after_from_hf_gives_the_same_folder(folder, tmp_path):
    assert command("from-hf", folder, tmp_path / "stacked") == 0
    assert command("to-hf", tmp_path / "stacked", tmp_path / "back") == 0
    assert len(list((tmp_path / "back").iterdir())) == len(list(folder.iterdir()))
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_verify_passes_on_a_tiny_model_and_fails_on_a_changed_one(family, tiny_model, capsys, monkeypatch):
    assert command("verify", tiny_model(family, DEEP), "--tokens", 4) == 0
    assert "greedy: 4 of 4 tokens equal\nthe same model" in capsys.readouterr().out
    from jaxvsr.models.huggingface import verify

    load = verify.load_parameters

    def altered(*arguments):
        assert jax.config.jax_default_matmul_precision == "highest", "or an accelerator would multiply in fewer bits"
        parameters = load(*arguments)
        *_, last = [name for name in parameters if name.startswith("visual.merger.") and name.endswith(".weight")]
        parameters[last] = parameters[last] * np.float32(1.01)
        return parameters

    monkeypatch.setattr(verify, "load_parameters", altered)
    assert command("verify", tiny_model(family, DEEP), "--tokens", 4) == 1
    assert "NOT the same model" in capsys.readouterr().out


@pytest.mark.slow
def test_verify_works_with_a_broken_torchvision(tiny_model):
    """In a process of its own, without the repair of these tests, where the one of this environment may be broken."""
    script = [sys.executable, "launch/convert.py", "verify", str(tiny_model(shape=DEEP)), "--tokens", "2"]
    done = subprocess.run(script, cwd=Path(convert.__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "the same model" in done.stdout


def test_random_weights_of_a_shape_are_a_folder_of_shards(tmp_path):
    config = dataclasses.replace(PUBLISHED["qwen2-vl-2b"], dtype="float32")
    text = dataclasses.replace(config.text, num_hidden_layers=2, vocab_size=640, hidden_size=384, intermediate_size=512)
    text = dataclasses.replace(text, num_attention_heads=3, num_key_value_heads=1)
    vision = dataclasses.replace(config.vision, depth=1, embed_dim=64, num_heads=4, intermediate_size=64)
    config = dataclasses.replace(config, text=text, vision=dataclasses.replace(vision, out_hidden_size=384))
    for name in ("a", "b"):
        write_random_folder(tmp_path / name, config, 3, "bfloat16", shard_bytes=1_000_000)
    folder = open_folder(tmp_path / "a")
    assert len(folder.files) > 2 and folder.config == dataclasses.replace(config, dtype="bfloat16")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    weight = folder.read("language_model.layers.mlp.up_proj.weight").astype(np.float32)
    assert abs(weight.std() - 0.02) < 1e-3 and not np.array_equal(weight[0], weight[1])


def test_the_tiny_command_follows_its_flags(tmp_path, capsys):
    assert command("tiny", tmp_path / "t", "--seed", 5, "--family", "qwen2_5_vl", "--dtype", "bfloat16") == 0
    assert "qwen2_5_vl, 1.61M parameters" in capsys.readouterr().out
    assert open_folder(tmp_path / "t").config.dtype == "bfloat16"


def test_mistakes_end_in_one_line_and_exit_code_2(folder, lora_run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments, message in (
        (("to-hf", tmp_path / "nothing", tmp_path / "out"), "no such folder"),
        (("to-hf", folder, tmp_path / "full"), "exists and is not empty"),
        (("to-hf", folder, tmp_path / "out", "--adapter"), "is not a run with an adapter"),
        (("to-hf", f"{lora_run}@99", tmp_path / "out"), "@99: no such checkpoint"),
        (("from-hf", lora_run, tmp_path / "out"), "write one with to-hf first"),
        (("verify", lora_run), "write one with to-hf first"),
        (("tiny", tmp_path / "out", "--seed", -1), "--seed -1"),
        (("random", tmp_path / "out", "--shape", "tiny"), "--shape"),
        (("tiny", tmp_path / "out", "--family", "llava"), "--family"),
        (("shrink", folder), "shrink"),
        ((), "COMMAND"),
    ):
        assert command(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()


def test_a_run_whose_base_has_changed_is_refused(tmp_path, capsys):
    write_tiny_model(tmp_path / "base", 0, shape=DEEP)
    source = write_run(tmp_path / "run", tmp_path / "base", random_lora(open_folder(tmp_path / "base").config, 1))
    (tmp_path / "base").rename(tmp_path / "old")
    write_tiny_model(tmp_path / "base", 1, shape=DEEP)
    assert command("to-hf", source, tmp_path / "out") == 2
    assert "has changed since" in capsys.readouterr().err


@pytest.fixture
def stand_in_hub(monkeypatch):
    """A server that takes what huggingface_hub sends; the requests as (path, authorisation, body)."""
    seen = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            seen.append((self.path, self.headers["Authorization"], body))
            here = f"http://127.0.0.1:{self.server.server_address[1]}/you/demo"
            answer = {"url": here, "commitUrl": f"{here}/commit/abc", "commitOid": "abc"}
            if "/preupload/" in self.path:
                files = json.loads(body)["files"]
                answer = {"files": [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in files]}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield seen
        server.shutdown()
        thread.join()


def test_push_says_what_it_would_do_and_uploads_only_when_told_to(lora_run, tmp_path, stand_in_hub, capsys):
    out = tmp_path / "out"
    assert command("to-hf", lora_run, out) == 0
    (out / ".hidden").write_text("mine")
    capsys.readouterr()
    assert command("push", out, "you/demo") == 0
    said = capsys.readouterr().out
    assert "model.safetensors" in said and ".hidden" not in said and "nothing was uploaded" in said
    assert "look at: the card names no base model of the hub" in said and "has no scores" in said
    assert stand_in_hub == []

    assert command("push", out, "you/demo", "--yes") == 0
    paths = [path for path, *_ in stand_in_hub]
    created, sent = (next(i for i, path in enumerate(paths) if word in path) for word in ("/create", "/commit/"))
    assert json.loads(stand_in_hub[created][2])["visibility"] == "private"
    lines = [json.loads(line) for line in stand_in_hub[sent][2].splitlines()]
    files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
    assert {name: base64.b64decode(text) for name, text in files.items()} == {
        path.name: path.read_bytes() for path in out.iterdir() if path.name != ".hidden"
    }
    assert stand_in_hub[sent][1] == "Bearer hf_secret"
    assert f"{len(files)} files" in (shown := capsys.readouterr().out) and "uploaded: http" in shown


def test_push_refuses_what_others_could_not_load(lora_run, tmp_path, stand_in_hub, capsys):
    out, adapter = tmp_path / "out", tmp_path / "adapter"
    assert command("to-hf", lora_run, out) == 0
    assert command("to-hf", lora_run, adapter, "--adapter") == 0
    capsys.readouterr()
    weights = bytearray((out / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    damaged = shutil.copytree(out, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(weights)
    bare = shutil.copytree(out, tmp_path / "bare")
    (bare / "README.md").unlink()
    for folder, name, words in (
        (out, "demo", "'demo': not a repository of the hub"),
        (tmp_path, "you/demo", "no config.json and no adapter_config.json"),
        (bare, "you/demo", "no README.md"),
        (damaged, "you/demo", "is not the file that was written"),
        (adapter, "you/demo", "is on this machine alone"),
    ):
        assert command("push", folder, name, "--yes") == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert stand_in_hub == []


def test_an_export_in_another_dtype_is_rounded_once_and_says_so(folder, tmp_path, capsys):
    out, back = tmp_path / "half", tmp_path / "back"
    assert command("to-hf", folder, out, "--dtype", "bfloat16") == 0
    before = safetensors.numpy.load_file(folder / "model.safetensors")
    after = safetensors.numpy.load_file(out / "model.safetensors")
    assert set(before) == set(after)
    for name, weight in before.items():
        assert after[name].dtype == jnp.bfloat16
        np.testing.assert_array_equal(after[name], weight.astype(jnp.bfloat16), err_msg=name)
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert AutoModelForImageTextToText.from_pretrained(out, dtype="auto").dtype == torch.bfloat16
    assert command("to-hf", out, back, "--dtype", "float32") == 0
    assert open_folder(back).config == open_folder(folder).config
    assert command("to-hf", folder, tmp_path / "x", "--adapter", "--dtype", "bfloat16") == 2
    assert "--dtype: of whole weights" in capsys.readouterr().err


def test_a_weight_that_does_not_fit_the_asked_dtype_is_named_and_nothing_is_left(folder, tmp_path, capsys):
    large, out = tmp_path / "large", tmp_path / "half"
    shutil.copytree(folder, large)
    (large / "SHA256SUMS").unlink()
    weights = safetensors.numpy.load_file(large / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    weights[name][0, 0] = 1e5
    safetensors.numpy.save_file(weights, large / "model.safetensors")
    assert command("to-hf", large, out, "--dtype", "float16") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{name}: holds 100000, which is no number in float16" in error
    assert not out.exists() and command("to-hf", large, out, "--dtype", "bfloat16") == 0


def test_a_tiny_model_has_the_size_that_was_asked_for(tmp_path, capsys):
    assert command("tiny", tmp_path / "wide", "--width", "64", "--layers", "5", "--vision-layers", "1") == 0
    config = open_folder(tmp_path / "wide").config
    assert (config.text.hidden_size, config.text.num_hidden_layers, config.vision.depth) == (64, 5, 1)
    assert config.text.num_attention_heads == 2
    assert shape_of_width(128, 3, 2) == TinyShape(), "the flags' defaults are the default model"
    assert command("tiny", tmp_path / "odd", "--width", "100") == 2
    assert "must be a multiple of 64" in capsys.readouterr().err
