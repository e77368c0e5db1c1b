"""The training loop: step after step, with what happens besides at its intervals (evaluation, logs, checkpoints)."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import jax

from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.processes import largest_of_processes, numbers_of_processes
from jaxvsr.grpo import phases
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.optimizer import learning_rate_schedule, updates_taken
from jaxvsr.grpo.steps import StepResult, grpo_step, supervised_step
from jaxvsr.runs.run_folder import RunFolder
from jaxvsr.training.heldout import HeldOut
from jaxvsr.training.learnable import LearningWatch
from jaxvsr.training.not_finite import NotFiniteWatch
from jaxvsr.training.run_context import RunContext
from jaxvsr.training.sample_log import given_rows, hacking_rows, heldout_rows, sample_rows
from jaxvsr.training.standing import Profile, Standing, memory_per_device
from jaxvsr.training.stopping import EXIT_CODES, StopInStepError, StopRequest
from jaxvsr.training.video_gain import VideoGainWatch, rewards_of_other_videos, video_gain

KL_AT_START = 1e-3  # nats per token: above it reference and policy are not the same model at the start of a run
ALL_STEPS = "all steps"  # why a run ended that was not stopped
USED_UP = "scenes used up"  # an iterator of scenes in memory has ended


def train(run: RunContext, state: TrainState, stop: StopRequest, *, first: int = 0) -> tuple[TrainState, str]:
    """Steps `first` + 1 to `config.steps`; returns the state and why it ended (a key of `stopping.EXIT_CODES`).

    Every step writes a row; checkpoints are made at their interval, at the end, and where the run is stopped.

    Raises:
        NotFiniteError: a loss, a gradient or a weight is not finite; the last state that is, is saved.
    """
    logging, standing = run.config.logging, Standing(run.step.clock)
    traced = logging.profile if run.log is not None else None
    profile = Profile(traced, RunFolder(run.checkpoints.folder.parent).profile, run.console.say)
    with contextlib.closing(profile), standing.watched(logging.stuck_minutes):
        return _steps(run, state, stop, first, standing, profile)


def _steps(
    run: RunContext, state: TrainState, stop: StopRequest, first: int, standing: Standing, profile: Profile
) -> tuple[TrainState, str]:
    config, intervals, clock = run.config, run.config.intervals, run.step.clock
    for function in run.step.compiled.functions:
        function.on_compile = run.compile_times.starts
    alone = jax.process_count() == 1
    for function in (*run.step.compiled.functions, *_heldout_functions(run)):
        function.look = functools.partial(stop.look, alone)
    if first and _evaluates(run, first) and _lacks_evaluation(run, first):
        _make_up_evaluation(run, state, first)
    schedule = learning_rate_schedule(config.optimizer, config.steps * config.update.inner_steps)
    batches, watch, reason = run.batches(first), VideoGainWatch(config), ALL_STEPS
    not_finite, learning = NotFiniteWatch(run, first), LearningWatch(config)
    for number in range(first + 1, config.steps + 1):
        standing.step, start = number, time.perf_counter()
        with clock("data"), clock.own_work():
            batch = next(batches, None)
        if batch is None:
            reason = USED_UP
            if number > first + 1:
                run.checkpoints.save(number - 1, state, run.record, None)
            break
        learning_rate = float(schedule(updates_taken(state.optimizer)))
        try:
            # A step copies between host and devices only where it says so.
            with profile.step(number), jax.transfer_guard("disallow"):
                result, gain = _step(run, state, batch, watch.due(number))
        except StopInStepError as stopped:
            reason = str(stopped)
            if alone:  # several processes cannot agree on it now: their last checkpoint stands
                run.checkpoints.save(number - 1, state, run.record, None)
            break
        stop.step_is_done()
        state, seconds = result.state, time.perf_counter() - start
        run.compile_times.record(run.step.compiled.functions)
        row = {
            **result.metrics,
            **gain,
            **not_finite.left_out(state),
            "learning_rate": learning_rate,
            **_step_costs(run, seconds, result.metrics["tokens"]),
        }
        if not not_finite.may_go_on(number, result.metrics):
            _write(run, number, row, batch, result)
            batches.close()
            raise not_finite.error(number, result.metrics, state)
        if number == 1:
            _check_start(run, row)
        _warn(run, watch, row)
        if (nothing := learning.warning(row)) is not None:
            run.console.say(nothing)

        left = False
        try:
            evaluated = _evaluate(run, state, number)
        except StopInStepError as stopped:
            if not alone:  # the others are still at it, and would wait for this one at whatever comes next
                reason = str(stopped)
                break
            evaluated, left = {}, True  # made when the run goes on
        row |= evaluated
        score_here = evaluated.get("eval/overall")
        _write(run, number, row, batch, result)
        run.console.step(number, row)

        with clock.standing("waiting for all processes"):
            asked = _reason_of_processes(stop.reason(seconds))
        best = score_here is not None and score_here >= (run.checkpoints.best_score or 0.0)
        if number % intervals.checkpoint == 0 or number == config.steps or asked != ALL_STEPS or best:
            with clock.standing("checkpoint"):
                run.checkpoints.save(number, state, run.record, score_here)
        if asked != ALL_STEPS and (number < config.steps or left):
            reason = asked
            break
    batches.close()
    wanted = reason == ALL_STEPS and config.objective == "grpo" and intervals.samples > 0
    if wanted and (first < config.steps or _lacks_last_samples(run)):
        try:
            _answer_first_questions_again(run, state)
        except StopInStepError as stopped:
            reason = str(stopped)
    return state, reason


def _heldout_functions(run: RunContext) -> tuple[CompiledFunction, ...]:
    """What evaluations in training compile."""
    return run.evaluate.step.functions if isinstance(run.evaluate, HeldOut) else ()


def _step(
    run: RunContext, state: TrainState, batch: HostBatch, measure_gain: bool
) -> tuple[StepResult, dict[str, float]]:
    """One step, and the video gain where it is measured. It needs the weights from before the update."""
    if run.config.objective != "grpo":
        return supervised_step(run.step, state, batch), {}
    elsewhere = rewards_of_other_videos(run.step, state, batch) if measure_gain else None
    result = grpo_step(run.step, state, batch)
    if elsewhere is None:
        return result, {}
    assert result.scored is not None
    return result, {"video_gain": video_gain(run.step, result.scored.rewarded, elsewhere)}


def _evaluates(run: RunContext, number: int) -> bool:
    """Whether held-out questions are answered after step `number`."""
    every = run.config.intervals.evaluate
    return run.evaluate is not None and every > 0 and (number % every == 0 or number == run.config.steps)


def _evaluate(run: RunContext, state: TrainState, number: int) -> dict[str, float]:
    """Metrics `eval/…` where they are due after step `number`.

    Raises:
        StopInStepError: a signal has come while the questions were answered.
    """
    if run.evaluate is None or not _evaluates(run, number):
        return {}
    start = time.perf_counter()
    if isinstance(run.evaluate, HeldOut) and run.config.objective != "grpo":
        questions, answers = run.evaluate.answer(state)  # the only answers of such a run
        evaluated = run.evaluate.scores(questions, answers)
        _write_samples(run, number, heldout_rows(run.step, questions, answers), "held-out answers")
    else:
        evaluated = run.evaluate(state)
    return {**evaluated, "seconds/evaluate": time.perf_counter() - start}


def _write(run: RunContext, number: int, row: dict[str, Any], batch: HostBatch, result: StepResult) -> None:
    """The step's rows in the files of the run."""
    if run.log is None:
        return
    every = run.config.intervals.samples
    if every and (number % every == 0 or number in (1, run.config.steps)):
        if result.scored is None:
            _write_samples(run, number, given_rows(run.step, batch))
        else:
            _write_samples(run, number, sample_rows(run.step, batch, result.scored))
            tricky = hacking_rows(run.step, batch, result.scored)
            run.log.write_hacking([{"step": number, **rollout} for rollout in tricky])
    run.log.write(number, row)


def _answer_first_questions_again(run: RunContext, state: TrainState) -> None:
    """The questions of step 1 answered after the last step, into samples.jsonl."""
    batches = run.batches(0)
    batch = next(batches)
    batches.close()
    sampled, _ = phases.sample(run.step, state, phases.place(run.step, batch))
    scored = phases.score(run.step, batch, phases.reward(run.step, batch, sampled))
    _write_samples(run, run.config.steps, sample_rows(run.step, batch, scored))


def _write_samples(run: RunContext, number: int, rows: Sequence[dict[str, Any]], name: str = "samples") -> None:
    if run.log is not None and run.config.intervals.samples:
        run.log.write_samples(number, rows, name)


def _reason_of_processes(reason: str | None) -> str:
    """Why to stop, the same in all processes: the gravest that any of them has."""
    reasons = list(EXIT_CODES)
    return reasons[int(largest_of_processes(reasons.index(reason or ALL_STEPS)))]


def _lacks_last_samples(run: RunContext) -> bool:
    """Whether the first question that was written down is not there a second time, answered after the last step."""
    lacking = False
    if run.log is not None:
        asked = [(row["step"], row["question_id"]) for row in run.log.read_samples()]
        lacking = bool(asked) and (run.config.steps, asked[0][1]) not in asked[1:]
    return bool(largest_of_processes(lacking))


def _lacks_evaluation(run: RunContext, number: int) -> bool:
    """Whether a step's row is there without an evaluation, which leaves its time also where it gives no score."""
    lacking = run.log is not None and any(
        row["step"] == number and "seconds/evaluate" not in row for row in run.log.read_metrics()
    )
    return bool(largest_of_processes(lacking))


def _make_up_evaluation(run: RunContext, state: TrainState, number: int) -> None:
    """The evaluation that a signal ended. Its row is last: where a kill is faster, the next start finds it lacking."""
    run.console.say(f"step {number} was not evaluated; that is done now")
    evaluated = _evaluate(run, state, number)
    if "eval/overall" in evaluated:
        run.checkpoints.add_score(number, evaluated["eval/overall"])
    if run.log is not None:
        run.log.add(number, evaluated)


def _step_costs(run: RunContext, seconds: float, tokens: float) -> dict[str, float]:
    """Seconds per phase, tokens per second, memory, compiling so far."""
    return {
        **_host_seconds(run.step.clock.own_seconds),
        **{f"seconds/{name}": spent for name, spent in run.step.clock.finish().items()},
        "seconds/step": seconds,
        "tokens_per_second": tokens / seconds,
        "tokens_per_second_per_device": tokens / seconds / run.step.scenes.mesh.size,
        **memory_per_device(),
        "compile_count": run.step.compiled.compile_count,
        "compile_seconds": run.step.compiled.compile_seconds,
    }


def _host_seconds(own: float) -> dict[str, float]:
    """What data and rewards took on the host, in the process where they took longest and in the one where least: the
    others wait for the difference. Nothing where there is one process.
    """
    each = numbers_of_processes(own)
    if len(each) == 1:
        return {}
    most, least = float(each.max()), float(each.min())
    return {"host_seconds/most": most, "host_seconds/least": least, "slowest_process": float(each.argmax())}


def _check_start(run: RunContext, row: dict[str, Any]) -> None:
    """At its first step a run's policy is its reference policy, unless the reference is meant to be another model."""
    kl, config = row.get("kl"), run.config
    same = config.model.reference == "start" and config.update.inner_steps == 1
    if kl is not None and same and abs(kl) > KL_AT_START:
        run.console.say(
            f"warning: kl {kl:.2g} at step 1: the reference policy is not the model that this run starts from"
        )


def _warn(run: RunContext, watch: VideoGainWatch, row: dict[str, Any]) -> None:
    if "video_gain" in row:
        warning = watch.warning(row["video_gain"], row.get("reward/std", math.nan))
        if warning:
            run.console.say(warning)
