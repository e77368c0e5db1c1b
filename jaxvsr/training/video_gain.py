"""Does the model look? The same questions are answered about another scene's video, and the rewards compared.

`video_gain` is the mean reward with the scene's own video minus that with another's. A model that answers from the
question alone has a gain of zero, however high its reward.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import deque

import jax
import numpy as np
from jaxtyping import Float

from jaxvsr.config.train_config import TrainConfig
from jaxvsr.errors import InputError
from jaxvsr.grpo.advantages import group_advantages
from jaxvsr.grpo.batches import HostBatch
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.rollouts import RewardedRollouts, reward_rollouts
from jaxvsr.grpo.step_context import StepContext

WINDOW = 5  # measurements that have to agree before a warning
NEAR_ZERO = 0.05  # of the reward's standard deviation

# The parts of a prompt that belong to the video; those of the questions stay.
_SCENE_PARTS = ("vision", "scene_tokens", "scene_length", "scene_positions", "vision_index", "question_start")


def with_other_videos(batch: HostBatch, *, paired: bool) -> HostBatch:
    """The batch with the videos of its scenes moved on by one; by two where a scene and its mirror image are paired."""
    shift = 2 if paired else 1
    parts = {
        name: jax.tree.map(lambda leaf: np.roll(np.asarray(leaf), shift, axis=0), getattr(batch.prompt, name))
        for name in _SCENE_PARTS
    }
    return dataclasses.replace(batch, prompt=dataclasses.replace(batch.prompt, **parts))


def check_video_gain(config: TrainConfig, scenes: int) -> None:
    """`InputError` where a process that holds so many scenes of a step has no other video for a question: said at the
    start, not when the gain is first measured.
    """
    least = 2 if config.data.mirror == "pairs" else 1
    if config.objective == "grpo" and config.intervals.video_gain and scenes <= least:
        raise InputError(
            f"intervals.video_gain: a process holds {scenes} scenes of a step, and needs more than {least} to show a "
            "question another video; take more data.scenes or fewer processes, or intervals.video_gain=0"
        )


def rewards_of_other_videos(run: StepContext, state: TrainState, batch: HostBatch) -> Float[np.ndarray, "K S Q G"]:
    """Rewards of rollouts of the batch's questions, each about another scene's video."""
    other = with_other_videos(batch, paired=run.config.data.mirror == "pairs")
    with run.clock("video_gain"):
        prompt, keys = run.scenes.place((other.prompt, other.question_keys))
        return reward_rollouts(run, batch, run.compiled.sample(state, prompt, keys)[0]).rewards


def video_gain(run: StepContext, step: RewardedRollouts, elsewhere: Float[np.ndarray, "K S Q G"]) -> float:
    """Mean reward of a step's rollouts less that of rollouts about other videos.

    Of the step the first draw counts: draws that were kept for being informative earn more, or less, for that reason.
    """
    return mean_reward(run, step.first_rewards) - mean_reward(run, elsewhere)


def mean_reward(run: StepContext, rewards: Float[np.ndarray, "K S Q G"]) -> float:
    """Mean of the weighted sum over the rollouts of all processes, without corrections; NaN where none applies."""
    weights = [reward.weight for reward in run.rewards]
    return group_advantages(rewards, weights, run.config.advantages).metrics.get("reward/mean", math.nan)


class VideoGainWatch:
    """Warns once when the gain has been near zero for long, and again only after it has been above that."""

    def __init__(self, config: TrainConfig):
        self._every = config.intervals.video_gain
        self._last: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._warned = False

    def due(self, step: int) -> bool:
        """Whether the gain is measured in this step (from 1)."""
        return self._every > 0 and step % self._every == 0

    def warning(self, gain: float, deviation: float) -> str | None:
        """What to say after another measurement; `deviation` is the reward's standard deviation in that step."""
        self._last.append((gain, deviation))
        if len(self._last) < WINDOW or any(math.isnan(value) for pair in self._last for value in pair):
            return None
        mean, spread = (statistics.fmean(values) for values in zip(*self._last, strict=True))
        near_zero = mean <= NEAR_ZERO * spread
        if not near_zero or self._warned:
            self._warned = near_zero
            return None
        self._warned = True
        return (
            f"warning: video_gain {mean:.3g} over the last {WINDOW} measurements, where the reward spreads by "
            f"{spread:.3g}: with another scene's video the answers are as good, so the model barely uses the video"
        )
