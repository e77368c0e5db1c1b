"""Reward hacking: which rollouts show a known trick, and a format reward that rejects those tricks.

vsGRPO (its section 3.3.3) reports `<think> </think> <answer>xx</answer>`, an empty thought, and after a length reward
was added, extra tag pairs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int

from jaxvsr.rewards.answers import extract_answer, tag_pairs
from jaxvsr.rewards.numerals import parse_number, parse_numbers

ThoughtTag = Literal["think", "observe"]
THOUGHT_TAGS = get_args(ThoughtTag)
MINIMUM_WORDS = 5  # different words in a thought
LONGEST_ANSWER = 12  # words; prompts ask for two words or a number, but an option may be repeated in full

_TAG = re.compile(r"</?(think|observe|answer)\s*>", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")


def empty_thought(completion: str) -> bool:
    """A `<think>` or `<observe>` pair contains no word."""
    thoughts = (completion[start:end] for tag in THOUGHT_TAGS for start, end in tag_pairs(completion, tag))
    return any(not _WORD.search(_TAG.sub(" ", thought)) for thought in thoughts)


def repeated_tags(completion: str) -> bool:
    """A tag opens or closes more than once: a pair is repeated or nested."""
    tags = [match[0].lower() for match in _TAG.finditer(completion)]
    return len(tags) != len(set(tags))


def outside_tags(completion: str) -> bool:
    """There are words or numbers outside of all pairs: before, between or after them."""
    for tag in (*THOUGHT_TAGS, "answer"):
        ends = [0]
        kept = []
        for start, end in tag_pairs(completion, tag):
            kept.append(completion[ends[-1] : start])
            ends.append(end)
        completion = " ".join([*kept, completion[ends[-1] :]])
    return re.search(r"\w", _TAG.sub(" ", completion)) is not None


def copied_number(completion: str, question: str) -> bool:
    """The answer is a number that the question contains."""
    number = parse_number(extract_answer(completion))
    return number is not None and number in parse_numbers(question)


def hacks(
    completions: Sequence[str], questions: Sequence[str], thought_tag: str | None = None
) -> dict[str, Bool[np.ndarray, " N"]]:
    """Which rollouts show which trick.

    Args:
        questions: the question of each completion.
        thought_tag: the tag that the prompt asks for ("think", "observe"); None: it asks for no tags, and
            `outside_tags` is False.
    """
    found = {
        "empty_thought": [empty_thought(text) for text in completions],
        "repeated_tags": [repeated_tags(text) for text in completions],
        "outside_tags": [thought_tag is not None and outside_tags(text) for text in completions],
        "copied_number": [copied_number(*pair) for pair in zip(completions, questions, strict=True)],
    }
    return {name: np.array(rows, dtype=bool) for name, rows in found.items()}


def hack_shares(found: dict[str, Bool[np.ndarray, " N"]]) -> dict[str, float]:
    """The share of the rollouts that show each trick, in [0, 1]: the metrics `hacking/<trick>`."""
    return {f"hacking/{name}": float(rows.mean()) if rows.size else 0.0 for name, rows in found.items()}


def worst(found: dict[str, Bool[np.ndarray, " N"]], rewards: Any, count: int) -> Int[np.ndarray, " M"]:
    """Indices of at most `count` rollouts with a trick: most tricks first, then highest reward ([N], NaN as 0)."""
    tricks = np.sum(list(found.values()), axis=0)
    order = np.lexsort((-np.nan_to_num(np.asarray(rewards, dtype=float)), -tricks))
    return order[tricks[order] > 0][:count]


def robust_format(completions: list[str], *, tag: ThoughtTag = "think", **columns: Any) -> list[float | None]:
    """A format reward that an empty thought, repeated or nested tags and text outside of the tags do not get.

    Range: 0 or 1; never None.

    Formula: 1 if the completion is one `<tag>` pair ("think" or "observe"), then one `<answer>` pair, with only white
    space around them, and the thought has at least 5 different words and the answer 1 to 12 words; else 0.

    Source: ours, against the hacks that vsGRPO reports in section 3.3.3.
    """
    if tag not in THOUGHT_TAGS:
        raise ValueError(f"tag={tag!r} is not one of {', '.join(THOUGHT_TAGS)}")
    return [float(_is_earned(text, tag)) for text in completions]


def _is_earned(text: str, tag: str) -> bool:
    if [match[0] for match in _TAG.finditer(text)] != [f"<{tag}>", f"</{tag}>", "<answer>", "</answer>"]:
        return False
    before, rest = text.split(f"<{tag}>")
    thought, rest = rest.split(f"</{tag}>")
    between, rest = rest.split("<answer>")
    answer, after = rest.split("</answer>")
    different = {word.casefold() for word in _WORD.findall(thought)}
    return (
        not (before.strip() or between.strip() or after.strip())
        and len(different) >= MINIMUM_WORDS
        and 1 <= len(answer.split()) <= LONGEST_ANSWER
        and re.search(r"\w", answer) is not None
    )
