"""A policy in Python: load it, sample from it, reward, update, save.

    policy = jaxvsr.load("rooms-base")                       a model on the devices, with an adapter to train
    state = policy.start(seed=0)                             all that training changes
    batch = policy.batch([jaxvsr.Scene(frames, questions, answers)])
    rollouts = policy.sample(state, batch, group=8)          texts, tokens, log-probabilities
    rewards = policy.reward(batch, rollouts, function)       a number per rollout
    state, metrics = policy.update(state, batch, rollouts, rewards, jaxvsr.Objective(beta=0.01))

Nothing here changes what it is given: a state can be used again, and a cell of a notebook run twice.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from jaxvsr.api.scenes_in_memory import Scene
from jaxvsr.config.algorithm import AdvantageRule, Objective
from jaxvsr.config.train_config import DataSettings, SamplingSettings, TrainConfig
from jaxvsr.data.loader import SceneBatch
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.mesh import scene_shards
from jaxvsr.devices.processes import SceneAxis
from jaxvsr.errors import InputError, NotFiniteError
from jaxvsr.grpo import phases
from jaxvsr.grpo.batches import BatchBuilder, HostBatch
from jaxvsr.grpo.compiled_step import CompiledStep, TrainState
from jaxvsr.grpo.objectives import token_mask
from jaxvsr.grpo.rollouts import RewardedRollouts, reward_columns
from jaxvsr.grpo.sampler import Sampled
from jaxvsr.grpo.step_context import PlacedBatch, StepContext
from jaxvsr.models.huggingface.stages import Stage
from jaxvsr.models.inputs.processor import SceneProcessor
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.tree import tree_logprobs
from jaxvsr.prompts import Prompt
from jaxvsr.rewards.registry import Reward, RewardFunction
from jaxvsr.rewards.scoring import score_completions
from jaxvsr.runs.model_source import Model
from jaxvsr.runs.trained_as import TrainedAs, trained_as
from jaxvsr.training.learnable import check_group, check_learning_rate
from jaxvsr.training.load_policy import LoadedPolicy, fresh_adapter
from jaxvsr.training.not_finite import what_is_not_finite


@dataclasses.dataclass(frozen=True, eq=False)
class Rollouts:
    """G sampled answers to every question of S scenes. An update learns from `sampled`; the rest is for reading."""

    texts: list[list[list[str]]]  # `[S][Q][G]`
    tokens: Int32[np.ndarray, "S Q G R"]
    length: Int32[np.ndarray, "S Q G"]  # tokens of each, its end-of-sequence token included
    logprobs: Float[np.ndarray, "S Q G R"]  # of each token when it was drawn; 0 after the end
    truncated: Bool[np.ndarray, "S Q G"]  # without an end-of-sequence token
    settings: SamplingSettings
    sampled: Sampled  # the same on the devices
    placed: PlacedBatch  # the batch with its vision features

    @property
    def flat_texts(self) -> list[str]:
        """All S·Q·G texts in order."""
        return [text for scene in self.texts for group in scene for text in group]


class Policy:
    """A model on the devices, and what is trained of it. It holds nothing that training changes: that is the state."""

    def __init__(self, loaded: LoadedPolicy, prompt: Prompt):
        # Only what concerns the model: how a run chose scenes, rewards and updates is no matter of its policy.
        given = loaded.config
        data = DataSettings(prompt=given.data.prompt, max_pixels=given.data.max_pixels)
        self.config = TrainConfig(
            steps=given.steps, seed=given.seed, model=given.model, lora=given.lora, optimizer=given.optimizer, data=data
        )
        self.prompt, self._loaded = prompt, dataclasses.replace(loaded, config=self.config)
        self._steps: dict[Any, CompiledStep] = {}
        self._logprobs: CompiledFunction | None = None

    @property
    def model(self) -> Model:
        """The model that the policy starts from."""
        return self._loaded.model

    @property
    def processor(self) -> SceneProcessor:
        """Text and pictures to tokens and patches, and back."""
        return self._loaded.processor

    def start(self, seed: int = 0) -> TrainState:
        """The state before training: a fresh adapter from the seed (or the model's own weights), and its optimizer."""
        loaded, config = self._loaded, dataclasses.replace(self.config, seed=seed)
        if config.lora is not None:
            trainable = fresh_adapter(loaded.model, config.lora, seed, loaded.mesh)
        else:  # from the files: a run may have taken the memory of the weights that it started from
            shardings = loaded.model.shardings(loaded.mesh)
            wanted = {name: shardings[name] for name in loaded.trainable}
            trainable = loaded.model.parameters(wanted, np.dtype(np.float32))
        return dataclasses.replace(loaded, config=config, trainable=trainable).start()

    def batch(self, scenes: Sequence[Scene]) -> HostBatch:
        """Arrays of S scenes, all with the same number of questions.

        Raises:
            InputError: numbers of questions differ, or S does not divide over the mesh.
        """
        counts = sorted({len(scene.questions) for scene in scenes})
        if len(counts) != 1:
            raise InputError(f"scenes with {counts} questions: a batch takes the same number, at least one, of each")
        shards = scene_shards(self._loaded.mesh)
        if len(scenes) % shards:
            raise InputError(f"{len(scenes)} scenes: the mesh splits them over {shards} devices; take a multiple of it")
        samples = tuple(scene.sample(f"scene-{index}") for index, scene in enumerate(scenes))
        return BatchBuilder(self.processor, self.prompt, "grpo", 1)(SceneBatch(0, samples))

    def sample(
        self,
        state: TrainState,
        batch: HostBatch,
        *,
        group: int = 8,
        answer_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> Rollouts:
        """`group` rollouts of every question, on the scene tree.

        Random numbers belong to (seed and step of the state, question, rollout): the same state gives the same answers.

        Args:
            answer_tokens: the most tokens of an answer; None: what the prompt is made for.
            temperature: logits are divided by it, in `update` too.
        """
        settings = SamplingSettings(
            group=group,
            answer_tokens=answer_tokens or self.prompt.max_answer_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        run = self._context(batch, sampling=settings)
        sampled, placed = phases.sample(run, state, phases.place(run, batch))
        host = jax.device_get(sampled)
        return Rollouts(
            self.processor.decode(host.rollouts),
            host.rollouts.tokens,
            host.rollouts.length,
            host.logprobs,
            host.truncated,
            settings,
            sampled,
            placed,
        )

    def reward(
        self, batch: HostBatch, rollouts: Rollouts, reward: RewardFunction | Reward
    ) -> Float[np.ndarray, "S Q G"]:
        """What a reward function gives each rollout, called as `train` calls it; NaN where it gives None.

        Raises:
            InputError: the function raises, or returns something other than a number or None per completion.
        """
        columns = reward_columns(batch, rollouts.settings.group, self.prompt.render)
        texts = [self.prompt.without_thought(text) for text in rollouts.flat_texts]
        return score_completions([named(reward)], texts, columns).reshape(rollouts.length.shape)

    def update(
        self,
        state: TrainState,
        batch: HostBatch,
        rollouts: Rollouts,
        rewards: Any,
        objective: Objective | None = None,
        advantages: AdvantageRule | None = None,
    ) -> tuple[TrainState, dict[str, float]]:
        """One optimizer step; the given state stays as it was.

        Args:
            rewards: one number per rollout, `[S][Q][G]` as `rollouts.texts`; None or NaN where none applies.
            objective: which GRPO; None is TRL's default, `Objective()`.
            advantages: how rewards are compared; None divides by the standard deviation of the group.

        Returns:
            The new state, and the metrics of the step as in metrics.jsonl.

        Raises:
            InputError: rewards, rollouts or objective do not fit.
            NotFiniteError: the loss, the gradient or a weight is not finite.
        """
        given = np.array(rewards, np.float64)
        if given.shape != rollouts.length.shape:
            expected = " x ".join(map(str, rollouts.length.shape))
            raise InputError(f"rewards of shape {list(given.shape)}: must be one number per rollout, {expected}")
        check_group(rollouts.settings.group)
        check_learning_rate(self.config.optimizer)
        objective = objective or Objective()
        if objective.beta and self.config.lora is None and self._loaded.policy.reference is None:
            raise InputError(
                f"beta {objective.beta}: there is no reference policy; load the policy with reference=True"
            )
        if not np.array_equal(np.asarray(rollouts.placed.question_keys), batch.question_keys):
            raise InputError("rollouts: are of another batch than the one that is given")
        run = self._context(
            batch,
            sampling=rollouts.settings,
            grpo=objective,
            advantages=advantages or AdvantageRule(),
        )
        rewarded = RewardedRollouts(rollouts.flat_texts, given[None], rollouts.length, rollouts.truncated, given[None])
        reference = phases.reference(run, rollouts.placed, rollouts.sampled.rollouts)
        scored = phases.score(run, batch, rewarded)
        state, metrics = phases.update(run, state, rollouts.placed, rollouts.sampled, reference, scored)
        if (broken := what_is_not_finite(metrics)) is not None:
            raise NotFiniteError(f"update: {broken}; the state that was given is as it was")
        tokens = phases.token_metrics(run, batch, rollouts.length, rollouts.settings.answer_tokens)
        return state, {**metrics, **scored.metrics, **tokens}

    def answer(self, state: TrainState, video: Any, question: str, *, answer_tokens: int | None = None) -> str:
        """The greedy answer to one question about a video, as `Scene` takes it."""
        return self.answers(state, [Scene(video, [question])], answer_tokens=answer_tokens)[0][0]

    def answers(
        self, state: TrainState, scenes: Iterable[Scene], *, answer_tokens: int | None = None, batch_size: int = 8
    ) -> list[list[str]]:
        """Greedy answers to all questions, `[scene][question]`; scenes may have different numbers of questions.

        Args:
            batch_size: scenes that are on the devices at a time.
        """
        answered = self.answered(state, scenes, answer_tokens=answer_tokens, batch_size=batch_size)
        return [texts for _, texts in answered]

    def answered(
        self, state: TrainState, scenes: Iterable[Scene], *, answer_tokens: int | None = None, batch_size: int = 8
    ) -> Iterator[tuple[Scene, list[str]]]:
        """Scene after scene with its `answers`, for scenes that are not all in memory."""
        shards = scene_shards(self._loaded.mesh)
        settings = SamplingSettings(group=1, answer_tokens=answer_tokens or self.prompt.max_answer_tokens)
        remaining, size, questions = iter(scenes), 0, 0
        while part := list(itertools.islice(remaining, batch_size)):
            # Sizes only grow: the last scenes are filled up, so that they need no program of their own.
            size = max(size, len(part) + -len(part) % shards)
            questions = max(questions, *(len(scene.questions) for scene in part))
            filled = [_with_questions(scene, questions) for scene in part]
            batch = self.batch(filled + filled[:1] * (size - len(part)))
            run = self._context(batch, sampling=settings, greedy=True)
            sampled, _ = phases.sample(run, state, phases.place(run, batch))
            texts = self.processor.decode(jax.device_get(sampled.rollouts))
            for scene, groups in zip(part, texts, strict=False):
                yield scene, [self.prompt.completion(group[0]) for group in groups[: len(scene.questions)]]

    def logprobs(
        self, state: TrainState, batch: HostBatch, answers: Sequence[Sequence[Sequence[str]]], temperature: float = 1.0
    ) -> tuple[Float[np.ndarray, "S Q G R"], Bool[np.ndarray, "S Q G R"]]:
        """Log-probability of each token of given answers `[S][Q][G]`, and which of the R positions are real tokens."""
        rollouts = self.processor.encode_answers(answers)
        axis = SceneAxis(self._loaded.mesh, len(batch.questions))
        prompt, on_mesh = axis.place((batch.prompt, rollouts))
        if self._logprobs is None:
            definition = model_definition(self.model.config, self.config.lora)
            forward = self._step(self.config.sampling).forward

            def program(trainable: Any, frozen: Any, prompt: Any, rollouts: Any, temperature: Any) -> Array:
                model = bind(definition, {**frozen, **trainable})
                return tree_logprobs(model, prompt, rollouts, temperature, forward)[0]

            self._logprobs = CompiledFunction("logprobs", program, mesh=self._loaded.mesh)
        frozen = self._loaded.policy.frozen
        values = self._logprobs(state.trainable, frozen, prompt, on_mesh, jnp.float32(temperature))
        mask = token_mask(np.asarray(rollouts.length), rollouts.tokens.shape[-1])
        return np.where(mask, np.asarray(values), 0), mask

    def save(self, state: TrainState, out: str | Path, *, adapter: bool = False) -> Path:
        """A Hugging Face folder with the adapter merged in, or (`adapter`) a PEFT folder with the adapter alone.

        Raises:
            InputError: `out` is there already, or full weights are to be an adapter.
        """
        from jaxvsr.models.huggingface.peft_adapter import join, save_adapter
        from jaxvsr.models.huggingface.write_model_folder import save_folder

        out, lora = Path(out), self.config.lora
        stage = Stage({name: np.asarray(leaf) for name, leaf in state.trainable.items()}, lora)
        model = dataclasses.replace(self.model, stages=(*self.model.stages, stage))
        model.check_in_full()
        start = trained_as(self.config.model.path, self.config.model.revision) or TrainedAs(self.prompt)
        max_pixels = self.config.data.max_pixels or start.max_pixels
        asked = dataclasses.replace(start, prompt=self.prompt, max_pixels=max_pixels)
        texts = asked.export_files(model.folder, adapter=adapter)
        if not adapter:
            save_folder(out, model.folder, model.weight, texts, model.changed)
        elif any(one.lora is None for one in model.stages):
            raise InputError("adapter=True: full weights were trained, which no adapter holds; leave it out")
        else:
            adapted, processor = join(model.stages), model.folder.path
            save_adapter(out, adapted, model.config, model.base, texts, model.revision, processor)
        return out

    def _step(self, sampling: SamplingSettings, grpo: Objective | None = None, *, greedy: bool = False) -> CompiledStep:
        """The compiled step of these settings, compiled once."""
        key = (sampling, grpo, greedy)
        if key not in self._steps:
            config = dataclasses.replace(self.config, sampling=sampling, grpo=grpo or self.config.grpo)
            loaded = dataclasses.replace(self._loaded, config=config)
            penalty = self.processor.chat.generation.repetition_penalty if greedy else 1.0  # as `launch/evaluate.py`
            self._steps[key] = loaded.step(greedy=greedy, repetition_penalty=penalty, donate_state=False)
        return self._steps[key]

    def _context(
        self, batch: HostBatch, *, sampling: SamplingSettings, greedy: bool = False, **settings: Any
    ) -> StepContext:
        scenes, questions = len(batch.questions), len(batch.questions[0])
        data = dataclasses.replace(self.config.data, scenes=scenes, questions=questions)
        config = dataclasses.replace(self.config, data=data, sampling=sampling, **settings)
        return StepContext(
            config=config,
            compiled=self._step(sampling, settings.get("grpo"), greedy=greedy),
            scenes=SceneAxis(self._loaded.mesh, scenes),
            decode=self.processor.texts,
            rewards=(Reward("given", lambda **_: []),),
            prompt_text=self.prompt.render,
            thought_tag=self.prompt.thought_tag,
        )


def _with_questions(scene: Scene, count: int) -> Scene:
    """The scene with its last question repeated until it has so many."""
    missing = count - len(scene.questions)
    if not missing:
        return scene
    options = None if scene.options is None else [*scene.options, *[scene.options[-1]] * missing]
    questions = [*scene.questions, *[scene.questions[-1]] * missing]
    return dataclasses.replace(scene, questions=questions, answers=None, options=options, question_types=None)


def named(reward: RewardFunction | Reward) -> Reward:
    """A function as the reward of its own name."""
    return reward if isinstance(reward, Reward) else Reward(getattr(reward, "__name__", "reward"), reward)
