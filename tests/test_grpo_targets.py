"""Given answers: what cannot be learned from is found before the first step, and named."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.grpo.batches import BatchBuilder
from jaxvsr.grpo.targets import rejected_answer
from jaxvsr.models.processor import SceneProcessor
from jaxvsr.rewards.prompts import prompt_from


def question(answer: str, kind: Any, options: tuple[str, ...] | None = None, name: str = "q7") -> Question:
    return Question(name, "scene", "object_counting", "How many?", options, answer, kind)


@pytest.mark.parametrize(
    "row",
    [
        question("A", "choice", ("A. 1",)),
        question("chair", "choice", ("chair",)),
        question("0.0", "number"),
        question("many", "number"),
        question("a red chair", "text"),
    ],
)
def test_a_question_without_a_wrong_answer_is_named(row: Question) -> None:
    with pytest.raises(InputError, match=r"question 'q7': no wrong answer to .* leave the question out"):
        rejected_answer(row)


@pytest.mark.parametrize("answer", ["1", "0", "0.1", "2.50", "-3"])
def test_a_rejected_number_is_another_number(answer: str) -> None:
    for index in range(40):
        assert float(rejected_answer(question(answer, "number", name=f"q{index}"))) != float(answer)


def builder(objective: Any, answer_tokens: int) -> BatchBuilder:
    """One token a letter."""
    processor = create_autospec(SceneProcessor, instance=True)
    processor.chat = SimpleNamespace(answer_tokens=list)
    return BatchBuilder(processor, prompt_from("question"), objective, answer_tokens)


def test_the_longest_answer_of_all_is_named_with_the_length_it_needs() -> None:
    rows = [question("left", "word", name="a"), question("right", "word", name="b"), question("back", "word", name="c")]
    builder("sft", 5).check_answers(rows)
    builder("grpo", 1).check_answers(rows)
    with pytest.raises(InputError, match=r"question 'b': .* 5 tokens, .* take sampling.answer_tokens=5"):
        builder("sft", 3).check_answers(rows)
    with pytest.raises(InputError, match=r"question 'a': .* take sampling.answer_tokens=5"):
        builder("dpo", 4).check_answers(rows[:1])  # its rejected answer is longer
    with pytest.raises(InputError, match=r"question 'd': no wrong answer"):
        builder("dpo", 9).check_answers([*rows, question("0.0", "number", name="d")])
