"""Whether a run can learn at all: settings under which nothing moves are refused, and steps that teach nothing said."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvsr.config.algorithm import OptimizerConfig
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question
from jaxvsr.errors import InputError
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import parameter_shapes
from jaxvsr.prompts import Prompt
from jaxvsr.rewards.registry import REWARDS, Reward
from jaxvsr.rewards.scoring import score_completions
from jaxvsr.rewards.svqa_r1 import svqa_semantic

# Modules with weights that PEFT adapts too.
WITHOUT_ADAPTER = (
    "lm_head", "model.language_model.embed_tokens", "model.visual.patch_embed.proj", "model.visual.pos_embed",
)  # fmt: skip
STEPS_TO_JUDGE = 10  # without a difference between answers, before a run says so


def check_learnable(config: TrainConfig, model: ModelConfig, rewards: Sequence[Reward]) -> None:
    """Refuse settings that no training can move a weight with.

    Raises:
        InputError: it names the setting.
    """
    check_learning_rate(config.optimizer)
    lora = config.lora
    if lora is not None and not any(".lora_" in name for name in parameter_shapes(model, lora)):
        raise InputError(f"lora.target_modules {lora.target_modules!r}: matches no module of this model")
    if config.objective != "grpo":
        return
    check_group(config.sampling.group)
    if config.sampling.top_k == 1:
        raise InputError(
            "sampling.top_k 1: all answers to a question are the same, and GRPO compares them; take 0 (off)"
        )
    if not any(reward.weight for reward in rewards):
        raise InputError(f"rewards: the weights are all 0 ({', '.join(reward.name for reward in rewards)})")


def check_adapted(config: TrainConfig, model: ModelConfig) -> None:
    """Refuse, for a new run, names and layers that adapt nothing, modules that PEFT would adapt and that have none
    here, and a tower that would not be trained.

    Raises:
        InputError: it names the setting and the module.
    """
    lora = config.lora
    if lora is None:
        return
    if config.model.tower == "trained":
        raise InputError(
            "model.tower=trained: is for full fine-tuning, lora=null; with LoRA lora.target_modules names the tower's "
            "modules too"
        )
    everything = dataclasses.replace(lora, target_modules=".*", layers_to_transform=None, exclude_modules=None)
    shapes = parameter_shapes(model, everything)
    linear = {name.rpartition(".")[0]: leaf.shape[0] for name, leaf in shapes.items() if name.endswith(".lora_A")}

    def adapts(**fields: Any) -> bool:
        one = dataclasses.replace(lora, **fields)
        return any(one.adapts(module, layers) for module, layers in linear.items())

    for target in lora.target_modules if isinstance(lora.target_modules, tuple) else ():
        if not adapts(target_modules=(target,), layers_to_transform=None, exclude_modules=None):
            raise InputError(f"lora.target_modules: {target!r} matches no linear module of this model")
    for layer in lora.layers_to_transform or ():
        if not adapts(layers_to_transform=(layer,)):
            raise InputError(f"lora.layers_to_transform: no module of layer {layer} is adapted")
    for module in WITHOUT_ADAPTER:
        if lora.selects(module):
            raise InputError(
                f"lora.target_modules {lora.target_modules!r}: also matches {module}, which has no adapter here; "
                "name it in lora.exclude_modules"
            )


def check_learning_rate(optimizer: OptimizerConfig) -> None:
    """`InputError` where no update moves a weight."""
    if optimizer.learning_rate == 0:
        raise InputError("optimizer.learning_rate 0: is 0 in every update, so nothing is learned")


def check_group(group: int) -> None:
    """`InputError` where the answers to a question cannot be compared."""
    if group < 2:
        raise InputError(f"sampling.group {group}: GRPO compares the answers to a question; take 2 or more")


def check_rewards_differ(rewards: Sequence[Reward], questions: Sequence[Question], prompt: Prompt) -> None:
    """Refuse built-in rewards that give every answer to these questions the same; other functions are not called.

    Raises:
        InputError: right, wrong and empty answers, with and without a thought, earn the same for each kind of question.
    """
    functions = [_unbound(reward) for reward in rewards]
    if not questions or any(function not in REWARDS.values() or function is svqa_semantic for function in functions):
        return
    one_of_each = {(question.answer_kind, bool(question.options)): question for question in questions}
    for question in one_of_each.values():
        answers = _trial_answers(question)
        columns = {name: [value] * len(answers) for name, value in _columns(question, prompt).items()}
        values = score_completions(rewards, answers, columns)
        totals = np.nansum(values * np.array([reward.weight for reward in rewards])[:, None], axis=0)
        applies = ~np.isnan(values).all(axis=0)
        if len(set(totals[applies].tolist())) > 1:
            return
    kinds = ", ".join(sorted({kind for kind, _ in one_of_each}))
    names = ", ".join(reward.name for reward in rewards)
    raise InputError(f"rewards {names}: give every answer to these questions (kinds {kinds}) the same; take others")


def _unbound(reward: Reward) -> object:
    return reward.function.func if isinstance(reward.function, functools.partial) else reward.function


def _columns(question: Question, prompt: Prompt) -> dict[str, object]:
    return {**{"options": None}, **question.to_json(), "prompts": prompt.render(question)}


def _trial_answers(question: Question) -> list[str]:
    """Answers of all qualities and forms that the built-in rewards look at."""
    wrong = {"number": "123456", "choice": "Z", "box": "[0, 0, 1, 1]"}.get(question.answer_kind, "something else")
    answers = [question.answer, wrong, "", "word " * 40]
    tags = [f"<{tag}>{'I look. ' * 30}</{tag}>" for tag in ("think", "observe")]
    return [*answers, *(f"{tag}<answer>{text}</answer>" for tag in tags for text in answers)]


class LearningWatch:
    """Says once that the first steps of a run taught nothing, where rewards or masks are why."""

    def __init__(self, config: TrainConfig):
        self._config, self._seen = config, 0
        self._without_difference = self._all_masked = config.objective == "grpo"

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """The line after the step that makes it `STEPS_TO_JUDGE`; None at all others."""
        data, self._seen = self._config.data, self._seen + 1
        groups = data.scenes * data.questions
        self._without_difference &= metrics.get("zero_advantage_groups", math.nan) == groups
        self._all_masked &= self._config.grpo.mask_truncated and metrics.get("completion_truncated") == 1
        if self._seen != STEPS_TO_JUDGE:
            return None
        if self._all_masked:
            return (
                f"warning: in {STEPS_TO_JUDGE} steps every answer was cut off at sampling.answer_tokens "
                f"{self._config.sampling.answer_tokens}, and grpo.mask_truncated leaves those out: nothing is learned"
            )
        if self._without_difference:
            return (
                f"warning: in {STEPS_TO_JUDGE} steps all answers to each question earned the same: nothing is learned; "
                "samples.jsonl has them with their rewards"
            )
        return None
