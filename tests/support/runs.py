"""A run of the training loop on a stand-in for the compiled step: its settings, batches, rewards and folder."""

import dataclasses
import io
import json
import types
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvsr.config.algorithm import Objective
from jaxvsr.config.train_config import (
    DataSettings,
    IntervalSettings,
    LoggingSettings,
    SamplingSettings,
    TrainConfig,
)
from jaxvsr.data.questions import Question
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.devices.processes import SceneAxis
from jaxvsr.files import read_rows
from jaxvsr.grpo.batches import HostBatch, question_key
from jaxvsr.grpo.compiled_step import CompiledStep, LossInputs, TrainState, start_state
from jaxvsr.grpo.compiled_step import _choose as step_choose
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.step_context import StepContext
from jaxvsr.models.tree_batch import RolloutTokens, TreePrompt, VisionInput
from jaxvsr.rewards.registry import Reward
from jaxvsr.runs.checkpoints import Checkpoints, RunRecord
from jaxvsr.runs.metrics_log import MetricsLog
from jaxvsr.runs.run_folder import RunFolder, make_run_folder
from jaxvsr.training.console import CompileTimes, Console
from jaxvsr.training.run_context import RunContext

S, Q, G, R, V, T = 2, 3, 4, 5, 6, 4
OPTIMIZER = optax.adam(0.1)
RECORD = RunRecord("tiny", "/tiny", None, "5" * 64)

# What a training by the command takes in a folder that has `tiny`, `data` and a reward file `score.py`.
TINY_RECIPE = """
model: {path: tiny}
lora: {rank: 4, alpha: 8}
data: {folders: [data], scenes: 2, questions: 2, frames: 2, prompt: question}
sampling: {group: 3, answer_tokens: 4}
rewards: [score.py:vowels]
"""


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "steps": 6,
        "data": DataSettings(scenes=S, questions=Q),
        "sampling": SamplingSettings(group=G, answer_tokens=R),
        "grpo": Objective(beta=0.01),
        "intervals": IntervalSettings(checkpoint=4, samples=2),
        "logging": LoggingSettings(trackers=(), sample_questions=3, line_seconds=0.0),
    }
    return TrainConfig(**{**settings, **changes})


def batch_of(step: int) -> HostBatch:
    """Another batch for each step, the same each time."""
    rng = np.random.default_rng(step)
    questions = tuple(
        tuple(
            Question(f"{step}/{s}/{q}", f"scene{s}", "object_counting", f"How many {q}?", None, str(q), "number")
            for q in range(Q)
        )
        for s in range(S)
    )
    prompt = TreePrompt(
        vision=VisionInput(
            np.zeros((S, 1, 4, 3), np.uint8), np.ones((S, 1, 4), bool), np.zeros((S, 1, 4, 2), np.int32)
        ),
        scene_tokens=rng.integers(0, 50, (S, V)).astype(np.int32),
        scene_length=np.array([V, V - 2], np.int32),
        scene_positions=np.zeros((S, V, 3), np.int32),
        vision_index=np.full((S, V), -1, np.int32),
        question_start=np.full(S, V, np.int32),
        question_tokens=np.zeros((S, Q, T), np.int32),
        question_length=np.full((S, Q), T - 1, np.int32),
    )
    keys = np.array([[question_key(question.id) for question in scene] for scene in questions], np.uint32)
    return HostBatch(step, prompt, keys, questions)


def as_a_program(method: Callable[..., Any]) -> Callable[..., Any]:
    """Inside of a compiled program nothing is copied from the host, whatever JAX does line by line."""

    def program(*args: Any) -> Any:
        with jax.transfer_guard("allow"):
            return method(*args)

    return program


class StandInStep(CompiledStep):
    """Draws tokens that depend on weights, seed, step and question, and moves the weights by what it is given."""

    def __init__(self) -> None:
        self.functions: Any = [types.SimpleNamespace(name="update", seconds=0.0, compiled={}, on_compile=None)]
        self.seen: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return as_a_program(found) if name in ("sample", "reference", "encode", "choose", "update") else found

    @property
    def compile_count(self) -> int:
        return len(self.functions[0].compiled)

    @property
    def compile_seconds(self) -> float:
        return self.functions[0].seconds

    def sample(self, state: TrainState, prompt: TreePrompt, keys: jax.Array) -> tuple[Sampled, TreePrompt]:
        noise = jax.random.uniform(jax.random.fold_in(jax.random.key(state.seed), state.step), (S, Q, G, R))
        mixed = state.trainable["w"] + noise + (keys[..., None, None] % 7) / 7
        tokens = jnp.floor(10 * (mixed % 1)).astype(jnp.int32)
        length = 1 + tokens[..., 0] % R
        logprobs = -jnp.abs(noise) * state.trainable["w"]
        return Sampled(RolloutTokens(tokens, length), logprobs, length == R), self.encode(state, prompt)

    def reference(self, prompt: TreePrompt, rollouts: RolloutTokens) -> jax.Array:
        return -0.1 * jnp.asarray(rollouts.tokens, jnp.float32)

    def encode(self, state: TrainState, prompt: TreePrompt) -> TreePrompt:
        return prompt.with_features(jnp.zeros((S, 2, 8)))

    def choose(self, again: jax.Array, drawn_again: Sampled, sampled: Sampled) -> Sampled:
        return step_choose(again, drawn_again, sampled)

    def update(
        self, state: TrainState, prompt: TreePrompt, rollouts: RolloutTokens, inputs: LossInputs
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        function = self.functions[0]
        if not function.compiled:
            function.on_compile("update", 1)
            function.compiled["bucket"], function.seconds = None, 2.0
        self.seen.append((rollouts, inputs))
        taken = rollouts.tokens[..., 0]
        if inputs.questions is not None:
            taken = jnp.take_along_axis(taken, inputs.questions[..., None], axis=1)
        signal_here = jnp.ones(()) if inputs.advantages is None else jnp.sum(inputs.advantages * taken)
        gradients = {"w": jnp.cos(signal_here + state.trainable["w"])}
        updates, optimizer = OPTIMIZER.update(gradients, state.optimizer)
        state = TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), optimizer, state.seed)
        return state, {
            "loss": jnp.sum(state.trainable["w"]),
            "grad_norm": jnp.abs(gradients["w"]),
            "kl": jnp.float32(0),
            "entropy": inputs.mask.sum() / inputs.normaliser.updated_tokens,
        }


def word_count(completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
    return [float(text.count(right)) if right != "2" else None for text, right in zip(completions, answer, strict=True)]


def length_reward(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def scores_of(rollouts: RolloutTokens) -> np.ndarray:
    """[2, S, Q, G]: what the two rewards of `open_bench` give, from the tokens."""
    tokens, length = np.asarray(rollouts.tokens), np.asarray(rollouts.length)
    scores = np.full((2, S, Q, G), np.nan)
    for s, q, g in np.ndindex(S, Q, G):
        text = " ".join(str(token) for token in tokens[s, q, g, : length[s, q, g]])
        scores[0, s, q, g] = text.count(str(q)) if q != 2 else np.nan
        scores[1, s, q, g] = len(text)
    return scores


def real_tokens(length: np.ndarray) -> int:
    """Tokens of a step that are no padding, with rollouts of these lengths."""
    return V + V - 2 + S * Q * (T - 1) + int(length.sum())


@dataclasses.dataclass
class Bench:
    """A run in a folder, ready to go on."""

    folder: RunFolder
    context: RunContext
    step: StandInStep
    output: io.StringIO

    def with_rewards(self, *rewards: Reward) -> RunContext:
        """The run with other rewards."""
        return dataclasses.replace(self.context, step=dataclasses.replace(self.context.step, rewards=rewards))

    def rows(self) -> list[dict[str, Any]]:
        return list(read_rows(self.folder.metrics))


def open_bench(
    path: Path,
    settings: TrainConfig,
    *,
    first: int = 0,
    batches: Callable[[int], Generator[HostBatch, None, None]] | None = None,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
) -> Bench:
    folder = make_run_folder(path, settings)
    step, output = StandInStep(), io.StringIO()
    console = Console(settings.steps, done=first, line_seconds=settings.logging.line_seconds, stream=output)
    step_context = StepContext(
        config=settings,
        compiled=step,
        scenes=SceneAxis(make_mesh(MeshShape(), jax.devices()[:1]), S),
        decode=lambda tokens, length: [" ".join(map(str, row[:n])) for row, n in zip(tokens, length, strict=True)],
        rewards=(Reward("words", word_count, 2.0), Reward("length", length_reward, 0.5)),
        prompt_text=lambda question: f"<{question.question}>",
    )
    context = RunContext(
        step=step_context,
        batches=batches or (lambda start: (batch_of(number) for number in range(start, 10_000))),
        record=RECORD,
        checkpoints=Checkpoints(folder.checkpoints, keep=settings.intervals.keep),
        console=console,
        compile_times=CompileTimes(console, path.parent / "cache" / "seconds.json", "tiny"),
        log=MetricsLog(folder, settings, restored_step=first),
        evaluate=evaluate,
    )
    return Bench(folder, context, step, output)


def fresh_state() -> TrainState:
    return start_state({"w": jnp.float32(0.3)}, OPTIMIZER, seed=11)


def first_token_reward(completions: list[str], **columns: Any) -> list[float]:
    """1 for answers that begin with 0 to 6: about one group of four in five is informative, or fewer."""
    return [float(text[0] in "0123456") for text in completions]


TIMES = ("seconds/", "host_seconds/", "slowest_process", "tokens_per_second", "compile_")


def without_times(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics with what may differ between two equal runs left out."""
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]


def result_of(run: Path) -> tuple[Any, ...]:
    """What a training has made: rows without times, samples, and the digests of all arrays of its last checkpoint."""
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir())  # ValueError: something half written
    saved = json.loads((run / "checkpoints" / str(steps[-1]) / "_CHECKPOINT_METADATA").read_bytes())
    rows = without_times(read_rows(run / "metrics.jsonl"))
    partial = [path.name for path in run.glob("**/*.partial")]
    return steps, saved["custom_metadata"]["digests"], rows, list(read_rows(run / "samples.jsonl")), partial
