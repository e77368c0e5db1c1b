"""The programs of a step on abstract values: shapes on a mesh in place of weights, state and batch, which is enough to
compile them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import UInt32

from jaxvsr.config.train_config import ObjectiveName
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.mesh import replicated, scene_sharding
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, TrainState, start_state
from jaxvsr.grpo.objectives import Normaliser
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.models.model_config import ModelConfig
from jaxvsr.models.sharding import parameter_shardings, state_shardings
from jaxvsr.models.tree_batch import AnyArray, RolloutTokens, TreePrompt, VisionFeatures

Programs = Mapping[str, tuple[CompiledFunction, tuple[Any, ...]]]  # each with the abstract values of its arguments


def parameters_on(
    mesh: Mesh | None, shapes: Mapping[str, jax.ShapeDtypeStruct], config: ModelConfig
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of parameters by name, on the mesh as the table of `models/sharding.py` says."""
    if mesh is None:
        return dict(shapes)
    places = parameter_shardings(shapes, mesh, config)
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[name]) for name, leaf in shapes.items()}


def state_on(
    mesh: Mesh | None, trainable: Mapping[str, Any], optimizer: optax.GradientTransformation, config: ModelConfig
) -> TrainState:
    """The shape of a state before the first step, on the mesh."""
    zeros = {name: (leaf.shape, leaf.dtype) for name, leaf in trainable.items()}
    state = jax.eval_shape(lambda: start_state({name: jnp.zeros(*of) for name, of in zeros.items()}, optimizer, 0))
    if mesh is None:
        return state
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        state_shardings(state, mesh, config),
    )


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """A compiled step's functions with the shapes of what they take. Whatever has an axis of scenes has all S of them.

    Args:
        reference: whether the objective reads the reference policy's log-probabilities.
    """

    step: CompiledStep
    state: TrainState
    scenes: int  # S
    group: int  # G
    length: int  # R
    objective: ObjectiveName
    reference: bool

    def programs(self, prompt: TreePrompt, question_keys: UInt32[AnyArray, "s Q"]) -> Programs:
        """`sample` or `vision`, `reference` and `update`, those that the objective has, on a batch of this shape."""
        step, frozen, state = self.step, self.step.policy.frozen, self.state
        functions, programs = step.programs, dict[str, tuple[CompiledFunction, tuple[Any, ...]]]()
        tree = (question_keys.shape[1], self.group, self.length)
        rollouts = RolloutTokens(self._of_scenes(tree, jnp.int32), self._of_scenes(tree[:2], jnp.int32))
        seen, temperature = self._prompt(prompt), self._number()
        logprobs, features = None, None
        if self.objective == "grpo":
            programs["sample"] = self.sample(prompt, question_keys)
            sampled, features = jax.eval_shape(functions["sample"].function, *programs["sample"][1])
            assert isinstance(sampled, Sampled)
            logprobs = self._of_scenes(tree, sampled.logprobs.dtype)
        elif not isinstance(prompt.vision, VisionFeatures) and not step.trains_vision:
            programs["vision"] = (functions["vision"], (state.trainable, frozen, seen))
            features = jax.eval_shape(functions["vision"].function, state.trainable, frozen, seen)
        if features is not None and not step.trains_vision:
            merged = self._of_scenes(features.shape[1:], features.dtype)
            seen = seen.with_features(merged, keep_pixels=step.reference_has_tower)
        reference = None
        if self.reference:
            given = (step.policy.reference_parameters(), seen, rollouts, temperature)
            programs["reference"] = (functions["reference"], given)
            reference = self._of_scenes(tree, jax.eval_shape(functions["reference"].function, *given).dtype)
        advantages = self._of_scenes(tree[:2], jnp.float32) if self.objective == "grpo" else None
        normaliser = Normaliser(*(self._number() for _ in dataclasses.fields(Normaliser)))
        inputs = LossInputs(normaliser, self._of_scenes(tree, jnp.bool_), logprobs, reference, advantages)
        programs["update"] = (functions["update"], (state, frozen, seen, rollouts, inputs, temperature))
        return programs

    def sample(
        self, prompt: TreePrompt, question_keys: UInt32[AnyArray, "s Q"]
    ) -> tuple[CompiledFunction, tuple[Any, ...]]:
        """Sampling alone."""
        keys, state = self._of_scenes(question_keys.shape[1:], jnp.uint32), self.state
        given = (
            state.trainable, self.step.policy.frozen, self._prompt(prompt), keys, state.seed, state.step, self._number()
        )  # fmt: skip
        return self.step.programs["sample"], given

    def _prompt(self, prompt: TreePrompt) -> TreePrompt:
        return jax.tree.map(lambda leaf: self._of_scenes(leaf.shape[1:], leaf.dtype), prompt)

    def _of_scenes(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """[S, …]."""
        place = scene_sharding(self.step.mesh) if self.step.mesh else None
        return jax.ShapeDtypeStruct((self.scenes, *shape), dtype, sharding=place)

    def _number(self) -> Any:
        place = replicated(self.step.mesh) if self.step.mesh else None
        return jax.ShapeDtypeStruct((), jnp.float32, sharding=place)
