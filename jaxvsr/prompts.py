"""Every prompt of the three papers, VSI-Bench and Q-Spatial, by name, byte for byte where the source has bytes.

A template holds `{question}` and, for questions with options, `{options}`: the options, which already read "A. stove", one
a line; a template without that place has them after the question. `source` says where the words come from and what is a
guess; token budgets that no source states say so.
"""
# ruff: noqa: E501  (a prompt's lines are its own)

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from jaxvsr.errors import InputError, prefixed
from jaxvsr.fields import read_fields
from jaxvsr.rewards.answers import AFTER_THOUGHT, EXTRACTION, after_thought, extract_answer
from jaxvsr.yaml_file import read_yaml


@runtime_checkable
class Asked(Protocol):
    """What a prompt needs of a question (`jaxvsr.data.questions.Question` has it)."""

    @property
    def id(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...] | None: ...
    @property
    def answer_kind(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Prompt:
    """How a question is put to the model, how long it may answer, and where in the completion the answer is."""

    name: str
    source: str
    template: str
    max_answer_tokens: int
    extraction: str = "plain"  # a rule of jaxvsr.rewards.answers.EXTRACTION
    choice_template: str | None = (
        None  # for questions with options; None: `template`, with the options after the question
    )
    system: str | None = None  # None: the chat template's own system line
    thought_tag: Literal["think", "observe"] | None = None  # the tag that the prompt asks for
    stop: tuple[str, ...] = ()  # a completion ends before the first of these

    def __post_init__(self) -> None:
        for name, template in (("template", self.template), ("choice_template", self.choice_template)):
            if template is not None and "{question}" not in template:
                raise InputError(f"{name}: must have {{question}} in it, found {template!r}")
        if self.choice_template is not None and "{options}" not in self.choice_template:
            raise InputError("choice_template: must have {options} in it, or the model would not see them")
        if self.max_answer_tokens < 1:
            raise InputError(f"max_answer_tokens: must be at least 1, found {self.max_answer_tokens}")
        if self.extraction not in EXTRACTION:
            raise InputError(f"extraction: {self.extraction!r} is not one of {', '.join(EXTRACTION)}")
        if not all(self.stop):
            raise InputError("stop: an empty string would end every answer at once")

    def render(self, question: Asked) -> str:
        """The user's text for one question."""
        if question.answer_kind == "choice" and not question.options:
            raise InputError(f"question {question.id!r}: answer_kind choice needs options, found {question.options!r}")
        options = "\n".join(question.options or ())
        template, asked = self.template, question.question
        if question.options and self.choice_template is not None:
            template = self.choice_template
        elif question.options and "{options}" not in template:
            asked = f"{asked}\nOptions:\n{options}"
        values = {"{question}": asked, "{options}": options}
        return re.sub(r"\{question\}|\{options\}", lambda match: values[match[0]], template)

    def completion(self, text: str) -> str:
        """What a model wrote, up to the first stop string."""
        for stop in self.stop:
            text = text.split(stop)[0]
        return text

    def without_thought(self, text: str) -> str:
        """What may be scored of a completion: all of it, or what follows `</think>` where a thinking model is asked."""
        return after_thought(text) if self.extraction == AFTER_THOUGHT else text

    def readable(self, completion: str) -> str:
        """What a parser that finds the answer by itself reads of a completion: cut at the first stop string, no thought."""
        return self.without_thought(self.completion(completion))

    def answer(self, completion: str) -> str:
        """The answer in a completion: cut at the first stop string, then extracted."""
        return extract_answer(self.completion(completion), self.extraction)


_THINK = (
    "Please think step by step and enclose your thinking process in <think> </think> tags and then provide the short answer "
    "with one or two words or a number in <answer> </answer>."
)
_OBSERVE = (
    "Please observe carefully and analyze what you see that helps you to solve the question in the video and enclose it in "
    "<observe> </observe> tag, and then provide the short answer with one or two words or a number in <answer> </answer>."
)
_PONDER = (
    "Please think about this question as if you were a human pondering deeply. Engage in an internal dialogue using "
    "expressions such as 'let me think', 'wait', 'Hmm', 'oh, I see', 'let's break it down', etc, or other natural language "
    "thought expressions It's encouraged to include self-reflection or verification in the reasoning process. Provide your "
    "detailed reasoning between the <think> </think> tags, and then give your final answer between the <answer> </answer> tags."
)
_PONDER_NUMBER = " Please provide the numerical value (e.g., 42 or 3.1) within the <answer> </answer> tags."
_PONDER_CHOICE = (
    " Please provide only the single option letter (e.g., A, B, C, D, etc.) within the <answer> </answer> tags."
)
_STRICT = (
    " in <answer> </answer>tags.\nThe output answer format should be as follows: <think>...</think><answer>...</answer>. "
    "Please strictly follow the format."
)
_SPATIAL_NUMBER = (
    "Output the thinking process in <think> </think> and final answer that is a single word or phrase" + _STRICT
)
_SPATIAL_CHOICE = "Output the thinking process in <think> </think> and final answer that is an option letter" + _STRICT
_Q_SPATIAL_SYSTEM = (
    "You will be provided with a question and a 2D image. The question involves measuring the precise distance in 3D space "
    "through a 2D image. You will answer the question by providing a numeric answer consisting of a scalar and a distance unit "
    'in the format of """\\scalar{scalar} \\distance_unit{distance unit}""" at the end of your response.'
)
_Q_SPATIAL_STEPS = '''Question: {question}

---

Use the following 4 steps sequentially to answer the question:

Step 1 **Analyze the question**

Step 2 **Identify up to 10 reference scales in the image, ranging from large to small sizes, and list them in the specified format**
- A reference scale must be typical in size.
- A reference scale can be the dimensions of an object or an object part.
- A reference scale must NOT be floor tiles or floor planks.
- Formulate the reference scales using the format: """The [choose from front-to-back, side-to-side, left-to-right, diameter, height (top to bottom edge), or mounting height (bottom edge to floor)] of [object or object part] is approximately [dimension estimate]."""

Step 3 **Propose a robust step-by-step plan to answer the question by using the reference scales in Step 2**
- A robust step-by-step plan performs the estimation in a coarse-to-fine manner.
    - First, use a reliable and large-sized reference scale as the primary reference for estimation.
    - Then, gradually use a reliable and smaller-sized reference scale for adjustment.
    - Repeat until the estimation is precise enough.
- When performing visual comparison, be aware of perspective distortion.
- Do NOT rely on pixel measurements from the images.

Step 4 **Focus on the image and follow the plan in Step 3 to answer the question**'''

_FRAMES = "These are frames of a video.\n{question}\n"
_FRAMES_CHOICE = "These are frames of a video.\n{question}\nOptions:\n{options}\n"
_LMMS_EVAL = "VSI-Bench in lmms-eval (vsibench/utils.py); 16 tokens and the stop string are the harness's defaults"
_THINKING = "; for Qwen3-VL's thinking models, with 4,096 tokens chosen here (Qwen allows 40,960) and no stop string"
_VSGRPO_EVAL = (
    "vsGRPO section 2, for Qwen2-VL on VSI-Bench; put into VSI-Bench's frame, and with options the same words (guess); "
)
_VSGRPO_TRAIN = "vsGRPO section 3.2; set after the question on a line of its own (guess); "
_Q_SPATIAL = "Q-Spatial Bench, prompt_templates; 512 tokens is a guess"

PROMPTS: dict[str, Prompt] = {
    prompt.name: prompt
    for prompt in (
        Prompt(
            "vsi-bench",
            _LMMS_EVAL,
            _FRAMES + "Please answer the question using a single word or phrase.",
            16,
            choice_template=_FRAMES_CHOICE + "Answer with the option's letter from the given choices directly.",
            stop=("\n\n",),
        ),
        Prompt(
            "vsi-bench-number",
            _LMMS_EVAL + "; its variant for Gemini and GPT-4V",
            _FRAMES + "Do not response anything other than a single number!",
            16,
            choice_template=_FRAMES_CHOICE + "Answer with the option's letter from the given choices directly.",
            stop=("\n\n",),
        ),
        Prompt(
            "vsi-bench-thinking",
            _LMMS_EVAL + _THINKING,
            _FRAMES + "Please answer the question using a single word or phrase.",
            4096,
            AFTER_THOUGHT,
            _FRAMES_CHOICE + "Answer with the option's letter from the given choices directly.",
        ),
        Prompt(
            "vsgrpo-vanilla",
            _VSGRPO_EVAL + "16 tokens and the stop string as VSI-Bench",
            _FRAMES + "Please answer the question using a single word or phrase.",
            16,
            choice_template=_FRAMES_CHOICE + "Please answer the question using a single word or phrase.",
            stop=("\n\n",),
        ),
        Prompt(
            "vsgrpo-think",
            _VSGRPO_EVAL + "512 tokens is a guess",
            _FRAMES + "Let's think step by step and then answer the question using a single word or phrase.",
            512,
            "answer_tag",
            _FRAMES_CHOICE + "Let's think step by step and then answer the question using a single word or phrase.",
        ),
        Prompt(
            "vsgrpo-observe",
            _VSGRPO_EVAL + "512 tokens is a guess",
            _FRAMES + "Please observe the video first and then answer the question using a single word or phrase.",
            512,
            "answer_tag",
            _FRAMES_CHOICE
            + "Please observe the video first and then answer the question using a single word or phrase.",
        ),
        Prompt(
            "vsgrpo-vanilla-train",
            _VSGRPO_TRAIN + "16 tokens is a guess",
            "{question}\nPlease provide the short answer with one or two words or a number.",
            16,
        ),
        Prompt(
            "vsgrpo-vanilla-train-thinking",
            "vsGRPO section 3.2; for Qwen3-VL's thinking models, with 2,048 tokens chosen here",
            "{question}\nPlease provide the short answer with one or two words or a number.",
            2048,
            AFTER_THOUGHT,
        ),
        Prompt(
            "vsgrpo-think-train",
            _VSGRPO_TRAIN + "256 tokens is a guess",
            "{question}\n" + _THINK,
            256,
            "answer_tag",
            thought_tag="think",
        ),
        Prompt(
            "vsgrpo-observe-train",
            _VSGRPO_TRAIN + "256 tokens is a guess",
            "{question}\n" + _OBSERVE,
            256,
            "answer_tag",
            thought_tag="observe",
        ),
        Prompt(
            "spatial-r1-april",
            "Spatial-R1, code of April 2025, completion length its default; the code's data begins each question with "
            "'Question:' once more, spatial-r1-april-doubled has that",
            "Question:\n{question}\n" + _SPATIAL_NUMBER,
            256,
            "answer_tag",
            "Question:\n{question}\nOptions:\n{options}\n\n" + _SPATIAL_CHOICE,
            thought_tag="think",
        ),
        Prompt(
            "spatial-r1-april-doubled",
            "Spatial-R1, code and data of April 2025 together",
            "Question:\nQuestion:\n{question}\n" + _SPATIAL_NUMBER,
            256,
            "answer_tag",
            "Question:\nQuestion:\n{question}\nOptions:\n{options}\n\n" + _SPATIAL_CHOICE,
            thought_tag="think",
        ),
        Prompt(
            "spatial-r1-may",
            "Spatial-R1, final code of May 2025 (after Video-R1); no line break before 'Options:' and none after 'expressions'",
            "{question}\n" + _PONDER + _PONDER_NUMBER,
            1024,
            "answer_tag",
            "{question}Options:\n{options}\n\n" + _PONDER + _PONDER_CHOICE,
            thought_tag="think",
        ),
        Prompt(
            "spacer",
            "SpaceR SG-RLVR, the same code with 'Question: ' before it",
            "Question: {question}\n" + _PONDER + _PONDER_NUMBER,
            1024,
            "answer_tag",
            "Question: {question}Options:\n{options}\n\n" + _PONDER + _PONDER_CHOICE,
            thought_tag="think",
        ),
        Prompt(
            "spatial-r1-eval-think",
            "Spatial-R1, eval_qwen.py of April 2025, thinking, 512 new tokens; in VSI-Bench's frame (its own file is missing)",
            _FRAMES
            + "First output the thinking process in <think> </think> tags and then output a number in <answer> </answer> tags.",
            512,
            "answer_tag",
            _FRAMES_CHOICE
            + "First output the thinking process in <think> </think> tags and then output an option letter in "
            "<answer> </answer> tags.",
            thought_tag="think",
        ),
        Prompt(
            "svqa-r1",
            "SVQA-R1 Table 9, original; 2048 tokens its section 4.1",
            "{question} First output the thinking process in <think> </think> tags and then output the final answer in "
            "<answer> </answer> tags.",
            2048,
            "answer_tag",
            thought_tag="think",
        ),
        Prompt("question", "the question alone", "{question}", 512),
        Prompt("q-spatial", _Q_SPATIAL, "Question: {question}", 512, system=_Q_SPATIAL_SYSTEM),
        Prompt(
            "q-spatial-cot",
            _Q_SPATIAL + "; zero-shot chain of thought",
            "Question: {question}\nLet's think step by step.",
            512,
            system=_Q_SPATIAL_SYSTEM,
        ),
        Prompt(
            "q-spatial-single",
            _Q_SPATIAL + "; single reference; the misspelling is the original's",
            "Question: {question}\nLet's thinkg step by step and start by finding good reference objects or object parts in "
            "the image.",
            512,
            system=_Q_SPATIAL_SYSTEM,
        ),
        Prompt(
            "q-spatial-steps",
            _Q_SPATIAL + "; four steps, also SVQA-R1 Table 9 'spatial reasoning prompt'",
            _Q_SPATIAL_STEPS,
            512,
            system=_Q_SPATIAL_SYSTEM,
        ),
    )
}

# SVQA-R1 Table 1: asks a language model for the mirrored question and answer. For pairs made elsewhere; we mirror by geometry.
MIRROR_REWRITE = (
    "You are a spatial reasoning assistant. You are given a question and its corresponding answer based on an image. Now "
    "assume that the image has been horizontally flipped. Your task is to rewrite the question and answer so that they remain "
    "logically correct for the flipped image. Write them as if the flipped image was the original, and do not mention the flip "
    "in your output. Also, verify the correctness of the left/right spatial relationship in the original answer. If the "
    "rewritten answer is inconsistent with the horizontal flip (i.e., the object that was on the left is still on the left), "
    "you must fix it. If you find an error, correct the object-direction mapping accordingly. Original question: {question}. "
    "Original answer: {answer}. Return your output as a valid JSON object, and nothing else."
)

# SVQA-R1 App. B.2: asks a language model whether a yes/no answer means the same.
YES_NO_JUDGE = (
    "You are an evaluator. Given a Yes/No question, a ground-truth answer, and a predicted answer, determine whether the "
    "predicted answer means the same as the ground-truth answer.\nPredicted answer: {pred}, ground-truth answer: {gt}.\n"
    "Output only 0 or 1, where 0 indicates incorrect and 1 indicates correct."
)


def check_thinking(prompt: Prompt, opens_thought: bool) -> None:
    """`InputError` where a model's template opens a thought, and the prompt would have it read as the answer."""
    if opens_thought and prompt.extraction == "plain":
        names = " or ".join(name for name, one in PROMPTS.items() if one.extraction == AFTER_THOUGHT)
        raise InputError(
            f"prompt {prompt.name}: this model's template begins every answer with <think>, which extraction 'plain' "
            f"would read as the answer; take --prompt {names}, or a file with extraction: {AFTER_THOUGHT}"
        )


def prompt_from(name_or_file: str) -> Prompt:
    """A prompt by name, or from a YAML file with the fields of `Prompt` (at least template and max_answer_tokens)."""
    if name_or_file in PROMPTS:
        return PROMPTS[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise InputError(f"prompt {name_or_file!r} is neither a file nor one of {', '.join(PROMPTS)}")
    fields = read_yaml(path, what="prompt", fields="such as template and max_answer_tokens")
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    with prefixed(f"prompt {path}"):
        return read_fields(Prompt, {"name": path.stem, "source": str(path), **fields})
