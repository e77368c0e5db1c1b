"""Which held-out questions are scored: as many as are asked for, or all that the data folders have, each once."""

import functools
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvsr.config.train_config import DataSettings, EvaluationSettings, TrainConfig
from jaxvsr.data.loader import Schedule
from jaxvsr.data.questions import Question
from jaxvsr.data.scene_pools import AskedScene, ScenePool
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import MeshShape
from jaxvsr.devices.processes import SceneAxis
from jaxvsr.grpo.batches import question_key
from jaxvsr.grpo.compiled_step import CompiledStep
from jaxvsr.training.heldout import HeldOut
from tests.support.runs import fresh_state


def pool(folder: str, *counts: int) -> ScenePool:
    """A folder with a scene for each number, of so many questions."""
    scenes = []
    for index, count in enumerate(counts):
        name = f"scene{index:02}"
        ids = [f"{name}/{q}" for q in range(count)]
        asked = (Question(one, name, "object_counting", f"{folder}: how many?", None, "1", "number") for one in ids)
        scenes.append(AskedScene(name, tuple(asked)))
    return ScenePool(Path(folder), 1.0, tuple(scenes))


class Batches:
    """What a schedule asks in these steps, without frames."""

    def __init__(self, schedule: Schedule, steps: Sequence[int]) -> None:
        self.schedule, self.steps = schedule, iter(steps)

    def __next__(self) -> Any:
        asked = tuple(scene.questions for scene in self.schedule.step_scenes(next(self.steps)))
        keys = np.array([[question_key(question.id) for question in scene] for scene in asked], np.uint32)
        return types.SimpleNamespace(prompt=np.zeros(len(asked)), question_keys=keys, questions=asked)

    def close(self) -> None:
        pass


class KeyAsAnswer(CompiledStep):
    """Answers each question with its key."""

    def __init__(self) -> None:
        self.sampled = 0

    def sample(self, state: Any, prompt: Any, keys: jax.Array) -> Any:
        self.sampled += 1
        tokens = keys[..., None, None]
        return types.SimpleNamespace(
            rollouts=types.SimpleNamespace(tokens=tokens, length=jnp.ones(tokens.shape[:3], int))
        ), None


def scored(schedule: Schedule, wanted: int) -> tuple[list[Question], list[str], str, int]:
    """Questions, answers, what was said, and how often was sampled."""
    config = TrainConfig(
        data=DataSettings(scenes=schedule.scenes, questions=schedule.questions),
        evaluation=EvaluationSettings(questions=wanted),
    )
    said, step = list[str](), KeyAsAnswer()
    heldout = HeldOut(
        config,
        schedule,
        functools.partial(Batches, schedule),  # type: ignore[arg-type]
        step,
        SceneAxis(make_mesh(MeshShape(), jax.devices()[:1]), schedule.scenes),
        lambda tokens: str(tokens[0]),
        lambda questions, answers: {"overall": 1.0},
        said.append,
    )
    questions, answers = heldout.answer(fresh_state())
    heldout.scores(questions, answers)
    return questions, answers, "\n".join(said), step.sampled


@pytest.mark.parametrize(
    ("pools", "side", "wanted", "there"),
    [
        ((pool("x", 2, 40),), 2, 10, 10),
        ((pool("x", *[4] * 8, *[40] * 8),), 4, 128, 128),
        ((pool("x", 8, 8), pool("y", 8, 8)), 4, 32, 32),
        ((pool("x", 2, 40),), 2, 64, 42),
        ((pool("x", 5, 7, 4), pool("y", 6, 4)), 4, 1000, 26),
    ],
    ids=["few beside many", "half with few", "two folders with the same ids", "fewer than wanted", "all of all"],
)
def test_as_many_questions_are_scored_as_wanted_or_all_that_there_are(
    pools: tuple[ScenePool, ...], side: int, wanted: int, there: int
) -> None:
    questions, answers, said, _ = scored(Schedule(pools, side, side, 0), wanted)
    assert len({(question.question, question.id) for question in questions}) == len(questions) == there
    assert answers == [str(question_key(question.id)) for question in questions]
    lacking = f"evaluation.questions={wanted}: only {there} questions exist in split heldout; scoring those"
    assert said == (lacking if there < wanted else "")


def test_steps_that_bring_no_new_question_are_not_sampled() -> None:
    schedule = Schedule((pool("x", 40, *[2] * 7),), 2, 2, 0)
    questions, _, _, sampled = scored(schedule, 54)
    assert len(questions) == 54
    assert sampled < 40  # a step in four has the large scene, which is through after twenty of them
