"""What a training step works with: the compiled functions, rewards and processes, and the operations of a step on them.

Each operation is a phase of the step, and is timed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, UInt32

from jaxvsr.config.algorithm import Objective
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.data.questions import Question
from jaxvsr.devices.mesh import replicated
from jaxvsr.devices.processes import SceneAxis
from jaxvsr.grpo.advantages import gather_informative
from jaxvsr.grpo.batches import HostBatch, TokenCount, count_tokens, tokens_of_scenes
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, TrainState
from jaxvsr.grpo.dynamic_sampling import draw_until_informative
from jaxvsr.grpo.objectives import Normaliser, step_normaliser
from jaxvsr.grpo.rollouts import RewardedRollouts, ScoredRollouts, reward_rollouts, score_rollouts
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.models.tree_batch import Rollouts, TreePrompt
from jaxvsr.rewards.registry import Reward


@dataclasses.dataclass(frozen=True)
class PlacedBatch:
    """The scenes of a step on the mesh. After sampling the prompt holds vision features in place of its pixels."""

    prompt: TreePrompt
    question_keys: UInt32[Array, "S Q"]


class PhaseClock:
    """Seconds of each phase of a step: `with clock("sample"): …`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._reference: tuple[float, concurrent.futures.Future[float]] | None = None

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._ended[phase] = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + self._ended[phase] - start

    def reference_starts(self, logprobs: jax.Array) -> None:
        """The reference pass was dispatched; it runs while the host computes rewards."""
        self._reference = (time.perf_counter(), _when_ready(logprobs))

    def finish(self) -> dict[str, float]:
        """The seconds of a step that has ended; the clock starts again from zero.

        The update waits for the reference: its own seconds begin when both reference and rewards are there.
        """
        if self._reference is not None:
            start, ready = self._reference[0], self._reference[1].result()
            rewards_ready = self._ended["reward"]
            self.seconds["reference"] = ready - start
            self.seconds["update"] -= max(0.0, ready - rewards_ready)
            self.seconds["reward_not_hidden"] = max(0.0, rewards_ready - max(ready, start))
        seconds = self.seconds
        self.__init__()  # type: ignore[misc]
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
    thought_tag: str | None = None  # of the prompt, for the shares of reward hacking
    clock: PhaseClock = dataclasses.field(default_factory=PhaseClock)

    def place(self, batch: HostBatch) -> PlacedBatch:
        """The prompt on the mesh: pixels, or stored features."""
        with self.clock("data"):
            return PlacedBatch(*self.scenes.place((batch.prompt, batch.question_keys)))

    def sample(self, state: TrainState, placed: PlacedBatch) -> tuple[Sampled, PlacedBatch]:
        """G rollouts of every question, and the batch with the vision features for the passes that follow."""
        with self.clock("sample"):
            sampled, prompt = self.compiled.sample(state, placed.prompt, placed.question_keys)
            return jax.block_until_ready(sampled), dataclasses.replace(placed, prompt=prompt)

    def draw_again(
        self, state: TrainState, batch: HostBatch, placed: PlacedBatch, sampled: Sampled
    ) -> tuple[Sampled, RewardedRollouts | None]:
        """Dynamic sampling, with its rewards; the rollouts as they are where `sampling.max_draws` is 1."""
        if self.config.sampling.max_draws == 1:
            return sampled, None
        with self.clock("draw_again"):
            return draw_until_informative(self, state, batch, placed, sampled)

    def reference(self, placed: PlacedBatch, rollouts: Rollouts) -> Float[Array, "S Q G R"] | None:
        """Log-probabilities under the reference policy, dispatched but not waited for; None where beta is 0."""
        if not self.config.grpo.beta:
            return None
        logprobs = self.compiled.reference(placed.prompt, rollouts)
        self.clock.reference_starts(logprobs)
        return logprobs

    def reward(self, batch: HostBatch, sampled: Sampled) -> RewardedRollouts:
        """Every reward of every rollout, on the host."""
        with self.clock("reward"):
            return reward_rollouts(self, batch, sampled)

    def score(self, batch: HostBatch, rewarded: RewardedRollouts) -> ScoredRollouts:
        """Each rollout against the others to its question."""
        with self.clock("reward"):
            return score_rollouts(self, batch, rewarded)

    def update(
        self,
        state: TrainState,
        placed: PlacedBatch,
        sampled: Sampled,
        reference: Float[Array, "S Q G R"] | None,
        scored: ScoredRollouts,
    ) -> tuple[TrainState, dict[str, float]]:
        """`update.inner_steps` optimizer steps on the same rollouts; `state` is donated.

        Metrics are those of the last step, but `logprob_gap` of the first: only there is the policy the one that
        sampled.
        """
        with self.clock("update"):
            inputs = self.loss_inputs(sampled, reference, scored)
            first: dict[str, jax.Array] = {}
            for _ in range(self.config.update.inner_steps):
                state, metrics = self.compiled.update(state, placed.prompt, sampled.rollouts, inputs)
                first = first or metrics
            metrics |= {name: first[name] for name in ("logprob_gap",) if name in first}
            row = {name: float(value) for name, value in jax.device_get(metrics).items()}
        return state, {**row, "update_questions": float(inputs.mask.shape[1])}

    def loss_inputs(
        self, sampled: Sampled, reference: Float[Array, "S Q G R"] | None, scored: ScoredRollouts
    ) -> LossInputs:
        """The update's inputs. Without KL, groups that have no advantage are left out."""
        mask, advantages, index = scored.mask, scored.advantages, None
        objective, own = self.config.grpo, self.scenes.own
        if not objective.beta:
            bucket = gather_informative(scored.informative)
            if bucket.index.shape != scored.informative.shape:
                mask, advantages = bucket.take(mask) & bucket.real[..., None, None], bucket.take(advantages)
                index = bucket.index[own]
        normaliser = self.normaliser(scored.mask, objective, int(mask.sum()))
        mask, advantages, index = self.scenes.place((mask[own], advantages[own], index))
        return LossInputs(normaliser, mask, sampled.logprobs, reference, advantages, index)

    def normaliser(self, mask: np.ndarray, objective: Objective, updated_tokens: int | None = None) -> Normaliser:
        """The step's normaliser on the mesh, from the mask [S, Q, G, R] of all processes."""
        normaliser = step_normaliser(mask, objective, self.config.sampling.answer_tokens, updated_tokens)
        everywhere = replicated(self.scenes.mesh)
        return jax.tree.map(lambda leaf: jax.device_put(np.float32(leaf), everywhere), normaliser)

    def token_metrics(
        self, batch: HostBatch, length: Int32[np.ndarray, "s Q G"], answer_tokens: int
    ) -> dict[str, float]:
        """`tokens` of the step's trees, and `padding_share`."""
        # All processes pad alike; those that hold parts of the same scenes (`tensor`) count them once.
        padded = count_tokens(batch.prompt, length, answer_tokens, self.scenes.size // len(length)).padded
        real = int(self.scenes.all_rows(tokens_of_scenes(batch.prompt, length)).sum())
        count = TokenCount(real, padded)
        return {"tokens": float(count.real), "padding_share": count.padding_share}
