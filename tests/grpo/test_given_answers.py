"""Given answers: what cannot be learned from is found before the first step, and named."""

import dataclasses
from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import create_autospec

import pytest

from jaxvsr.config.algorithm import Difficulty
from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.grpo.batches import BatchBuilder
from jaxvsr.grpo.given_answers import rejected_answer, target_answer
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.prompts import prompt_from
from jaxvsr.rewards.vsi_bench import mean_relative_accuracy
from tests.support.questions import make_question


def question(answer: str, kind: Any, options: tuple[str, ...] | None = None, name: str = "q7") -> Question:
    return make_question(name, "object_counting", answer, kind, options)


@pytest.mark.parametrize(
    "row",
    [
        question("A", "choice", ("A. 1",)),
        question("chair", "choice", ("chair",)),
        question("many", "number"),
        question("nan", "number"),
        question("[1, 2, 3, 4]", "box"),
        question("sofa", "word"),
        question("a red chair", "text"),
    ],
)
def test_a_question_without_a_wrong_answer_is_named(row: Question) -> None:
    with pytest.raises(InputError, match=r"question 'q7': no wrong answer to .* leave the question out"):
        rejected_answer(row)


@pytest.mark.parametrize("difficulty", get_args(Difficulty))
@pytest.mark.parametrize("answer", ["1", "0", "0.0", "0.1", "2.50", "-3", "113", "47.90", "1e5"])
def test_a_rejected_number_is_another_number_in_the_same_form(answer: str, difficulty: Difficulty) -> None:
    for index in range(40):
        wrong = rejected_answer(question(answer, "number", name=f"q{index}"), difficulty)
        assert float(wrong) != float(answer)
        assert len(wrong.partition(".")[2]) == len(answer.partition(".")[2])


def test_harder_rejected_numbers_are_nearer_and_easy_ones_score_nothing() -> None:
    for answer in ("4", "113", "6.1", "47.9"):
        for index in range(40):
            row = question(answer, "number", name=f"q{index}")
            wrong = [float(rejected_answer(row, level)) for level in ("easy", "medium", "hard")]
            misses = [abs(value - float(answer)) for value in wrong]
            assert misses[0] > misses[1] > misses[2] > 0
            assert mean_relative_accuracy(wrong[0], float(answer)) == 0


def test_rejected_words_are_of_the_same_kind_and_all_of_them_are_used() -> None:
    names = [f"q{index}" for index in range(80)]
    text = "Which of these objects (sink, pillow, bed, guitar)is the closest to the bicycle?"
    rows = [Question(name, "s", "object_rel_distance", text, None, "sink", "word") for name in names]
    assert {rejected_answer(row) for row in rows} == {"pillow", "bed", "guitar"}
    letters = [question("B", "choice", ("A. 1", "B. 2", "C. 3"), name) for name in names]
    assert {rejected_answer(row) for row in letters} == {"A", "C"}
    assert rejected_answer(question("B.", "choice", ("A. 1", "B. 2"))) == "A"
    assert rejected_answer(question("chair", "choice", ("chair", "bed"))) == "bed"
    assert rejected_answer(question("left", "word")) == "right"
    directions = {level: rejected_answer(question("front-left", "word"), level) for level in get_args(Difficulty)[1:]}
    assert directions == {"easy": "back-right", "medium": "back-left", "hard": "front-right"}


def test_mixed_draws_every_level_and_the_same_one_for_the_same_question() -> None:
    rows = [question("100", "number", name=f"q{index}") for index in range(80)]
    assert {rejected_answer(row) for row in rows} == {"400", "25", "200", "50", "125", "80"}
    assert [rejected_answer(row) for row in rows] == [rejected_answer(row) for row in rows]


def test_sft_targets_are_responses_if_rows_have_them() -> None:
    row = question("4", "number")
    assert target_answer(row) == "4"
    thought = "<think>Two here and two there.</think> <answer>4</answer>"
    assert target_answer(dataclasses.replace(row, response=thought)) == thought


def test_dpo_compares_answers_of_one_form_even_if_the_row_has_a_response() -> None:
    """A thought and its answer against a bare word would teach the form: the wrong answer is told by its length."""
    row = dataclasses.replace(question("left", "word"), response="<think>It is there.</think> <answer>left</answer>")
    builder("dpo", 5).check_answers([row])
    with pytest.raises(InputError, match="its answer has 49 tokens"):
        builder("sft", 5).check_answers([row])


def builder(objective: Any, answer_tokens: int) -> BatchBuilder:
    """One token a letter."""
    processor = create_autospec(SceneProcessor, instance=True)
    processor.chat = SimpleNamespace(answer_tokens=list, opens_thought=False)
    return BatchBuilder(processor, prompt_from("question"), objective, answer_tokens)


def test_an_error_about_answer_length_names_the_longest_answer_and_its_length() -> None:
    rows = [question("left", "word", name="a"), question("right", "word", name="b"), question("back", "word", name="c")]
    builder("sft", 5).check_answers(rows)
    builder("grpo", 1).check_answers(rows)
    with pytest.raises(InputError, match=r"question 'b': .* 5 tokens, .* take sampling.answer_tokens=5"):
        builder("sft", 3).check_answers(rows)
    with pytest.raises(InputError, match=r"question 'a': .* take sampling.answer_tokens=5"):
        builder("dpo", 4).check_answers(rows[:1])  # its rejected answer is longer
    with pytest.raises(InputError, match=r"question 'd': no wrong answer"):
        builder("dpo", 9).check_answers([*rows, question("a rug", "text", name="d")])
