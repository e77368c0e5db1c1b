"""A reward for TRL's trainers, which hand over completions as messages where prompts are messages."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvsr.rewards.registry import RewardFunction


def for_trl(reward: RewardFunction) -> RewardFunction:
    """The reward as one of GRPOTrainer's `reward_funcs`; it keeps its name.

    Completions may be texts, or lists of messages as TRL makes them of conversational prompts: then the contents of
    all their messages are the text. Columns are those of the data set.
    """

    @functools.wraps(reward)
    def of_texts(completions: Sequence[Any], **columns: Any) -> Sequence[float | None]:
        return reward(completions=[_text(one) for one in completions], **columns)

    return of_texts


def _text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(completion, str):
        return completion
    return "".join(_content(message["content"]) for message in completion)


def _content(content: str | Sequence[Mapping[str, Any]]) -> str:
    """A message's text: its content is a text, or a list of parts."""
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)
