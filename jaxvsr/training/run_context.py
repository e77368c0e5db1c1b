"""What a run is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question
from jaxvsr.grpo.batches import HostBatch, HostBatches
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.rewards.registry import Reward
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord
from jaxvsr.runs.metrics_log import MetricsLog
from jaxvsr.training.console import CompileTimes, Console


@runtime_checkable
class Step(Protocol):
    """What the loop needs of the compiled step (`grpo.step.CompiledStep`)."""

    trains_vision: bool

    @property
    def functions(self) -> Sequence[Any]: ...
    @property
    def compile_count(self) -> int: ...
    @property
    def compile_seconds(self) -> float: ...
    def sample(self, state: Any, prompt: Any, question_keys: Any, temperature: Any, features: Any = None) -> Any: ...
    def choose(self, again: Any, drawn_again: Any, sampled: Any) -> Any: ...
    def encode(self, state: Any, prompt: Any) -> Any: ...
    def reference(self, prompt: Any, features: Any, rollouts: Any, temperature: Any) -> Any: ...
    def update(
        self, state: Any, prompt: Any, features: Any, rollouts: Any, inputs: Any, normaliser: Any, temperature: Any
    ) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Training:
    """What a run is made of. Everything but `config` can be replaced in a test."""

    config: TrainConfig
    step: Step
    mesh: Mesh
    batches: Callable[[int], Generator[HostBatch, None, None] | HostBatches]  # from a step on; both can be closed
    decode: Callable[[Int32[np.ndarray, "N R"], Int32[np.ndarray, " N"]], list[str]]  # tokens and lengths to texts
    rewards: Sequence[Reward]
    record: RunRecord
    checkpoints: Checkpoints
    console: Console
    compile_times: CompileTimes
    log: MetricsLog | None  # None in all processes but the first
    prompt_text: Callable[[Question], str]  # a question as the model is asked it
    thought_tag: str | None = None  # of the prompt, for the shares of reward hacking
    # greedy answers to held-out questions: metrics `eval/…`; `eval/overall` is what RUN@best goes by
    evaluate: Callable[[TrainState], dict[str, float]] | None = None
