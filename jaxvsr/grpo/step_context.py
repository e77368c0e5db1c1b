"""What a training step works with besides the state and the batch: compiled functions, rewards, processes, a clock."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Array, Int32, UInt32

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question
from jaxvsr.devices.processes import SceneAxis
from jaxvsr.grpo.compiled_step import CompiledStep
from jaxvsr.models.tree_batch import TreePrompt
from jaxvsr.rewards.registry import Reward


@dataclasses.dataclass(frozen=True)
class PlacedBatch:
    """The scenes of a step on the mesh. After sampling the prompt holds vision features in place of its pixels."""

    prompt: TreePrompt
    question_keys: UInt32[Array, "S Q"]


class PhaseClock:
    """Seconds of each phase of a step: `with clock("sample"): …`. A trace of the run has the phases by name."""

    def __init__(self) -> None:
        self.stands = ("no phase", time.monotonic())  # the phase that runs, and since when
        self.seconds: dict[str, float] = {}
        self.own_seconds = 0.0  # of this step: work on the host in which this process waits for no other
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._reference: tuple[float, concurrent.futures.Future[float]] | None = None

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._started[phase] = time.perf_counter()
        with self.standing(phase):
            yield
        self._ended[phase] = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + self._ended[phase] - self._started[phase]

    @contextlib.contextmanager
    def standing(self, phase: str) -> Iterator[None]:
        """A phase whose seconds are not counted here."""
        before, self.stands = self.stands, (phase, time.monotonic())
        with jax.profiler.TraceAnnotation(phase):
            yield
        self.stands = (before[0], time.monotonic())

    @contextlib.contextmanager
    def own_work(self) -> Iterator[None]:
        """Inside of a phase, what this process does on the host by itself: the others wait for it where it is slow."""
        start = time.perf_counter()
        yield
        self.own_seconds += time.perf_counter() - start

    def reference_starts(self, logprobs: jax.Array) -> None:
        """The reference pass was dispatched; it runs while the host computes rewards."""
        self._reference = (time.perf_counter(), _when_ready(logprobs))

    def finish(self) -> dict[str, float]:
        """The seconds of each phase of a step that has ended; the clock starts again from zero.

        The update waits for the reference: its own seconds begin when that is there. It was there when the update had
        ended, however late the thread woke that waits for it.
        """
        if self._reference is not None:
            start, ready = self._reference[0], min(self._reference[1].result(), self._ended["update"])
            rewards_ready = self._ended["reward"]
            self.seconds["reference"] = ready - start
            self.seconds["update"] -= max(0.0, ready - self._started["update"])
            self.seconds["reward_not_hidden"] = max(0.0, rewards_ready - max(ready, start))
        seconds, self.seconds, self._reference = self.seconds, {}, None
        self._started, self._ended = {}, {}
        self.own_seconds = 0.0
        return seconds


_WAITER = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ready")


def _when_ready(array: jax.Array) -> concurrent.futures.Future[float]:
    """The time at which the device is done with an array."""

    def wait() -> float:
        jax.block_until_ready(array)
        return time.perf_counter()

    return _WAITER.submit(wait)


@dataclasses.dataclass(frozen=True)
class StepContext:
    """What a step needs besides the state and the batch."""

    config: TrainConfig
    compiled: CompiledStep
    scenes: SceneAxis
    decode: Callable[[Int32[np.ndarray, "N R"], Int32[np.ndarray, " N"]], list[str]]  # tokens and lengths to texts
    rewards: Sequence[Reward]
    prompt_text: Callable[[Question], str]  # a question as the model is asked it
    scored_text: Callable[[str], str] = str  # what rewards read of a completion
    thought_tag: str | None = None  # of the prompt, for the shares of reward hacking
    clock: PhaseClock = dataclasses.field(default_factory=PhaseClock)
