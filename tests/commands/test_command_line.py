"""Mistakes on a command line end in one line on stderr and exit code 2."""

from jaxvsr import command_line
from jaxvsr.errors import InputError


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
