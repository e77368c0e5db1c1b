"""Greedy answers to held-out questions during training, through the tree sampler with G = 1."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.loader import Schedule
from jaxvsr.data.questions import Question
from jaxvsr.devices.processes import SceneAxis, own_rows
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
    schedule: Schedule  # of `batches`
    batches: Callable[[Sequence[int]], HostBatches]  # those of given steps
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

    @functools.cached_property
    def asked(self) -> list[dict[tuple[int, int], Question]]:
        """Of each step the questions that are scored, by scene and place: all that the pools have, or the first that
        are wanted. A scene with few questions repeats them before larger ones are through, so a step may bring none.
        """
        pools, steps = self.schedule.pools, list[dict[tuple[int, int], Question]]()
        # Ids are unique within a folder only.
        unseen = {(pool.folder, question.id) for pool in pools for scene in pool.scenes for question in scene.questions}
        missing = min(self.config.evaluation.questions, len(unseen))
        while missing:
            new: dict[tuple[int, int], Question] = {}
            for s, scene in enumerate(self.schedule.step_scenes(len(steps))):
                for q, question in enumerate(scene.questions):
                    if len(new) < missing and (scene.folder, question.id) in unseen:
                        unseen.remove((scene.folder, question.id))
                        new[s, q] = question
            steps.append(new)
            missing -= len(new)
        return steps

    def answer(self, state: TrainState) -> tuple[list[Question], list[str]]:
        """The questions and their greedy answers, those of all processes, each question once."""
        questions, answers = list[Question](), list[str]()
        steps = [step for step, asked in enumerate(self.asked) if asked]
        batches = self.batches(steps)
        for step in steps:
            asked, batch = self.asked[step], next(batches)
            sampled, _ = self.step.sample(state, *self.scenes.place((batch.prompt, batch.question_keys)))
            tokens = self.scenes.all_rows(own_rows(sampled.rollouts.tokens))
            length = self.scenes.all_rows(own_rows(sampled.rollouts.length))
            questions += asked.values()
            answers += [self.text(tokens[s, q, 0, : length[s, q, 0]]) for s, q in asked]
        batches.close()
        return questions, answers


def benchmark_score(prompt_name: str) -> ScoreAnswers:
    """Held-out answers in VSI-Bench's metric: overall and each task, per cent."""
    prompt = prompt_from(prompt_name)

    def score_answers(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
        rows = [Prediction(question, answer) for question, answer in zip(questions, answers, strict=True)]
        return score_vsi_bench(rows, answer_of=prompt.answer).metrics()

    return score_answers
