"""Rows of samples.jsonl and hacking.jsonl: questions with their answers and rewards, of this process's scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxvsr.data.questions import Question
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.rollouts import ScoredRollouts
from jaxvsr.grpo.step_context import StepContext
from jaxvsr.rewards.hacking import worst

WORST_ROLLOUTS = 8  # kept in hacking.jsonl each time


def sample_rows(run: StepContext, batch: HostBatch, scored: ScoredRollouts) -> list[dict[str, Any]]:
    """Questions with their G answers, rewards and advantages, one question of each scene in turn."""
    group, own = run.config.sampling.group, run.scenes.own
    totals, advantages, rewards = scored.totals[own], scored.advantages[own], scored.rewarded.rewards[:, own]
    rows = []
    for s, q in _order(run, batch):
        question = batch.questions[s][q]
        first = (s * len(batch.questions[s]) + q) * group
        answers = [
            {
                "text": scored.rewarded.texts[first + g],
                "reward": float(totals[s, q, g]),
                "advantage": float(advantages[s, q, g]),
                "rewards": {r.name: float(rewards[k, s, q, g]) for k, r in enumerate(run.rewards)},
            }
            for g in range(group)
        ]
        rows.append(_row(run, question, answers))
    return rows


def given_rows(run: StepContext, batch: HostBatch) -> list[dict[str, Any]]:
    """Questions with the answers that SFT (`target`) or DPO (`chosen`, `rejected`) learns from, one question of each
    scene in turn.
    """
    assert batch.targets is not None
    names = ("chosen", "rejected") if run.config.objective == "dpo" else ("target",)
    rows = []
    for s, q in _order(run, batch):
        texts = run.decode(batch.targets.tokens[s, q], batch.targets.length[s, q])
        answers = [{"text": text, "given": name} for name, text in zip(names, texts, strict=True)]
        rows.append(_row(run, batch.questions[s][q], answers))
    return rows


def heldout_rows(run: StepContext, questions: Sequence[Question], answers: Sequence[str]) -> list[dict[str, Any]]:
    """The first held-out questions with the model's greedy answers."""
    shown = list(zip(questions, answers, strict=True))[: run.config.logging.sample_questions]
    return [_row(run, question, [{"text": answer}]) for question, answer in shown]


def _order(run: StepContext, batch: HostBatch) -> list[tuple[int, int]]:
    """Scene and question of each row."""
    order = [(s, q) for q in range(len(batch.questions[0])) for s in range(len(batch.questions))]
    return order[: run.config.logging.sample_questions]


def _row(run: StepContext, question: Question, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "question_id": question.id,
        "scene": question.scene,
        "question_type": question.question_type,
        "question": question.question,
        "prompt": run.prompt_text(question),
        "answer": question.answer,
        "answers": list(answers),
    }


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
