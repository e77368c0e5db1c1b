"""Scenes of a data folder, reward functions and answers in Python: the same as by the commands."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxvsr
from jaxvsr.errors import InputError
from jaxvsr.prompts import PROMPTS
from jaxvsr.runs.run_folder import RunFolder
from launch import evaluate, train
from tests.support.data_folders import QUESTIONS, write_data_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_folder(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> str:
    return str(tiny_model())


@pytest.fixture(scope="module")
def policy(model: str) -> jaxvsr.Policy:
    return jaxvsr.load(model, lora=jaxvsr.Lora(rank=2))


def test_scenes_of_a_folder_can_be_chosen_by_question_type(data: Path) -> None:
    whole = list(jaxvsr.read_scenes(data))  # in the number of frames that is stored
    assert {len(np.asarray(scene.video)) for scene in whole} == {2}
    chosen = list(jaxvsr.read_scenes(data, frames=2, question_types="room_size_estimation", limit=4))
    assert [scene.name for scene in chosen] == [scene.name for scene in whole[:4]]
    for scene, all_of_it in zip(chosen, whole, strict=False):
        assert scene.question_types == ["room_size_estimation"] * len(scene.questions)
        assert scene.questions == [
            text
            for text, kind in zip(all_of_it.questions, all_of_it.question_types or (), strict=True)
            if kind == "room_size_estimation"
        ]
    with pytest.raises(InputError, match=r"no questions height in split train; it has object_counting, room_size_"):
        next(jaxvsr.read_scenes(data, frames=2, question_types=["height", "object_counting"]))


@pytest.mark.slow
def test_a_reward_function_gets_the_texts_and_the_fields_of_their_questions(policy: jaxvsr.Policy, data: Path) -> None:
    seen: dict[str, Any] = {}

    def length_of_numbers(completions: list[str], answer_kind: list[str], **columns: Any) -> list[float | None]:
        seen.update(columns, completions=completions)
        return [float(len(text)) if text.isdigit() else None for text in completions]

    scenes = list(jaxvsr.read_scenes(data, frames=2, limit=2))
    batch = policy.batch(scenes)
    rollouts = policy.sample(policy.start(), batch, group=3, answer_tokens=2)
    rewards = policy.reward(batch, rollouts, length_of_numbers)
    assert rewards.shape == (2, QUESTIONS, 3)
    for s, scene in enumerate(scenes):
        for q, question in enumerate(scene.questions):
            row = (s * QUESTIONS + q) * 3
            assert seen["completions"][row : row + 3] == rollouts.texts[s][q]
            assert seen["question"][row : row + 3] == [question] * 3
            assert seen["prompts"][row] == policy.prompt.template.replace("{question}", question)
            expected = [float(len(text)) if text.isdigit() else np.nan for text in rollouts.texts[s][q]]
            np.testing.assert_array_equal(rewards[s, q], expected)

    def faulty(completions: list[str], **columns: Any) -> list[float]:
        return [1.0]

    with pytest.raises(InputError, match="reward 'faulty' returned 1 values for 30 completions"):
        policy.reward(batch, rollouts, faulty)


@pytest.mark.slow
def test_answers_do_not_depend_on_batch_size_and_a_smaller_last_batch_compiles_nothing(
    policy: jaxvsr.Policy, model: str, data: Path
) -> None:
    scenes = list(jaxvsr.read_scenes(data, frames=2, limit=5))
    scenes[3] = dataclasses.replace(
        scenes[3], questions=scenes[3].questions[:2], answers=None, options=None, question_types=None
    )
    state = policy.start()
    at_once = policy.answers(state, scenes, answer_tokens=3)
    compiled: list[str] = []
    fresh = jaxvsr.load(model, lora=jaxvsr.Lora(rank=2))
    settings = dataclasses.replace(fresh.config.sampling, group=1, answer_tokens=3)
    for function in fresh._step(settings, greedy=True).functions:
        function.on_compile = lambda name, bucket: compiled.append(name)
    by_two = fresh.answers(fresh.start(), iter(scenes), answer_tokens=3, batch_size=2)
    assert by_two == at_once and list(map(len, by_two)) == [QUESTIONS, QUESTIONS, QUESTIONS, 2, QUESTIONS]
    assert compiled == ["sample"]


@pytest.mark.slow
def test_a_saved_folder_gives_the_answers_and_scores_of_evaluate_py(model: str, data: Path, tmp_path: Path) -> None:
    """Also with a repetition penalty, which Qwen2.5-VL's folders have."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "SHA256SUMS").unlink()  # of the folder as it was
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, "repetition_penalty": 1.8}))
    arguments = ["--model", str(folder), "--data", str(data), "--benchmark", "vsi-bench", "--frames", "2"]
    arguments += ["--prompt", "vsi-bench"]
    assert evaluate.main([*arguments, "--split", "all", "--out", str(tmp_path / "scores"), "--device", "cpu"]) == 0
    predictions = map(json.loads, (tmp_path / "scores" / "predictions.jsonl").read_text().splitlines())
    expected = {row["id"]: PROMPTS["vsi-bench"].completion(row["prediction"]) for row in predictions}

    penalised = jaxvsr.load(folder, prompt="vsi-bench")
    scenes = list(jaxvsr.read_scenes(data, split="all", frames=2))
    answers = penalised.answers(penalised.start(), scenes)
    assert {
        f"{scene.name}-{k}": text for scene, texts in zip(scenes, answers, strict=True) for k, text in enumerate(texts)
    } == expected
    plain = jaxvsr.load(model, prompt="vsi-bench")
    assert plain.answers(plain.start(), scenes) != answers

    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    for name, value in jaxvsr.evaluate(penalised, penalised.start(), scenes).items():
        assert value == pytest.approx(scores[name])


@pytest.mark.slow
def test_answers_use_the_training_prompt_unless_another_is_named(model: str, data: Path, tmp_path: Path) -> None:
    run, sampling = tmp_path / "run", ("sampling.group=2", "sampling.answer_tokens=2")
    parts = ("data.scenes=2", "data.questions=1", "data.frames=2", "lora.rank=2", f"model.path={model}", *sampling)
    sets = [text for part in parts for text in ("--set", part)]
    arguments = ["--data", str(data), "--steps", "1", "--run-dir", str(run), "--device", "cpu", "--prompt", "spacer"]
    assert train.main([*arguments, *sets]) == 0
    assert jaxvsr.load(run).prompt.name == jaxvsr.load(f"{run}@1").prompt.name == "spacer"
    assert jaxvsr.load(run, prompt="svqa-r1").prompt.name == "svqa-r1"
    assert jaxvsr.load("rooms-base").prompt.name == "question"
    policy = jaxvsr.load(run)
    assert jaxvsr.load(policy.save(policy.start(), tmp_path / "folder")).prompt.name == "spacer"


@pytest.mark.slow
def test_train_takes_the_same_settings_as_a_policy(model: str, data: Path, tmp_path: Path) -> None:
    scenes = list(jaxvsr.read_scenes(data, frames=2))
    lora, objective = jaxvsr.Lora(rank=3, alpha=3.0), jaxvsr.Objective(beta=0.02)
    trained = jaxvsr.train(
        scenes=scenes, lora=lora, grpo=objective, optimizer=jaxvsr.Optimizer(learning_rate=1e-30),
        steps=1, data__questions=1, data__scenes=2, quiet=True, run_dir=tmp_path / "run",
        model__path=model,
    )  # fmt: skip
    config = RunFolder(tmp_path / "run").read_config()
    assert (config.lora, config.grpo, config.optimizer.learning_rate) == (lora, objective, 1e-30)
    assert all(lora.rank in leaf.shape for leaf in trained.state.trainable.values())
    start = trained.policy.start()
    for name, leaf in trained.state.trainable.items():
        np.testing.assert_allclose(leaf, start.trainable[name], rtol=0, atol=1e-29)  # at this learning rate


def test_an_unknown_setting_is_refused_in_one_line() -> None:
    for name in ("optimizer", "adapter"):
        with pytest.raises(InputError, match=rf"^{name}: a LoraConfig is no part of that name in a config$"):
            given: dict[str, Any] = {name: jaxvsr.Lora()}
            jaxvsr.train(**given)


@pytest.mark.slow
def test_compiled_programs_are_cached_in_the_folder_of_the_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "here"))
        jaxvsr.load("rooms-base")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "here")  # type: ignore[attr-defined]
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "elsewhere"))
        jaxvsr.load("rooms-base")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "here")  # type: ignore[attr-defined]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
