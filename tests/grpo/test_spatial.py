"""Spatial-GRPO between rewards and advantages, against SVQA-R1's equations written down again; and video_gain."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import multihost_utils

from jaxvsr.config.train_config import (
    DataSettings,
    IntervalSettings,
    SamplingSettings,
    TrainConfig,
    ViewConsistencySettings,
)
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.devices.processes import SceneAxis
from jaxvsr.errors import InputError
from jaxvsr.files import read_rows
from jaxvsr.grpo.advantages import group_advantages
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.rollouts import check_view_consistency, correct_views
from jaxvsr.models.tree_batch import VisionFeatures
from jaxvsr.rewards.registry import Reward
from jaxvsr.training.loop import train
from jaxvsr.training.stopping import StopRequest
from jaxvsr.training.video_gain import WINDOW, VideoGainWatch, check_video_gain, with_other_videos
from tests.support.runs import Bench, G, Q, R, S, batch_of, config, first_token_reward, fresh_state, scores_of

PAIRS = DataSettings(scenes=S, questions=Q, mirror="pairs")
REWARDS = (Reward("form", lambda **_: [], 0.5), Reward("meaning", lambda **_: [], 0.5))


def spatial(**settings: Any) -> TrainConfig:
    return TrainConfig(data=PAIRS, view_consistency=ViewConsistencySettings(("meaning",), **settings))


def restated_advantages(form: list, meaning: list, delta: float, eta: float) -> list[list[list[float]]]:
    """SVQA-R1, Eq. 2 to 4, one question at a time, in plain Python: views v and v + 1 are a pair."""
    views: list[list[list[float]]] = [[] for _ in form]
    for v in range(0, len(form), 2):
        for q in range(len(form[v])):
            own, mirrored = list(meaning[v][q]), list(meaning[v + 1][q])
            difference = sum(own) / len(own) - sum(mirrored) / len(mirrored)
            loser = own if difference >= 0 else mirrored
            for i, value in enumerate(loser):
                if value > delta:
                    loser[i] = value - eta * abs(difference)
            for view, semantic in ((v, own), (v + 1, mirrored)):
                rewards = [0.5 * f + 0.5 * s for f, s in zip(form[view][q], semantic, strict=True)]
                mean = sum(rewards) / len(rewards)
                deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
                views[view].append([(r - mean) / (deviation + 1e-4) for r in rewards])
    return views


@pytest.mark.slow
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 0.8]), st.sampled_from([0.0, 1.0, 2.0, 10.0]))
def test_advantages_equal_the_papers_equations(seed: int, delta: float, eta: float) -> None:
    rng = np.random.default_rng(seed)
    form = rng.integers(0, 2, (4, 3, 5)).astype(float)
    meaning = rng.uniform(-0.2, 1.0, (4, 3, 5))
    settings = spatial(delta=delta, eta=eta)
    corrected, metrics = correct_views(np.stack([form, meaning]), REWARDS, settings)
    np.testing.assert_array_equal(corrected[0], form)
    got = group_advantages(corrected, [0.5, 0.5], settings.advantages).advantages
    expected = restated_advantages(form.tolist(), meaning.tolist(), delta, eta)
    np.testing.assert_allclose(got, np.array(expected), rtol=1e-4, atol=1e-5)
    gaps = np.abs(meaning[0::2].mean(-1) - meaning[1::2].mean(-1))
    assert metrics["view_consistency/difference"] == pytest.approx(gaps.mean())
    assert metrics["view_consistency/penalised"] == pytest.approx((corrected[1] != meaning).mean())


def test_gathered_rewards_of_all_processes_are_bit_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward of 0.1 that came as float32 would lie above a delta of 0.1, and two processes would differ from one."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda array, tiled: np.asarray(array))
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    for rows in (
        np.array([[0.1, np.nan, -0.0], [1 / 3, 1e300, 2.5]]),
        np.array([[True, False], [False, False]]),
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array([2**40, -1]),
    ):
        gathered = SceneAxis(mesh, 2).all_rows(rows)
        assert gathered.dtype == rows.dtype and gathered.tobytes() == rows.tobytes()


def test_without_named_rewards_nothing_is_corrected() -> None:
    scores = np.random.default_rng(0).uniform(size=(2, 2, 3, 4))
    corrected, metrics = correct_views(scores, REWARDS, TrainConfig())
    assert corrected is scores and metrics == {}


@pytest.mark.slow
def test_the_corrected_reward_is_in_the_update_the_log_and_the_samples(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    settings = config(steps=1, data=PAIRS, view_consistency=ViewConsistencySettings(("length",), delta=2.0, eta=0.5))
    run = bench(tmp_path / "run", settings)
    train(run.context, fresh_state(), StopRequest())
    rollouts, inputs = run.step.seen[0]
    scores = scores_of(rollouts)
    plain = group_advantages(scores, [2.0, 0.5], settings.advantages).advantages
    for q in range(Q):
        difference = scores[1, 0, q].mean() - scores[1, 1, q].mean()
        loser = scores[1, 0 if difference >= 0 else 1, q]
        loser[loser > 2.0] -= 0.5 * abs(difference)
    expected = group_advantages(scores, [2.0, 0.5], settings.advantages)
    np.testing.assert_allclose(np.asarray(inputs.advantages), expected.advantages, rtol=1e-5)
    assert (np.asarray(inputs.advantages) != plain).any()
    row, samples = run.rows()[0], list(read_rows(run.folder.samples))
    assert row["view_consistency/penalised"] > 0 and row["reward/mean"] == pytest.approx(
        expected.metrics["reward/mean"]
    )
    assert samples[0]["answers"][0]["reward"] == pytest.approx(expected.totals[0, 0, 0])


@pytest.mark.parametrize(
    "changes",
    [{"data": DataSettings(scenes=2)}, {"data": PAIRS, "objective": "sft"}],
)
def test_unpaired_data_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"take data\.mirror=pairs and objective=grpo"):
        TrainConfig(view_consistency=ViewConsistencySettings(("meaning",)), **changes)
    with pytest.raises(InputError, match="scenes 3: must be even"):
        DataSettings(scenes=3, mirror="pairs")


def test_a_reward_that_the_run_does_not_have_is_named() -> None:
    check_view_consistency(spatial(), REWARDS)
    with pytest.raises(InputError, match="'meaning' is not one of this run's rewards, form"):
        check_view_consistency(spatial(), REWARDS[:1])


@pytest.mark.parametrize(("paired", "shift"), [(False, 1), (True, 2)])
def test_video_gain_pairs_no_scene_with_itself_or_its_mirror_image(paired: bool, shift: int) -> None:
    batch = batch_of(3)
    four = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf if leaf.dtype == bool else leaf + 1]), batch.prompt)
    keys = np.concatenate([batch.question_keys, batch.question_keys])
    whole = HostBatch(3, four, keys, batch.questions * 2)
    stored = dataclasses.replace(whole, prompt=four.with_features(np.arange(4, dtype=np.float32)[:, None, None]))
    other = with_other_videos(whole, paired=paired)
    vision = with_other_videos(stored, paired=paired).prompt.vision
    assert isinstance(vision, VisionFeatures) and other.prompt.pixels is not None and four.pixels is not None
    for s in range(4):
        source = (s - shift) % 4
        np.testing.assert_array_equal(other.prompt.scene_tokens[s], four.scene_tokens[source])
        np.testing.assert_array_equal(other.prompt.pixels.patches[s], four.pixels.patches[source])
        np.testing.assert_array_equal(other.prompt.question_tokens[s], four.question_tokens[s])
        assert vision.merged[s, 0, 0] == source


def test_a_step_with_too_few_scenes_for_video_gain_is_refused_at_the_start() -> None:
    gain, none = IntervalSettings(video_gain=2), IntervalSettings()
    paired = dataclasses.replace(spatial(), data=dataclasses.replace(PAIRS, scenes=4), intervals=gain)
    for scenes, settings in ((1, config(intervals=gain)), (2, paired)):
        with pytest.raises(InputError, match=f"process holds {scenes} scenes of a step, and needs more than {scenes}"):
            check_video_gain(settings, scenes)
        check_video_gain(settings, 2 * scenes)
        check_video_gain(dataclasses.replace(settings, intervals=none), scenes)


@pytest.mark.parametrize("setting", [{"eta": math.inf}, {"eta": -1.0}, {"eta": math.nan}, {"delta": math.nan}])
def test_a_view_correction_with_infinite_or_nan_settings_is_refused(setting: dict[str, float]) -> None:
    """inf times a difference of 0 is nan, and a reward of nan "does not apply"."""
    with pytest.raises(InputError, match=f"{next(iter(setting))} "):
        ViewConsistencySettings(("meaning",), **setting)


def test_video_gain_is_the_difference_of_mean_rewards(bench: Callable[..., Bench], tmp_path: Path) -> None:
    settings = config(steps=4, intervals=IntervalSettings(checkpoint=100, samples=0, video_gain=2))
    run = bench(tmp_path / "run", settings)
    drawn: list[Any] = []
    sample = run.step.sample

    def recorded(state: Any, prompt: Any, *rest: Any) -> Any:
        sampled = sample(state, prompt, *rest)
        shorter = dataclasses.replace(sampled[0].rollouts, length=np.minimum(sampled[0].rollouts.length, 2))
        other = len(drawn) in (1, 4)  # the first sampling of steps 2 and 4
        drawn.append(np.asarray(prompt.scene_tokens))
        return (dataclasses.replace(sampled[0], rollouts=shorter), sampled[1]) if other else sampled

    run.step.sample = recorded  # type: ignore[assignment, method-assign]
    train(run.context, fresh_state(), StopRequest())
    rows = run.rows()
    assert ["video_gain" in row for row in rows] == [False, True, False, True] and len(drawn) == 6
    np.testing.assert_array_equal(drawn[1], np.roll(drawn[2], 1, axis=0))
    assert rows[1]["video_gain"] > 0 and "seconds/video_gain" in rows[1]  # shorter texts earn less


def test_a_model_that_ignores_the_video_has_zero_gain_even_with_resampled_questions(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    """Draws that were chosen for being informative are no fair match for the first draw about another video."""
    sampling = SamplingSettings(group=G, answer_tokens=R, max_draws=3)
    run = bench(tmp_path / "run", config(steps=1, sampling=sampling, intervals=IntervalSettings(video_gain=1)))
    first_token = Reward("first", first_token_reward, 1.0)
    train(run.with_rewards(first_token), fresh_state(), StopRequest())
    (row,) = run.rows()
    assert row["draws"] > 1 and row["video_gain"] == 0  # the stand-in's answers do not depend on the video


def test_a_long_gain_near_zero_is_reported_once() -> None:
    watch = VideoGainWatch(TrainConfig(intervals=IntervalSettings(video_gain=10)))
    assert [watch.due(step) for step in (1, 10, 15, 20)] == [False, True, False, True]
    said = [watch.warning(0.001, 0.3) for _ in range(WINDOW + 3)]
    assert [text is not None for text in said] == [False] * (WINDOW - 1) + [True, False, False, False]
    assert "video_gain 0.001 over the last 5" in str(said[WINDOW - 1])
    assert [watch.warning(0.2, 0.3) for _ in range(WINDOW)] == [None] * WINDOW
    assert any(watch.warning(0.0, 0.3) for _ in range(WINDOW))


def test_video_gain_needs_another_scene() -> None:
    intervals = IntervalSettings(video_gain=1)
    with pytest.raises(InputError, match=r"take data\.scenes=2 or more"):
        TrainConfig(data=DataSettings(scenes=1), intervals=intervals)
    with pytest.raises(InputError, match=r"take data\.scenes=4 or more"):
        TrainConfig(data=PAIRS, intervals=intervals)


def test_the_rollouts_with_most_tricks_of_a_step_are_logged(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=2, intervals=IntervalSettings(checkpoint=2, samples=2)))
    told = "<think> </think> <answer>1</answer>"

    def decode(tokens: Any, length: Any) -> list[str]:
        return [told] + ["fine"] * (len(tokens) - 1)

    step = dataclasses.replace(run.context.step, decode=decode)
    train(dataclasses.replace(run.context, step=step), fresh_state(), StopRequest())
    rows = list(read_rows(run.folder.hacking))
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["text"] == told and rows[0]["tricks"] == ["empty_thought"]
    assert {"question_id", "question", "answer", "reward"} <= set(rows[0])
    assert run.rows()[0]["hacking/empty_thought"] == pytest.approx(1 / (S * Q * G))
