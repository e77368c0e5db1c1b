"""Rollouts on the host: their texts and rewards, and what these say in comparison.

Axes: `s` is this process's scenes, `S` those of all processes. Every process holds rewards and lengths of all scenes
and computes the same advantages; texts stay where they were sampled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question
from jaxvsr.devices.processes import SceneAxis, meant_transfer, own_rows, texts_of_all_processes
from jaxvsr.errors import InputError
from jaxvsr.grpo.advantages import group_advantages
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.objectives import token_mask
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.step_context import StepContext
from jaxvsr.rewards.hacking import hack_shares, hacks
from jaxvsr.rewards.registry import Reward
from jaxvsr.rewards.scoring import reward_metrics, score_completions
from jaxvsr.rewards.svqa_r1 import view_consistency


@dataclasses.dataclass(frozen=True, eq=False)
class RewardedRollouts:
    """The rollouts of a step with what they earned."""

    texts: list[str]  # s·Q·G texts of this process's scenes
    rewards: Float[np.ndarray, "K S Q G"]  # each reward, unweighted; NaN where it does not apply
    length: Int32[np.ndarray, "S Q G"]
    truncated: Bool[np.ndarray, "S Q G"]
    first_rewards: Float[np.ndarray, "K S Q G"]  # of the first draw, which nothing was chosen by
    draws: int = 1  # times that the questions were drawn


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredRollouts:
    """The rollouts of a step, each compared with the others to its question."""

    rewarded: RewardedRollouts
    totals: Float[np.ndarray, "S Q G"]  # weighted sum, after corrections
    advantages: Float32[np.ndarray, "S Q G"]
    informative: Bool[np.ndarray, "S Q"]  # groups with an advantage
    mask: Bool[np.ndarray, "S Q G R"]  # tokens in the loss
    tricks: dict[str, Bool[np.ndarray, " N"]]  # reward hacking in the s·Q·G texts
    metrics: dict[str, float]


def reward_rollouts(run: StepContext, batch: HostBatch, sampled: Sampled) -> RewardedRollouts:
    """Decode this process's rollouts and reward them; every process gets the rewards of all."""
    tokens, length, truncated = map(own_rows, (sampled.rollouts.tokens, sampled.rollouts.length, sampled.truncated))
    with run.clock.own_work(), meant_transfer():  # a reward of the user's may compute with JAX
        texts = run.decode(tokens.reshape(-1, tokens.shape[-1]), length.reshape(-1))
        columns = reward_columns(batch, run.config.sampling.group, run.prompt_text)
        scored = [run.scored_text(text) for text in texts]
        own = score_completions(run.rewards, scored, columns).reshape(len(run.rewards), *length.shape)
    rewards = np.moveaxis(run.scenes.all_rows(np.moveaxis(own, 0, -1)), -1, 0)
    return RewardedRollouts(
        texts, rewards, run.scenes.all_rows(length), run.scenes.all_rows(truncated), first_rewards=rewards
    )


def reward_columns(batch: HostBatch, group: int, prompt_text: Callable[[Question], str]) -> dict[str, list[Any]]:
    """What a reward is called with besides the completions: the fields of the questions, and `prompts` as in TRL."""
    prompts = [prompt_text(question) for scene in batch.questions for question in scene]
    return {**batch.columns(group), "prompts": [text for text in prompts for _ in range(group)]}


def score_rollouts(run: StepContext, batch: HostBatch, rewarded: RewardedRollouts) -> ScoredRollouts:
    """Advantages, the mask of the loss, and the step's reward metrics."""
    config, rewards, truncated = run.config, run.rewards, rewarded.truncated
    corrected, correction = correct_views(rewarded.rewards, rewards, config)
    result = group_advantages(corrected, [reward.weight for reward in rewards], config.advantages)
    tricks = hacks(rewarded.texts, batch.columns(config.sampling.group)["question"], run.thought_tag)
    own_shape = (-1, *rewarded.length.shape[1:])
    all_tricks = run.scenes.all_rows(np.stack([rows.reshape(own_shape) for rows in tricks.values()], -1))
    return ScoredRollouts(
        rewarded,
        result.totals,
        result.advantages,
        result.informative,
        token_mask(rewarded.length, config.sampling.answer_tokens, truncated if config.grpo.mask_truncated else None),
        tricks,
        {
            **result.metrics,
            **correction,
            **task_metrics(rewards, rewarded.rewards, question_types_of_all(batch, run.scenes)),
            **hack_shares({name: all_tricks[..., k].reshape(-1) for k, name in enumerate(tricks)}),
            "completion_length": float(rewarded.length.mean()),
            "completion_truncated": float(truncated.mean()),
            **({"draws": float(rewarded.draws)} if config.sampling.max_draws > 1 else {}),
        },
    )


def check_view_consistency(config: TrainConfig, rewards: Sequence[Reward]) -> None:
    """`InputError` where a reward that views are compared by is none of the run's."""
    names = [reward.name for reward in rewards]
    for name in config.view_consistency.rewards:
        if name not in names:
            raise InputError(f"view_consistency.rewards: {name!r} is not one of this run's rewards, {', '.join(names)}")


def correct_views(
    all_rewards: Float[np.ndarray, "K S Q G"], rewards: Sequence[Reward], config: TrainConfig
) -> tuple[Float[np.ndarray, "K S Q G"], dict[str, float]]:
    """Spatial-GRPO's correction of the rewards that the config names; scenes 2i and 2i + 1 are a view and its mirror.

    Metrics, means over the corrected rewards: `view_consistency/difference` of the two views' mean rewards (absolute),
    and `view_consistency/penalised`, the share of rollouts that lose it.
    """
    settings = config.view_consistency
    if not settings.rewards:
        return all_rewards, {}
    pairs = np.arange(all_rewards.shape[1]).reshape(-1, 2)
    corrected = all_rewards.copy()
    differences, penalised = [], []
    for k, reward in enumerate(rewards):
        if reward.name not in settings.rewards:
            continue
        corrected[k] = view_consistency(all_rewards[k], pairs, settings.delta, settings.eta)
        known = np.isfinite(all_rewards[k])
        mean = np.where(known, all_rewards[k], 0).sum(-1) / np.maximum(known.sum(-1), 1)
        both = known.any(-1)[0::2] & known.any(-1)[1::2]
        differences.append(np.abs(mean[0::2] - mean[1::2])[both])
        penalised.append((corrected[k] != all_rewards[k])[known])
    metrics = {"difference": np.concatenate(differences), "penalised": np.concatenate(penalised)}
    return corrected, {f"view_consistency/{name}": float(x.mean()) for name, x in metrics.items() if x.size}


def question_types_of_all(batch: HostBatch, scenes: SceneAxis) -> list[list[str]]:
    """The types of all S scenes' questions; processes that hold the same scenes say the same."""
    types: list[list[str]] = [[] for _ in range(scenes.size)]
    own = [scenes.own.start, [[question.question_type for question in scene] for scene in batch.questions]]
    for text in texts_of_all_processes(json.dumps(own)):
        start, rows = json.loads(text)
        types[start : start + len(rows)] = rows
    return types


def task_metrics(
    rewards: Sequence[Reward], all_rewards: Float[np.ndarray, "K S Q G"], types: list[list[str]]
) -> dict[str, float]:
    """`reward/<name>` and `reward/<name>/<task>` over all scenes."""
    repeated = [name for scene in types for name in scene for _ in range(all_rewards.shape[-1])]
    values: Float64[np.ndarray, "K N"] = all_rewards.reshape(len(rewards), -1).astype(np.float64)
    return reward_metrics(rewards, values, repeated)
