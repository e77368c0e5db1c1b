"""Mistakes on a command line end in one line on stderr and exit code 2."""

import dataclasses
from typing import Literal

import pytest

from jaxvsr import command_line
from jaxvsr.errors import InputError


@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = 3
    ratio: float = 0.5
    flag: bool = False
    mode: Literal["center", "corner"] = "center"
    limit: int | None = None
    names: tuple[str, ...] = ()


def test_fields_are_read_by_their_type():
    changed = command_line.replace_fields(
        Settings(), ["count=4", "ratio=1e-1", "flag=true", "mode=corner", "limit=7", "names=a,b c"]
    )
    assert changed == Settings(4, 0.1, True, "corner", 7, ("a", "b c"))
    assert command_line.replace_fields(changed, ["limit=none", "names="]) == dataclasses.replace(
        changed, limit=None, names=()
    )


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("count=x", "expected int, found 'x'"),
        ("flag=1", "expected true or false"),
        ("mode=middle", "not one of center, corner"),
        ("cuont=1", "did you mean 'count'"),
        ("count", "expected field=value"),
    ],
)
def test_a_wrong_field_names_field_value_and_what_is_accepted(assignment, says):
    with pytest.raises(InputError, match=says):
        command_line.replace_fields(Settings(), [assignment])


def test_input_errors_and_bad_arguments_are_one_line_and_code_2(capsys):
    def command(argv):
        parser = command_line.ArgumentParser(prog="tool")
        parser.add_argument("--steps", type=command_line.positive_int)
        parser.add_argument("--frames", type=command_line.int_list)
        arguments = parser.parse_args(argv)
        if arguments.frames == (2, 8):
            raise InputError("frames:\n8 is not stored")
        return 0

    for argv in (["--steps", "0"], ["--step", "3"], ["--frames", "a"], ["--frames", "8,2"]):
        assert command_line.run(command, argv) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and captured.err.startswith("error: ") and captured.out == ""
    assert command_line.run(command, ["--steps", "3"]) == 0


def test_ctrl_c_is_one_line_and_code_130(capsys):
    def command(argv):
        raise KeyboardInterrupt

    assert command_line.run(command, []) == 130
    assert capsys.readouterr().err == "interrupted\n"
