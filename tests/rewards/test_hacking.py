"""Tricks are seen, and the robust format reward pays for none of them."""

import numpy as np
import pytest

from jaxvsr.rewards.hacking import hack_shares, hacks, robust_format, worst

EARNED = "<think>I see four chairs around the table.</think> <answer>4</answer>"
TRICKS = {
    "<think> </think> <answer>xx</answer>": "empty_thought",
    "<think>...</think><answer>4</answer>": "empty_thought",
    "<observe></observe><answer>4</answer>": "empty_thought",
    EARNED + "<think></think><answer></answer>": "repeated_tags",
    "<think><think>I see four chairs around the table.</think></think><answer>4</answer>": "repeated_tags",
    "<think>I see four chairs around the table.</think> 4 <answer>4</answer>": "outside_tags",
    "4": "outside_tags",
    "<think>I see four chairs around the table.</think><answer>2</answer>": "copied_number",
}
QUESTION = "Is the table longer than 2 m?"


@pytest.mark.parametrize(("completion", "trick"), TRICKS.items())
def test_each_trick_is_detected(completion, trick):
    assert hacks([completion], [QUESTION], "think")[trick].tolist() == [True]


def test_an_honest_answer_has_no_trick():
    assert not any(rows.any() for rows in hacks([EARNED], [QUESTION], "think").values())


def test_a_plain_answer_is_no_trick_if_the_prompt_asks_for_no_tags():
    assert not any(rows.any() for rows in hacks(["4", "left"], [QUESTION] * 2, None).values())


def test_robust_format_rewards_only_the_honest_answer():
    spam = "<think>" + "chair " * 200 + "</think><answer>4</answer>"
    long = "<think>I see four chairs around the table.</think><answer>" + "word " * 13 + "</answer>"
    format_tricks = [text for text, trick in TRICKS.items() if trick != "copied_number"]
    refused = [
        *format_tricks,
        spam,
        long,
        EARNED.replace("4</answer>", "</answer>"),
        EARNED.replace("4</answer>", ".</answer>"),
    ]
    refused += [
        "<answer>4</answer><think>I see four chairs around the table.</think>",
        EARNED.replace("<think>", "<Think>"),
    ]
    refused += [EARNED.replace("think>", "observe>"), ""]
    assert robust_format([EARNED, EARNED + "\n"]) == [1, 1]
    assert robust_format(refused) == [0] * len(refused)
    assert robust_format([EARNED.replace("think>", "observe>")], tag="observe") == [1]


def test_shares_of_tricks_are_over_the_batch():
    shares = hack_shares(hacks(["4", EARNED, EARNED, EARNED], [QUESTION] * 4, "think"))
    assert shares == {
        "hacking/empty_thought": 0,
        "hacking/repeated_tags": 0,
        "hacking/outside_tags": 0.25,
        "hacking/copied_number": 0,
    }
    assert set(hack_shares(hacks([], [], "think")).values()) == {0.0}


def test_the_worst_rollouts_are_sorted_by_tricks_then_reward():
    texts = [EARNED, "4", "2", "<think></think><answer>2</answer>", "5"]
    found = hacks(texts, [QUESTION] * 5, "think")
    assert worst(found, np.array([1, 0.1, 0, 0.5, np.nan]), 3).tolist() == [3, 2, 1]
    assert worst(found, np.zeros(5), 99).tolist() == [2, 3, 1, 4]
