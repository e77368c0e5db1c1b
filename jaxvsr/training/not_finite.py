"""Updates that are not finite: the run stops at the first, or leaves a few in a row out and counts them.

The compiled update leaves weights and optimizer as they were where its loss or gradient is not finite. So the state
after such an update is the one before it, and can be saved; only its number of updates has moved on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from jaxvsr.errors import NotFiniteError
from jaxvsr.grpo.compiled_step import TrainState
from jaxvsr.grpo.optimizer import updates_taken
from jaxvsr.training.run_context import RunContext

_WEIGHTS = "weight_norm"
_NAMES = {"loss": "the loss is", "grad_norm": "the gradient is", _WEIGHTS: "the weights are"}


def what_is_not_finite(metrics: Mapping[str, float]) -> str | None:
    """The first number of an update that is not finite, in words; None where all are.

    >>> what_is_not_finite({"loss": 0.5, "grad_norm": float("inf")})
    'the gradient is not finite (grad_norm inf)'
    """
    name = _first(metrics)
    return None if name is None else f"{_NAMES[name]} not finite ({name} {metrics[name]})"


def _first(metrics: Mapping[str, float]) -> str | None:
    return next((name for name in _NAMES if not math.isfinite(metrics.get(name, 0.0))), None)


class NotFiniteWatch:
    """Says after each step whether the run may go on."""

    def __init__(self, run: RunContext, first: int):
        self._run, self._first, self._in_a_row = run, first, 0

    def may_go_on(self, number: int, metrics: Mapping[str, float]) -> bool:
        """Whether all numbers of step `number` are finite, or its update may be left out, which is said."""
        broken, most = _first(metrics), self._run.config.update.skip_not_finite
        self._in_a_row = 0 if broken is None else self._in_a_row + 1
        if broken is None:
            return True
        if broken == _WEIGHTS or self._in_a_row > most:
            return False
        self._run.console.say(
            f"warning: step {number}: {what_is_not_finite(metrics)}; its update is left out ({self._in_a_row} in a "
            f"row, update.skip_not_finite allows {most})"
        )
        return True

    def left_out(self, state: TrainState) -> dict[str, float]:
        """Metric `updates_left_out`, how many in the run so far; none where none may be."""
        if not self._run.config.update.skip_not_finite:
            return {}
        return {"updates_left_out": float(int(state.step) - updates_taken(state.optimizer))}

    def error(self, number: int, metrics: Mapping[str, float], state: TrainState) -> NotFiniteError:
        """Why the run stops at step `number`, after the state before it is saved, where that is known."""
        run, saved = self._run, self._run.checkpoints
        last, was_weights = saved.latest, _first(metrics) == _WEIGHTS
        if not was_weights and run.config.update.inner_steps == 1 and number - 1 > self._first:
            last = number - 1
            saved.save(last, dataclasses.replace(state, step=state.step - 1), run.record, None)
        where, folder = f"step {number}: {what_is_not_finite(metrics)}", saved.folder.parent
        if last is None:
            return NotFiniteError(f"{where}, and there is no checkpoint yet; try a lower optimizer.learning_rate")
        way_out = f"start from it with --model {folder}@{last} and a lower optimizer.learning_rate"
        if not was_weights:
            way_out += ", or go on with --resume --set update.skip_not_finite=3"
        return NotFiniteError(f"{where}; the last finite checkpoint is {saved.folder}/{last}: {way_out}")
