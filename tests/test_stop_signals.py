"""Ctrl-C and SIGTERM end a command at once, with one line and their exit code, whatever it is doing."""

import contextlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence

import pytest

from jaxvsr import stop_signals

START = """
import gc, os, signal, sys, time, zlib
from jaxvsr import stop_signals
from jaxvsr.command_line import run, run_child
if __name__ == "__main__":
    stop_signals.take_signals()
stop_signals.PATIENCE = 0.5
def ready():
    print("ready", flush=True)
"""
CLEANS_UP = """
def command(argv):
    try:
        ready()
        time.sleep(60)
    finally:
        print("cleaned up")
"""
SWALLOWS = """
def command(argv):
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        return 0
"""
COLLECTS = """
def slow(phase, info):
    gc.disable()
    ready()
    for _ in range(600):
        time.sleep(0.1)
def command(argv):
    gc.callbacks.append(slow)
    gc.collect()
    time.sleep(60)
"""
IMPORTS = """
open("slowly.py", "w").write("import __main__, time\\n__main__.ready()\\ntry: time.sleep(60)\\nexcept: pass\\n")
sys.path.insert(0, os.getcwd())
def command(argv):
    import slowly
    time.sleep(60)
"""
COMPUTES = """
import hashlib
def command(argv):
    ready()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes that nothing interrupts
"""
HALF_IMPORTED = """
def command(argv):
    sys.modules["multiprocessing"] = type(sys)("multiprocessing")
    ready()
    time.sleep(60)
"""
ANOTHER_ERROR = """
def command(argv):
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("half imported")
"""


def started(code: str, cwd: object) -> subprocess.Popen[str]:
    program = START + textwrap.dedent(code) + "\nsys.exit(run(command, []))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=cwd, text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "ready\n"
    return process


def ended(code: str, numbers: Sequence[int], cwd: object) -> tuple[int, str, str]:
    process = started(code, cwd)
    for number in numbers:
        process.send_signal(number)
    out, complained = process.communicate(timeout=30)
    return process.returncode, out, complained


@pytest.mark.parametrize("code", [CLEANS_UP, SWALLOWS, COLLECTS, IMPORTS, COMPUTES, HALF_IMPORTED, ANOTHER_ERROR])
def test_a_signal_ends_a_command_with_one_line_and_its_code(code: str, tmp_path: object) -> None:
    out = "cleaned up\n" if code == CLEANS_UP else ""
    assert ended(code, [signal.SIGTERM], tmp_path) == (143, out, "interrupted by SIGTERM\n")
    assert ended(code, [signal.SIGINT], tmp_path) == (130, out, "interrupted\n")


def test_a_signal_before_the_command_has_begun_is_one_line_too(tmp_path: object) -> None:
    before = """
    ready()
    time.sleep(60)
    def command(argv):
        return 0
    """
    assert ended(before, [signal.SIGINT], tmp_path) == (130, "", "interrupted\n")


def test_a_second_ctrl_c_ends_at_once(tmp_path: object) -> None:
    goes_on = """
    stop_signals.PATIENCE = 100
    def command(argv):
        while True:
            try:
                ready()
                time.sleep(60)
            except KeyboardInterrupt:
                pass
    """
    process = started(goes_on, tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=30), process.returncode) == (("", "interrupted\n"), 130)


CHILD = (
    "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(5)); print('ready', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_child_is_told_and_waited_for(number: int, tmp_path: object) -> None:
    parent = f"def command(argv): return run_child(['-c', {CHILD!r}])"
    assert ended(parent, [number], tmp_path) == (128 + number, "", "")


def test_a_forked_child_has_its_own_signals(tmp_path: object) -> None:
    forks = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork beside threads
    def command(argv):
        child = os.fork()
        if not child:
            ready()
            time.sleep(60)
        os.kill(child, signal.SIGTERM)
        os.kill(child, signal.SIGTERM)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return 0
    """.replace("os.kill(child, signal.SIGTERM)", "time.sleep(0.3); os.kill(child, signal.SIGTERM)", 1)
    process = started(forks, tmp_path)
    assert (process.communicate(timeout=30), process.returncode) == (("child -15\n", ""), 0)


def test_the_line_goes_on_with_the_note_of_the_last_open_block() -> None:
    step = contextlib.ExitStack()
    with stop_signals.noting("; nothing is new"):
        step.enter_context(stop_signals.noting("; a step is done"))
        assert stop_signals.line_of(signal.SIGTERM) == "interrupted by SIGTERM; a step is done"
    assert stop_signals.line_of(signal.SIGINT) == "interrupted; a step is done"
    step.close()
    assert stop_signals.line_of(signal.SIGINT) == "interrupted"


def test_sigusr1_prints_the_stacks_and_where_the_command_stands_and_ends_nothing(tmp_path: object) -> None:
    process = started("\nstop_signals.standing.append(lambda: 'step 7: in sample')" + COMPUTES, tmp_path)
    process.send_signal(signal.SIGUSR1)
    assert process.stderr is not None
    said = ""
    while "step 7: in sample\n" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert "most recent call first" in said and "in command" in said
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[1] == "interrupted by SIGTERM\n" and process.returncode == 143
