"""Checkpoints: what is saved comes back, on any mesh, and never onto another model."""

import dataclasses
import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError
from jaxvsr.grpo.compiled_step import start_state
from jaxvsr.models.huggingface.stages import Stage
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.tiny.tiny_model import write_tiny_model
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord, is_run, open_run
from jaxvsr.runs.model_source import open_model, reopen_model, start_record, write_stages
from jaxvsr.runs.run_folder import make_run_folder
from tests.support.checkpoint_states import LORA, NAME, OPTIMIZER, RECORD, assert_equal, state_after
from tests.support.forks import said_by
from tests.support.models import SMALL


def test_a_saved_state_is_read_back_bit_for_bit_with_its_record(tmp_path: Path) -> None:
    written = Checkpoints(tmp_path / "checkpoints", keep=2)
    written.save(3, state_after(3), RECORD)
    written.close()
    read = Checkpoints(tmp_path / "checkpoints")
    assert read.record(3) == RECORD
    assert_equal(read.restore(3, state_after(0), RECORD), state_after(3))


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, score in [(1, None), (2, 0.9), (3, 0.5), (4, None), (5, 0.9), (6, 0.1), (7, None)]:
        checkpoints.save(step, state_after(0), RECORD, score)
    assert (checkpoints.steps, checkpoints.best, checkpoints.latest) == ([5, 6, 7], 5, 7)


def test_a_score_that_comes_after_the_checkpoint_is_what_best_goes_by_and_keeps_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, score in [(1, 0.5), (2, None)]:
        checkpoints.save(step, state_after(step), RECORD, score)
    checkpoints.add_score(2, 0.9)
    assert (checkpoints.best, checkpoints.best_score) == (2, 0.9)
    checkpoints.save(3, state_after(3), RECORD)
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=1)
    assert (again.steps, again.best, again.best_score) == ([2, 3], 2, 0.9)
    assert_equal(again.restore(2, state_after(0), RECORD), state_after(2))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, state_after(1), RECORD)
    other = RunRecord("models/other", "/models/other", None, "2" * 64)
    with pytest.raises(
        InputError, match=r"another model: it was trained on models/tiny .*models/other has content 2222"
    ):
        checkpoints.restore(1, state_after(0), other)


def test_an_interrupted_save_is_not_listed_as_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state_after(1), RECORD)
    checkpoints.close()
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "weights").mkdir()
    assert Checkpoints(tmp_path, keep=2).steps == [1]


def test_a_folder_named_like_the_shipped_model_is_refused_until_it_is_clear_which_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = open_model("rooms-base").content_hash
    write_tiny_model(Path("rooms-base"), 0, shape=SMALL)
    with pytest.raises(InputError, match=r"comes with jaxvsr, and a folder of that name is here; give \./rooms-base"):
        open_model("rooms-base")
    assert open_model("./rooms-base").content_hash != shipped
    Path("rooms-base").rename("mine")
    assert open_model("rooms-base").content_hash == shipped


def test_a_checkpoint_is_named_by_best_or_by_step(tmp_path: Path) -> None:
    config = TrainConfig(lora=LORA)
    run = make_run_folder(tmp_path / "runs" / "a@b", config)
    assert is_run(str(run.path)) and not is_run(str(tmp_path))
    with pytest.raises(InputError, match="no checkpoint yet"):
        open_run(str(run.path))
    checkpoints = Checkpoints(run.checkpoints, keep=5)
    for step in (1, 2, 3):
        checkpoints.save(step, state_after(step), RECORD, score=1.0 if step == 2 else None)
    checkpoints.close()
    for suffix, step in (("", 3), ("@latest", 3), ("@best", 2), ("@1", 1)):
        opened = open_run(f"{run.path}{suffix}")
        assert (opened.step, opened.lora, opened.record) == (step, config.lora, RECORD)
        np.testing.assert_array_equal(opened.weights[NAME], np.asarray(state_after(step).trainable[NAME]))
    with pytest.raises(InputError, match="no such checkpoint; it has 1, 2, 3"):
        open_run(f"{run.path}@9")
    with pytest.raises(InputError, match="after @ comes best"):
        open_run(f"{run.path}@worst")


def test_best_without_an_evaluation_is_refused_and_says_what_is_missing(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", TrainConfig())
    checkpoints = Checkpoints(run.checkpoints, keep=1)
    checkpoints.save(1, state_after(1), RECORD)
    checkpoints.close()
    with pytest.raises(InputError, match=r"no evaluation was made \(intervals.evaluate\)"):
        open_run(f"{run.path}@best")


@pytest.fixture
def run_of_two(tmp_path: Path) -> Path:
    run = make_run_folder(tmp_path / "run", TrainConfig(lora=LORA))
    checkpoints = Checkpoints(run.checkpoints, keep=2)
    for step in (1, 2):
        checkpoints.save(step, state_after(step), dataclasses.replace(RECORD, lora=LORA), score=0.5)
    checkpoints.close()
    return run.path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (empty, ""),
        (shutil.rmtree, "weights"),
        (cut, "weights/manifest.ocdbt"),
        (shutil.rmtree, "weights/d"),
        (cut, "_CHECKPOINT_METADATA"),
        (cut, "metrics/metrics"),
    ],
)
def test_a_damaged_checkpoint_is_one_line_that_names_it_and_the_steps_that_are_left(
    damage: Callable[[Path], None], part: str, run_of_two: Path
) -> None:
    damaged = run_of_two / "checkpoints" / "2"
    damage(damaged / part)
    with pytest.raises(InputError) as refused:
        open_run(str(run_of_two))
    line = str(refused.value)
    assert line.startswith(f"{damaged}: the checkpoint is cut, damaged or empty (") and "\n" not in line
    assert line.endswith(f"move its folder away, or take another step with {run_of_two}@STEP (it has 1)")
    shutil.rmtree(damaged)
    assert open_run(str(run_of_two)).step == 1


@pytest.mark.slow
def test_a_flipped_bit_of_any_file_is_refused_or_no_matter_and_nothing_is_printed(
    run_of_two: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record, rng, refused = dataclasses.replace(RECORD, lora=LORA), np.random.default_rng(0), set()
    for path in sorted(path for path in (run_of_two / "checkpoints" / "2").rglob("*") if path.is_file()):
        data = path.read_bytes()
        for _ in range(2):
            flipped = bytearray(data)
            flipped[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            try:
                checkpoints = Checkpoints(run_of_two / "checkpoints")
                assert_equal(checkpoints.restore(2, state_after(0), record), state_after(2))
            except InputError as error:
                assert "\n" not in str(error)
                refused.add(f"{path.parent.parent.name}/{path.parent.name}/{path.name}")
        path.write_bytes(data)
    gc.collect()
    assert {"2/weights/manifest.ocdbt", "2/training/manifest.ocdbt", "checkpoints/2/_CHECKPOINT_METADATA"} <= refused
    assert any(name.startswith("training/d/") for name in refused) and capfd.readouterr().err == ""


@pytest.mark.parametrize("part", ["weights", "training"])
def test_a_flipped_bit_of_a_large_array_is_refused_by_what_was_recorded_of_its_bits(part: str, tmp_path: Path) -> None:
    """Random bits are stored as they are: without our own comparison they are read with one of them flipped."""
    rng = np.random.default_rng(0)

    def random_bits(leaf: jax.Array) -> jax.Array:
        bits = rng.integers(0, 2**32, leaf.shape, np.uint32)
        bits ^= np.where(bits & 0x7F800000 == 0x7F800000, np.uint32(0x00800000), np.uint32(0))  # finite
        return jnp.asarray(bits.view(np.float32)) if leaf.ndim else leaf

    state = jax.tree.map(random_bits, start_state({NAME: jnp.zeros((2, 64, 64))}, OPTIMIZER, seed=7))
    written = Checkpoints(tmp_path, keep=1)
    written.save(1, state, RECORD)
    written.close()
    leaf = max(jax.tree.leaves(state.trainable if part == "weights" else state.optimizer), key=lambda leaf: leaf.size)
    begin = np.asarray(leaf).tobytes()[:64]
    (path,) = [path for path in (tmp_path / "1" / part).rglob("*") if path.is_file() and begin in path.read_bytes()]
    data = path.read_bytes()
    for bit in (0, 7, 100_003, 8 * leaf.nbytes - 1):
        flipped = bytearray(data)
        flipped[data.index(begin) + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=rf"/1: the checkpoint is .*the bits of {part}\S* are not those that were"):
            Checkpoints(tmp_path).restore(1, state, RECORD)
    path.write_bytes(data)
    assert_equal(Checkpoints(tmp_path).restore(1, state, RECORD), state)


def test_a_damaged_optimizer_state_is_not_resumed_but_its_weights_are_read(run_of_two: Path) -> None:
    shutil.rmtree(run_of_two / "checkpoints" / "2" / "training")
    record = dataclasses.replace(RECORD, lora=LORA)
    with pytest.raises(InputError, match="checkpoints/2: the checkpoint is cut, damaged or empty"):
        Checkpoints(run_of_two / "checkpoints").restore(2, state_after(0), record)
    assert open_run(str(run_of_two)).step == 2


EDITED = {
    "rank": (LoraConfig(rank=4), "lora.rank is 4, but step 2 was trained with 2"),
    "alpha": (LoraConfig(rank=2, alpha=64.0), "lora.alpha is 64.0, but step 2 was trained with 32.0"),
    "targets": (LoraConfig(rank=2, target_modules=("o_proj",)), r"lora.target_modules .*o_proj"),
    "null": (None, "lora is null, but step 2"),
}


@pytest.mark.parametrize("edit", EDITED)
def test_a_config_that_was_edited_is_not_merged_with_another_lora(edit: str, run_of_two: Path) -> None:
    lora, says = EDITED[edit]
    make_run_folder(run_of_two, TrainConfig(lora=lora))
    with pytest.raises(InputError, match=f"config.yaml: {says}"):
        open_run(str(run_of_two))
    checkpoints = Checkpoints(run_of_two / "checkpoints")
    with pytest.raises(InputError, match=f"config.yaml: {says}"):
        checkpoints.restore(2, state_after(0), dataclasses.replace(RECORD, lora=lora))


@pytest.mark.parametrize("edit", ["rank", "targets", "null"])  # a file of weights does not tell alpha
def test_a_run_that_did_not_record_its_lora_is_read_and_refused_by_its_weights(edit: str, tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", TrainConfig(lora=LORA))
    checkpoints = Checkpoints(run.checkpoints, keep=1)
    checkpoints.save(2, state_after(2), RECORD)
    checkpoints.close()
    before = RECORD.to_json()
    del before["lora"]
    assert RunRecord.from_json(before, "") == RECORD
    assert open_run(str(run.path)).lora == LORA
    make_run_folder(run.path, TrainConfig(lora=EDITED[edit][0]))
    with pytest.raises(InputError, match=r"config.yaml: lora"):
        open_run(str(run.path))


def test_a_state_of_other_shapes_is_not_resumed(run_of_two: Path) -> None:
    other = start_state({**state_after(0).trainable, NAME: jnp.zeros((2, 4, 4))}, OPTIMIZER, seed=7)
    with pytest.raises(InputError, match=r"config.yaml: does not fit .*2, where .*lora_A has shape \(2, 2, 4\)"):
        Checkpoints(run_of_two / "checkpoints").restore(2, other, dataclasses.replace(RECORD, lora=LORA))


_ON_MESH = """
import json, sys
from pathlib import Path
from jaxvsr.devices.choose_devices import choose_devices
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import parse_mesh
shape = parse_mesh(sys.argv[2])
mesh = make_mesh(shape, choose_devices("cpu", shape))
import jax, jax.numpy as jnp, numpy as np, optax
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord
from jaxvsr.grpo.compiled_step import start_state
from jaxvsr.models.sharding import state_shardings
name = "language_model.layers.mlp.up_proj.weight"
state = start_state({name: jnp.arange(128.0).reshape(2, 8, 8)}, optax.adamw(1e-3), seed=3)
state = jax.device_put(state, state_shardings(state, mesh))
checkpoints, record = Checkpoints(Path(sys.argv[1]), keep=1), RunRecord("m", "/m", None, "3" * 64)
if not checkpoints.steps:
    checkpoints.save(1, state, record)
    checkpoints.close()
else:
    empty = jax.tree.map(lambda leaf: jax.device_put(jnp.zeros_like(leaf), leaf.sharding), state)
    state = checkpoints.restore(1, empty, record)
weight, moment = state.trainable[name], state.optimizer[0].mu[name]
print(json.dumps({"sum": float(weight.sum()), "shards": len(weight.sharding.device_set),
                  "piece": weight.addressable_shards[0].data.shape, "moments": list(moment.sharding.spec)}))
"""


@pytest.mark.slow
def test_a_checkpoint_of_one_mesh_restores_onto_another(tmp_path: Path) -> None:
    seen = []
    for mesh in ("1", "fsdp=4,tensor=2"):
        seen.append(json.loads(said_by(_ON_MESH, tmp_path / "checkpoints", mesh)))
    assert [found["shards"] for found in seen] == [1, 8]
    assert seen[1]["piece"] == [2, 4, 2] and seen[1]["moments"] == [None, "tensor", "fsdp"]
    assert [found["sum"] for found in seen] == [sum(range(128))] * 2


def test_a_run_is_resumed_from_its_record_even_if_the_run_it_started_from_is_gone(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny", 0, shape=SMALL)
    stage = Stage({NAME: np.arange(256, dtype=np.float32).reshape(1, 4, 64)}, LoraConfig(rank=4))
    started = dataclasses.replace(open_model(str(tmp_path / "tiny")), name="runs/first", stages=(stage,))
    run = tmp_path / "run"
    write_stages(dataclasses.replace(started, stages=(Stage({NAME: np.zeros((1, 4, 64))}, None),)), run)
    write_stages(started, run)  # those of an earlier attempt do not stay
    assert reopen_model(run) is None
    written = Checkpoints(run / "checkpoints", keep=2)
    written.save(1, state_after(1), start_record(started))
    written.close()

    again = reopen_model(run)
    assert again is not None and start_record(again) == start_record(started)
    assert again.stages[0].lora == stage.lora
    np.testing.assert_array_equal(again.stages[0].weights[NAME], stage.weights[NAME])

    seen_from_elsewhere = reopen_model(run, "models/tiny")
    assert seen_from_elsewhere is not None and seen_from_elsewhere.folder.path == tmp_path / "tiny"
    (tmp_path / "tiny").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="give the folder where it is now with --base FOLDER"):
        reopen_model(run)
    moved = reopen_model(run, str(tmp_path / "moved"))
    assert moved is not None and moved.content_hash == again.content_hash

    write_tiny_model(tmp_path / "tiny", 1, shape=SMALL)
    with pytest.raises(InputError, match="has changed since the run was made"):
        reopen_model(run)


def test_what_a_kill_kept_from_being_removed_goes_when_the_run_is_opened_again(tmp_path: Path) -> None:
    killed = Checkpoints(tmp_path, keep=9)
    for step, score in [(1, None), (2, 0.9), (3, None), (4, None), (5, 0.1)]:
        killed.save(step, state_after(step), RECORD, score)
    killed.close()
    Checkpoints(tmp_path, keep=2).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5"]
    Checkpoints(tmp_path).close()  # only reads
    assert Checkpoints(tmp_path).steps == [2, 4, 5]
