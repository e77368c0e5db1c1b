"""Greedy answers to held-out questions during training, through the tree sampler with G = 1."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

import numpy as np

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question
from jaxvsr.devices.processes import SceneAxis, own_rows, texts_of_all_processes
from jaxvsr.evaluation.metrics.vsi_bench_scores import score_vsi_bench
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.grpo.batches import HostBatches
from jaxvsr.grpo.compiled_step import CompiledStep, TrainState
from jaxvsr.prompts import prompt_from

# Questions and completions to metrics; `overall` is what RUN@best goes by.
ScoreAnswers = Callable[[Sequence[Question], Sequence[str]], dict[str, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores the same questions each time it is called: the first of the held-out split in its order under seed 0."""

    config: TrainConfig
    batches: Callable[[], HostBatches]
    step: CompiledStep  # greedy, G = 1
    scenes: SceneAxis
    text: Callable[[np.ndarray], str]  # tokens to text
    score_answers: ScoreAnswers
    say: Callable[[str], None]
    said: set[str] = dataclasses.field(default_factory=set)  # each line is said once

    def __call__(self, state: TrainState) -> dict[str, float]:
        """`eval/<name>` of every number that the metric gives."""
        return self.scores(*self.answer(state))

    def scores(self, questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
        """`eval/<name>` of these answers."""
        wanted, split = self.config.evaluation.questions, self.config.evaluation.split
        if len(questions) < wanted:
            self._say_once(
                f"evaluation.questions={wanted}: only {len(questions)} questions exist in split {split}; scoring those"
            )
        scores = self.score_answers(questions, answers)
        if not scores:
            kinds = ", ".join(sorted({question.answer_kind for question in questions}))
            self._say_once(f"evaluation: answers of kind {kinds} have no score here, so there is no eval/ and no @best")
        return {f"eval/{name}": value for name, value in scores.items()}

    def _say_once(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            self.say(line)

    def answer(self, state: TrainState) -> tuple[list[Question], list[str]]:
        """The questions and their greedy answers, those of all processes, each question once."""
        data, wanted = self.config.data, self.config.evaluation.questions
        found: dict[str, tuple[Question, str]] = {}
        batches = self.batches()
        for _ in range(-(-wanted // (data.scenes * data.questions))):
            batch = next(batches)
            sampled, _ = self.step.sample(state, *self.scenes.place((batch.prompt, batch.question_keys)))
            tokens, length = own_rows(sampled.rollouts.tokens), own_rows(sampled.rollouts.length)
            rows = [
                (question.to_json(), self.text(tokens[s, q, 0, : length[s, q, 0]]))
                for s, scene in enumerate(batch.questions)
                for q, question in enumerate(scene)
            ]
            for text in texts_of_all_processes(json.dumps(rows)):
                for row, answer in json.loads(text):
                    found.setdefault(row["id"], (Question.from_json(row), answer))
        batches.close()
        chosen = list(found.values())[:wanted]
        return [question for question, _ in chosen], [answer for _, answer in chosen]


def benchmark_score(prompt_name: str) -> ScoreAnswers:
    """Held-out answers in VSI-Bench's metric: overall and each task, per cent."""
    prompt = prompt_from(prompt_name)

    def score_answers(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
        rows = [Prediction(question, answer) for question, answer in zip(questions, answers, strict=True)]
        return score_vsi_bench(rows, answer_of=prompt.answer).metrics()

    return score_answers
