"""The compiled functions of a training step. Each compiles once per bucket of shapes.

    sampled, prompt = step.sample(state, prompt, keys)        vision, prefill, decode; the prompt now holds its features
    reference = step.reference(prompt, rollouts)              dispatched before the host scores the text
    state, metrics = step.update(state, prompt, rollouts, inputs)      one optimizer step; the state is donated

SFT and DPO use the same `update` on rollouts that are given instead of sampled: `step.encode` runs the tower for them.
With dynamic sampling, `choose` picks between two draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int32, UInt32

from jaxvsr.config.algorithm import Objective, PreferenceObjective
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.targets import device_memory
from jaxvsr.grpo.dpo import dpo_loss
from jaxvsr.grpo.objective_variants import grpo_variant_loss
from jaxvsr.grpo.objectives import Normaliser, merge_metrics
from jaxvsr.grpo.sampler import Sampled, SamplingOptions, rollout_keys, sample
from jaxvsr.grpo.sft import sft_loss
from jaxvsr.models.decode_plan import decode_plan, decoding_weights
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.qwen_vl import QwenVL, bind, model_definition
from jaxvsr.models.sharding import as_parameters_lie
from jaxvsr.models.tree import ForwardOptions, encode_vision, tree_logprobs
from jaxvsr.models.tree_batch import AnyArray, RolloutTokens, TreePrompt, VisionFeatures


@dataclasses.dataclass(frozen=True)
class SupervisedObjective:
    """Mean negative log-likelihood of a target token."""


AnyObjective = Objective | PreferenceObjective | SupervisedObjective


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes."""

    step: Int32[Array, ""]  # updates, those that were left out because they were not finite too
    trainable: dict[str, Array]  # by flat parameter name
    optimizer: Any  # optax's state of them
    seed: UInt32[Array, ""]  # of every random number of the run


def start_state(trainable: dict[str, Array], optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), trainable, optimizer.init(trainable), jnp.asarray(seed, jnp.uint32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossInputs:
    """What the loss needs besides the rollouts; SFT needs only mask and normaliser, DPO also the reference.

    With `questions`, the update computes only these B of the Q questions of each scene; mask and advantages are theirs.
    """

    normaliser: Normaliser
    mask: Bool[AnyArray, "S B G R"]  # tokens in the loss
    old_logprobs: Float[AnyArray, "S Q G R"] | None = None
    reference_logprobs: Float[AnyArray, "S Q G R"] | None = None
    advantages: Float[AnyArray, "S B G"] | None = None
    questions: Int32[AnyArray, "S B"] | None = None  # None: all of them, B = Q


@dataclasses.dataclass(frozen=True)
class PolicyWeights:
    """The weights that a run does not change, and how the model is built on them.

    The reference policy is the model without adapters on `frozen`; where base weights are trained, `reference` holds a
    copy of them as they were at the start of the run.
    """

    config: ModelConfig
    lora: LoraConfig | None
    frozen: dict[str, Any]  # arrays; shapes of them are enough to compile
    reference: dict[str, Any] | None = None

    def reference_parameters(self) -> dict[str, Any]:
        return {**self.frozen, **(self.reference or {})}


class CompiledStep:
    """The compiled functions over one policy, objective and optimizer.

    Args:
        trainable: names of the parameters that the state holds; if one is in the vision tower, `reference` and `update`
            run the tower on the prompt's pixels, otherwise they take the features that sampling computed.
        temperature: float32 scalar on the mesh (or its shape); logits are divided by it, in the update too.
        accumulate: parts into which the scenes of a step are split in `update`; gradients are summed before the
            optimizer steps, and no reduction changes.
        donate_state: whether `update` takes the memory of the state that it is given.
        mesh: over which scenes, weights and state are split; None: one device.
    """

    def __init__(
        self,
        policy: PolicyWeights,
        trainable: Mapping[str, Any],
        objective: AnyObjective,
        optimizer: optax.GradientTransformation,
        sampling: SamplingOptions,
        forward: ForwardOptions,
        *,
        temperature: Any,
        accumulate: int = 1,
        donate_state: bool = True,
        mesh: Mesh | None = None,
    ):
        self.policy, self.objective, self.optimizer = policy, objective, optimizer
        self.sampling, self.forward, self.accumulate, self.temperature = sampling, forward, accumulate, temperature
        self.mesh = mesh
        self.trains_vision = any(name.startswith("visual.") for name in trainable)
        self.reference_has_tower = any(name.startswith("visual.") for name in policy.reference or ())
        self.decode_plan = decode_plan(
            {**policy.frozen, **trainable},
            [*trainable.values(), *trainable.values(), *(policy.reference or {}).values()],  # AdamW has two moments
            policy.config,
            forward.compute_dtype,
            mesh,
            device_memory(mesh.devices.flat[0] if mesh else jax.local_devices()[0]),
            forward.unroll,
        )
        self._adapted = model_definition(policy.config, policy.lora)
        self._base = model_definition(policy.config)
        self.programs = {
            "vision": CompiledFunction("vision", self._vision_program, mesh=mesh),
            "sample": CompiledFunction("sample", self._sample_program, mesh=mesh),
            "reference": CompiledFunction("reference", self._reference_program, mesh=mesh),
            "update": CompiledFunction("update", self._update_program, donate=(0,) if donate_state else (), mesh=mesh),
            "choose": CompiledFunction("choose", _choose, mesh=mesh),
        }
        self.functions = tuple(self.programs.values())

    @property
    def compile_count(self) -> int:
        return sum(len(function.compiled) for function in self.functions)

    @property
    def compile_seconds(self) -> float:
        return sum(function.seconds for function in self.functions)

    def sample(
        self, state: TrainState, prompt: TreePrompt, question_keys: UInt32[AnyArray, "S Q"]
    ) -> tuple[Sampled, TreePrompt]:
        """Rollouts of every question, and the prompt for the passes that follow: with the vision features that sampling
        computed in place of its pixels, unless the tower is trained."""
        sampled, computed = self.programs["sample"](
            state.trainable, self.policy.frozen, prompt, question_keys, state.seed, state.step, self.temperature
        )
        return sampled, self._seen(prompt, computed)

    def encode(self, state: TrainState, prompt: TreePrompt) -> TreePrompt:
        """The prompt for `reference` and `update` of objectives that do not sample, as `sample` returns it."""
        if self.trains_vision or isinstance(prompt.vision, VisionFeatures):
            return prompt
        return self._seen(prompt, self.programs["vision"](state.trainable, self.policy.frozen, prompt))

    def _seen(self, prompt: TreePrompt, computed: Array | None) -> TreePrompt:
        if computed is None or self.trains_vision:
            return prompt
        return prompt.with_features(computed, keep_pixels=self.reference_has_tower)

    def choose(self, again: Bool[Array, "S Q"], drawn_again: Sampled, sampled: Sampled) -> Sampled:
        """The rollouts of a second draw where `again` is true, of the first elsewhere."""
        return self.programs["choose"](again, drawn_again, sampled)

    def reference(self, prompt: TreePrompt, rollouts: RolloutTokens) -> Float[Array, "S Q G R"]:
        """Log-probabilities of the rollouts under the reference policy."""
        return self.programs["reference"](self.policy.reference_parameters(), prompt, rollouts, self.temperature)

    def update(
        self, state: TrainState, prompt: TreePrompt, rollouts: RolloutTokens, inputs: LossInputs
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """One optimizer step; where loss or gradient is not finite, weights and optimizer stay as they were.

        Metrics: `loss`, `grad_norm`, `weight_norm` (of the trainable weights after the step), `entropy` (nats per
        token), and the objective's.
        """
        return self.programs["update"](state, self.policy.frozen, prompt, rollouts, inputs, self.temperature)

    # --- the programs: pure functions of their arguments, traced once per bucket

    def _model(self, trainable: dict[str, Array], frozen: dict[str, Array]) -> QwenVL:
        return bind(self._adapted, {**frozen, **trainable})

    def _vision_program(self, trainable: Any, frozen: Any, prompt: TreePrompt) -> Array:
        return encode_vision(self._model(trainable, frozen), prompt, self.forward)

    def _sample_program(
        self,
        trainable: Any,
        frozen: Any,
        prompt: TreePrompt,
        question_keys: Array,
        seed: Array,
        step: Array,
        temperature: Array,
    ) -> tuple[Sampled, Array | None]:
        # With its adapters beside the weights: merged, even in float32, log-probabilities would move by more than 1e-5.
        parameters, dtype = {**frozen, **trainable}, self.forward.compute_dtype
        parameters = decoding_weights(parameters, self.decode_plan, self.policy.config, dtype, self.mesh)
        model = bind(self._adapted, parameters)
        features = encode_vision(model, prompt, self.forward)
        keys = rollout_keys(seed, step, question_keys, self.sampling.group)
        prompt_seen, how = prompt.with_features(features), self.decode_plan.scanned
        sampled = sample(model, prompt_seen, keys, temperature, self.sampling, self.forward, scanned=how)
        return sampled, None if isinstance(prompt.vision, VisionFeatures) else features

    def _reference_program(
        self, parameters: Any, prompt: TreePrompt, rollouts: RolloutTokens, temperature: Array
    ) -> Array:
        model = bind(self._base, parameters)
        return tree_logprobs(model, prompt.with_pixels(), rollouts, temperature, self.forward)[0]

    def loss(
        self,
        trainable: dict[str, Array],
        frozen: dict[str, Array],
        prompt: TreePrompt,
        rollouts: RolloutTokens,
        inputs: LossInputs,
        temperature: Float[AnyArray, ""],
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The share of these scenes in the step's loss and metrics, to be differentiated by `trainable`."""
        model = self._model(trainable, frozen)
        features = encode_vision(model, prompt, self.forward)
        prompt = prompt.with_features(features if self.trains_vision else jax.lax.stop_gradient(features))
        logprobs, entropy = tree_logprobs(model, prompt, rollouts, temperature, self.forward)
        loss, metrics = objective_loss(self.objective, logprobs, inputs)
        metrics["entropy"] = jnp.sum(jnp.where(inputs.mask, entropy, 0)) / inputs.normaliser.updated_tokens
        return loss, metrics

    def _update_program(
        self,
        state: TrainState,
        frozen: Any,
        prompt: TreePrompt,
        rollouts: RolloutTokens,
        inputs: LossInputs,
        temperature: Array,
    ) -> tuple[TrainState, dict[str, Array]]:
        differentiate = jax.value_and_grad(self.loss, has_aux=True)
        batch = _of_questions(prompt, rollouts, inputs)
        if self.accumulate == 1:
            (loss, metrics), gradients = differentiate(state.trainable, frozen, *batch, temperature)
        else:
            leaves, structure = jax.tree.flatten(batch)

            def add(gradients: Any, part: list[Array]) -> tuple[Any, Any]:
                batch = jax.tree.unflatten(structure, part)
                (loss, metrics), more = differentiate(state.trainable, frozen, *batch, temperature)
                return jax.tree.map(jnp.add, gradients, more), {**metrics, "loss": loss}

            parts = [_split_scenes(leaf, self.accumulate) for leaf in leaves]
            gradients, stacked = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, state.trainable), parts)
            metrics = merge_metrics(stacked)
            loss = metrics.pop("loss")
        gradients = as_parameters_lie(gradients, self.mesh, self.policy.config)
        grad_norm = optax.tree.norm(gradients)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.trainable)
        finite, before = jnp.isfinite(loss) & jnp.isfinite(grad_norm), (state.trainable, state.optimizer)
        trainable, optimizer = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (optax.apply_updates(state.trainable, updates), optimizer),
            before,
        )
        metrics = {"loss": loss, "grad_norm": grad_norm, "weight_norm": optax.tree.norm(trainable), **metrics}
        state = TrainState(state.step + 1, trainable, optimizer, state.seed)
        return as_parameters_lie(state, self.mesh, self.policy.config), metrics


def objective_loss(
    objective: AnyObjective, logprobs: Float[Array, "S Q G R"], inputs: LossInputs
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The share of these scenes in the step's loss and metrics."""
    normaliser = inputs.normaliser
    if isinstance(objective, SupervisedObjective):
        return sft_loss(logprobs, inputs.mask, normaliser.tokens), {}
    if isinstance(objective, PreferenceObjective):
        assert inputs.reference_logprobs is not None
        return dpo_loss(logprobs, inputs.reference_logprobs, inputs.mask, objective, normaliser.rollouts / 2)
    assert inputs.old_logprobs is not None and inputs.advantages is not None
    return grpo_variant_loss(
        logprobs, inputs.old_logprobs, inputs.reference_logprobs, inputs.advantages, inputs.mask, objective, normaliser
    )


def _choose(again: Array, drawn_again: Sampled, sampled: Sampled) -> Sampled:
    def pick(new: Array, old: Array) -> Array:
        return jnp.where(again.reshape(*again.shape, *[1] * (new.ndim - 2)), new, old)

    return jax.tree.map(pick, drawn_again, sampled)


def _of_questions(
    prompt: TreePrompt, rollouts: RolloutTokens, inputs: LossInputs
) -> tuple[TreePrompt, RolloutTokens, LossInputs]:
    """The trees with only the questions that `inputs` names."""
    index = inputs.questions
    if index is None:
        return prompt, rollouts, inputs

    def take(leaf: Array) -> Array:
        return jnp.take_along_axis(leaf, index.reshape(*index.shape, *[1] * (leaf.ndim - 2)), axis=1)

    tokens, length = take(prompt.question_tokens), take(prompt.question_length)
    old, reference = (None if leaf is None else take(leaf) for leaf in (inputs.old_logprobs, inputs.reference_logprobs))
    return (
        dataclasses.replace(prompt, question_tokens=tokens, question_length=length),
        jax.tree.map(take, rollouts),
        LossInputs(inputs.normaliser, inputs.mask, old, reference, inputs.advantages),
    )


def _split_scenes(leaf: Array, parts: int) -> Array:
    """[S, …] to [parts, S / parts, …], every part with scenes from all shards of the scene axis; a number each."""
    if leaf.ndim == 0:
        return jnp.broadcast_to(leaf, parts)
    return jnp.moveaxis(leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]), 1, 0)
