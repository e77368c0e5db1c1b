"""A thought is never the answer: what the robust parsers take out of a completion."""

import pytest

from jaxvsr.evaluation.benchmarks import score_predictions
from jaxvsr.evaluation.metrics.q_spatial import robust_length_cm
from jaxvsr.evaluation.predictions import Prediction
from jaxvsr.prompts import prompt_from
from jaxvsr.rewards.answers import announced_answer, final_answer
from tests.support.questions import make_question


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<think>The reply goes in <answer> </answer> tags. I count 4.</think> <answer>4</answer>", "4"),
        ("<think>Is it <answer>3</answer>?</think><answer>4</answer>", "4"),
        ("<think>Is it <answer>3</answer>?</think> I count 4.", "I count 4."),
        ("<answer>3</answer> no, <answer>4</answer>", "4"),
        ("<think>a</think><answer>4</answer><answer> </answer>", "4"),
        ("<think>a</think> 4 <answer></answer>", "4"),
        ("Three? <answer>3</answer> No.</think>\n4", "4"),
        ("<observe>I see 3.</observe><answer>4</answer>", "4"),
        ("<Think>3</Think><Answer>4</Answer>", "4"),
        ("<think>a <think> b</think> 3 </think> <answer>4</answer>", "4"),
        ("<think>in <think> </think> tags, 3.</think> <answer>4</answer>", "4"),
        ("<answer>4</answer><think>It is not 3.</think>", "4"),
        ("4 <think>It is not 3.</think>", "4"),
        ("<think>I count 3, then <answer>4</answer>", ""),
        ("<think>I count 3", ""),
        ("<think>a</think><answer>4", "4"),
        ("<answer><answer>4</answer></answer>", "4"),
        ("<thought>Is it <answer>3</answer>?</thought>4", "4"),
        ("<reasoning>Is it <answer>3</answer>?</reasoning><answer>4</answer>", "4"),
        ("\u25c1think\u25b7Is it <answer>3</answer>?\u25c1/think\u25b74", "4"),
        ("<|begin_of_thought|><answer>3</answer><|end_of_thought|>4", "4"),
        ("<answer>4</ans", "4"),
        ("I count 4.", "I count 4."),
        ("", ""),
    ],
)
def test_the_answer_is_outside_of_the_thought(completion, answer):
    assert final_answer(completion) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 beds and 1 more. **Answer:** 3", "3"),
        ("2 + 1 = \\boxed{3}", "3}"),
        ("2 beds. Final: 3", "3"),
        ("2 张床，答案是3", "3"),
        ("The final answer is: 3 m", "3 m"),
        ("3", "3"),
    ],
)
def test_what_was_announced_is_the_answer(text, answer):
    assert announced_answer(text) == answer


def test_the_robust_score_reads_past_a_thought_that_the_prompts_own_rule_reads():
    said = "<think>The reply goes in <answer> </answer> tags. I count 4.</think> <answer>4</answer>"
    rows = [Prediction(make_question(1, answer="4"), said)]
    result = score_predictions("vsi-bench", rows, prompt=prompt_from("vsgrpo-think"))
    assert result.by_parser["robust"]["object_counting"] == 100
    assert result.scores["object_counting"] == 0  # the papers' rule: the first pair


def test_a_length_in_a_thought_is_not_the_answer():
    thought = r"<think>Not \scalar{9} \distance_unit{m}, rather 3 m.</think>"
    assert robust_length_cm(rf"{thought} \scalar{{2}} \distance_unit{{m}}") == 200
    assert robust_length_cm(f"{thought} about 2 m") == 200
    assert robust_length_cm(thought) is None
