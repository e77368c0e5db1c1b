"""A benchmark from start to end: a file of predictions, a baseline or a model is scored into an output folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvsr.data.questions import Question, is_same
from jaxvsr.errors import InputError
from jaxvsr.evaluation import provenance
from jaxvsr.evaluation.answering.baselines import baseline_predictions
from jaxvsr.evaluation.answering.choose_questions import ChosenQuestions
from jaxvsr.evaluation.benchmarks import Result, check_questions, score_predictions
from jaxvsr.evaluation.metrics.open_ended import Judge
from jaxvsr.evaluation.output_folder import PREDICTIONS_FILE, SETTINGS_FILE, write_result
from jaxvsr.evaluation.predictions import Prediction, read_predictions, write_predictions
from jaxvsr.evaluation.tables.text_table import format_number
from jaxvsr.prompts import Prompt, prompt_from
from jaxvsr.rewards.svqa_r1 import MODEL

if TYPE_CHECKING:  # what a model needs imports JAX
    from jaxvsr.evaluation.answering.answer_questions import Answerer


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A benchmark, its questions, and the folder that predictions and scores are written to.

    Args:
        chosen: the questions; None only for a file of predictions, which is then scored as it is.
        judge: only for open-ended.
        sentence_model: only for open-ended; None: no similarity.
        say: prints a line about progress or a result.

    Raises:
        InputError: the benchmark cannot score these questions.
    """

    benchmark: str
    out: Path
    chosen: ChosenQuestions | None = None
    judge: Judge | None = None
    sentence_model: str | None = MODEL
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        if self.chosen is not None:
            check_questions(self.benchmark, self.chosen.questions)

    def of_file(self, file: Path, prompt: str | None = None) -> Result:
        """Score a file of predictions. Answers are extracted as `prompt` says, by default as recorded beside it."""
        predictions = read_predictions(file)
        origin: dict[str, Any] = {"predictions": str(file), **provenance.read_provenance(file)}
        if prompt is not None:
            origin = provenance.with_extraction_of(prompt_from(prompt), origin)
        read_as = provenance.recorded_prompt(origin)
        if read_as is None and self.benchmark != "open-ended":
            self.say(
                f"{file}: no scores.json or settings.json beside it names the prompt, so whole completions are scored "
                "(--prompt sets one)"
            )
        changed: list[str] = []
        if self.chosen is not None:
            predictions, changed = self._of_chosen(file, predictions, self.chosen)
            choice = self.chosen.to_json()
            origin = {"data": choice.pop("data"), **origin, **choice}
        result = self._score(predictions, prompt=read_as)
        if changed:
            origin["left_out"] = len(changed)
            result = result.with_note(
                f"{len(changed):,} predictions are left out: their id is another question's in --data (first: "
                f"{changed[0]})"
            )
        self._write(self.out, result, origin)
        self.say(result.to_text())
        return result

    def _of_chosen(
        self, file: Path, predictions: Sequence[Prediction], chosen: ChosenQuestions
    ) -> tuple[list[Prediction], list[str]]:
        """The predictions that answer chosen questions, and the ids of those whose id alone is a chosen question's."""
        wanted = {question.id: question for question in chosen.questions}
        found = [one for one in predictions if one.question.id in wanted]
        if len(found) < len(predictions):
            other = len(predictions) - len(found)
            self.say(f"{file}: {other:,} of {len(predictions):,} predictions answer other questions; left out")
        same = [one for one in found if is_same(one.question, wanted[one.question.id])]
        if not same:
            raise InputError(
                f"{file}: none of {len(predictions):,} predictions is about a question of --data: of its id, scene, "
                "text, options and answer; without --data they are scored by their own questions"
            )
        kept = [Prediction(wanted[one.question.id], one.prediction) for one in same]
        answered = {one.question.id for one in kept}
        return kept, [one.question.id for one in found if one.question.id not in answered]

    def of_baseline(self, name: str) -> Result:
        """Answer with one of `BASELINES` and score."""
        chosen = self._required()
        self.say(chosen.to_text())
        predictions = baseline_predictions(name, chosen.questions, chosen.folders)
        if name == "chance-random":
            result, predictions = self._of_drawn_answers(predictions)
        else:
            result = self._score(predictions)
        self._write(self.out, result, {"model": name, **chosen.to_json(), "commit": provenance.code_version()})
        (self.out / SETTINGS_FILE).unlink(missing_ok=True)  # so that no model's evaluation resumes from these answers
        write_predictions(self.out / PREDICTIONS_FILE, predictions)
        self.say(result.to_text())
        return result

    def of_model(
        self, name: str, answerer: Answerer, revision: str | None = None, base: str | None = None
    ) -> Result | None:
        """Answer with a model, resuming what the folder has, and score; None in all processes but the first."""
        result = self._of_weights(name, answerer, self.out, revision, base)
        if result is not None:
            self.say(result.to_text())
        return result

    def of_checkpoints(
        self, run: str, steps: Sequence[int], answerer: Answerer, base: str | None = None
    ) -> dict[int, Result]:
        """Answer with a run's checkpoints, one after another, in OUT/step-N, and write the scores by step to OUT."""
        from jaxvsr.evaluation.tables.checkpoint_series import write_series

        results: dict[int, Result] = {}
        for step in steps:
            result = self._of_weights(f"{run}@{step}", answerer, self.out / f"step-{step}", None, base)
            if result is not None:
                self.say(f"step {step}: overall {format_number(result.scores['overall'], 2)}")
                results[step] = result
        if results:
            self.say("\n" + write_series(self.out, results))
        return results

    def _of_weights(
        self, name: str, answerer: Answerer, out: Path, revision: str | None, base: str | None
    ) -> Result | None:
        from jaxvsr.runs.model_source import open_model
        from jaxvsr.runs.run_card import note_evaluation

        model = open_model(name, revision, base)
        predictions = answerer.predictions(model, out)
        if predictions is None:
            return None
        settings = answerer.settings
        result = self._score(predictions, prompt=settings.prompt)
        origin = {"revision": revision} if revision else {}
        origin |= {**self._required().to_json(), **settings.media_fields(self._required().asked), "decoding": "greedy"}
        origin |= {**provenance.prompt_fields(settings.prompt), "commit": provenance.code_version()}
        self._write(out, result, {**origin, **provenance.model_fields(model), "model": name})
        note_evaluation(name, out)
        return result

    def _of_drawn_answers(self, predictions: Sequence[Prediction]) -> tuple[Result, list[Prediction]]:
        """Random answers scored over the questions that have one: numbers have none, and 0 is not chance level."""
        drawn = [one for one in predictions if one.prediction is not None]
        result = self._score(drawn, questions=[one.question for one in drawn])
        if len(drawn) == len(predictions):
            return result, drawn
        left_out = len(predictions) - len(drawn)
        note = (
            f"{left_out:,} of {len(predictions):,} questions are left out: nothing is drawn for them (numbers), as in"
        )
        return result.with_note(f"{note} the benchmark's row"), drawn

    def _required(self) -> ChosenQuestions:
        if self.chosen is None:
            raise InputError(f"--benchmark {self.benchmark}: needs --data DIR, the questions to answer")
        return self.chosen

    def _score(
        self,
        predictions: Sequence[Prediction],
        *,
        prompt: Prompt | None = None,
        questions: Sequence[Question] | None = None,
    ) -> Result:
        if questions is None and self.chosen is not None:
            questions = self.chosen.questions
        return score_predictions(
            self.benchmark,
            predictions,
            prompt=prompt,
            questions=questions,
            judge=self.judge,
            sentence_model=self.sentence_model,
        )

    def _write(self, out: Path, result: Result, origin: dict[str, Any]) -> None:
        write_result(out, result, {"benchmark": self.benchmark, **origin})
