"""Settings with which nothing can be learned are refused before anything is computed; steps that teach nothing said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxvsr.config.algorithm import Objective
from jaxvsr.config.config_file import config_from
from jaxvsr.config.reward_terms import rewards_from
from jaxvsr.config.train_config import SamplingSettings
from jaxvsr.data.questions import Question
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.errors import InputError
from jaxvsr.measure.dry_run import plan
from jaxvsr.prompts import prompt_from
from jaxvsr.rewards.registry import REWARDS, Reward
from jaxvsr.training.learnable import STEPS_TO_JUDGE, check_rewards_differ
from jaxvsr.training.loop import train
from jaxvsr.training.run_inputs import open_inputs
from jaxvsr.training.stopping import StopRequest
from tests.support.runs import Bench, config, fresh_state


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling": {"group": 1}}, "^sampling.group 1: GRPO compares the answers to a question; take 2 or more"),
        ({"sampling": {"top_k": 1}}, "^sampling.top_k 1: all answers to a question are the same"),
        ({"optimizer": {"learning_rate": 0.0}}, "^optimizer.learning_rate 0: is 0 in every update"),
        (
            {"rewards": ["0*vsi_bench", "0*robust_format"]},
            r"^rewards: the weights are all 0 \(vsi_bench, robust_format\)",
        ),
        ({"lora": {"target_modules": "q_project"}}, "^lora.target_modules 'q_project': matches no module"),
        ({"lora": {"target_modules": ["q_proj"], "layers_to_transform": [7]}}, "matches no module of this model"),
        ({"lora": {"target_modules": ["q_proj", "v_porj"]}}, "'v_porj' matches no linear module"),
        ({"lora": {"target_modules": ["q_proj", "lm_head"]}}, "'lm_head' matches no linear module"),
        ({"lora": {"target_modules": ["q_proj", "proj"]}}, r"also matches model.visual.patch_embed.proj, which has no"),
        ({"lora": {"target_modules": ".*proj.*"}}, r"also matches model.visual.patch_embed.proj, which has no"),
        ({"lora": {"target_modules": ["q_proj"], "layers_to_transform": [0, 7]}}, "no module of layer 7 is adapted"),
        ({"model": {"tower": "trained"}}, "^model.tower=trained: is for full fine-tuning"),
        ({"lora": {"layers_to_transform": [0]}}, "^lora.layers_to_transform 0: goes with names in lora.target_modules"),
        ({"objective": "sft", "optimizer": {"learning_rate": 0.0}}, "^optimizer.learning_rate 0: is 0"),
    ],
)
def test_settings_with_which_nothing_can_be_learned_are_refused(
    tiny_model: Callable[..., Path], data_folder: Path, changes: dict[str, Any], says: str
) -> None:
    data = {"folders": [str(data_folder)], "scenes": 2, "questions": 2, "frames": 2}

    def lines() -> list[str]:
        settings = config_from(
            {**changes, "model": {"path": str(tiny_model()), **changes.get("model", {})}, "data": data}
        )
        mesh = make_mesh(MeshShape(), jax.devices()[:1])
        with pytest.raises(InputError, match=says):
            open_inputs(settings, mesh)
        return list(plan(settings, mesh))

    with pytest.raises(InputError, match=says):
        lines()


def test_a_run_that_exists_trains_what_it_trained(tiny_model: Callable[..., Path], data_folder: Path) -> None:
    settings = config_from({
        "model": {"path": str(tiny_model()), "tower": "trained"}, "lora": {"target_modules": ["q_proj", "lm_head"]},
        "data": {"folders": [str(data_folder)], "scenes": 2, "questions": 2, "frames": 2},
    })  # fmt: skip
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    open_inputs(settings, mesh, resume=True)
    with pytest.raises(InputError, match=r"model\.tower=trained"):
        open_inputs(settings, mesh)


def question(kind: Any, answer: str) -> Question:
    options = ("A. left", "B. right") if kind == "choice" else None
    return Question("q", "scene", "object_counting", "How many?", options, answer, kind)


KINDS = {"number": "4", "choice": "B", "word": "chair", "text": "It is left of the bed.", "box": "[10, 20, 30, 40]"}


@pytest.mark.parametrize("term", [name for name in REWARDS if name != "svqa_semantic"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_that_tells_answers_apart_is_never_refused(term: str, kind: str) -> None:
    """Each built-in reward on each kind of question: refused exactly where a search over many answers finds nothing."""
    rewards, asked = rewards_from(term), question(kind, KINDS[kind])
    words = ["", "4", "5", "B", "A", "chair", "bed", KINDS[kind], "[1, 2, 3, 4]", "left " * 90, "I think 4."]
    texts = [
        form.format(word)
        for word in words
        for form in ("{}", "<answer>{}</answer>", "<think>I see it. " + "so " * 60 + "</think><answer>{}</answer>",
                     "<observe>" + "so " * 60 + "</observe>\n<answer>{}</answer>", "<think></think><answer>{}</answer>")
    ]  # fmt: skip
    columns = {name: [value] * len(texts) for name, value in {"options": None, **asked.to_json()}.items()}
    values = rewards[0].function(completions=texts, prompts=["?"] * len(texts), **columns)
    differ = len({value for value in values if value is not None}) > 1
    if differ:
        check_rewards_differ(rewards, [asked], prompt_from("question"))
    else:
        with pytest.raises(InputError, match=f"^rewards {term}: give every answer to these questions .kinds {kind}"):
            check_rewards_differ(rewards, [asked], prompt_from("question"))


def test_functions_of_the_user_are_not_called() -> None:
    def mine(**_: Any) -> list[float | None]:
        raise AssertionError("called")

    check_rewards_differ([Reward("mine", mine)], [question("number", "4")], prompt_from("question"))


@pytest.mark.slow
def test_steps_that_teach_nothing_are_said_once(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=STEPS_TO_JUDGE + 3))
    constant = run.with_rewards(Reward("one", lambda completions, **_: [1.0] * len(completions)))
    train(constant, fresh_state(), StopRequest())
    assert run.output.getvalue().count("all answers to each question earned the same: nothing is learned") == 1
    other = bench(tmp_path / "other", config(steps=STEPS_TO_JUDGE + 3))
    train(other.context, fresh_state(), StopRequest())
    assert "nothing is learned" not in other.output.getvalue()


def test_answers_that_are_all_cut_off_and_masked_are_said(bench: Callable[..., Bench], tmp_path: Path) -> None:
    settings = config(
        steps=STEPS_TO_JUDGE, grpo=Objective(beta=0.01, mask_truncated=True),
        sampling=SamplingSettings(group=4, answer_tokens=5),
    )  # fmt: skip
    run = bench(tmp_path / "run", settings)
    sample = run.step.sample

    def cut_off(*given: Any) -> Any:
        sampled, prompt = sample(*given)
        return sampled.__class__(sampled.rollouts, sampled.logprobs, np.ones_like(sampled.truncated, bool)), prompt

    run.step.sample = cut_off  # type: ignore[method-assign,assignment]
    train(run.context, fresh_state(), StopRequest())
    assert "every answer was cut off at sampling.answer_tokens 5, and grpo.mask_truncated" in run.output.getvalue()
