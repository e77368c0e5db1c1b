"""The compiled step: what is sampled with adapters, and an update on some of the questions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvsr.config.algorithm import Objective, OptimizerConfig
from jaxvsr.grpo.advantages import gather_informative
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, PolicyWeights, TrainState, start_state
from jaxvsr.grpo.objectives import step_normaliser
from jaxvsr.grpo.optimizer import make_optimizer, updates_taken
from jaxvsr.grpo.sampler import SamplingOptions
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import ForwardOptions, tree_logprobs
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt
from jaxvsr.training.not_finite import what_is_not_finite
from tests.support.trees import random_parameters, random_tree, small_config


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_leaving_out_groups_without_advantage_gives_the_same_weights(accumulate: int) -> None:
    config, lora = small_config("qwen2_vl"), LoraConfig(rank=2, alpha=4.0)
    case = random_tree(2, 4, 3)
    prompt, rollouts = case.on_device
    rng = np.random.default_rng(0)
    informative = np.array([[False, True, False, True], [False, False, True, False]])
    advantages = np.where(informative[..., None], rng.normal(size=(2, 4, 3)), 0.0).astype(np.float32)
    old = jnp.asarray(rng.normal(size=case.mask.shape) - 5, jnp.float32)
    objective = Objective(beta=0.0)
    bucket = gather_informative(informative)
    assert bucket.index.shape == (2, 2)
    normaliser = step_normaliser(jnp.asarray(case.mask), objective)
    few = LossInputs(
        normaliser,
        jnp.asarray(bucket.take(case.mask) & bucket.real[..., None, None]),
        old,
        None,
        jnp.asarray(bucket.take(advantages)),
        jnp.asarray(bucket.index),
    )
    after = []
    for inputs in (LossInputs(normaliser, jnp.asarray(case.mask), old, None, jnp.asarray(advantages)), few):
        parameters = random_parameters(config, lora, jnp.float32)
        trainable = {name: leaf for name, leaf in parameters.items() if "lora_" in name}
        frozen = {name: leaf for name, leaf in parameters.items() if name not in trainable}
        optimizer, sampling = optax.sgd(1.0), SamplingOptions(3, 5, eos_ids=())
        policy = PolicyWeights(config, lora, frozen)
        step = CompiledStep(
            policy, trainable, objective, optimizer, sampling, ForwardOptions(),
            temperature=jnp.float32(1.0), accumulate=accumulate,
        )  # fmt: skip
        state = start_state(trainable, optimizer, 0)
        state, metrics = step.update(state, step.encode(state, prompt), rollouts, inputs)
        after.append((jax.device_get(state.trainable), float(metrics["loss"]), float(metrics["grad_norm"])))
    (all_of_them, loss, norm), (some, loss_of_some, norm_of_some) = after
    assert loss_of_some == pytest.approx(loss, rel=1e-5) and norm_of_some == pytest.approx(norm, rel=1e-5)
    moved = 0.0
    start = random_parameters(config, lora, jnp.float32)
    for name, leaf in all_of_them.items():
        np.testing.assert_allclose(some[name], leaf, rtol=0, atol=2e-6 * max(1.0, norm))
        moved = max(moved, float(np.abs(leaf - np.asarray(start[name])).max()))
    assert moved > 1e-3, "the update did something"


@pytest.mark.slow
def test_sampling_with_adapters_keeps_the_log_probabilities_of_the_update() -> None:
    config = small_config("qwen2_vl")
    lora = LoraConfig(rank=2, alpha=4.0, target_modules=("q_proj", "v_proj", "gate_proj", "down_proj"))
    parameters = random_parameters(config, lora, jnp.float32)
    trainable = {name: leaf for name, leaf in parameters.items() if "lora_" in name}
    frozen = {name: leaf for name, leaf in parameters.items() if name not in trainable}
    prompt, _ = random_tree(1, 2, 1).on_device
    optimizer = optax.sgd(1.0)
    step = CompiledStep(
        PolicyWeights(config, lora, frozen), trainable, Objective(), optimizer,
        SamplingOptions(3, 5, ()), ForwardOptions(),
        temperature=jnp.float32(0.8),
    )  # fmt: skip
    state = start_state(trainable, optimizer, 0)
    keys = jnp.zeros((1, 2), jnp.uint32)
    sampled, prompt = step.sample(state, prompt, keys)

    @jax.jit
    def both(prompt: TreePrompt, rollouts: RolloutTokens) -> list[jax.Array]:
        models = bind(model_definition(config, lora), parameters), bind(model_definition(config), frozen)
        return [tree_logprobs(model, prompt, rollouts, 0.8, ForwardOptions())[0] for model in models]

    expected, base = both(prompt, sampled.rollouts)
    np.testing.assert_allclose(sampled.logprobs, expected, rtol=0, atol=1e-5)
    assert np.abs(np.asarray(base - expected)).max() > 1e-2, "the adapters matter here"


@pytest.mark.slow
def test_an_update_that_is_not_finite_leaves_weights_and_optimizer_as_they_were() -> None:
    config, lora = small_config("qwen2_vl"), LoraConfig(rank=2, alpha=4.0)
    parameters = random_parameters(config, lora, jnp.float32)
    trainable = {name: leaf for name, leaf in parameters.items() if "lora_" in name}
    frozen = {name: leaf for name, leaf in parameters.items() if name not in trainable}
    case = random_tree(1, 1, 2)
    prompt, rollouts = case.on_device
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 10)
    step = CompiledStep(
        PolicyWeights(config, lora, frozen), trainable, Objective(), optimizer,
        SamplingOptions(2, 5, ()), ForwardOptions(),
        temperature=jnp.float32(1.0), donate_state=False,
    )  # fmt: skip
    start, old = start_state(trainable, optimizer, 0), jnp.full(case.mask.shape, -5.0)
    prompt, mask = step.encode(start, prompt), jnp.asarray(case.mask)
    normaliser = step_normaliser(mask, Objective())

    def updated(state: TrainState, first: float) -> tuple[TrainState, dict[str, jax.Array]]:
        advantages = jnp.array([[[first, -1.0]]], jnp.float32)
        return step.update(state, prompt, rollouts, LossInputs(normaliser, mask, old, None, advantages))

    moved, good = updated(start, 1.0)
    assert what_is_not_finite({name: float(value) for name, value in good.items()}) is None
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in moved.trainable.values()))
    assert float(good["weight_norm"]) == pytest.approx(norm, rel=1e-5)
    after, bad = updated(moved, np.nan)
    assert (
        what_is_not_finite({name: float(value) for name, value in bad.items()}) == "the loss is not finite (loss nan)"
    )
    assert int(after.step) == 2 and updates_taken(after.optimizer) == 1
    jax.tree.map(np.testing.assert_array_equal, (after.trainable, after.optimizer), (moved.trainable, moved.optimizer))
    again, _ = updated(after, 1.0)
    wanted, _ = updated(moved, 1.0)
    jax.tree.map(np.testing.assert_array_equal, again.trainable, wanted.trainable)
