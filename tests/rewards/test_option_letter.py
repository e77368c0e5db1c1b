"""Every option letter is read alike: other letters in a text give the other letters back, in all common spellings."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvsr.data.questions import Question
from jaxvsr.evaluation.metrics.vsi_bench_scores import robust_score
from jaxvsr.rewards.option_letter import choice_letter
from jaxvsr.rewards.spatial_r1 import spatial_r1_mar
from jaxvsr.rewards.vsgrpo import vsgrpo_accuracy

OPTIONS = ("A. stove", "B. tv", "C. trash can", "D. sofa")
# §: the letter; %: the same as a small letter
SPELLINGS = [
    *["§", "§.", "§)", "§:", "§,", "(§)", "[§]", "{§}", "<§>", "$§$", "**§**", "__§__", "`§`", "'§'", '"§"', "“§”"],
    *[r"\boxed{§}", r"$\boxed{§}$", r"\(\boxed{§}\)", r"\boxed{\text{§}}", r"\text{§}", r"\mathbf{§}", r"\( § \)"],
    *["I pick §", "I pick §.", "I choose option § because it is near.", "I'd go with §", "Select §", "selected: §"],
    *["Final: §", "Final answer: §", "**Final Answer:** §", "**Answer**: (§)", "### Answer\n\n§", "Answer:§"],
    *["The answer is §", "The correct answer is: **§**", "the answer would be §, since it is far", "My choice is §"],
    *["The answer is § because the others are far", "§ is correct", "§ because it is near", "§ - next to the door"],
    *["Option § is right", "the letter §", "Therefore, §!", "It must be (§) here", "The closest is §"],
    *["§ seems right", "So § it is", "I think it's §", "§ (the near one)", "§\nbecause the others are far", "=> §"],
    *["# §", "- §", "§ was nearest"],
    *["%)", "(%)", "answer: %", "option %", r"\boxed{%}", "I pick %"],
    *["答案是§", "答案：§", "答案为 §。", "正确答案是 §", "选§", "我选择§", "应选§项", "选项§", "选§，因为它最近"],
    *["§选项", "（§）", "【§】", "「§」", "Ｆinal：§", "答えは§です", "정답은 §입니다", "Réponse : §"],
    *["I see a chair and a bed. Final: §", "A chair stands there. I pick §", "I am not sure, but §."],
]  # fmt: skip


def spelled(spelling, letter):
    return spelling.replace("§", letter).replace("%", letter.lower())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_letter_is_read_in_every_spelling_by_the_parser_and_the_rewards(spelling):
    for letter in "ABCD":
        text = spelled(spelling, letter)
        asked = Question("q", "s", "object_rel_distance", "Which?", OPTIONS, letter, "choice")
        columns = {"answer": [letter], "answer_kind": ["choice"], "options": [OPTIONS]}
        assert choice_letter(text, OPTIONS) == letter, text
        assert robust_score(text, asked) == 1, text
        assert robust_score(f"<think>A, B or C?</think><answer>{text}</answer>", asked) == 1, text
        assert vsgrpo_accuracy([text], **columns) == spatial_r1_mar([f"<answer>{text}</answer>"], **columns) == [1]


# What a letter may stand in or beside; § and £ are two letters of a permutation.
PIECES = [
    *["§", "£", " ", ". ", ", ", "\n", "(§)", "**£**", "$§$", "{£}", r"\boxed{§}", "I pick ", "Final: ", "Answer: "],
    *["the answer is ", "option §", "答案是", "选", "or ", "and ", "because ", " is ", " chair", " tv", " sofa"],
    *["stove", "not ", "§'s", "£-shaped", "§: ", "- §", "</think>", "<answer>", "</answer>", "3", "I ", "I'm sure "],
    *["£ was near"],
]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join), st.permutations("ABCD"))
def test_permuting_the_letters_permutes_what_is_read(text, order):
    permuted = dict(zip("ABCD", order, strict=True))
    for first, second in itertools.permutations("ABCD", 2):
        read = choice_letter(text.replace("§", first).replace("£", second))
        other = choice_letter(text.replace("§", permuted[first]).replace("£", permuted[second]))
        assert other == permuted.get(read, read), (text, first, second)
    for options in itertools.islice(itertools.permutations(["stove", "tv", "bed", "desk"]), 0, 24, 5):
        lettered = tuple(f"{letter}. {words}" for letter, words in zip("ABCD", options, strict=True))
        moved = dict(zip(order, options, strict=True))
        relettered = tuple(f"{letter}. {moved[letter]}" for letter in "ABCD")
        said = text.replace("§", "A").replace("£", "C")
        renamed = text.replace("§", permuted["A"]).replace("£", permuted["C"])
        read, other = choice_letter(said, lettered), choice_letter(renamed, relettered)
        if re.search(r"[§£] (tv|stove)", text):
            continue  # "A tv" alone is the article with the text of B, and "C tv" contradicts itself
        assert other == (None if read is None else permuted[read]), (text, lettered)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("A trash can is closest", None),
        ("A trash can.", "C"),
        ("a sofa", "D"),
        ("the trash can", "C"),
        ("I pick the trash can", "C"),
        ("A TV is closest", None),
        ("B sofa", None),
        ("C trash can", "C"),
        ("A chair is near, so B", "B"),
        ("I pick B. A chair is near", "B"),
        ("(B), since the answer is the nearest to me", "B"),
        ("C, because A is farther", "C"),
        ("B or C", None),
        ("A or B", None),
        ("I'm sure it is C", "C"),
        ("The room is L-shaped", None),
        ("I was there", None),
        ("The answer is not clear", None),
        ("A. stove\nB. tv\nC. trash can\nD. sofa", None),
        ("E", None),
    ],
)
def test_words_that_look_like_letters_are_none(text, read):
    assert choice_letter(text, OPTIONS) == read


def test_the_pronoun_is_a_letter_where_an_option_has_it():
    nine = tuple(f"{letter}. thing {number}" for number, letter in enumerate("ABCDEFGHI"))
    assert choice_letter("I", nine) == choice_letter("Final: (I)", nine) == choice_letter("答案是I", nine) == "I"
    assert choice_letter("I think it is C", nine) == "C" and choice_letter("I pick A", nine) == "A"
    assert choice_letter("I pick I", nine) == "I"


@pytest.mark.parametrize("order", list(itertools.permutations(["sofa", "sofa chair", "tv", "tv stand"])))
def test_an_option_that_begins_with_another_is_read_alike_by_every_letter(order):
    options = tuple(f"{letter}. {text}" for letter, text in zip("ABCD", order, strict=True))
    for letter, text in zip("ABCD", order, strict=True):
        assert choice_letter(f"I pick {letter} {text} because it is near", options) == letter
