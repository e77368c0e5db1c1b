"""The training loop on a stand-in for the compiled step: rows, samples, stopping, and resuming bit for bit."""

import concurrent.futures
import dataclasses
import itertools
import json
import signal
import threading
import time
import types
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvsr import stop_signals
from jaxvsr.config.algorithm import Objective
from jaxvsr.config.train_config import (
    IntervalSettings,
    LoggingSettings,
    SamplingSettings,
    UpdateSettings,
)
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.errors import InputError, NotFiniteError
from jaxvsr.files import read_rows
from jaxvsr.grpo import step_context
from jaxvsr.grpo.advantages import group_advantages
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.dynamic_sampling import keys_of_draw
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.step_context import PhaseClock
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt
from jaxvsr.prompts import PROMPTS
from jaxvsr.rewards.registry import Reward
from jaxvsr.runs.checkpoints import Checkpoints
from jaxvsr.training import loop, stopping
from jaxvsr.training.loop import train
from jaxvsr.training.standing import Standing
from jaxvsr.training.stopping import EXIT_CODES, StopInStepError, StopRequest, stop_line
from tests.support.runs import (
    RECORD,
    Bench,
    G,
    Q,
    R,
    S,
    StandInStep,
    T,
    V,
    batch_of,
    config,
    first_token_reward,
    fresh_state,
    real_tokens,
    scores_of,
    without_times,
)


def test_every_step_logs_a_row_with_the_metrics_of_the_run(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench(tmp_path / "run", config())
    update = run.step.update

    def that_takes_time(*given: Any) -> Any:
        time.sleep(0.05)
        return update(*given)

    monkeypatch.setattr(run.step, "update", that_takes_time)
    _, reason = train(run.context, fresh_state(), StopRequest())
    rows = run.rows()
    assert reason == "all steps" and [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    weights = [0.3, *(row["loss"] for row in rows)]  # the stand-in's loss is its weight after the update
    assert len(set(weights)) == 7
    for weight, row, (rollouts, inputs) in zip(weights, rows, run.step.seen, strict=False):
        scores, length = scores_of(rollouts), np.asarray(rollouts.length)
        expected = group_advantages(scores, [2.0, 0.5], run.context.config.advantages)
        totals = 2.0 * np.nan_to_num(scores[0]) + 0.5 * scores[1]
        signal = float(np.sum(np.asarray(inputs.advantages) * np.asarray(rollouts.tokens)[..., 0]))
        wanted = {
            "reward/words": np.nanmean(scores[0]),
            "reward/length": scores[1].mean(),
            "reward/mean": totals.mean(),
            "reward/std": expected.metrics["reward/std"],
            "frac_reward_zero_std": np.mean([len(set(group)) == 1 for group in totals.reshape(-1, G).tolist()]),
            "kl": 0,
            "grad_norm": abs(np.cos(signal + weight)),
            "learning_rate": 1e-5 * (1 - (row["step"] - 1) / 6),
            "completion_length": length.mean(),
            "tokens": real_tokens(length),
            "padding_share": 1 - real_tokens(length) / (S * V + S * Q * T + S * Q * G * R),
            "compile_count": 1,
            "compile_seconds": 2.0,
            "tokens_per_second": real_tokens(length) / row["seconds/step"],
        }
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)
        phases = {name: row[f"seconds/{name}"] for name in ("data", "sample", "reward", "reference", "update")}
        assert min(phases.values()) > 0
        assert (
            sum(phases.values()) - phases["reference"] <= row["seconds/step"]
        )  # the reference runs beside the rewards


def test_the_sampler_gap_is_measured_at_the_first_update_of_a_step(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench(tmp_path / "run", config(steps=2, update=UpdateSettings(inner_steps=3)))
    update = run.step.update

    def with_gap(*given: Any) -> Any:
        state, metrics = update(*given)
        return state, {**metrics, "logprob_gap": jnp.float32(len(run.step.seen)), "ratio_max": len(run.step.seen)}

    monkeypatch.setattr(run.step, "update", with_gap)
    train(run.context, fresh_state(), StopRequest())
    assert [row["logprob_gap"] for row in run.rows()] == [1, 4]
    assert [row["ratio_max"] for row in run.rows()] == [3, 6]


def test_advantages_and_masks_of_an_update_are_those_of_its_rollouts(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config(steps=1))
    train(run.context, fresh_state(), StopRequest())
    rollouts, inputs = run.step.seen[0]
    length = np.asarray(rollouts.length)
    for s, q, g in np.ndindex(S, Q, G):
        np.testing.assert_array_equal(np.asarray(inputs.mask[s, q, g]), np.arange(R) < length[s, q, g])
    expected = group_advantages(scores_of(rollouts), [2.0, 0.5], run.context.config.advantages)
    np.testing.assert_array_equal(np.asarray(inputs.advantages), expected.advantages)
    assert float(inputs.normaliser.tokens) == length.sum()


def test_rewards_are_called_as_trl_calls_them_with_prompts_completions_and_columns(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    called = []

    def as_in_trl(prompts: list[str], completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
        called.append((prompts, completions, answer, kwargs["question"], kwargs["id"]))
        return [0.0] * len(completions)

    run = bench(tmp_path / "run", config(steps=1, intervals=IntervalSettings(samples=0)))
    training = run.with_rewards(Reward("mine", as_in_trl))
    train(training, fresh_state(), StopRequest())
    prompts, completions, answer, question, names = called[0]
    assert len(completions) == S * Q * G and prompts == [f"<{text}>" for text in question]
    assert names[: G + 1] == ["0/0/0"] * G + ["0/0/1"] and answer[: G + 1] == ["0"] * G + ["1"]


def test_padding_share_counts_padding_tokens(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=1))
    train(run.context, fresh_state(), StopRequest())
    length = np.asarray(run.step.seen[0][0].length)
    share = 1 - real_tokens(length) / (S * V + S * Q * T + S * Q * G * R)
    assert run.rows()[0]["padding_share"] == pytest.approx(share)


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one_exactly(bench: Callable[..., Bench], tmp_path: Path) -> None:
    whole = bench(tmp_path / "whole", config())
    final, _ = train(whole.context, fresh_state(), StopRequest())

    def interrupted(start: int) -> Generator[HostBatch, None, None]:
        for number in range(start, 10_000):
            if number == 5:  # the power fails in step 6, after the checkpoint of step 4 and two more rows
                raise RuntimeError("power failure")
            yield batch_of(number)

    parted = bench(tmp_path / "parted", config(), batches=interrupted)
    with pytest.raises(RuntimeError):
        train(parted.context, fresh_state(), StopRequest())
    assert [row["step"] for row in parted.rows()] == [1, 2, 3, 4, 5]

    again = bench(tmp_path / "parted", config(), first=4)
    restored = again.context.checkpoints.restore(4, fresh_state(), RECORD)
    resumed, _ = train(again.context, restored, StopRequest(), first=4)
    assert without_times(again.rows()) == without_times(whole.rows())
    assert list(read_rows(again.folder.samples)) == list(read_rows(whole.folder.samples))
    np.testing.assert_array_equal(np.asarray(resumed.trainable["w"]), np.asarray(final.trainable["w"]))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_ends_after_the_running_step_with_a_checkpoint(
    bench: Callable[..., Bench], tmp_path: Path, number: int, name: str
) -> None:
    def batches(start: int) -> Generator[HostBatch, None, None]:
        for step in range(start, 100):
            if step == 1:
                signal.raise_signal(number)
            yield batch_of(step)

    run = bench(tmp_path / "run", config(), batches=batches)
    before = signal.getsignal(number)
    with StopRequest().listening() as stop:
        _, reason = train(run.context, fresh_state(), stop)
    assert signal.getsignal(number) is before
    assert (reason, run.context.checkpoints.steps, len(run.rows())) == (name, [2], 2)
    assert EXIT_CODES[reason] == 128 + number


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopRequest().listening() as stop:
        stop.step_is_done()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_last_line_of_a_stopped_run_says_which_step_is_saved() -> None:
    assert stop_line("SIGTERM", 4, Path("run")).startswith("stopped by SIGTERM, saved up to step 4; continue with: ")
    assert stop_line("SIGTERM", None, Path("run")).startswith("stopped by SIGTERM, no step is saved yet; start again")


def test_a_signal_before_a_step_is_done_ends_the_run_with_nothing_saved(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    def batches(start: int) -> Generator[HostBatch, None, None]:
        signal.raise_signal(signal.SIGINT)
        yield batch_of(start)

    run = bench(tmp_path / "run", config(), batches=batches)
    with StopRequest().listening() as stop, pytest.raises(KeyboardInterrupt):
        train(run.context, fresh_state(), stop)
    assert (list(run.context.checkpoints.steps), run.rows()) == ([], [])


def test_a_step_that_a_signal_finds_compiling_is_left_and_the_last_one_saved(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config())
    program, sample = CompiledFunction("sample", lambda keys: keys + 1), run.step.sample
    run.step.functions.append(program)

    def sample_with_a_program(state: TrainState, prompt: TreePrompt, keys: jax.Array) -> tuple[Sampled, TreePrompt]:
        if len(run.rows()) == 3:
            signal.raise_signal(signal.SIGTERM)
        program(keys)
        return sample(state, prompt, keys)

    run.step.sample = sample_with_a_program  # type: ignore[method-assign]
    with StopRequest().listening() as stop:
        state, reason = train(run.context, fresh_state(), stop)
    assert (reason, run.context.checkpoints.steps, len(run.rows()), int(state.step)) == ("SIGTERM", [3], 3, 3)


def test_one_of_several_processes_leaves_a_step_only_where_a_program_compiles_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = StopRequest()
    stop.look(True, True)
    stop.handle(signal.SIGTERM)
    stop.look(False, False)
    stop.look(False, True)
    assert not stop.has_left_step
    with pytest.raises(StopInStepError, match="SIGTERM"):
        stop.look(True, False)
    assert stop.has_left_step
    monkeypatch.setattr(stopping, "COMPILING_SECONDS", -1.0)
    stop.look(False, False)
    with pytest.raises(StopInStepError, match="SIGTERM"):
        stop.look(False, True)


def test_one_of_several_processes_that_leaves_an_evaluation_meets_the_others_nowhere_again(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(state: TrainState) -> dict[str, float]:
        raise StopInStepError("SIGTERM")

    def asked(number: Any) -> Any:
        raise AssertionError("the others are still answering")

    run = bench(tmp_path / "run", config(intervals=IntervalSettings(checkpoint=1, evaluate=1)), evaluate=evaluate)
    monkeypatch.setattr(loop, "jax", types.SimpleNamespace(process_count=lambda: 2, transfer_guard=jax.transfer_guard))
    monkeypatch.setattr(loop, "largest_of_processes", asked)
    assert train(run.context, fresh_state(), StopRequest())[1] == "SIGTERM"
    assert (run.rows(), run.context.checkpoints.steps) == ([], [])


def test_the_time_limit_saves_and_stops(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config())
    _, reason = train(run.context, fresh_state(), StopRequest(time_limit=0.0))
    assert (reason, run.context.checkpoints.steps, EXIT_CODES[reason]) == ("time limit", [1], 0)


def test_rewards_of_a_thinking_model_read_what_follows_the_thought(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=1))
    seen: list[str] = []

    def look(completions: list[str], **columns: Any) -> list[float]:
        seen.extend(completions)
        return [0.0] * len(completions)

    context = run.with_rewards(Reward("look", look))
    thinking = dataclasses.replace(
        context.step,
        decode=lambda tokens, length: [f"Hm {n}.</think>\n\n{n}" for n in length],
        scored_text=PROMPTS["vsgrpo-vanilla-train-thinking"].without_thought,
    )
    train(dataclasses.replace(context, step=thinking), fresh_state(), StopRequest())
    assert seen and {*seen} <= {str(n) for n in range(R + 1)}
    samples = read_rows(run.folder.samples)
    assert all("</think>" in answer["text"] for row in samples for answer in row["answers"])


def test_samples_hold_questions_answers_rewards_and_advantages(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=3))
    train(run.context, fresh_state(), StopRequest())
    samples = list(read_rows(run.folder.samples))
    assert [row["step"] for row in samples] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert [row["question_id"] for row in samples[:3]] == ["0/0/0", "0/1/0", "0/0/1"]
    first = samples[0]
    assert first["prompt"] == "<How many 0?>" and len(first["answers"]) == G
    for answer in first["answers"]:
        assert answer["reward"] == pytest.approx(2 * answer["rewards"]["words"] + 0.5 * answer["rewards"]["length"])
    assert sum(answer["advantage"] for answer in first["answers"]) == pytest.approx(0, abs=1e-5)


def test_the_first_questions_are_sampled_again_after_the_last_step(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=3))
    train(run.context, fresh_state(), StopRequest())
    samples = list(read_rows(run.folder.samples))
    before, after = samples[:3], samples[-3:]
    assert [row["question_id"] for row in before] == [row["question_id"] for row in after]
    assert (before[0]["step"], after[0]["step"]) == (1, 3) and before[0]["answers"] != after[0]["answers"]


def test_a_run_that_stopped_before_its_last_samples_writes_them_once(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config(steps=3))
    final, _ = train(run.context, fresh_state(), StopRequest())
    whole = run.folder.samples.read_text()
    run.folder.samples.write_text("".join(whole.splitlines(keepends=True)[:-3]))
    for _ in range(2):
        again = bench(tmp_path / "run", config(steps=3), first=3)
        assert train(again.context, final, StopRequest(), first=3)[1] == "all steps"
        assert again.folder.samples.read_text() == whole


def test_all_processes_stop_for_the_same_reason(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench(tmp_path / "run", config())
    sigterm = list(EXIT_CODES).index("SIGTERM")
    monkeypatch.setattr(loop, "largest_of_processes", lambda number: max(number, sigterm))  # another one was told
    assert train(run.context, fresh_state(), StopRequest(time_limit=0.0))[1] == "SIGTERM"
    assert len(run.rows()) == 1


def test_a_reward_that_does_not_apply_is_null_in_json(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=1, logging=LoggingSettings(trackers=(), sample_questions=S * Q)))
    train(run.context, fresh_state(), StopRequest())
    does_not_apply = [row for row in read_rows(run.folder.samples) if row["answer"] == "2"]
    assert does_not_apply and all(a["rewards"]["words"] is None for row in does_not_apply for a in row["answers"])
    assert "NaN" not in run.folder.samples.read_text()


def test_the_best_checkpoint_is_chosen_by_evaluation(bench: Callable[..., Bench], tmp_path: Path) -> None:
    scores = iter([30.0, 50.0, 40.0])
    settings = config(intervals=IntervalSettings(checkpoint=100, evaluate=2, keep=1))
    run = bench(tmp_path / "run", settings, evaluate=lambda state: {"eval/overall": next(scores)})
    train(run.context, fresh_state(), StopRequest())
    assert (run.context.checkpoints.best, run.context.checkpoints.steps) == (4, [4, 6])
    assert [row.get("eval/overall") for row in run.rows()] == [None, 30.0, None, 50.0, None, 40.0]


@pytest.mark.parametrize("at", [2, 4], ids=["in the middle", "at the last step"])
def test_an_evaluation_that_a_signal_ends_is_made_when_the_run_goes_on(
    bench: Callable[..., Bench], tmp_path: Path, at: int
) -> None:
    settings = config(steps=4, intervals=IntervalSettings(checkpoint=4, evaluate=2))
    made: list[int] = []

    def evaluate(state: TrainState) -> dict[str, float]:
        made.append(int(state.step))
        return {"eval/overall": 10.0 * at if int(state.step) == at else 5.0}

    whole = bench(tmp_path / "whole", settings, evaluate=evaluate)
    train(whole.context, fresh_state(), StopRequest())
    stop = StopRequest()

    def ended(state: TrainState) -> dict[str, float]:
        if int(state.step) == at:
            stop.handle(signal.SIGTERM)
        stop.look(True, False)
        return evaluate(state)

    parted = bench(tmp_path / "parted", settings, evaluate=ended)
    assert train(parted.context, fresh_state(), stop)[1] == "SIGTERM"
    assert "eval/overall" not in parted.rows()[at - 1] and parted.context.checkpoints.latest == at
    parted.folder.report.write_text("a page without it")
    for first, expected in ((at, list(range(at, 5, 2))), (4, [])):  # once
        made.clear()
        again = bench(tmp_path / "parted", settings, first=first, evaluate=evaluate)
        restored = again.context.checkpoints.restore(first, fresh_state(), RECORD)
        assert train(again.context, restored, StopRequest(), first=first)[1] == "all steps"
        assert made == expected
        assert without_times(again.rows()) == without_times(whole.rows())
        assert again.context.checkpoints.best == whole.context.checkpoints.best == at
        again.context.checkpoints.close()
    assert not parted.folder.report.exists()
    assert Checkpoints(parted.folder.checkpoints).best == at
    assert list(read_rows(parted.folder.samples)) == list(read_rows(whole.folder.samples))


def test_several_inner_steps_use_the_same_rollouts_and_one_reference(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config(steps=2, update=UpdateSettings(inner_steps=3)))
    state, _ = train(run.context, fresh_state(), StopRequest())
    assert int(state.step) == 6 and len(run.step.seen) == 6
    assert run.step.seen[0][1] is run.step.seen[2][1] and run.step.seen[2][1] is not run.step.seen[3][1]


def test_without_kl_there_is_no_reference_pass(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=1, grpo=Objective(beta=0.0)))
    run.step.reference = None  # type: ignore[assignment, method-assign]
    train(run.context, fresh_state(), StopRequest())
    assert "seconds/reference" not in run.rows()[0] and run.step.seen[0][1].reference_logprobs is None


def test_a_policy_that_differs_from_the_reference_at_step_1_is_reported(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config(steps=1))
    update = run.step.update

    def far_away(*given: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        state, metrics = update(*given)
        return state, {**metrics, "kl": jnp.float32(0.5)}

    run.step.update = far_away  # type: ignore[method-assign,assignment]
    train(run.context, fresh_state(), StopRequest())
    assert "kl 0.5 at step 1" in run.output.getvalue()


def test_sft_learns_the_given_answers_and_samples_nothing(bench: Callable[..., Bench], tmp_path: Path) -> None:
    targets = RolloutTokens(np.ones((S, Q, 1, R), np.int32), np.full((S, Q, 1), 2, np.int32))
    run = bench(
        tmp_path / "run",
        config(objective="sft", steps=2),
        batches=lambda start: (dataclasses.replace(batch_of(step), targets=targets) for step in range(start, 9)),
    )
    run.step.sample = None  # type: ignore[assignment, method-assign]
    train(run.context, fresh_state(), StopRequest())
    assert np.asarray(run.step.seen[0][1].mask).sum() == 2 * S * Q and len(run.rows()) == 2
    # What it learns from is on its page.
    samples = list(read_rows(run.folder.samples))
    assert {row["step"] for row in samples} == {1, 2}
    assert all(row["answers"] == [{"text": "1 1", "given": "target"}] for row in samples)
    assert samples[0]["question"] == batch_of(0).questions[0][0].question


def test_plain_lines_and_compile_messages_without_a_terminal(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=2))
    train(run.context, fresh_state(), StopRequest())
    lines = run.output.getvalue().splitlines()
    assert lines[0] == "compiling update, bucket 1" and lines[1].startswith("step 1/2  reward ")
    again = bench(tmp_path / "again", config(steps=2))
    train(again.context, fresh_state(), StopRequest())
    assert again.output.getvalue().splitlines()[0] == "compiling update, bucket 1, last time 2 s"


def test_a_progress_line_is_printed_only_after_the_line_interval(bench: Callable[..., Bench], tmp_path: Path) -> None:
    settings = config(logging=LoggingSettings(trackers=(), line_seconds=1000.0))
    run = bench(tmp_path / "run", settings)
    train(run.context, fresh_state(), StopRequest())
    assert [line.split("  ")[0] for line in run.output.getvalue().splitlines()[1:]] == ["step 1/6", "step 6/6"]


def test_a_broken_reward_ends_the_run_with_its_name(bench: Callable[..., Bench], tmp_path: Path) -> None:
    def broken(completions: list[str], **columns: Any) -> list[float]:
        raise ValueError("no")

    run = bench(tmp_path / "run", config())
    training = run.with_rewards(Reward("broken", broken))
    with pytest.raises(InputError, match="'broken'"):
        train(training, fresh_state(), StopRequest())
    assert json.loads(run.folder.metrics.read_text() or "null") is None


def constant_reward(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """Question 1 of every scene earns the same whatever is answered."""
    return [1.0 if right == "1" else float(len(text)) for text, right in zip(completions, answer, strict=True)]


def test_without_kl_groups_with_zero_advantage_are_left_out_of_the_update(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config(steps=1, grpo=Objective(beta=0.0)))
    training = run.with_rewards(Reward("constant", constant_reward, 1.0))
    train(training, fresh_state(), StopRequest())
    rollouts, inputs = run.step.seen[0]
    informative = np.asarray(inputs.questions)[np.asarray(inputs.mask).any((-1, -2))]
    assert inputs.questions.shape == (S, 2) and set(informative.tolist()) <= {0, 2}
    tokens = np.asarray(rollouts.length).sum()
    assert float(inputs.normaliser.tokens) == tokens, "the normaliser counts what is left out"
    row = run.rows()[0]
    assert row["zero_advantage_groups"] >= S and row["update_questions"] == 2
    assert row["entropy"] == pytest.approx(1.0), "a mean over the tokens that were read"

    with_kl = bench(tmp_path / "kl", config(steps=1))
    training = with_kl.with_rewards(Reward("constant", constant_reward, 1.0))
    train(training, fresh_state(), StopRequest())
    assert with_kl.step.seen[0][1].questions is None, "with KL every group has a gradient"


@pytest.mark.slow
def test_dynamic_sampling_keeps_the_first_informative_draw_of_every_question(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    draws = 3
    settings = config(steps=1, sampling=SamplingSettings(group=G, answer_tokens=R, max_draws=draws))
    run = bench(tmp_path / "run", settings)
    training = run.with_rewards(Reward("first", first_token_reward, 1.0))
    train(training, fresh_state(), StopRequest())

    batch, state = batch_of(0), fresh_state()
    expected: dict[tuple[int, int], np.ndarray] = {}
    informative = np.zeros((S, Q), bool)
    used = 0
    for draw in range(draws):
        if informative.all():
            break
        keys = jnp.asarray(keys_of_draw(batch.question_keys, draw))
        tokens = np.asarray(StandInStep().sample(state, batch.prompt, keys)[0].rollouts.tokens)
        used += 1
        for s, q in np.ndindex(S, Q):
            earned = tokens[s, q, :, 0] <= 6
            if draw == 0 or (not informative[s, q] and len(set(earned.tolist())) == 2):
                expected[s, q] = tokens[s, q]
            informative[s, q] |= len(set(earned.tolist())) == 2
    seen = np.asarray(run.step.seen[0][0].tokens)
    for (s, q), tokens in expected.items():
        np.testing.assert_array_equal(seen[s, q], tokens)
    row = run.rows()[0]
    assert used > 1 and row["draws"] == used
    assert row["zero_advantage_groups"] == (~informative).sum()


def test_dynamic_sampling_stops_when_enough_groups_are_informative(bench: Callable[..., Bench], tmp_path: Path) -> None:
    sampling = SamplingSettings(group=G, answer_tokens=R, max_draws=9, min_informative=0.01)
    run = bench(tmp_path / "run", config(steps=1, sampling=sampling))
    train(run.context, fresh_state(), StopRequest())
    assert run.rows()[0]["draws"] == 1


def not_finite_at(run: Bench, *updates: int, name: str = "grad_norm") -> None:
    """The stand-in's updates of these numbers are not finite, and leave the weights as they were."""
    update, count = run.step.update, itertools.count(1)

    def broken(state: TrainState, *given: Any) -> Any:
        new, metrics = update(state, *given)
        if next(count) not in updates:
            return new, metrics
        kept = new if name == "weight_norm" else dataclasses.replace(state, step=new.step)
        return kept, {**metrics, name: jnp.float32(jnp.nan)}

    run.step.update = broken  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize(("name", "says"), [("loss", "the loss is"), ("grad_norm", "the gradient is")])
def test_a_run_stops_at_the_first_number_that_is_not_finite_with_the_state_before_it(
    bench: Callable[..., Bench], tmp_path: Path, name: str, says: str
) -> None:
    whole = bench(tmp_path / "whole", config(steps=4))
    before, _ = train(whole.context, fresh_state(), StopRequest())
    run = bench(tmp_path / "run", config())
    not_finite_at(run, 5, name=name)
    with pytest.raises(NotFiniteError, match=f"^step 5: {says} not finite .*{name} nan.*checkpoints/4: .*run@4 and a"):
        train(run.context, fresh_state(), StopRequest())
    assert [row["step"] for row in run.rows()] == [1, 2, 3, 4, 5] and run.rows()[-1][name] is None
    assert run.context.checkpoints.steps == [4]
    saved = run.context.checkpoints.restore(4, fresh_state(), RECORD)
    assert int(saved.step) == 4
    np.testing.assert_array_equal(np.asarray(saved.trainable["w"]), np.asarray(before.trainable["w"]))


@pytest.mark.slow
def test_the_state_before_it_is_saved_also_where_no_checkpoint_was_due(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config())
    not_finite_at(run, 3)
    with pytest.raises(NotFiniteError, match=r"run/checkpoints/2: start from it with --model \S+/run@2"):
        train(run.context, fresh_state(), StopRequest())
    again = bench(tmp_path / "run", config(), first=2)
    restored = again.context.checkpoints.restore(2, fresh_state(), RECORD)
    resumed, _ = train(again.context, restored, StopRequest(), first=2)
    whole = bench(tmp_path / "whole", config())
    final, _ = train(whole.context, fresh_state(), StopRequest())
    np.testing.assert_array_equal(np.asarray(resumed.trainable["w"]), np.asarray(final.trainable["w"]))
    assert without_times(again.rows()) == without_times(whole.rows())


@pytest.mark.parametrize(("first_step", "changes"), [(1, {}), (2, {"name": "weight_norm"})])
def test_a_state_that_is_not_finite_is_never_saved(
    bench: Callable[..., Bench], tmp_path: Path, first_step: int, changes: dict[str, str]
) -> None:
    run = bench(tmp_path / "run", config(intervals=IntervalSettings(checkpoint=2)))
    not_finite_at(run, first_step, **changes)
    with pytest.raises(NotFiniteError, match=f"^step {first_step}: .*there is no checkpoint yet; try a lower"):
        train(run.context, fresh_state(), StopRequest())
    assert run.context.checkpoints.steps == []


def test_updates_that_are_not_finite_are_left_out_and_counted_where_that_is_allowed(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    run = bench(tmp_path / "run", config(update=UpdateSettings(skip_not_finite=2)))
    not_finite_at(run, 2, 3, 5)
    state, reason = train(run.context, fresh_state(), StopRequest())
    assert reason == "all steps" and int(state.step) == 6
    assert [row["updates_left_out"] for row in run.rows()] == [0, 1, 2, 2, 3, 3]
    rates = [1e-5 * (1 - taken / 6) for taken in (0, 1, 1, 1, 2, 2)]  # the schedule goes by updates that were made
    assert [row["learning_rate"] for row in run.rows()] == pytest.approx(rates)
    lines = run.output.getvalue()
    assert "warning: step 3: the gradient is not finite (grad_norm nan); its update is left out (2 in a row" in lines


def test_more_in_a_row_than_allowed_end_the_run(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(update=UpdateSettings(skip_not_finite=2)))
    not_finite_at(run, 2, 3, 4)
    with pytest.raises(NotFiniteError, match=r"^step 4: .*checkpoints/3"):
        train(run.context, fresh_state(), StopRequest())


def test_a_trace_of_some_steps_names_their_phases(bench: Callable[..., Bench], tmp_path: Path) -> None:
    run = bench(tmp_path / "run", config(steps=3, logging=LoggingSettings(trackers=(), profile="2:2")))
    train(run.context, fresh_state(), StopRequest())
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    written = trace.read_bytes()
    for phase in (b"sample", b"reference", b"reward", b"update", b"train"):
        assert phase in written
    assert "trace of steps 2:2 in " in run.output.getvalue()
    with pytest.raises(InputError, match=r"logging\.profile 4:5: the run has 3 steps"):
        config(steps=3, logging=LoggingSettings(profile="4:5"))
    with pytest.raises(InputError, match=r"logging\.profile '5:4': expected FIRST:LAST"):
        LoggingSettings(profile="5:4")


@pytest.mark.parametrize(
    ("woken", "reference", "update", "not_hidden"),
    [(3, 2, 4, 1), (4.5, 3.5, 4, 0), (7, 6, 2, 0), (12, 8, 0, 0)],
    ids=["while rewards were computed", "before the update", "in the update", "when the update had ended"],
)
def test_an_update_s_own_seconds_begin_when_the_reference_is_there(
    monkeypatch: pytest.MonkeyPatch, woken: float, reference: float, update: float, not_hidden: float
) -> None:
    times = iter([1, 2, 4, 5, 9])  # reference dispatched, reward from 2 to 4, update from 5 to 9
    clock_of_the_test = types.SimpleNamespace(perf_counter=lambda: next(times), monotonic=time.monotonic)
    monkeypatch.setattr(step_context, "time", clock_of_the_test)  # other threads keep their own
    seen: concurrent.futures.Future[float] = concurrent.futures.Future()
    seen.set_result(woken)
    monkeypatch.setattr(step_context, "_when_ready", lambda logprobs: seen)
    clock = PhaseClock()
    clock.reference_starts(jnp.zeros(1))
    with clock("reward"):
        pass
    with clock("update"):
        pass
    assert clock.finish() == {"reward": 2, "reference": reference, "update": update, "reward_not_hidden": not_hidden}


def test_a_phase_that_does_not_end_is_said_once_for_each_time_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, said, enough = PhaseClock(), list[str](), threading.Event()
    where = Standing(clock, step=7)

    def say() -> None:
        said.append(where.line())
        if len(said) == 3:
            enough.set()

    monkeypatch.setattr(stop_signals, "say_where", say)
    with clock("sample"), where.watched(0.001 / 60):
        assert stop_signals.standing[-1]() == "step 7: in sample for 0 s"
        assert enough.wait(30)
    assert set(said) == {"step 7: in sample for 0 s"} and stop_signals.standing == []


def test_rows_have_throughput_and_memory_of_a_device(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [types.SimpleNamespace(memory_stats=lambda peak=peak: {"peak_bytes_in_use": peak}) for peak in (1, 2**31)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    run = bench(tmp_path / "run", config(steps=1))
    train(run.context, fresh_state(), StopRequest())
    (row,) = run.rows()
    assert row["memory_gib_per_device"] == 2.0 and row["tokens_per_second_per_device"] == row["tokens_per_second"]
