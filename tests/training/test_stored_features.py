"""Stored vision features: the same as the tower's, used only where they fit, and then the tower does not run."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxvsr.config.config_file import config_from
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.features import FeatureStore, stored_sets
from jaxvsr.data.frames import FrameStore, pixels_sha256
from jaxvsr.data.questions import read_questions, write_questions
from jaxvsr.data.stored_arrays import SEAL, write_array
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.errors import InputError
from jaxvsr.files import read_rows
from jaxvsr.grpo.batches import padded_features
from jaxvsr.models import vision
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import compute_dtype
from jaxvsr.models.tiny.tiny_model import write_tiny_model
from jaxvsr.models.tree_batch import VisionFeatures
from jaxvsr.runs.model_source import open_model
from jaxvsr.training.assemble import ready_run
from jaxvsr.training.load_policy import load_policy, trains_vision
from jaxvsr.training.loop import train
from jaxvsr.training.run_inputs import open_inputs, read_run_pools
from jaxvsr.training.stopping import StopRequest
from jaxvsr.training.stored_features import usable_features, vision_weights_hash, write_features
from launch.build_data import main
from tests.support.data_folders import write_data_folder
from tests.support.models import DEEP, SMALL

TREE: dict[str, Any] = {
    "lora": {"rank": 4, "alpha": 8},
    "sampling": {"group": 2, "answer_tokens": 4},
    "grpo": {"beta": 0.01},
    "steps": 2,
    "intervals": {"checkpoint": 2, "samples": 1, "video_gain": 1},
    "logging": {"trackers": []},
}


@pytest.fixture(scope="module", params=["qwen2_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow)])
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., Path],
    data_folder: Path,
) -> Path:
    """A model and a data folder with mirrored questions; features of both views."""
    folder = tmp_path_factory.mktemp("features")
    data = folder / "data"
    shutil.copytree(data_folder, data)
    rows = read_questions(data / "questions.jsonl")
    images = [dataclasses.replace(row, id=f"{row.id}-mirror", mirror_of=row.id) for row in rows]
    write_questions(data / "questions.jsonl", [*rows, *images])
    (folder / "tiny").symlink_to(tiny_model(request.param, DEEP if request.param == "qwen3_vl" else SMALL))
    assert main(["features", str(data), "--model", str(folder / "tiny"), "--mirror"]) == 0
    return folder


def config(place: Path, **data: Any) -> TrainConfig:
    settings = {"folders": [str(place / "data")], "scenes": 4, "questions": 2, "frames": 2, "prompt": "question"}
    return config_from({**TREE, "model": {"path": str(place / "tiny")}, "data": {**settings, **data}})


def mesh() -> jax.sharding.Mesh:
    return make_mesh(MeshShape(), jax.devices()[:1])


def chosen(settings: TrainConfig) -> str | None:
    """The set that a run with these settings would read."""
    model = open_model(settings.model.path)
    processor = SceneProcessor.from_folder(model.folder.path, max_pixels=settings.data.max_pixels)
    return usable_features(
        settings,
        model,
        processor,
        read_run_pools(settings),
        dtype=compute_dtype(settings.model.dtype, "cpu"),
        trains_vision=trains_vision(settings, model.config),
    )


@pytest.mark.slow
@pytest.mark.parametrize("mirror", ["none", "pairs"])
def test_stored_features_equal_the_towers_at_every_vision_token(place: Path, mirror: str) -> None:
    settings = config(place, mirror=mirror)
    model = open_model(settings.model.path)
    processor = SceneProcessor.from_folder(model.folder.path)
    inputs = open_inputs(config(place, mirror=mirror, features="off"), mesh())
    seen = next(inputs.batches())
    read = next(dataclasses.replace(inputs, features=chosen(settings)).batches())
    assert isinstance(read.prompt.vision, VisionFeatures) and read.prompt.pixels is None
    stored = read.prompt.vision.merged
    policy = load_policy(settings, model, processor, mesh())
    encoded = policy.step().encode(policy.start(), seen.prompt).vision
    assert isinstance(encoded, VisionFeatures)
    computed = np.asarray(encoded.merged)
    assert stored.shape == computed.shape
    for s, places in enumerate(np.asarray(seen.prompt.vision_index)):
        np.testing.assert_array_equal(read.prompt.vision_index[s], places)
        at = places[places >= 0]
        np.testing.assert_allclose(stored[s, at], computed[s, at], rtol=2e-5, atol=2e-5)
    if mirror == "pairs":
        assert not np.allclose(stored[0], stored[1])
    np.testing.assert_array_equal(read.prompt.scene_positions, seen.prompt.scene_positions)


@pytest.mark.slow
def test_a_run_with_features_is_the_run_without_them(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {}
    for features in ("off", "require"):
        if features == "require":  # from here on the tower must not run
            monkeypatch.setattr(vision.VisionTower, "__call__", None)
        settings = config(place, features=features)
        with ready_run(settings, tmp_path / features, mesh(), quiet=True) as ready:
            train(ready.run, ready.state, StopRequest())
        texts = [
            [answer["text"] for answer in row["answers"]] for row in read_rows(tmp_path / features / "samples.jsonl")
        ]
        runs[features] = texts, list(read_rows(tmp_path / features / "metrics.jsonl"))
    (texts, rows), (stored_texts, stored_rows) = runs["off"], runs["require"]
    assert stored_texts == texts and len(rows) == 2
    for row, stored in zip(rows, stored_rows, strict=True):
        for name in ("loss", "grad_norm", "kl", "entropy", "reward/mean", "video_gain", "logprob_gap"):
            if name in row:
                assert stored[name] == pytest.approx(row[name], rel=1e-4, abs=1e-6), name


def test_stored_features_fill_exactly_the_places_of_their_scene() -> None:
    """Two scenes of different size in one batch, against a loop over every token."""
    from jaxvsr.models.inputs.collate import EncodedScene, TreeShape
    from jaxvsr.models.inputs.pixels import row_layout

    processor = open_model("rooms-base").config
    scenes, features = [], []
    rng = np.random.default_rng(0)
    for rows, high, wide in ((2, 4, 6), (3, 2, 4)):
        layout = row_layout(high, wide, processor.vision)
        empty = np.zeros(0, np.int32)
        patches = np.zeros((rows, len(layout.raster), 1), np.uint8)
        scenes.append(EncodedScene(empty, empty[:, None].repeat(3, 1), empty, empty, 0, (), (patches,), (layout,)))
        features.append(rng.normal(size=(rows, len(layout.unit_slot), 5)).astype(np.float32))
    padded = padded_features(features, scenes, TreeShape(3, 32, 64, 16), 4)
    assert padded.shape == (2, 3 * 8, 5)
    expected = np.zeros_like(padded)
    for s, scene in enumerate(scenes):
        for r in range(scene.rows):
            for unit, slot in enumerate(scene.layouts[0].unit_slot):
                expected[s, r * 8 + slot] = features[s][r, unit]
    np.testing.assert_array_equal(padded, expected)
    with pytest.raises(InputError, match="do not fit a video of 2 rows"):
        padded_features(features[::-1], scenes, TreeShape(3, 32, 64, 16), 4)


def test_auto_uses_stored_features_that_fit_and_else_runs_the_tower(place: Path, tmp_path: Path) -> None:
    name = chosen(config(place))
    assert name == chosen(config(place, features="require")) and name in stored_sets(place / "data")
    assert str(name).endswith("-float32") and vision_weights_hash(open_model(str(place / "tiny"))).startswith(
        str(name)[:12]
    )
    assert chosen(config(place, features="off")) is None
    bare = write_data_folder(tmp_path)
    assert chosen(config(place, folders=[str(bare)])) is None
    with pytest.raises(InputError, match=r"no vision features of this model .*build_data\.py features"):
        chosen(config(place, folders=[str(bare)], features="require"))


def test_features_of_another_model_size_or_dtype_are_refused_in_one_line(place: Path, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "other", 1, shape=SMALL)
    other = dataclasses.replace(
        config(place), model=dataclasses.replace(config(place).model, path=str(tmp_path / "other"))
    )
    with pytest.raises(InputError, match=r"no vision features of this model in float32 .* of .*tiny; build_data"):
        chosen(other)
    wide = dataclasses.replace(config(place), model=dataclasses.replace(config(place).model, dtype="bfloat16"))
    with pytest.raises(InputError, match="no vision features of this model in bfloat16"):
        chosen(wide)
    with pytest.raises(InputError, match=r"\(made at (\d\d)×\1 pixels, but the model sees (28×28|32×32)\)"):
        chosen(config(place, max_pixels=1100))


def test_features_of_changed_frames_are_refused_and_added_frame_counts_are_accepted(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    settings = config(place, folders=[str(tmp_path / "data")])
    path = tmp_path / "data" / "frames" / "scene0001_00" / "zarr.json"
    array = json.loads(path.read_text())
    del array["attributes"][SEAL]
    array["attributes"]["pixels_sha256"] = "0" * 64  # as if another count had been added to the union
    path.write_text(json.dumps(array))
    assert chosen(settings) is not None
    array["attributes"]["source_bytes"] += 1
    path.write_text(json.dumps(array))
    with pytest.raises(
        InputError, match=r"of 1 views do not fit, the first is scene0001_00 \(made from other frames\)"
    ):
        chosen(settings)
    shutil.rmtree(tmp_path / "data" / "features" / str(chosen(config(place))) / "scene0002_00")
    with pytest.raises(InputError, match=r"of 4 views do not fit.*--frames 2 --dtype float32 --mirror writes them"):
        chosen(config(place, folders=[str(tmp_path / "data")], mirror="pairs"))


def test_a_trained_tower_never_uses_stored_features(place: Path) -> None:
    trained = dataclasses.replace(
        config(place), lora=None, model=dataclasses.replace(config(place).model, tower="trained")
    )
    assert chosen(trained) is None
    required = dataclasses.replace(trained, data=dataclasses.replace(trained.data, features="require"))
    with pytest.raises(InputError, match="the vision tower is trained in this run"):
        chosen(required)
    with pytest.raises(InputError, match="blank frames have no stored features"):
        chosen(config(place, blank=True, features="require"))
    lora = LoraConfig(rank=4, alpha=8, target_modules=r".*visual.*(qkv|fc1)")
    assert trains_vision(dataclasses.replace(config(place), lora=lora), open_model(str(place / "tiny")).config)


@pytest.mark.slow
def test_the_features_command_resumes_and_writes_bfloat16(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    arguments = ["features", str(tmp_path / "data"), "--model", str(place / "tiny"), "--frames", "2", "--mirror"]
    (name,) = stored_sets(tmp_path / "data")
    store = FeatureStore(tmp_path / "data", name)
    shutil.rmtree(store.path("scene0003_00", 2, mirrored=True))
    assert main(arguments) == 0
    assert "of 7 scenes: 1 arrays written, 13 there already" in capsys.readouterr().out
    assert main([*arguments[:-1], "--dtype", "bfloat16"]) == 0
    half = FeatureStore(tmp_path / "data", name.replace("float32", "bfloat16")).read("scene0000_00", 2, mirrored=False)
    whole = store.read("scene0000_00", 2, mirrored=False)
    assert half.dtype.name == "bfloat16" and half.shape == whole.shape
    np.testing.assert_allclose(half.astype(np.float32), whole, rtol=0.1, atol=0.05)
    assert "## Features: " in (tmp_path / "data" / "card.md").read_text()


def test_a_damaged_features_array_is_an_error(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (name,) = stored_sets(tmp_path / "data")
    store = FeatureStore(tmp_path / "data", name)
    shard = next(
        path for path in store.path("scene0000_00", 2, mirrored=False).rglob("*") if path.name == "0" and path.is_file()
    )
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the features"):
        store.read("scene0000_00", 2, mirrored=False)


@pytest.mark.slow
def test_features_of_the_mirrored_view_are_those_of_frames_flipped_on_disk(place: Path, tmp_path: Path) -> None:
    """A folder whose stored frames are flipped: what is seen there is what the mirrored view of the original sees, and
    the other way round."""
    (name,) = stored_sets(place / "data")
    data = tmp_path / "data"
    for scene in ("scene0000_00", "scene0001_00"):
        frames, attributes = FrameStore(place / "data"), FrameStore(place / "data").attributes(scene)
        flipped = np.ascontiguousarray(frames.read(scene, 2).pixels[:, :, ::-1])
        (data / "frames").mkdir(parents=True, exist_ok=True)
        write_array(data / "frames" / scene, flipped, {**attributes, "pixels_sha256": pixels_sha256(flipped)})
    model = open_model(str(place / "tiny"))
    processor = SceneProcessor.from_folder(model.folder.path)
    report = write_features(data, model, processor, dtype="float32", views=(False, True))
    assert (report.name, report.written, report.kept) == (name, 4, 0)
    original, other = FeatureStore(place / "data", name), FeatureStore(data, name)
    for scene in ("scene0000_00", "scene0001_00"):
        for mirrored in (False, True):
            seen = other.read(scene, 2, mirrored=mirrored)
            np.testing.assert_array_equal(seen, original.read(scene, 2, mirrored=not mirrored))
            assert not np.allclose(seen, original.read(scene, 2, mirrored=mirrored)), "a mirror changes what is seen"
