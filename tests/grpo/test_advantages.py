"""Advantages against the very lines of TRL 1.16 that compute them; gathering of questions against brute force."""

import collections
import inspect
import textwrap
import types
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxvsr.config.algorithm import AdvantageRule
from jaxvsr.errors import InputError
from jaxvsr.grpo.advantages import gather_informative, group_advantages
from jaxvsr.rewards.registry import Reward
from jaxvsr.rewards.scoring import reward_metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl.trainer import grpo_trainer

RULES = [AdvantageRule(scale) for scale in ("group", "batch", "none")] + [AdvantageRule(per_reward=True)]


def trl_lines():
    """The block of TRL's scoring method between rewards and logging: all that turns rewards into advantages."""
    source = inspect.getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    start, end = source.index("        unscorable_mask = "), source.index("        # Log prompts and completions")
    return compile(textwrap.dedent(source[start:end]), "trl", "exec")


TRL_LINES = trl_lines()


def trl_advantages(rewards, weights, rule):
    rows = rewards[0].size
    trainer = types.SimpleNamespace(
        reward_weights=torch.tensor(weights, dtype=torch.float64),
        multi_objective_aggregation="normalize_then_sum" if rule.per_reward else "sum_then_normalize",
        scale_rewards=rule.scale,
        reward_funcs=[None] * len(rewards),
        reward_func_names=[str(k) for k in range(len(rewards))],
        accelerator=types.SimpleNamespace(process_index=0),
        _metrics={"train": collections.defaultdict(list)},
    )
    names = {
        "self": trainer,
        "rewards_per_func": torch.tensor(rewards.reshape(len(rewards), rows).T),
        "num_generations": rewards.shape[-1],
        "prompts": [None] * rows,
        "device": "cpu",
        "mode": "train",
    }
    exec(TRL_LINES, {**vars(grpo_trainer), **names}, names)
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    return names["advantages"].numpy().reshape(rewards.shape[1:]), metrics


def random_rewards(rng):
    """K rewards of S·Q groups: binary, in steps, or continuous; some None, some rollouts and groups without any."""
    shape = tuple(int(rng.integers(1, n + 1)) for n in (3, 3, 3, 6))
    draws = [lambda n: (rng.random(n) > 0.5) * 1.0, lambda n: rng.integers(0, 11, n) / 10, rng.standard_normal]
    rewards = np.stack([draws[rng.integers(3)](shape[1:]) for _ in range(shape[0])])
    if rng.random() < 0.7:
        rewards[rng.random(shape) < rng.random()] = np.nan
    if rng.random() < 0.3:
        rewards[:, rng.integers(shape[1]), rng.integers(shape[2])] = np.nan
    if rng.random() < 0.5:
        rewards[:, 0, 0] = rewards[:, 0, 0, :1]
    return rewards, list(rng.choice([0.0, 0.3, 0.5, 1.0, 2.0, -1.0], shape[0]))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_advantages_and_metrics_equal_trl(rule):
    for seed in range(500):
        rewards, weights = random_rewards(np.random.default_rng(seed))
        ours = group_advantages(rewards, weights, rule)
        theirs, metrics = trl_advantages(rewards, weights, rule)
        np.testing.assert_allclose(ours.advantages, theirs, rtol=1e-6, atol=1e-7, err_msg=str(seed))
        np.testing.assert_array_equal(ours.informative, (np.abs(theirs) > 1e-7).any(-1), err_msg=str(seed))
        named = [Reward(str(k), lambda **_: []) for k in range(len(rewards))]
        logged = ours.metrics | reward_metrics(named, rewards.reshape(len(rewards), -1), ["task"] * rewards[0].size)
        names = {"reward/mean": "reward", "reward/std": "reward_std", "frac_reward_zero_std": "frac_reward_zero_std"}
        for name, their_name in (names | {f"reward/{k}": f"rewards/{k}/mean" for k in range(len(rewards))}).items():
            assert logged.get(name, np.nan) == pytest.approx(metrics[their_name], rel=1e-6, abs=1e-12, nan_ok=True), (
                name
            )


def test_group_advantages_are_the_papers_formula():
    rewards = np.array([[[[1.0, 0.0, 0.5, 0.0]]]])
    values = rewards.ravel()
    expected = (values - values.mean()) / (values.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(group_advantages(rewards, [1.0], RULES[0]).advantages.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, -5.3, 1e6])
def test_equal_rewards_give_exactly_zero(rule, value):
    """In float32 the mean of fourteen times 0.1 is not 0.1, and TRL's advantages are not 0."""
    result = group_advantages(np.full((2, 2, 2, 14), value), [1.0, 0.3], rule)
    assert not result.advantages.any() and not result.informative.any()
    assert result.metrics["zero_advantage_groups"] == 4 and result.metrics["frac_reward_zero_std"] == 1


def test_rollouts_without_any_reward_have_zero_advantage_and_are_left_out_of_means():
    rewards = np.array([[[[1.0, 0.0, np.nan, np.nan]]], [[[np.nan, np.nan, np.nan, 1.0]]]])
    result = group_advantages(rewards, [1.0, 1.0], AdvantageRule("none"))
    np.testing.assert_allclose(result.advantages.ravel(), [1 / 3, -2 / 3, 0, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(result.totals.ravel(), [1, 0, np.nan, 1])


def test_wrong_rewards_are_named_in_one_line(without_type_checks):
    with pytest.raises(InputError, match="2 rewards need as many weights, found 1"):
        group_advantages(np.zeros((2, 1, 1, 2)), [1.0], RULES[0])
    with pytest.raises(InputError, match="reward 2 of 2: is infinite"):
        group_advantages(np.array([0.0, np.inf]).reshape(2, 1, 1, 1), [1.0, 1.0], RULES[0])
    with pytest.raises(InputError, match="scale 'std': must be one of group, batch, none"):
        AdvantageRule("std")


@given(hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 9))))
def test_the_bucket_is_the_smallest_that_holds_every_informative_question_once(informative):
    scenes, questions = informative.shape
    bucket = gather_informative(informative)
    sizes = [size for size in (1, 2, 4, 8, 16) if size < questions] + [questions]
    most = max(sum(row) for row in informative)
    assert bucket.index.shape == (scenes, min(size for size in sizes if size >= most))
    for s in range(scenes):
        assert len(set(bucket.index[s])) == bucket.index.shape[1]
        assert sorted(bucket.index[s][bucket.real[s]]) == [q for q in range(questions) if informative[s, q]]


def test_selected_questions_stay_with_their_scenes():
    values = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    bucket = gather_informative(np.array([[False, True, False, True], [False, False, True, False]]))
    np.testing.assert_array_equal(bucket.index, [[1, 3], [2, 0]])
    np.testing.assert_array_equal(bucket.real, [[True, True], [True, False]])
    np.testing.assert_array_equal(bucket.take(values), [[values[0, 1], values[0, 3]], [values[1, 2], values[1, 0]]])
