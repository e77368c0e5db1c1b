"""The tokens of a tree on one axis, and which of them see which."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True)
class TreeSizes:
    """The tokens of a tree on one axis: a scene of V, Q questions of T, and G rollouts of `fed` tokens a question."""

    scene: int
    questions: int
    question: int
    group: int = 0
    fed: int = 0

    @property
    def tokens(self) -> int:
        return self.scene + self.questions * (self.question + self.group * self.fed)

    def visible(self, query: Int[np.ndarray, "n"], key: Int[np.ndarray, "m"]) -> Bool[np.ndarray, "n m"]:
        """Which of the tokens `key` each of the tokens `query` sees, padding aside. Tokens behind the last are seen by
        none before them."""
        (asking, answering), (question, rollout) = self._ancestry(query), self._ancestry(key)
        same_question = (question == -1) | (question == asking[:, None])
        same_rollout = (rollout == -1) | (rollout == answering[:, None])
        return (key <= query[:, None]) & same_question & same_rollout

    def _ancestry(self, token: Int[np.ndarray, "n"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """(question, rollout) of each token; -1: none, it is for all."""
        first, second = self.scene, self.scene + self.questions * self.question
        asked, answered = (token - first) // max(self.question, 1), (token - second) // max(self.fed, 1)
        question = np.where(token < second, asked, answered // max(self.group, 1))
        beyond = token >= self.tokens
        question = np.where(token < first, -1, np.where(beyond, self.questions, question))
        return question, np.where(beyond, self.questions * self.group, np.where(token < second, -1, answered))
