"""Several processes meet before JAX starts, and end together: one line that names the one that went first."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxvsr import stop_signals
from jaxvsr.devices import peers
from jaxvsr.devices.cluster import place_of_process
from jaxvsr.devices.joining import join, own_gpus
from jaxvsr.devices.peers import Peers
from jaxvsr.devices.relay import relay
from jaxvsr.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys, time
from jaxvsr import stop_signals
stop_signals.take_signals()
from jaxvsr.command_line import run
from jaxvsr.devices.cluster import Place
from jaxvsr.devices.joining import end_together, join
from jaxvsr.devices.peers import Peers
from jaxvsr.errors import EndedError, InputError
index, count, port, what = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def command(argv):
    if what.startswith("joined "):
        join(Place(index, count, "127.0.0.1", port, "here"))
        if what == "joined leaves":
            raise EndedError(143)
        if what == "joined sleeps":
            time.sleep(60)
        if what == "joined wrong":
            raise InputError("data/x: no such file")
        time.sleep(float(what.removeprefix("joined stops after ")))  # what it has to do at the end
        end_together()
        return 143
    one = Peers(index, count)
    one.meet("127.0.0.1", port, "here")
    one.watch()
    print("met", flush=True)
    if what == "wrong":
        raise InputError("data/x: no such file")
    if what == "raises":
        raise RuntimeError("broken")
    if what == "sleeps":
        time.sleep(60)
    return 0
sys.exit(run(command))
"""


@pytest.fixture(autouse=True)
def no_farewells() -> Iterator[None]:
    yield
    for farewell in stop_signals.before_end:
        ended: Peers = farewell.__self__  # type: ignore[attr-defined]
        ended._selector.close()
        for link in ended.links.values():
            link.connection.close()
    stop_signals.before_end.clear()


def join_processes(coordinator: str, index: int, count: int) -> None:
    join(place_of_process(coordinator, index, count))


def meet(one: Peers, host: str, port: int) -> tuple[str, str]:
    return one.meet(host, port, f"--coordinator {host}:{port}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Group:
    """Processes of one command, each doing what its word says once they have met."""

    def __init__(self, *words: str) -> None:
        port, count = str(free_port()), str(len(words))
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(index), count, port, word],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for index, word in enumerate(words)
        ]

    def all_met(self) -> None:
        for process in self.processes:
            assert process.stdout is not None and process.stdout.readline() == "met\n"

    def ends(self) -> list[tuple[int, str]]:
        """Exit code and stderr of each."""
        said = [process.communicate(timeout=60)[1] for process in self.processes]
        return [(process.returncode, text) for process, text in zip(self.processes, said, strict=True)]


@pytest.mark.parametrize("killed", [0, 1])
def test_the_death_of_one_process_ends_the_others_with_a_line_that_names_it(killed: int) -> None:
    group = Group("sleeps", "sleeps", "sleeps")
    group.all_met()
    group.processes[killed].kill()
    ends = group.ends()
    assert ends.pop(killed) == (-signal.SIGKILL, "")
    for code, said in ends:
        assert code == peers.EXIT_PEER_DIED and re.fullmatch(rf"process {killed} on .* has died\n", said), said


@pytest.mark.parametrize(
    ("word", "code", "line"), [("wrong", 2, "error: data/x: no such file"), ("raises", 1, "RuntimeError: broken")]
)
def test_the_error_of_one_process_ends_all_with_its_code(word: str, code: int, line: str) -> None:
    group = Group("sleeps", word, "sleeps")
    first, failed, other = group.ends()
    assert failed[0] == code and failed[1].endswith(f"{line}\n")
    for ended in (first, other):
        assert ended[0] == code and re.fullmatch(rf"process 1 on .*: {line}\n", ended[1]), ended


def test_a_signal_to_one_process_ends_all() -> None:
    group = Group("sleeps", "sleeps")
    group.all_met()
    group.processes[1].send_signal(signal.SIGTERM)
    (code, said), told = group.ends()
    assert told == (143, "interrupted by SIGTERM\n")
    assert code == 143 and re.fullmatch(r"process 1 on .*: interrupted by SIGTERM\n", said)


@pytest.mark.parametrize("seconds", [(0, 1), (1, 0), (0, 1, 0)])
def test_processes_that_all_stop_let_each_other_do_the_rest_and_say_nothing(seconds: tuple[int, ...]) -> None:
    assert Group(*(f"joined stops after {wait}" for wait in seconds)).ends() == [(143, "")] * len(seconds)


@pytest.mark.parametrize("other", ["stops after 0", "sleeps"])
@pytest.mark.parametrize(
    ("word", "code", "line"),
    [("leaves", 143, "has ended with exit code 143"), ("wrong", 2, "error: data/x: no such file")],
)
def test_a_process_that_ends_alone_ends_those_that_wait_for_it(word: str, code: int, line: str, other: str) -> None:
    said = Group(f"joined {other}", f"joined {word}").ends()
    assert [ended for ended, _ in said] == [code, code]
    assert re.fullmatch(rf"process 1 on .*: {line}\n", said[0][1]), said


@pytest.mark.parametrize("words", [("sleeps", "done"), ("done", "sleeps")])
def test_a_process_that_is_done_ends_nobody(words: tuple[str, str]) -> None:
    group = Group(*words)
    group.all_met()
    done, sleeps = words.index("done"), words.index("sleeps")
    assert group.processes[done].wait(timeout=30) == 0
    with pytest.raises(subprocess.TimeoutExpired):
        group.processes[sleeps].wait(timeout=0.5)
    group.processes[sleeps].kill()
    group.ends()


def test_nobody_else_gets_the_port_of_jaxs_coordinator() -> None:
    """Another program could, in the time in which JAX starts; that it gets it itself, the tests of `Group` show."""
    port = peers._held_port("127.0.0.1")
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))


def test_a_port_in_use_is_one_line() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(InputError, match=r"127\.0\.0\.1:\d+: process 0 cannot listen there \(Address already in use\)"),
    ):
        join_processes(f"127.0.0.1:{taken.getsockname()[1]}", 0, 2)


def test_what_cannot_be_an_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "RESOLVE_SECONDS", 0.0)
    for index in (0, 1):
        with pytest.raises(InputError, match=r"no\.such\.host\.invalid:1234: no host 'no\.such"):
            join_processes("no.such.host.invalid:1234", index, 2)
        with pytest.raises(InputError, match="99999': expected HOST:PORT"):
            join_processes("127.0.0.1:99999", index, 2)
    with pytest.raises(InputError, match="process 0 cannot listen there"):
        join_processes("192.0.2.1:1234", 0, 2)


def test_a_process_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MEET_SECONDS", 0.0)
    with pytest.raises(InputError, match="process 1, 2 of 3 has not come within"):
        meet(Peers(0, 3), "127.0.0.1", free_port())
    port = free_port()
    with pytest.raises(InputError, match=f"--coordinator 127.0.0.1:{port}: process 0 does not answer there"):
        meet(Peers(1, 3), "127.0.0.1", port)


@pytest.mark.parametrize(
    ("index", "count", "says"),
    [(1, 3, "was started with --process-count 3, process 0 with 2"), (2, 2, "give every process its own")],
)
def test_processes_of_other_numbers_are_refused(index: int, count: int, says: str) -> None:
    port = free_port()

    def come() -> None:
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as other:
                hello = {"process": index, "count": count, "name": f"process {index}"}
                other.sendall(json.dumps(hello).encode() + b"\n")
                other.recv(100)
                return

    threading.Thread(target=come, daemon=True).start()
    with pytest.raises(InputError, match=says):
        meet(Peers(0, 2), "127.0.0.1", port)


def test_process_0_listens_at_the_given_address_alone_and_takes_no_notice_of_strangers() -> None:
    port, met = free_port(), list[tuple[str, str]]()
    first, other = Peers(0, 2), Peers(1, 2)
    meeting = threading.Thread(target=lambda: met.append(meet(first, "127.0.0.1", port)), daemon=True)
    meeting.start()
    while True:
        try:
            stranger = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            pass
    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))
    meet(other, "127.0.0.1", port)
    meeting.join(30)
    assert (first.on_host, other.on_host) == ((0, 2), (1, 2))  # they see the same GPUs
    stranger.close()
    assert met[0][0] == met[0][1] and met[0][0].startswith("127.0.0.1:")


def test_processes_of_one_host_share_the_gpus_that_all_of_them_see(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {0: "host1 ", 1: "host2 0,1", 2: "host2 2,3", 3: "host2 0,1"}
    assert [peers._among_alike(index, seen) for index in seen] == [(0, 1), (0, 2), (0, 1), (1, 2)]
    assert own_gpus(0, 1, 8) is None and own_gpus(0, 4, 1) is None  # all; each has its own already
    assert own_gpus(1, 2, 8) == [4, 5, 6, 7]
    with pytest.raises(InputError, match="8 GPUs do not divide over the 3 processes of this host"):
        own_gpus(0, 3, 8)
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "2")
    assert own_gpus(1, 2, 2) is None


def test_a_relay_passes_on_and_stays_open_where_the_other_side_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, _, port = relay("127.0.0.1", server.getsockname()[1]).partition(":")
        near = socket.create_connection((host, int(port)), timeout=30)
        far, _ = server.accept()
    near.sendall(b"there")
    assert far.recv(5) == b"there"
    far.sendall(b"back")
    assert near.recv(4) == b"back"
    far.close()
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
        near.recv(1)
    near.close()
