"""What a run is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.step_context import StepContext
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord
from jaxvsr.runs.metrics_log import MetricsLog
from jaxvsr.training.console import CompileTimes, Console


class Batches(Iterator[HostBatch], Protocol):
    """Batches that can be closed."""

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What a run is made of. Everything but the config can be replaced in a test."""

    step: StepContext
    batches: Callable[[int], Batches]  # from a step on
    record: RunRecord
    checkpoints: Checkpoints
    console: Console
    compile_times: CompileTimes
    log: MetricsLog | None  # None in all processes but the first
    # greedy answers to held-out questions: metrics `eval/…`; `eval/overall` is what RUN@best goes by
    evaluate: Callable[[TrainState], dict[str, float]] | None = None

    @property
    def config(self) -> TrainConfig:
        return self.step.config
