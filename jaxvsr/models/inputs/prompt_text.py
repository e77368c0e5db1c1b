"""A prompt's tokens as text, in runs of one kind."""

from __future__ import annotations

import itertools

import numpy as np

from jaxvsr.models.inputs.chat import STRUCTURE_TOKENS, Chat
from jaxvsr.models.inputs.collate import EncodedScene


def prompt_lines(chat: Chat, scene: EncodedScene) -> list[str]:
    """The tokens of a scene and its first question, a line for each run of one kind: where it starts, how many tokens
    it has, what they are, and their text.

        20  64  vision    <|video_pad|> x 64
    """
    tokens = [int(token) for token in np.concatenate([scene.tokens, scene.questions[0]])]
    seen = [*(scene.vision_row >= 0), *[False] * len(scene.questions[0])]
    vocabulary = chat.tokenizer.get_vocab()
    structure = {vocabulary[token] for token in STRUCTURE_TOKENS}
    kinds = [
        "vision" if is_seen else "structure" if token in structure else "text"
        for token, is_seen in zip(tokens, seen, strict=True)
    ]
    lines, start = [], 0
    for (kind, token), run in itertools.groupby(
        zip(kinds, tokens, strict=True), key=lambda pair: (pair[0], None if pair[0] == "text" else pair[1])
    ):
        ids = [one for _, one in run]
        if token is None:
            text = repr(chat.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        else:
            text = str(chat.tokenizer.convert_ids_to_tokens(token)) + (f" x {len(ids)}" if len(ids) > 1 else "")
        lines.append(f"{start:>7}{len(ids):>7}  {kind:<10}{text}")
        start += len(ids)
    return lines
