"""Types are checked while the tests run: shapes and dtypes of what goes into a function and of what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float32, TypeCheckError

from jaxvsr.data.rooms.render import intrinsic_matrix
from tests.support.shape_types import checker, jaxtyped

if TYPE_CHECKING:
    from nowhere import Unknown

REFUSED = (BeartypeCallHintViolation, TypeCheckError)


@jaxtyped(typechecker=checker)
def joined(
    left: Float32[np.ndarray, "A B"], right: Float32[np.ndarray, "C B"], scale: float = 1.0, *, make: Any = None
) -> Float32[np.ndarray, "A+C B"]:
    return np.concatenate([left, right]) * np.float32(scale) if make is None else make


@jaxtyped(typechecker=checker)
def rows(table: Float32[np.ndarray, "A B"]) -> Iterator[Float32[np.ndarray, " B"]]:
    yield from table


@jaxtyped(typechecker=checker)
def unknown(one: Unknown, two: int) -> int:
    return two


def adder(shift: float) -> Callable[..., Any]:
    @jaxtyped(typechecker=checker)
    def add(table: Float32[np.ndarray, "A B"], *rows: int, twice: bool = False) -> Float32[np.ndarray, " B"]:
        return table[list(rows)].sum(axis=0 if rows else None) + np.float32(shift * (1 + twice))

    return add


@jaxtyped(typechecker=checker)
@dataclasses.dataclass
class Pair:
    left: Float32[np.ndarray, " A"]
    right: Float32[np.ndarray, " A"]

    @jaxtyped(typechecker=checker)
    def dot(self, empty: Any = "nothing") -> float:
        return float(self.left @ self.right) if len(self.left) else empty


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def test_what_fits_passes():
    assert joined(zeros(2, 3), right=zeros(4, 3), scale=2).shape == (6, 3)  # an int for a float
    assert len(list(rows(zeros(2, 3)))) == 2 and unknown("anything", 1) == 1
    joined(zeros(1, 5), zeros(1, 5))  # a call's sizes are its own
    assert Pair(zeros(2), zeros(2)).dot() == 0
    assert [adder(shift)(zeros(2, 3), 0, 1, twice=True).tolist() for shift in (1, 2)] == [[2, 2, 2], [4, 4, 4]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: joined(zeros(2, 3), zeros(4, 4)),
        lambda: joined(zeros(2, 3), zeros(3)),
        lambda: joined(zeros(2, 3), zeros(4, 3, dtype=np.float64)),
        lambda: joined(zeros(2, 3), zeros(4, 3), scale="2"),
        lambda: joined(zeros(2, 3), zeros(4, 3), make=zeros(7, 3)),
        lambda: list(rows(zeros(2))),
        lambda: unknown("anything", "1"),
        lambda: adder(1)(zeros(3), 0),
        lambda: adder(1)(zeros(2, 3), "0"),
        lambda: adder(1)(zeros(2, 3)),
        lambda: Pair(zeros(2), zeros(3)),
        lambda: Pair(zeros(0), zeros(0)).dot(),
        lambda: intrinsic_matrix("wide", 3),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object]):
    with pytest.raises(REFUSED):
        call()


def test_a_size_that_differs_is_named():
    with pytest.raises(BeartypeCallHintViolation) as refused:
        joined(zeros(2, 3), zeros(4, 4))
    assert "B=3" in "".join(refused.value.__notes__)


def test_production_has_no_checks(without_type_checks: None):
    assert joined(zeros(2, 3), zeros(4, 3), make="anything") == "anything"
