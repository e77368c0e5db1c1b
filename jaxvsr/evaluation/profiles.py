"""How other harnesses ask VSI-Bench: everything that their numbers depend on, by name and model family.

Only what their code says is here, in the versions that `source` names. Not here: Qwen's own evaluations, of which none
of VSI-Bench is published, and VLMEvalKit, whose frames and pixels are those of each model's entry there, and whose
parser is its own.
"""

from __future__ import annotations

import dataclasses

from jaxvsr.data.video.frame_sampling import SamplingRule
from jaxvsr.errors import InputError
from jaxvsr.evaluation.metrics.vsi_bench_scores import Parser
from jaxvsr.models.model_config import FamilyName
from jaxvsr.prompts import PROMPTS, Prompt

_TASK = PROMPTS["vsi-bench"]
_UNCUT = dataclasses.replace(_TASK, stop=())
_SYSTEM = "You are a helpful assistant."
_LMMS_EVAL = "lmms-eval 0.7.3, tasks/vsibench and "
# qwen-vl-utils: VIDEO_MAX_TOKEN_NUM of a token's pixels; a token is 28 × 28 pixels, in Qwen3-VL 32 × 32.
_MOST, _MOST_QWEN3 = 768 * 28 * 28, 768 * 32 * 32
_LEAST = 256 * 28 * 28  # lmms-eval's own, in `qwen2_5_vl` and `qwen3_vl`


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a harness does with a video and a question, and how it reads the answer."""

    source: str
    prompt: Prompt
    parser: Parser
    rule: SamplingRule
    max_pixels: int  # per frame
    min_pixels: int | None = None  # per frame; None: the model folder's
    frames: int = 32
    seconds_of_length: bool = False  # `SceneMedia.seconds_of_length`


# The families to which a profile applies.
PROFILES: dict[str, dict[FamilyName, Profile]] = {
    "lmms-eval": {
        "qwen2_vl": Profile(
            _LMMS_EVAL + "models/simple/qwen2_vl.py",
            dataclasses.replace(_TASK, system=_SYSTEM),
            "lmms-eval",
            "lmms-eval",
            _MOST,
            3136,
        ),
        "qwen2_5_vl": Profile(
            _LMMS_EVAL + "models/chat/qwen2_5_vl.py",
            _UNCUT,
            "lmms-eval",
            "qwen-vl-utils",
            _MOST,
            _LEAST,
            seconds_of_length=True,
        ),
        "qwen3_vl": Profile(
            _LMMS_EVAL + "models/chat/qwen3_vl.py",
            dataclasses.replace(_UNCUT, system=_SYSTEM),
            "lmms-eval",
            "qwen-vl-utils",
            _MOST_QWEN3,
            _LEAST,
        ),
    },
    "vsi-bench": {
        family: Profile(
            "thinking-in-space 51e089c, tasks/vsibench; frames as models/llava_onevision.py, pixels of qwen-vl-utils",
            _TASK,
            "official",
            "linspace",
            _MOST_QWEN3 if family == "qwen3_vl" else _MOST,
        )
        for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
    },
}


def profile_of(name: str, family: FamilyName) -> Profile:
    """The profile of that name for a model of this family.

    Raises:
        InputError: the harness's code does not say what it does with such a model.
    """
    profiles = PROFILES[name]
    if family not in profiles:
        raise InputError(f"--profile {name}: only for {', '.join(profiles)}; this model is {family}")
    return profiles[family]
