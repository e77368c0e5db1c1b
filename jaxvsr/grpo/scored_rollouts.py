"""Rollouts on the host: their texts, rewards and advantages, and their rows in samples.jsonl."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from jaxvsr.grpo.advantages import GroupAdvantages, group_advantages
from jaxvsr.grpo.batches import HostBatch, all_rows, own_rows, rollout_mask
from jaxvsr.grpo.mesh import scene_rows
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.training import Training
from jaxvsr.rewards.hacking import hack_shares, hacks
from jaxvsr.rewards.scoring import reward_metrics, score


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredRollouts:
    """The rollouts of this process's scenes with what they earned."""

    answers: list[str]  # S·Q·G texts
    scores: Float[np.ndarray, "K S Q G"]  # each reward, unweighted; NaN where it does not apply
    totals: Float[np.ndarray, "S Q G"]  # weighted sum
    advantages: Float32[np.ndarray, "S Q G"]
    mask: Bool[np.ndarray, "S Q G R"]  # tokens in the loss
    length: Int32[np.ndarray, "S Q G"]
    metrics: dict[str, float]


def score_rollouts(training: Training, batch: HostBatch, sampled: Sampled) -> ScoredRollouts:
    """Decode, reward, and compare each answer with the others to its question.

    Every process computes the advantages of all, from the rewards of all. What metrics read off texts (rewards by task,
    shares of tricks, lengths) is that of its own scenes.
    """
    config, rewards, scenes = training.config, training.rewards, training.config.data.scenes
    tokens, length, truncated = map(own_rows, (sampled.rollouts.tokens, sampled.rollouts.length, sampled.truncated))
    answers = training.decode(tokens.reshape(-1, tokens.shape[-1]), length.reshape(-1))
    columns = batch.columns(config.sampling.group)
    scores = score(rewards, answers, columns)
    own = scores.reshape(len(rewards), *length.shape)
    everyone = np.moveaxis(all_rows(np.moveaxis(own, 0, -1), training.mesh, scenes), -1, 0)
    result: GroupAdvantages = group_advantages(everyone, [reward.weight for reward in rewards], config.advantages)
    start, count = scene_rows(training.mesh, scenes)
    return ScoredRollouts(
        answers,
        own,
        result.totals[start : start + count],
        result.advantages[start : start + count],
        rollout_mask(length, tokens.shape[-1], truncated if config.grpo.mask_truncated else None),
        length,
        {
            **result.metrics,
            **reward_metrics(rewards, scores, columns["question_type"]),
            **hack_shares(hacks(answers, columns["question"], training.thought_tag)),
            "completion_length": float(length.mean()),
            "completion_truncated": float(truncated.mean()),
        },
    )


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
