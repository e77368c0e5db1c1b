"""Which frames of a video stand for it: uniform sampling by the rules of the places that it comes from.

The rules differ in rounding and in where the last frame falls, for 7 frames the last of which is number 6, taking 3:

    linspace        0 3 6     lmms-eval: int(linspace(0, total - 1, count)), so the last frame is always there
    qwen-vl-utils   0 3 6     linspace rounded to the nearest, halves to even
    huggingface     0 2 4     int(arange(0, total, total / count)), the last stretch is cut off
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int64

from jaxvsr.errors import InputError

SamplingRule = Literal["linspace", "qwen-vl-utils", "huggingface"]


def sample_indices(total: int, count: int, rule: SamplingRule = "linspace") -> Int64[np.ndarray, " F"]:
    """Indices of `count` frames out of `total`, ascending, each once.

    Raises:
        InputError: fewer than `count` frames.
    """
    if total < count:
        raise InputError(f"has {total} frames, fewer than the {count} asked for")
    if rule == "linspace":
        return np.linspace(0, total - 1, count, dtype=np.int64)
    if rule == "qwen-vl-utils":
        return np.linspace(0, total - 1, count, dtype=np.float32).round().astype(np.int64)
    # torch.arange(0, total, step).int(): float32 products of index and step, not a running sum
    step = total / count
    return (np.arange(count) * step).astype(np.float32).astype(np.int64)
