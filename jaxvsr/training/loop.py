"""The training loop. `grpo_step` is the algorithm:

    sample         G rollouts of every question, on the scene tree
    reference      their log-probabilities under the reference policy, while the host scores the text
    reward         of every answer
    advantage      reward against the mean of its question's G answers, in standard deviations
    update         of the clipped ratio times the advantage, with the KL to the reference

SFT and DPO are the same trees with given answers: `supervised_step`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from jaxvsr.config.algorithm import Objective
from jaxvsr.config.train_config import TrainConfig
from jaxvsr.devices.mesh import replicated
from jaxvsr.devices.processes import all_rows, largest_of_processes, place
from jaxvsr.grpo.advantages import gather_informative
from jaxvsr.grpo.batches import HostBatch, TokenCount, count_tokens, rollout_mask, tokens_of_scenes
from jaxvsr.grpo.compiled_step import LossInputs, TrainState
from jaxvsr.grpo.dynamic_sampling import draw_until_informative
from jaxvsr.grpo.objectives import step_normaliser
from jaxvsr.grpo.optimizer import learning_rate_schedule
from jaxvsr.grpo.rollouts import ScoredRollouts, hacking_rows, reward_rollouts, sample_rows, score_rollouts
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.video_gain import VideoGainWatch, sample_other_videos, video_gain
from jaxvsr.training.console import Console
from jaxvsr.training.run_context import Training
from jaxvsr.training.stopping import EXIT_CODES, StopRequest

KL_AT_START = 1e-3  # nats a token: above it reference and policy are not the same model at the start of a run


class Phases:
    """Seconds of each phase of a step: `with phases("sample"): …`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class StepResult:
    """A step's numbers, and its rollouts where they go into samples.jsonl."""

    state: TrainState
    row: dict[str, float]
    samples: list[dict[str, Any]]
    hacking: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # rollouts that show a trick


def grpo_step(
    training: Training,
    state: TrainState,
    batch: HostBatch,
    phases: Phases,
    *,
    keep_samples: bool,
    measure_gain: bool = False,
) -> StepResult:
    """One step of GRPO (Shao et al. 2024, arXiv:2402.03300): sample, reward, advantage, update."""
    config, step = training.config, training.step
    with phases("data"):
        given = (batch.prompt, batch.question_keys, batch.features)
        prompt, question_keys, features = place(given, training.mesh, config.data.scenes)
        temperature = constant(config.sampling.temperature, training.mesh)

    with phases("sample"):
        sampled, features = step.sample(state, prompt, question_keys, temperature, features)
        jax.block_until_ready(sampled)
    other = None
    if measure_gain:
        with phases("video_gain"):
            other = sample_other_videos(training, state, batch, temperature)
    drawn = None
    if config.sampling.max_draws > 1:
        with phases("draw_again"):
            drawn = draw_until_informative(training, state, batch, prompt, features, temperature, sampled)
            sampled = drawn.sampled
    reference, reference_ready = None, None
    if config.grpo.beta:
        reference_start = time.perf_counter()
        reference = step.reference(prompt, features, sampled.rollouts, temperature)
        reference_ready = _when_ready(reference)

    with phases("reward"):
        rewarded = reward_rollouts(training, batch, sampled) if drawn is None else drawn.rewarded
        scored = score_rollouts(training, batch, rewarded)
        first_draw = rewarded if drawn is None else drawn.first
        gain = {} if other is None else {"video_gain": video_gain(training, batch, first_draw, other)}
    reward_end = time.perf_counter()

    with phases("update"):
        normaliser = _normaliser(scored.mask, config.grpo, training)
        loss_inputs, kept = _loss_inputs(training, scored, sampled, reference)
        first: dict[str, jax.Array] = {}
        for _ in range(config.update.inner_steps):
            state, metrics = step.update(
                state, prompt, features, sampled.rollouts, loss_inputs, normaliser, temperature
            )
            first = first or metrics
        # Only before the first update is the policy the one that sampled: the gap would measure training behind it.
        metrics |= {name: first[name] for name in ("logprob_gap",) if name in first}
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        # The entropy is a mean over the tokens that the update read.
        metrics["entropy"] *= float(normaliser.tokens) / max(kept, 1.0)

    if reference_ready is not None:
        # The update waits for the reference; its own seconds begin when both reference and rewards are there.
        ready = reference_ready.result()
        phases.seconds["reference"] = ready - reference_start
        phases.seconds["update"] -= max(0.0, ready - reward_end)
        phases.seconds["reward_not_hidden"] = max(0.0, reward_end - max(ready, reference_start))
    tokens = _token_metrics(training, batch, scored.length, scored.mask.shape[-1])
    row = {**metrics, **scored.metrics, **gain, **tokens, "update_questions": float(loss_inputs.mask.shape[1])}
    if drawn is not None:
        row["draws"] = float(drawn.draws)
    if not keep_samples:
        return StepResult(state, row, [])
    return StepResult(state, row, sample_rows(training, batch, scored), hacking_rows(batch, scored))


def _loss_inputs(
    training: Training, scored: ScoredRollouts, sampled: Sampled, reference: jax.Array | None
) -> tuple[LossInputs, float]:
    """The update's inputs, and the tokens in its loss. Without KL, groups that have no advantage are left out."""
    mesh, scenes = training.mesh, training.config.data.scenes
    mask, advantages, index = scored.mask, scored.advantages, None
    if not training.config.grpo.beta:
        bucket = gather_informative(scored.informative)
        if bucket.index.shape != scored.informative.shape:
            own = bucket.rows(scored.first, len(mask))
            mask, advantages, index = own.take(mask) & own.real[..., None, None], own.take(advantages), own.index
    kept = float(all_rows(mask, mesh, scenes).sum())
    mask, advantages, index = place((mask, advantages, index), mesh, scenes)
    return LossInputs(mask, sampled.logprobs, reference, advantages, index), kept


def first_questions_again(training: Training, state: TrainState) -> list[dict[str, Any]]:
    """Rows for samples.jsonl: the questions of step 1, answered after the last one."""
    config, batches = training.config, training.batches(0)
    batch = next(batches)
    given = (batch.prompt, batch.question_keys, batch.features)
    prompt, question_keys, features = place(given, training.mesh, config.data.scenes)
    temperature = constant(config.sampling.temperature, training.mesh)
    sampled, _ = training.step.sample(state, prompt, question_keys, temperature, features)
    batches.close()
    return sample_rows(training, batch, score_rollouts(training, batch, reward_rollouts(training, batch, sampled)))


def supervised_step(training: Training, state: TrainState, batch: HostBatch, phases: Phases) -> StepResult:
    """One step of SFT (G = 1, the answer) or DPO (G = 2, chosen and rejected): the same trees, answers given."""
    config, step = training.config, training.step
    assert batch.targets is not None
    tokens, length = np.asarray(batch.targets.tokens), np.asarray(batch.targets.length)
    with phases("data"):
        mask = rollout_mask(length, tokens.shape[-1])
        given = (batch.prompt, batch.targets, mask, batch.features)
        prompt, rollouts, on_mesh, features = place(given, training.mesh, config.data.scenes)
        temperature = constant(1.0, training.mesh)
    with phases("sample"):
        # A tower that is trained is run by the passes themselves.
        if features is None and not step.trains_vision:
            features = step.encode(state, prompt)
    with phases("reference"):
        reference = None
        if config.objective == "dpo":
            reference = jax.block_until_ready(step.reference(prompt, features, rollouts, temperature))
    with phases("update"):
        normaliser = _normaliser(mask, Objective(), training)
        inputs = LossInputs(on_mesh, None, reference, None)
        state, metrics = step.update(state, prompt, features, rollouts, inputs, normaliser, temperature)
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
    row |= {"completion_length": float(length.mean()), **_token_metrics(training, batch, length, tokens.shape[-1])}
    return StepResult(state, row, [])


def train(training: Training, state: TrainState, stop: StopRequest, *, first: int = 0) -> tuple[TrainState, str]:
    """Steps `first` + 1 to `config.steps`; returns the state and why it ended (a key of `stopping.EXIT_CODES`).

    Every step writes a row; checkpoints are made at their interval, at the end, and where the run is stopped.
    """
    config, console, intervals = training.config, training.console, training.config.intervals
    for function in training.step.functions:
        function.on_compile = training.compile_times.starts
    schedule = learning_rate_schedule(config.optimizer, config.steps * config.update.inner_steps)
    batches, watch = training.batches(first), VideoGainWatch(config)
    reason, score_here = "all steps", None
    for number in range(first + 1, config.steps + 1):
        phases, start = Phases(), time.perf_counter()
        with phases("data"):
            batch = next(batches)
        keep_samples = bool(intervals.samples) and (number % intervals.samples == 0 or number in (1, config.steps))
        if config.objective == "grpo":
            measure_gain = watch.due(number)
            result = grpo_step(training, state, batch, phases, keep_samples=keep_samples, measure_gain=measure_gain)
            if measure_gain:
                warning = watch.warning(result.row["video_gain"], result.row.get("reward/std", math.nan))
                if warning:
                    console.say(warning)
        else:
            result = supervised_step(training, state, batch, phases)
        state, seconds = result.state, time.perf_counter() - start
        training.compile_times.record(training.step.functions)
        optimizer_step = (number - 1) * config.update.inner_steps
        row: dict[str, Any] = {
            **result.row,
            "learning_rate": float(schedule(optimizer_step)),
            **_step_costs(training, phases, seconds, result.row),
        }
        if number == 1:
            _check_start(row, config, console)

        score_here = None
        if training.evaluate and intervals.evaluate and (number % intervals.evaluate == 0 or number == config.steps):
            with phases("evaluate"):
                evaluated = training.evaluate(state)
            row |= {**evaluated, "seconds/evaluate": phases.seconds["evaluate"]}
            score_here = evaluated.get("eval/overall")
        if training.log is not None:
            training.log.write(number, row)
            training.log.write_samples([{"step": number, **sample} for sample in result.samples])
            training.log.write_hacking([{"step": number, **rollout} for rollout in result.hacking])
        console.step(number, row)

        asked = _reason_of_processes(stop.reason(seconds))
        stopping = asked != "all steps"
        best = score_here is not None and score_here >= (training.checkpoints.best_score or 0.0)
        if number % intervals.checkpoint == 0 or number == config.steps or stopping or best:
            training.checkpoints.save(number, state, training.record, score_here)
        if stopping and number < config.steps:
            reason = asked
            break
    batches.close()
    wanted = reason == "all steps" and config.objective == "grpo" and intervals.samples > 0
    if wanted and (first < config.steps or _lacks_last_samples(training)):
        samples = first_questions_again(training, state)
        if training.log is not None:
            training.log.write_samples([{"step": config.steps, **sample} for sample in samples])
    return state, reason


def _reason_of_processes(reason: str | None) -> str:
    """Why to stop, the same in all processes: the gravest that any of them has; "all steps" where none has."""
    reasons = list(EXIT_CODES)
    return reasons[largest_of_processes(reasons.index(reason or "all steps"))]


def _lacks_last_samples(training: Training) -> bool:
    """Whether the first question that was written down is not there a second time, answered after the last step."""
    lacking = 0
    if training.log is not None:
        asked = [(row["step"], row["question_id"]) for row in training.log.read_samples()]
        lacking = int(bool(asked) and (training.config.steps, asked[0][1]) not in asked[1:])
    return bool(largest_of_processes(lacking))


def constant(value: float, mesh: Mesh) -> jax.Array:
    """A float32 number on every device."""
    return jax.device_put(np.float32(value), replicated(mesh))


def _normaliser(mask: np.ndarray, objective: Objective, training: Training) -> Any:
    """The step's normaliser, from the rollouts of all processes."""
    everyone = all_rows(mask, training.mesh, training.config.data.scenes)
    normaliser = step_normaliser(everyone, objective, training.config.sampling.answer_tokens)
    return jax.tree.map(lambda leaf: constant(float(leaf), training.mesh), normaliser)


_WAITER = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ready")


def _when_ready(array: jax.Array) -> concurrent.futures.Future[float]:
    """The time at which the device is done with an array."""

    def wait() -> float:
        jax.block_until_ready(array)
        return time.perf_counter()

    return _WAITER.submit(wait)


def _token_metrics(
    training: Training, batch: HostBatch, length: Int32[np.ndarray, "S Q G"], answer_tokens: int
) -> dict[str, float]:
    scenes = training.config.data.scenes
    # All processes pad alike; those that hold parts of the same scenes (`tensor`) count them once.
    padded = count_tokens(batch.prompt, length, answer_tokens, scenes // len(length)).padded
    real = int(all_rows(tokens_of_scenes(batch.prompt, length), training.mesh, scenes).sum())
    count = TokenCount(real, padded)
    return {"tokens": float(count.real), "padding_share": count.padding_share}


def _step_costs(training: Training, phases: Phases, seconds: float, row: dict[str, float]) -> dict[str, float]:
    """Seconds a phase, tokens a second, compiling so far."""
    costs = {f"seconds/{name}": spent for name, spent in phases.seconds.items()}
    return {
        **costs,
        "seconds/step": seconds,
        "tokens_per_second": row["tokens"] / seconds,
        "compile_count": training.step.compile_count,
        "compile_seconds": training.step.compile_seconds,
    }


def _check_start(row: dict[str, Any], config: TrainConfig, console: Console) -> None:
    """At its first step a run's policy is its reference policy, unless the reference is meant to be another model."""
    kl = row.get("kl")
    if (
        kl is not None
        and config.model.reference == "start"
        and config.update.inner_steps == 1
        and abs(kl) > KL_AT_START
    ):
        console.say(f"warning: kl {kl:.2g} at step 1: the reference policy is not the model that this run starts from")
