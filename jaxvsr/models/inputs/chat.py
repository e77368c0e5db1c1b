"""Tokenizer and chat template of a model folder.

The template is rendered by transformers (sandboxed jinja) and the text is tokenized whole, so tokens are Hugging
Face's. No code from the folder is ever run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from jaxvsr.errors import InputError, one_line
from jaxvsr.files import read_json_object, read_text
from jaxvsr.models.families.known_families import family_of
from jaxvsr.models.huggingface.hf_config import GenerationConfig, read_generation_config
from jaxvsr.models.inputs.bounded_template import bounded_template
from jaxvsr.models.model_config import ModelConfig

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VISION_PAD = "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
# If they are missing, transformers gives an empty tokenizer instead of an error.
TOKENIZER_FILE, SLOW_TOKENIZER = "tokenizer.json", ("vocab.json", "merges.txt")
# Tokens that structure a prompt: text that contains one would change the structure.
STRUCTURE_TOKENS = (IM_START, IM_END, "<|endoftext|>", VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)

# One message of a conversation, as chat templates take it.
Message = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Chat:
    """Text to tokens and back. Get one with `Chat.from_folder`."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    generation: GenerationConfig
    vocab_size: int  # rows of the embedding; may be more than the tokenizer's tokens

    @classmethod
    def from_folder(cls, folder: Path, config: ModelConfig) -> Chat:
        """Read tokenizer, template and end-of-sequence ids, and check that they fit the model's config."""
        if not (folder / TOKENIZER_FILE).is_file() and not all((folder / name).is_file() for name in SLOW_TOKENIZER):
            wanted = f"{TOKENIZER_FILE}, or {' and '.join(SLOW_TOKENIZER)}"
            raise InputError(f"{folder}: has no tokenizer ({wanted}); copy it from this model's base")
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # many types, and from tokenizers a bare Exception
            reason = str(error).strip().splitlines()
            raise InputError(
                f"{folder}: no usable tokenizer ({reason[0] if reason else type(error).__name__})"
            ) from None
        chat = cls(tokenizer, _read_template(folder, tokenizer), read_generation_config(folder), config.text.vocab_size)
        chat._check(folder, config)
        return chat

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The conversation as text, with one placeholder for each image or video."""
        try:
            with bounded_template(self.template):
                text = self.tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
        except InputError:
            raise
        except Exception as error:  # a template can raise whatever Python can
            raise InputError(f"chat template: {one_line(error)}") from None
        return str(text)

    def tokens(self, text: str) -> Int32[np.ndarray, "X"]:
        """Token ids. Special tokens in `text` become their own ids."""
        return np.array(self.tokenizer(text)["input_ids"], np.int32)

    def answer_tokens(self, answer: str) -> Int32[np.ndarray, "X"]:
        """A training target: stripped (a leading newline would merge with the template's), then `<|im_end|>`."""
        check_text(answer, "answer")
        return self.tokens(answer.strip() + IM_END)

    def text(self, tokens: Int32[np.ndarray, "X"]) -> str:
        """Tokens as text, without special tokens."""
        ids = [int(token) for token in tokens]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @property
    def opens_thought(self) -> bool:
        """Whether the template begins every answer with `<think>`, as those of Qwen3-VL's thinking variants do."""
        return self.render([{"role": "user", "content": "?"}]).rstrip().endswith("<think>")

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Each of these ends an answer."""
        return self.generation.eos_token_ids

    @property
    def suppressed_token_ids(self) -> tuple[int, ...]:
        """Never drawn in sampling: vision tokens, `<|im_start|>`, and rows of the vocabulary without a token."""
        vocabulary = self.tokenizer.get_vocab()
        named = {vocabulary[token] for token in (IM_START, VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)}
        empty = set(range(self.vocab_size)) - set(vocabulary.values())
        return tuple(sorted((named | empty) - set(self.eos_token_ids)))

    def _check(self, folder: Path, config: ModelConfig) -> None:
        vocabulary = self.tokenizer.get_vocab()
        fields = {
            IMAGE_PAD: config.image_token_id,
            VIDEO_PAD: config.video_token_id,
            VISION_START: config.vision_start_token_id,
            VISION_END: config.vision_end_token_id,
        }
        for token in STRUCTURE_TOKENS:
            if token not in vocabulary:
                raise InputError(f"{folder}: the tokenizer has no {token}; it is not {family_of(config).title}'s")
        for token, expected in fields.items():
            if vocabulary[token] != expected:
                raise InputError(
                    f"{folder}: {token} is {vocabulary[token]} in the tokenizer, {expected} in config.json"
                )
        if max(vocabulary.values()) >= self.vocab_size:
            raise InputError(f"{folder}: the tokenizer has more tokens than config.json's vocab_size {self.vocab_size}")
        if self.tokenizer.convert_tokens_to_ids(IM_END) not in self.eos_token_ids:
            raise InputError(f"{folder}: eos_token_id {list(self.eos_token_ids)} must include the id of {IM_END}")


def check_text(text: str, what: str) -> None:
    """Refuse text with a token that structures prompts, or with half a character (a lone surrogate)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: character {error.start + 1} is not valid Unicode") from None
    for token in STRUCTURE_TOKENS:
        if token in text:
            raise InputError(f"{what}: contains {token}, which only the chat template may add")


def _read_template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """The template, from the places where Hugging Face's processors look, in their order."""
    legacy, file = folder / "chat_template.json", folder / "chat_template.jinja"
    if legacy.is_file():
        template = read_json_object(legacy).get("chat_template")
    elif file.is_file():
        template = read_text(file)
    else:
        template = tokenizer.chat_template
    if not isinstance(template, str):
        raise InputError(
            f"{folder}: no chat template in chat_template.json, chat_template.jinja or tokenizer_config.json"
        )
    return template
