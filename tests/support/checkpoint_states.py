"""Small train states and the record of their run, to save and to read back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvsr.grpo.compiled_step import TrainState, start_state
from jaxvsr.models.lora import LoraConfig
from jaxvsr.runs.checkpoints import RunRecord, StageFile

NAME = "language_model.layers.self_attn.q_proj.lora_A"
RECORD = RunRecord(
    "models/tiny", "/models/tiny", None, "1" * 64, (StageFile("start/0.safetensors", LoraConfig(rank=4)),), "id7"
)
LORA = LoraConfig(rank=2)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1e-3, 0.0, 10)))


def state_after(step: int) -> TrainState:
    weights = {NAME: jnp.arange(16.0).reshape(2, 2, 4), "visual.merger.mlp.0.weight": jnp.ones((4, 4), jnp.bfloat16)}
    state = start_state(weights, OPTIMIZER, seed=7)
    for _ in range(step):
        gradients = jax.tree.map(lambda leaf: jnp.cos(leaf) * 0.1, state.trainable)
        updates, optimizer = OPTIMIZER.update(gradients, state.optimizer, state.trainable)
        state = TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), optimizer, state.seed)
    return state


def assert_equal(left: TrainState, right: TrainState) -> None:
    assert str(jax.tree.structure(left)) == str(jax.tree.structure(right))
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
