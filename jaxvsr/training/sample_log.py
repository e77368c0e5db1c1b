"""Rows of samples.jsonl and hacking.jsonl: questions with their answers and rewards, of this process's scenes."""

from __future__ import annotations

from typing import Any

from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.rollouts import ScoredRollouts
from jaxvsr.grpo.step_context import StepContext
from jaxvsr.rewards.hacking import worst

WORST_ROLLOUTS = 8  # kept in hacking.jsonl each time


def sample_rows(run: StepContext, batch: HostBatch, scored: ScoredRollouts) -> list[dict[str, Any]]:
    """Questions with their G answers, rewards and advantages, one question of each scene in turn."""
    group, own = run.config.sampling.group, run.scenes.own
    totals, advantages, rewards = scored.totals[own], scored.advantages[own], scored.rewarded.rewards[:, own]
    order = [(s, q) for q in range(len(batch.questions[0])) for s in range(len(batch.questions))]
    rows = []
    for s, q in order[: run.config.logging.sample_questions]:
        question = batch.questions[s][q]
        first = (s * len(batch.questions[s]) + q) * group
        rows.append(
            {
                "question_id": question.id,
                "scene": question.scene,
                "question_type": question.question_type,
                "question": question.question,
                "prompt": run.prompt_text(question),
                "answer": question.answer,
                "answers": [
                    {
                        "text": scored.rewarded.texts[first + g],
                        "reward": float(totals[s, q, g]),
                        "advantage": float(advantages[s, q, g]),
                        "rewards": {r.name: float(rewards[k, s, q, g]) for k, r in enumerate(run.rewards)},
                    }
                    for g in range(group)
                ],
            }
        )
    return rows


def hacking_rows(run: StepContext, batch: HostBatch, scored: ScoredRollouts) -> list[dict[str, Any]]:
    """The worst rollouts that show a trick: most tricks first, then the best paid."""
    own = scored.totals[run.scenes.own]
    totals, (_, questions, group) = own.reshape(-1), own.shape
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
                "text": scored.rewarded.texts[index],
                "reward": float(totals[index]),
                "tricks": [name for name, shown in scored.tricks.items() if shown[index]],
            }
        )
    return rows
