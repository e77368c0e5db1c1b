"""Rollouts on the host: their texts, rewards and advantages, and their rows in samples.jsonl and hacking.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.mesh import scene_rows
from jaxvsr.devices.processes import all_rows, own_rows, texts_of_all_processes
from jaxvsr.errors import InputError
from jaxvsr.grpo.advantages import GroupAdvantages, group_advantages
from jaxvsr.grpo.batches import HostBatch, rollout_mask
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.rewards.hacking import hack_shares, hacks, worst
from jaxvsr.rewards.registry import Reward
from jaxvsr.rewards.scoring import reward_metrics, score_completions
from jaxvsr.rewards.svqa_r1 import view_consistency
from jaxvsr.training.run_context import Training

WORST_ROLLOUTS = 8  # kept in hacking.jsonl each time


@dataclasses.dataclass(frozen=True, eq=False)
class RewardedRollouts:
    """Texts of this process's scenes, and the rewards of all processes' scenes."""

    answers: list[str]  # S·Q·G texts of this process's scenes
    length: Int32[np.ndarray, "s Q G"]
    truncated: Bool[np.ndarray, "s Q G"]
    everyone: Float[np.ndarray, "K S Q G"]  # each reward, unweighted; NaN where it does not apply
    first: int  # this process's scenes are `first` to `first` + s - 1 of the S

    def own(self, values: np.ndarray) -> np.ndarray:
        """This process's rows of an array [S, …]."""
        return values[self.first : self.first + len(self.length)]


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredRollouts:
    """The rollouts of this process's scenes with what they earned."""

    answers: list[str]  # S·Q·G texts
    scores: Float[np.ndarray, "K S Q G"]  # each reward, unweighted, without corrections; NaN where it does not apply
    totals: Float[np.ndarray, "S Q G"]  # weighted sum, after corrections
    advantages: Float32[np.ndarray, "S Q G"]
    mask: Bool[np.ndarray, "S Q G R"]  # tokens in the loss
    length: Int32[np.ndarray, "S Q G"]
    informative: Bool[np.ndarray, "all_scenes Q"]  # groups with an advantage, of all processes' scenes
    first: int  # this process's scenes are `first` to `first` + S - 1 of all
    tricks: dict[str, Bool[np.ndarray, " N"]]  # reward hacking, of the S·Q·G texts
    metrics: dict[str, float]


def reward_rollouts(training: Training, batch: HostBatch, sampled: Sampled) -> RewardedRollouts:
    """Decode this process's rollouts and reward them; every process gets the rewards of all."""
    rewards, scenes = training.rewards, training.config.data.scenes
    tokens, length, truncated = map(own_rows, (sampled.rollouts.tokens, sampled.rollouts.length, sampled.truncated))
    answers = training.decode(tokens.reshape(-1, tokens.shape[-1]), length.reshape(-1))
    own = score_completions(rewards, answers, _columns(training, batch)).reshape(len(rewards), *length.shape)
    everyone = np.moveaxis(all_rows(np.moveaxis(own, 0, -1), training.mesh, scenes), -1, 0)
    return RewardedRollouts(answers, length, truncated, everyone, scene_rows(training.mesh, scenes)[0])


def _columns(training: Training, batch: HostBatch) -> dict[str, list[Any]]:
    """What a reward is called with besides the completions: the fields of the questions, and `prompts` as in TRL."""
    group = training.config.sampling.group
    texts = [training.prompt_text(question) for scene in batch.questions for question in scene]
    return {**batch.columns(group), "prompts": [text for text in texts for _ in range(group)]}


def score_rollouts(training: Training, batch: HostBatch, rewarded: RewardedRollouts) -> ScoredRollouts:
    """Compare each answer with the others to its question.

    Every process computes advantages and metrics of all scenes, from the rewards of all.
    """
    config, rewards = training.config, training.rewards
    scenes, mesh = config.data.scenes, training.mesh
    corrected, correction = correct_views(rewarded.everyone, rewards, config)
    result: GroupAdvantages = group_advantages(corrected, [reward.weight for reward in rewards], config.advantages)
    length, truncated = rewarded.length, rewarded.truncated
    tricks = hacks(rewarded.answers, batch.columns(config.sampling.group)["question"], training.thought_tag)
    tricks_of_all = all_rows(np.stack([rows.reshape(length.shape) for rows in tricks.values()], -1), mesh, scenes)
    return ScoredRollouts(
        rewarded.answers,
        np.moveaxis(rewarded.own(np.moveaxis(rewarded.everyone, 0, -1)), -1, 0),
        rewarded.own(result.totals),
        rewarded.own(result.advantages),
        rollout_mask(length, config.sampling.answer_tokens, truncated if config.grpo.mask_truncated else None),
        length,
        result.informative,
        rewarded.first,
        tricks,
        {
            **result.metrics,
            **correction,
            **task_metrics(rewards, rewarded.everyone, question_types_of_all(batch, rewarded.first, scenes)),
            **hack_shares({name: tricks_of_all[..., k].reshape(-1) for k, name in enumerate(tricks)}),
            "completion_length": float(all_rows(length, mesh, scenes).mean()),
            "completion_truncated": float(all_rows(truncated, mesh, scenes).mean()),
        },
    )


def check_view_consistency(config: TrainConfig, rewards: Sequence[Reward]) -> None:
    """`InputError` where a reward that views are compared by is none of the run's."""
    names = [reward.name for reward in rewards]
    for name in config.view_consistency.rewards:
        if name not in names:
            raise InputError(f"view_consistency.rewards: {name!r} is not one of this run's rewards, {', '.join(names)}")


def correct_views(
    everyone: Float[np.ndarray, "K S Q G"], rewards: Sequence[Reward], config: TrainConfig
) -> tuple[Float[np.ndarray, "K S Q G"], dict[str, float]]:
    """Spatial-GRPO's correction of the rewards that the config names; scenes 2i and 2i + 1 are a view and its mirror.

    Metrics, means over the corrected rewards: `view_consistency/difference` of the two views' mean rewards (absolute),
    and `view_consistency/penalised`, the share of rollouts that lose it.
    """
    settings = config.view_consistency
    if not settings.rewards:
        return everyone, {}
    pairs = np.arange(everyone.shape[1]).reshape(-1, 2)
    corrected = everyone.copy()
    differences, penalised = [], []
    for k, reward in enumerate(rewards):
        if reward.name not in settings.rewards:
            continue
        corrected[k] = view_consistency(everyone[k], pairs, settings.delta, settings.eta)
        known = np.isfinite(everyone[k])
        mean = np.where(known, everyone[k], 0).sum(-1) / np.maximum(known.sum(-1), 1)
        both = known.any(-1)[0::2] & known.any(-1)[1::2]
        differences.append(np.abs(mean[0::2] - mean[1::2])[both])
        penalised.append((corrected[k] != everyone[k])[known])
    metrics = {"difference": np.concatenate(differences), "penalised": np.concatenate(penalised)}
    return corrected, {f"view_consistency/{name}": float(x.mean()) for name, x in metrics.items() if x.size}


def mean_reward(training: Training, everyone: Float[np.ndarray, "K S Q G"]) -> float:
    """Mean of the weighted sum over the rollouts of all processes, without corrections; NaN where none applies."""
    weights = [reward.weight for reward in training.rewards]
    metrics = group_advantages(everyone, weights, training.config.advantages).metrics
    return metrics.get("reward/mean", float("nan"))


def question_types_of_all(batch: HostBatch, first: int, scenes: int) -> list[list[str]]:
    """The types of all S scenes' questions; processes that hold the same scenes say the same."""
    types: list[list[str]] = [[] for _ in range(scenes)]
    own = [first, [[question.question_type for question in scene] for scene in batch.questions]]
    for text in texts_of_all_processes(json.dumps(own)):
        start, rows = json.loads(text)
        types[start : start + len(rows)] = rows
    return types


def task_metrics(
    rewards: Sequence[Reward], everyone: Float[np.ndarray, "K S Q G"], types: list[list[str]]
) -> dict[str, float]:
    """`reward/<name>` and `reward/<name>/<task>` over all scenes."""
    repeated = [name for scene in types for name in scene for _ in range(everyone.shape[-1])]
    values: Float64[np.ndarray, "K N"] = everyone.reshape(len(rewards), -1).astype(np.float64)
    return reward_metrics(rewards, values, repeated)


def sample_rows(training: Training, batch: HostBatch, scored: ScoredRollouts) -> list[dict[str, Any]]:
    """Questions with their G answers, rewards and advantages, one question of each scene in turn."""
    group = training.config.sampling.group
    order = [(s, q) for q in range(len(batch.questions[0])) for s in range(len(batch.questions))]
    rows = []
    for s, q in order[: training.config.logging.sample_questions]:
        question = batch.questions[s][q]
        first = (s * len(batch.questions[s]) + q) * group
        rows.append(
            {
                "question_id": question.id,
                "scene": question.scene,
                "question_type": question.question_type,
                "question": question.question,
                "prompt": training.prompt_text(question),
                "answer": question.answer,
                "answers": [
                    {
                        "text": scored.answers[first + g],
                        "reward": float(scored.totals[s, q, g]),
                        "advantage": float(scored.advantages[s, q, g]),
                        "rewards": {r.name: float(scored.scores[k, s, q, g]) for k, r in enumerate(training.rewards)},
                    }
                    for g in range(group)
                ],
            }
        )
    return rows


def hacking_rows(batch: HostBatch, scored: ScoredRollouts) -> list[dict[str, Any]]:
    """The worst of this process's rollouts that show a trick: most tricks first, then the best paid."""
    totals, (_, questions, group) = scored.totals.reshape(-1), scored.totals.shape
    rows = []
    for index in worst(scored.tricks, totals, WORST_ROLLOUTS).tolist():
        s, rest = divmod(index, questions * group)
        question = batch.questions[s][rest // group]
        rows.append(
            {
                "question_id": question.id,
                "question_type": question.question_type,
                "question": question.question,
                "answer": question.answer,
                "text": scored.answers[index],
                "reward": float(totals[index]),
                "tricks": [name for name, shown in scored.tricks.items() if shown[index]],
            }
        )
    return rows
