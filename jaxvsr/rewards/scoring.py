"""All rewards of a batch of completions, and their means for the log."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxvsr.errors import InputError, described
from jaxvsr.rewards.registry import Reward


def score_completions(
    rewards: Sequence[Reward], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> Float[np.ndarray, "K N"]:
    """Each of K rewards of each of N completions, unweighted; NaN for None ("does not apply").

    Args:
        columns: the fields of the questions (answer, answer_kind, …), each a list of N.

    Raises:
        InputError: a reward raises, returns something other than N numbers, or nan or inf; it names reward and row.
    """
    for name, values in columns.items():
        if len(values) != len(completions):
            raise InputError(f"column {name!r} has {len(values)} rows for {len(completions)} completions")
    rows = [_score_one(reward, completions, columns) for reward in rewards]
    return np.array(rows, dtype=np.float64).reshape(len(rewards), len(completions))


def _call(reward: Reward, completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Any:
    """What the reward returns. It gets copies of the lists, so one that changes them does not affect the others."""
    returned = reward.function(
        completions=list(completions), **{name: list(values) for name, values in columns.items()}
    )
    return list(returned) if isinstance(returned, Iterator) else returned


def _score_one(reward: Reward, completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> list[float]:
    try:
        returned = _call(reward, completions, columns)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit() in a reward would end the run without a message
        where = _row_that_raises(reward, completions, columns)
        raise InputError(f"reward {reward.name!r} raised {described(error)} at {where}") from error
    try:
        if isinstance(returned, (str, bytes, Mapping, Set)):  # iterable, but not lists of numbers
            raise TypeError
        values = list(returned)
    except TypeError:
        found = type(returned).__name__
        raise InputError(f"reward {reward.name!r} returned {found}, not a list of {len(completions)} numbers") from None
    if len(values) != len(completions):
        first = min(len(values), len(completions))
        where = _row(first, columns) if first < len(completions) else f"row {first}, which does not exist"
        expected = f"{len(values)} values for {len(completions)} completions"
        raise InputError(f"reward {reward.name!r} returned {expected} (first wrong: {where})")
    scores = []
    for index, value in enumerate(values):
        try:
            if isinstance(value, (str, bytes)):  # float() would read "1"
                raise TypeError
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise InputError(f"reward {reward.name!r} returned {value!r} for {_row(index, columns)}") from None
        except OverflowError as error:
            raise InputError(f"reward {reward.name!r} returned an {error} for {_row(index, columns)}") from None
        if value is not None and not math.isfinite(number):
            raise InputError(
                f"reward {reward.name!r} returned {number} for {_row(index, columns)}; return None if it does not apply"
            )
        scores.append(number)
    return scores


def _row_that_raises(reward: Reward, completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> str:
    """The first row on which the reward raises when called with just that row; it may raise only on the whole batch."""
    for index, completion in enumerate(completions):
        try:
            _call(reward, [completion], {name: [values[index]] for name, values in columns.items()})
        except (Exception, SystemExit):
            return _row(index, columns)
    return f"no single row, only the batch of {len(completions)}"


def _row(index: int, columns: Mapping[str, Sequence[Any]]) -> str:
    return f"row {index}" + (f" (question {columns['id'][index]!r})" if "id" in columns else "")


def reward_metrics(
    rewards: Sequence[Reward], scores: Float[np.ndarray, "K N"], question_types: Sequence[str]
) -> dict[str, float]:
    """Means for the log: `reward/<name>` and `reward/<name>/<question type>`, without those that applied to no row."""
    types = np.array(question_types, dtype=object)
    metrics: dict[str, float] = {}
    for reward, row in zip(rewards, scores, strict=True):
        for suffix, chosen in [("", row), *((f"/{kind}", row[types == kind]) for kind in sorted(set(question_types)))]:
            known = chosen[np.isfinite(chosen)]
            if known.size:
                metrics[f"reward/{reward.name}{suffix}"] = float(known.mean())
    return metrics
