"""The Python interface: what it gives is what the commands compute, and nothing that it is given changes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxvsr
from jaxvsr.errors import InputError

QUESTIONS = ["How many chairs are there?", "How many tables are there?"]
ANSWERS = ["4", "1"]


def frames(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 56, 84, 3), dtype=np.uint8)


def scenes(count: int = 2) -> list[jaxvsr.Scene]:
    return [jaxvsr.Scene(frames(seed), QUESTIONS, ANSWERS, name=f"room-{seed}") for seed in range(count)]


def letters(text: str) -> float:
    """Another number for nearly every text."""
    return float(sum(map(ord, text)) % 7)


def letters_reward(completions: list[str], **columns: object) -> list[float]:
    return [letters(text) for text in completions]


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> str:
    return str(tiny_model())


@pytest.fixture(scope="module")
def policy(model: str) -> jaxvsr.Policy:
    optimizer = jaxvsr.Optimizer(learning_rate=1e-2)
    return jaxvsr.load(model, lora=jaxvsr.Lora(rank=4), optimizer=optimizer, prompt="question")


def leaves(state: object) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(state))]


def test_every_public_name_exists() -> None:
    assert set(jaxvsr.__all__) <= set(dir(jaxvsr)) and all(hasattr(jaxvsr, name) for name in jaxvsr.__all__)
    assert sorted(jaxvsr.__all__) == sorted(jaxvsr._PUBLIC)
    with pytest.raises(AttributeError, match="it offers AdvantageRule"):
        jaxvsr.lode  # noqa: B018


@pytest.mark.slow
def test_running_a_cell_twice_gives_equal_results_and_does_not_change_the_state(policy: jaxvsr.Policy) -> None:
    state = policy.start(seed=3)
    before, batch = leaves(state), policy.batch(scenes())
    results = []
    for _ in range(2):
        rollouts = policy.sample(state, batch, group=3, answer_tokens=4)
        rewards = [[[float(len(text)) for text in group] for group in scene] for scene in rollouts.texts]
        after, metrics = policy.update(state, batch, rollouts, rewards, jaxvsr.Objective(beta=0.01))
        results.append((rollouts.texts, leaves(after), metrics))
    (texts, first, metrics), (texts_again, second, metrics_again) = results
    assert texts == texts_again and metrics == metrics_again
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(state), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(before, first, strict=True)), "the update did something"
    assert metrics["kl"] == pytest.approx(0, abs=1e-6) and metrics["logprob_gap"] < 1e-4


@pytest.mark.slow
def test_a_step_by_hand_equals_a_step_of_the_training_loop(policy: jaxvsr.Policy, model: str) -> None:
    """Random numbers belong to the questions: the loop samples the same answers, in whatever order its scenes are."""
    lora = policy.config.lora
    assert lora is not None
    config: dict[str, Any] = {
        "steps": 1, "seed": 3, "data__scenes": 2, "data__questions": 2, "data__prompt": policy.config.data.prompt,
        "sampling__group": 3, "sampling__answer_tokens": 4, "lora__rank": 4, "lora__alpha": lora.alpha,
        "lora__target_modules": lora.target_modules, "logging__sample_questions": 4,
        "optimizer__learning_rate": 1e-2, "optimizer__warmup_steps": 0, "grpo": jaxvsr.Objective(beta=0.01),
        "model__path": model,
    }  # fmt: skip
    trained = jaxvsr.train(scenes=scenes(), rewards=[letters_reward], quiet=True, **config)
    state, batch = policy.start(seed=3), policy.batch(scenes())
    rollouts = policy.sample(state, batch, group=3, answer_tokens=4)
    rewards = [[[letters(text) for text in group] for group in scene] for scene in rollouts.texts]
    by_hand = {
        f"room-{s}/{q}": (rollouts.texts[s][q], rewards[s][q]) for s in range(2) for q in range(2)
    }  # fmt: skip
    first = [row for row in trained.samples if row["step"] == 1][:4]
    assert {row["question_id"] for row in first} == set(by_hand)
    for row in first:
        texts, earned = by_hand[row["question_id"]]
        assert [answer["text"] for answer in row["answers"]] == texts
        assert [answer["reward"] for answer in row["answers"]] == earned
    _, metrics = policy.update(state, batch, rollouts, rewards, jaxvsr.Objective(beta=0.01))
    for name in ("loss", "grad_norm", "entropy", "reward/mean", "reward/std"):
        assert metrics[name] == pytest.approx(trained.metrics[0][name], rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_saved_folders_give_the_answers_of_the_state(policy: jaxvsr.Policy, tmp_path: Path) -> None:
    start, asked = policy.start(), scenes(1)
    noisy = {name: leaf + 0.1 for name, leaf in start.trainable.items()}
    state = dataclasses.replace(start, trainable=noisy)
    answers, log_probabilities = policy.answers(state, asked), None
    given = [[["4", "12"], ["no", "1"]]]
    log_probabilities = jaxvsr.tree_logprobs(policy, state, asked, given)
    for folder in (policy.save(state, tmp_path / "whole"), policy.save(state, tmp_path / "adapter", adapter=True)):
        again = jaxvsr.load(folder, prompt=policy.config.data.prompt)
        assert again.answers(again.start(), asked) == answers
        ours = jaxvsr.tree_logprobs(again, again.start(), asked, given)
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(log_probabilities), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-2)  # merged weights are rounded to the folder's dtype
    with pytest.raises(InputError, match="whole"):
        policy.save(state, tmp_path / "whole")


@pytest.mark.slow
def test_log_probabilities_of_sampled_tokens_are_those_of_the_sampler() -> None:
    """Of a model that was trained: what a random one draws is seldom text that is read as the same tokens."""
    policy = jaxvsr.load("rooms-base", lora=jaxvsr.Lora(rank=4), prompt="question")
    state = policy.start()
    rollouts = policy.sample(state, policy.batch(scenes(1)), group=4, answer_tokens=4)
    ours = jaxvsr.tree_logprobs(policy, state, scenes(1), rollouts.texts)
    compared = 0
    for q, group in enumerate(rollouts.texts[0]):
        for g, text in enumerate(group):
            tokens = policy.processor.chat.answer_tokens(text)
            drawn = rollouts.tokens[0, q, g, : rollouts.length[0, q, g]]
            if list(tokens) == drawn.tolist():  # not cut off, and the text has one way to be written in tokens
                np.testing.assert_allclose(ours[0][q][g], rollouts.logprobs[0, q, g, : len(drawn)], atol=1e-5)
                compared += 1
    assert compared


def test_wrong_scenes_are_refused_in_one_line(policy: jaxvsr.Policy, without_type_checks: None) -> None:
    for message, wrong in [
        ("must be a list", lambda: jaxvsr.Scene(frames(0), "How many?")),
        ("one entry per question, of which there are 2", lambda: jaxvsr.Scene(frames(0), QUESTIONS, ["1"])),
        ("must be frames", lambda: policy.batch([jaxvsr.Scene(frames(0).astype(float), QUESTIONS)])),
        ("takes the same number", lambda: policy.batch([*scenes(1), jaxvsr.Scene(frames(1), QUESTIONS[:1])])),
        ("no such video", lambda: policy.batch([jaxvsr.Scene("missing.mp4", QUESTIONS)])),
        ("2 scenes, but a step of 4", lambda: jaxvsr.train(scenes=scenes(), data__scenes=4, quiet=True)),
        ("data.questions=5 are", lambda: jaxvsr.train(scenes=scenes(), data__scenes=2, data__questions=5, quiet=True)),
        ("data.scene", lambda: jaxvsr.train(data__scene=4)),
    ]:  # fmt: skip
        with pytest.raises(InputError) as error:
            wrong()
        assert message in str(error.value) and "\n" not in str(error.value), str(error.value)


@pytest.mark.slow
def test_rewards_of_another_shape_are_refused(policy: jaxvsr.Policy) -> None:
    state, batch = policy.start(), policy.batch(scenes(1))
    rollouts = policy.sample(state, batch, group=2, answer_tokens=2)
    with pytest.raises(InputError, match=r"rewards of shape \[2\]: must be one number per rollout, 1 x 2 x 2"):
        policy.update(state, batch, rollouts, [1.0, 0.0])


@pytest.mark.slow
def test_a_run_ends_with_its_iterator_of_scenes_and_keeps_everything(model: str) -> None:
    common: dict[str, Any] = {
        "data__scenes": 2, "data__questions": 2, "sampling__answer_tokens": 4, "quiet": True, "model__path": model,
    }  # fmt: skip
    trained = jaxvsr.train(scenes=iter(scenes(5)), rewards=[letters_reward], steps=4, **common)
    assert trained.ended == "scenes used up" and [row["step"] for row in trained.metrics] == [1, 2]
    whole = jaxvsr.train(scenes=iter(scenes(4)), rewards=[letters_reward], steps=2, **common)
    assert whole.ended == "all steps"
    first, last = whole.samples[0], whole.samples[-4]
    assert first["question_id"] == last["question_id"] and (first["step"], last["step"]) == (1, 2)


@pytest.mark.slow
def test_a_fully_trained_policy_answers_and_without_reference_refuses_beta(tmp_path: Path) -> None:
    trained = jaxvsr.train(
        scenes=scenes(), rewards=[letters_reward], steps=1, lora=None, data__scenes=2, data__questions=2, quiet=True,
        sampling__answer_tokens=4, run_dir=tmp_path / "run", update__inner_steps=2, intervals__video_gain=1,
    )  # fmt: skip
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "letters_reward" in kept and "demo-data" not in kept, "the config says what was trained on"
    again = trained.policy.start()
    assert trained.policy.answers(again, scenes(1)) == jaxvsr.load(lora=None).answers(again, scenes(1))
    assert trained.policy.config.update.inner_steps == 1 and trained.policy.answers(trained.state, scenes(1))
    bare = jaxvsr.load(lora=None, reference=False)
    state, batch = bare.start(), bare.batch(scenes(1))
    rollouts = bare.sample(state, batch, group=2, answer_tokens=2)
    with pytest.raises(InputError, match="there is no reference policy"):
        bare.update(state, batch, rollouts, [[[0.0, 1.0]] * 2], jaxvsr.Objective(beta=0.1))
    with pytest.raises(InputError, match="of another batch"):
        bare.update(state, bare.batch([dataclasses.replace(scenes(1)[0], name="other")]), rollouts, [[[0.0, 1.0]] * 2])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__blank": True}, "data.blank=True: is for data folders"),
        ({"data__mirror": "pairs"}, "data.mirror=pairs: is for data folders"),
        ({"intervals__evaluate": 1}, "intervals.evaluate: held-out questions are those of data folders"),
        ({"data__features": "require"}, "data.features=require: is for data folders"),
        (
            {"objective": "sft", "scenes": [jaxvsr.Scene(frames(0), QUESTIONS)] * 2},
            "objective sft learns them",
        ),
        ({"rewards": [letters_reward, letters_reward]}, "rewards: 'letters_reward' is listed twice"),
    ],
)
def test_settings_without_effect_are_refused(fields: dict[str, Any], message: str) -> None:
    given = {"scenes": scenes(), "rewards": [letters_reward], "data__scenes": 2, "data__questions": 2, "quiet": True}
    with pytest.raises(InputError, match=message):
        jaxvsr.train(**{**given, **fields})


@pytest.mark.slow
def test_an_update_that_is_not_finite_is_said_and_changes_nothing(policy: jaxvsr.Policy) -> None:
    state = policy.start()
    batch = policy.batch(scenes())
    broken = dataclasses.replace(state, trainable={name: leaf * np.nan for name, leaf in state.trainable.items()})
    rollouts = policy.sample(broken, batch, group=2, answer_tokens=4)
    rewards = np.arange(8.0).reshape(2, 2, 2)
    with pytest.raises(
        jaxvsr.NotFiniteError, match=r"^update: the loss is not finite \(loss nan\); the state that was"
    ):
        policy.update(broken, batch, rollouts, rewards)
    _, metrics = policy.update(state, batch, policy.sample(state, batch, group=2, answer_tokens=4), rewards)
    assert np.isfinite(metrics["loss"]) and metrics["weight_norm"] > 0


@pytest.mark.slow
def test_training_that_diverges_raises_in_python_too(model: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "config": "demo-grpo", "scenes": scenes(), "rewards": [letters_reward], "quiet": True, "steps": 4,
        "data__scenes": 2, "data__questions": 2, "data__frames": 4, "intervals__evaluate": 0,
        "intervals__checkpoint": 1, "model__path": model, "optimizer__learning_rate": 1e30,
    }  # fmt: skip
    # The learning rate of step 1 is 0.
    with pytest.raises(jaxvsr.NotFiniteError, match=r"^step 2: the weights are not finite .*run/checkpoints/1: start"):
        jaxvsr.train(**settings, run_dir=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("[0-9]*")] == ["1"]
