"""A config's policy on the mesh: frozen and trainable weights, reference, optimizer, compiled step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.mesh import replicated
from jaxvsr.errors import InputError
from jaxvsr.grpo.compiled_step import (
    AnyObjective,
    CompiledStep,
    PolicyWeights,
    SupervisedObjective,
    TrainState,
    start_state,
)
from jaxvsr.grpo.optimizer import make_optimizer
from jaxvsr.grpo.sampler import SamplingOptions
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import ModelConfig, compute_dtype
from jaxvsr.models.qwen_vl import QwenVL, flat_parameters, parameter_shapes
from jaxvsr.models.sharding import parameter_shardings, state_shardings
from jaxvsr.models.tree import ForwardOptions
from jaxvsr.runs.model_source import Model


def trains_vision(config: TrainConfig, model: ModelConfig) -> bool:
    """Whether a weight of the vision tower or the patch merger is trained."""
    return config.model.tower == "trained" if config.lora is None else _adapts_vision(model, config.lora)


@functools.cache
def _adapts_vision(model: ModelConfig, lora: LoraConfig) -> bool:
    return any(name.startswith("visual.") and ".lora_" in name for name in parameter_shapes(model, lora))


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedPolicy:
    """A config's policy on the mesh: its weights, and what makes states and compiled steps of it."""

    config: TrainConfig
    model: Model
    processor: SceneProcessor
    mesh: Mesh
    policy: PolicyWeights
    trainable: dict[str, Any]  # before training
    optimizer: optax.GradientTransformation
    abstract: bool = False  # shapes on the mesh are in place of the weights

    def start(self) -> TrainState:
        """The state before the first step."""
        state = start_state(self.trainable, self.optimizer, self.config.seed)
        return jax.device_put(state, state_shardings(state, self.mesh, self.model.config))

    def step(self, *, greedy: bool = False, repetition_penalty: float = 1.0, donate_state: bool = True) -> CompiledStep:
        """A compiled step.

        Args:
            greedy: one that answers greedily, once.
            repetition_penalty: of greedy answers, as Hugging Face's `generate` applies it.
            donate_state: the update takes the state's memory.
        """
        config, chat = self.config, self.processor.chat
        sampling = SamplingOptions(
            group=config.sampling.group,
            answer_tokens=config.sampling.answer_tokens,
            eos_ids=chat.eos_token_ids,
            pad_id=chat.generation.pad_token_id,
            suppressed_ids=chat.suppressed_token_ids,
            top_k=config.sampling.top_k,
            top_p=config.sampling.top_p,
        )
        if greedy:
            sampling = dataclasses.replace(
                sampling, group=1, greedy=True, top_k=0, top_p=1.0, repetition_penalty=repetition_penalty
            )
        sampled = config.objective == "grpo" and not greedy
        temperature = self._constant(config.sampling.temperature if sampled else 1.0)
        return config_step(
            config, self.policy, self.trainable, self.optimizer, sampling, self.mesh, temperature, donate_state
        )

    def _constant(self, value: float) -> Any:
        """A float32 number on every device."""
        if self.abstract:
            return jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(self.mesh))
        return jax.device_put(np.float32(value), replicated(self.mesh))


def load_policy(
    config: TrainConfig,
    model: Model,
    processor: SceneProcessor,
    mesh: Mesh,
    *,
    abstract: bool = False,
    keep_reference: bool | None = None,
) -> LoadedPolicy:
    """The model on the mesh.

    Args:
        abstract: read no weight; shapes on the mesh take their place.
        keep_reference: keep what the reference policy needs; None: where the objective has one.
    """
    shapes, shardings = model.shapes, model.shardings(mesh)

    def parameters(
        chosen: Mapping[str, NamedSharding], dtype: np.dtype | None = None, *, stages: bool = True
    ) -> dict[str, Any]:
        if not abstract:
            return (model if stages else dataclasses.replace(model, stages=())).parameters(chosen, dtype)
        return {
            name: jax.ShapeDtypeStruct(shapes[name].shape, dtype or shapes[name].dtype, sharding=sharding)
            for name, sharding in chosen.items()
        }

    if config.lora is not None:
        frozen = parameters(shardings)
        trainable = fresh_adapter(model, config.lora, config.seed, mesh, abstract=abstract)
    else:  # full fine-tuning keeps float32 weights: updates of 1e-6 vanish in bfloat16
        fixed = {name for name in shapes if config.model.tower == "frozen" and name.startswith("visual.")}
        frozen = parameters({name: shardings[name] for name in shapes if name in fixed})
        moving = {name: shardings[name] for name in shapes if name not in fixed}
        trainable = parameters(moving, np.dtype(np.float32))
    optimizer = make_optimizer(config.optimizer, config.steps * config.update.inner_steps)
    if keep_reference is None:
        keep_reference = config.objective == "dpo" or (config.objective == "grpo" and config.grpo.beta > 0)
    reference = _reference(config, model, trainable, shardings, parameters) if keep_reference else None
    policy = PolicyWeights(model.config, config.lora, frozen, reference)
    return LoadedPolicy(config, model, processor, mesh, policy, trainable, optimizer, abstract)


def config_step(
    config: TrainConfig,
    policy: PolicyWeights,
    trainable: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    sampling: SamplingOptions,
    mesh: Mesh,
    temperature: Any,
    donate_state: bool = True,
) -> CompiledStep:
    """The compiled step of a config over a policy, whose weights may be shapes."""
    return CompiledStep(
        policy,
        trainable,
        _objective(config),
        optimizer,
        sampling,
        ForwardOptions(
            dtype=compute_dtype(config.model.dtype, mesh.devices.flat[0].platform),
            remat=config.model.remat,
            fused=None if config.model.fused_attention == "auto" else False,
        ),
        temperature=temperature,
        accumulate=config.update.accumulation,
        donate_state=donate_state,
        mesh=mesh,
    )


def _objective(config: TrainConfig) -> AnyObjective:
    objectives: dict[str, AnyObjective] = {"grpo": config.grpo, "dpo": config.dpo, "sft": SupervisedObjective()}
    return objectives[config.objective]


def fresh_adapter(model: Model, lora: LoraConfig, seed: int, mesh: Mesh, *, abstract: bool = False) -> dict[str, Any]:
    """Adapter leaves before training, from the seed: A uniform, B zero; or their shapes on the mesh."""

    def adapter() -> dict[str, jax.Array]:
        parameters = flat_parameters(QwenVL(model.config, lora=lora, seed=seed))
        return {name: leaf for name, leaf in parameters.items() if ".lora_" in name}  # the base is never computed

    shapes = jax.eval_shape(adapter)
    if not shapes:
        raise InputError(f"lora.target_modules {lora.target_modules!r}: matches no module of this model")
    shardings = parameter_shardings(shapes, mesh, model.config)
    if abstract:
        return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings[name]) for name, x in shapes.items()}
    return jax.jit(adapter, out_shardings=shardings)()


def _reference(
    config: TrainConfig,
    model: Model,
    trainable: Mapping[str, Any],
    shardings: Mapping[str, NamedSharding],
    parameters: Callable[..., dict[str, Any]],
) -> dict[str, Any] | None:
    """Weights of the reference policy that are not among the frozen ones."""
    if config.model.reference == "base" and model.stages:
        return parameters(shardings, stages=False)
    if config.lora is None:  # a copy, because the state is donated
        return {name: _copy(leaf, model.folder.dtype(name)) for name, leaf in trainable.items()}
    return None


def _copy(leaf: Any, dtype: np.dtype) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)
    return jnp.copy(leaf).astype(dtype)
