"""Fields are read by their types; every mistake is one line with the field, the value and what is accepted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from jaxvsr.errors import InputError
from jaxvsr.fields import flat_fields, hint_of, read_fields, replace_fields, to_tree
from jaxvsr.yaml_file import read_yaml


@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = 3
    ratio: float = 0.5
    flag: bool = False
    mode: Literal["center", "corner"] = "center"
    limit: int | None = None
    names: tuple[str, ...] = ()


def test_fields_are_read_by_their_type():
    changed = replace_fields(
        Settings(), ["count=4", "ratio=1e-1", "flag=true", "mode=corner", "limit=7", "names=a,b c"]
    )
    assert changed == Settings(4, 0.1, True, "corner", 7, ("a", "b c"))
    assert replace_fields(changed, ["limit=none", "names="]) == dataclasses.replace(changed, limit=None, names=())


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("count=x", "--set count=x: expected a whole number, found 'x'"),
        ("flag=1", "expected true or false"),
        ("mode=middle", "not one of center, corner"),
        ("cuont=1", "did you mean 'count'"),
        ("count", "expected field=value"),
    ],
)
def test_a_wrong_field_names_field_value_and_what_is_accepted(assignment, says):
    with pytest.raises(InputError, match=says):
        replace_fields(Settings(), [assignment])


@dataclasses.dataclass(frozen=True)
class Inner:
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.share > 1:
            raise InputError(f"share {self.share}: must be at most 1")


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    other: Inner | None = None
    lists: tuple[tuple[int, ...], ...] = ()
    choice: Literal["one", "two"] | None = None
    several: str | tuple[str, ...] = ()


def test_a_tree_of_fields_is_read_back_equal():
    outer = Outer("a", Inner(0.25), Inner(1.0), ((1, 2), ()), "two", ("x", "y"))
    assert read_fields(Outer, to_tree(outer)) == outer
    assert dict(flat_fields(to_tree(outer)))["inner.share"] == 0.25


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({}, "^name: is missing; expected a string$"),
        ({"name": 3}, "^name: expected a string, found 3$"),
        ({"name": None}, "^name: expected a string, found None$"),
        ({"name": "a", "inner": {"share": "much"}}, "^inner.share: expected a number, found 'much'$"),
        ({"name": "a", "inner": {"share": True}}, "^inner.share: expected a number, found True$"),
        ({"name": "a", "inner": {"share": 2}}, "^inner.share 2.0: must be at most 1$"),
        (
            {"name": "a", "inner": {"shar": 2}},
            r"^inner: unknown field 'shar'; did you mean 'share'\? \(fields: share\)$",
        ),
        ({"name": "a", "other": [1]}, r"^other: expected fields \(share\), found \[1\]$"),
        ({"name": "a", "lists": [[1], ["b"]]}, r"^lists\[1\]\[0\]: expected a whole number, found 'b'$"),
        ({"name": "a", "lists": "1,2"}, "^lists: expected a list .*, found '1,2'$"),
        ({"name": "a", "choice": "onw"}, "^choice: 'onw' is not one of one, two; did you mean 'one'"),
        ({"name": "a", "several": 3}, "^several: expected a string or a list .*, found 3$"),
        ([1], "^expected fields .*, found \\[1\\]$"),
    ],
)
def test_a_mistake_in_a_tree_is_refused_in_one_line(tree, says):
    with pytest.raises(InputError, match=says):
        read_fields(Outer, tree)


def test_loose_reading_accepts_numbers_as_text_and_text_as_numbers():
    tree = {"name": 2026, "lists": [[1.0], []], "inner": {"share": "1e-1"}}
    assert read_fields(Outer, tree, loose=True) == Outer("2026", Inner(0.1), lists=((1,), ()))
    assert read_fields(Settings, {"names": "a,f(b,c)"}, loose=True).names == ("a", "f(b,c)")
    assert read_fields(Settings, {"names": 7}, loose=True).names == ("7",)


def test_types_of_fields_are_found_by_path():
    assert hint_of(Outer, "other.share") is float and hint_of(Outer, "name") is str
    with pytest.raises(KeyError):
        hint_of(Outer, "other.name")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a: " + "[" * 20_000, "a: " + "9" * 10_000, "a: 2026-13-45"])
def test_yaml_that_python_cannot_read_is_one_line(text: str, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config.yaml: (nested too deep|a value that YAML cannot read)"):
        read_yaml(tmp_path / "config.yaml")
