"""Rewards as a config writes them: terms, the weight first, options in brackets.

    vsgrpo_accuracy
    0.5*svqa_format,0.5*svqa_semantic(model=all-MiniLM-L12-v2)
    vsgrpo_accuracy(numeric=mra),path/to/file.py:my_reward

Options are keyword arguments of the function. Reading terms is not in `jaxvsr/rewards`, which knows no files.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Sequence
from typing import Any, get_type_hints

from jaxvsr.errors import InputError, prefixed
from jaxvsr.fields import read_text
from jaxvsr.rewards.registry import REWARDS, Reward, RewardFunction, check_reward_names
from jaxvsr.user_functions import function_of_file

_TERM = re.compile(r"^(?:(?P<weight>[^*(]+)\*)?(?P<target>[^*()]+)(?:\((?P<options>[^()]*)\))?$")


def rewards_from(terms: str | Sequence[str]) -> tuple[Reward, ...]:
    """Rewards from terms, in one string separated by commas or in a list; what is wrong in one is an `InputError`."""
    if isinstance(terms, str):
        terms = re.split(r",(?![^(]*\))", terms)
    rewards = tuple(_reward(term.strip()) for term in terms)
    check_reward_names(rewards)
    return rewards


def _reward(term: str) -> Reward:
    match = _TERM.match(term)
    if match is None:
        raise InputError(f"reward {term!r}: expected NAME or FILE.py:FUNCTION, as in 0.5*NAME(option=value)")
    try:
        weight = float(match["weight"] or 1)
    except ValueError:
        raise InputError(f"reward {term!r}: weight {match['weight'].strip()!r} is not a number") from None
    if not math.isfinite(weight):
        raise InputError(f"reward {term!r}: weight {weight} is not finite")
    target = match["target"].strip()
    if ".py:" in target:
        name, function = target.rpartition(":")[2], function_of_file(target, "reward")
    elif target in REWARDS:
        name, function = target, REWARDS[target]
    else:
        raise InputError(f"reward {target!r} is not one of {', '.join(REWARDS)}, nor path/to/file.py:function")
    options = _options(term, function, match["options"] or "")
    return Reward(name, functools.partial(function, **options) if options else function, weight, term)


def _options(term: str, function: RewardFunction, text: str) -> dict[str, Any]:
    """Keyword options of a term, each read as the type of its parameter."""
    parameters = inspect.signature(function).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if _is_option(parameter)}
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # a name of `if TYPE_CHECKING`, an object with __call__
        hints = {}
    options: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in defaults:
            known = ", ".join(f"{known}={default}" for known, default in defaults.items()) or "none"
            raise InputError(f"reward {term!r}: option {part!r} is not known; its options are: {known}")
        with prefixed(f"reward {term!r}"):
            options[name] = read_text(hints.get(name, type(defaults[name])), value, f"option {name}")
    return options


def _is_option(parameter: inspect.Parameter) -> bool:
    """A column has no default, or None; an option has a value."""
    return parameter.default is not inspect.Parameter.empty and parameter.default is not None
