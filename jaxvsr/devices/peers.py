"""Several processes of one command: they meet before JAX starts, and they end together.

Process 0 listens at the coordinator's address and the others come to it. When all are there it tells them where JAX's
own coordinator is: on another port of the same host. The connections stay. A process whose connection closes without a
farewell has died, as has one that is silent for `SILENT_SECONDS`: the others print one line that names it and end,
where JAX would abort them with a stack trace after one to two minutes.

A message is a line of JSON:

    {"process": 1, "count": 2, "name": "process 1 on host2 (pid 77)", "sees": "host2 0,1"}     to process 0, at first
    {"go": 41234, "on_host": [0, 1]}         from process 0: the port of JAX's coordinator; which of those on that host
    {}                                                                    a heartbeat
    {"end": 143, "line": "…"}                                             a farewell, with the exit code
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import selectors
import socket
import threading
import time
from typing import Any, NoReturn

from jaxvsr import stop_signals
from jaxvsr.devices.relay import relay
from jaxvsr.errors import InputError, one_line

EXIT_PEER_DIED = 75  # "temporary failure": the same command, with --resume, goes on
MEET_SECONDS = 300.0  # for all processes to come
SAY_SECONDS = 10.0  # until process 0 says for whom it waits
RESOLVE_SECONDS = 10.0  # for the name of process 0's host to be known
BEAT_SECONDS, SILENT_SECONDS = 5.0, 45.0
_LARGEST_MESSAGE = 10_000
_MOST_NAMED = 8


def name_of_process(process: int) -> str:
    """This process, its host and its process id."""
    return f"process {process} on {socket.gethostname()} (pid {os.getpid()})"


class _Link:
    """The connection to another process."""

    def __init__(self, connection: socket.socket, name: str, sees: str = ""):
        self.connection, self.name, self.sees = connection, name, sees
        self.heard, self.done, self._rest = time.monotonic(), False, b""

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # a process that has gone is noticed where it is read
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come; None at the end of the connection, and where something else than jaxvsr speaks."""
        try:
            came = self.connection.recv(4096)
        except TimeoutError:
            return []
        except OSError:
            came = b""
        *lines, self._rest = (self._rest + came).split(b"\n")
        if not came or len(self._rest) > _LARGEST_MESSAGE:
            return None
        self.heard = time.monotonic()
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return None
        return messages if all(isinstance(message, dict) for message in messages) else None


class Peers:
    """The other processes, as this one sees them: process 0 all of them, the others process 0."""

    def __init__(self, process: int, count: int):
        self.process, self.count = process, count
        self.name = name_of_process(process)
        # Processes that say the same here see the same GPUs, which they have to share.
        self.sees = f"{socket.gethostname()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
        self.on_host = (0, 1)  # this process's number among those, and their count
        self.links: dict[int, _Link] = {}
        self._selector = selectors.DefaultSelector()
        self._is_told = False

    def meet(self, host: str, port: int, where: str) -> tuple[str, str]:
        """Wait for all processes; returns the address of JAX's coordinator for this one, and where it listens.

        Args:
            where: host and port in words, for errors.

        Raises:
            InputError: the address cannot be used, or a process does not come, or was started with other numbers.
        """
        stop_signals.before_end.append(self.farewell)
        return self._gather(host, port, where) if self.process == 0 else self._come(host, port, where)

    def _gather(self, host: str, port: int, where: str) -> tuple[str, str]:
        address = _resolved(host, port, where, wait=0.0)
        bind = address if _is_bound_alone(host, address) else "::" if ":" in address else "0.0.0.0"
        listener = _listener(bind, port, where)
        start, is_said = time.monotonic(), False
        with listener:
            listener.settimeout(0.2)
            while len(self.links) < self.count - 1:
                with contextlib.suppress(TimeoutError):
                    self._take_in(listener.accept()[0])
                self._read(0.0)
                waited = time.monotonic() - start
                if waited > MEET_SECONDS:
                    raise InputError(
                        f"{where}: process {self._missing()} of {self.count} has not come within "
                        f"{MEET_SECONDS:.0f} s; start all of them, with this address"
                    )
                if waited > SAY_SECONDS and not is_said:
                    is_said = True
                    print(f"{where}: waiting for process {self._missing()} of {self.count}", flush=True)
        port = _held_port(bind)
        seen = {0: self.sees, **{index: link.sees for index, link in self.links.items()}}
        for index, link in self.links.items():
            link.send(go=port, on_host=_among_alike(index, seen))
        self.on_host = _among_alike(0, seen)
        return f"{_bracketed(address)}:{port}", f"{_bracketed(bind)}:{port}"

    def _missing(self) -> str:
        missing = [str(index) for index in range(1, self.count) if index not in self.links]
        return ", ".join(missing[:_MOST_NAMED]) + (
            f" and {more} more" if (more := len(missing) - _MOST_NAMED) > 0 else ""
        )

    def _take_in(self, connection: socket.socket) -> None:
        """A process that comes; whatever else connects is sent away."""
        connection.settimeout(5.0)
        link = _Link(connection, "")
        said = (link.receive() or [{}])[0]
        index, count, name = said.get("process"), said.get("count"), said.get("name")
        if not isinstance(index, int) or not isinstance(count, int) or not isinstance(name, str):
            connection.close()
            return
        wrong = ""
        if count != self.count:
            wrong = f"{name} was started with --process-count {count}, process 0 with {self.count}"
        elif index in self.links or not 0 < index < count:
            wrong = f"{name} and {self.links[index].name} have the same --process-id" if index in self.links else name
        link.name, link.sees = name, str(said.get("sees", ""))
        self._add(index if not wrong else -1, link)
        if wrong:
            raise InputError(f"{wrong}: give every process its own --process-id, and all the same --process-count")

    def _come(self, host: str, port: int, where: str) -> tuple[str, str]:
        deadline = time.monotonic() + MEET_SECONDS
        while True:
            address = _resolved(host, port, where, wait=RESOLVE_SECONDS)
            try:
                connection = socket.create_connection((address, port), timeout=5.0)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{where}: process 0 does not answer there ({one_line(error)}); start it, and give all "
                        "processes its address"
                    ) from None
            time.sleep(0.3)
        link = _Link(connection, f"process 0 on {host}")
        link.send(process=self.process, count=self.count, name=self.name, sees=self.sees)
        self._add(0, link)
        while True:
            for message in self._read(1.0):
                if "go" in message:
                    index, alike = message["on_host"]
                    self.on_host = int(index), int(alike)
                    return relay(address, int(message["go"])), ""
            if time.monotonic() > deadline + 10:
                raise InputError(f"{where}: what answers there is not process 0; take another port")

    def _add(self, index: int, link: _Link) -> None:
        link.connection.settimeout(5.0)
        self.links[index] = link
        self._selector.register(link.connection, selectors.EVENT_READ, index)

    def watch(self) -> None:
        """From now on a thread ends this process where another one has ended before its time."""
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def _watch(self) -> None:
        beat = 0.0
        while self.links:
            self._read(1.0)
            now = time.monotonic()
            if now - beat > BEAT_SECONDS:
                beat = now
                for link in self.links.values():
                    link.send()
            for link in list(self.links.values()):
                if now - link.heard > SILENT_SECONDS:
                    self._end(f"{link.name} has not answered for {SILENT_SECONDS:.0f} s", EXIT_PEER_DIED)

    def _read(self, seconds: float) -> list[dict[str, Any]]:
        """What the others say, for at most `seconds`; farewells are acted on."""
        said: list[dict[str, Any]] = []
        for key, _ in self._selector.select(seconds):
            link = self.links[key.data]
            messages = link.receive()
            for message in messages or ():
                if "end" not in message:
                    said.append(message)
                elif message["end"]:
                    from_0 = message.get("of")  # process 0 passes on what it was told
                    why = message["line"] or f"has ended with exit code {message['end']}"
                    self._end(from_0 or f"{link.name}: {why}", int(message["end"]))
                else:
                    link.done = True
            if messages is None:
                self._selector.unregister(link.connection)
                del self.links[key.data]
                if not link.done:
                    self._end(f"{link.name} has died", EXIT_PEER_DIED)
        return said

    def _end(self, line: str, code: int) -> NoReturn:
        """End this process because of another one, and have those end that know only this one."""
        if self._tell(end=code, line=line, of=line):
            stop_signals.leave(code, line, of_another=True)
        while True:  # this process is ending for a reason of its own
            time.sleep(60)

    def farewell(self, code: int, line: str) -> None:
        """Tell the others that this process ends; with a code other than 0 they end too."""
        self._tell(end=code, line=line)
        if code:
            self._wait_for_ends()

    def _tell(self, **farewell: Any) -> bool:
        """Say it to all, once; False where that is done."""
        if self._is_told:
            return False
        self._is_told = True
        for link in list(self.links.values()):
            link.send(**farewell)
        return True

    def _wait_for_ends(self) -> None:
        """JAX's coordinator lives in process 0: where that goes first, JAX aborts the others in mid-line."""
        deadline = time.monotonic() + 3.0
        for link in list(self.links.values()) if self.process == 0 else ():
            with contextlib.suppress(OSError):
                while time.monotonic() < deadline and link.connection.recv(4096):
                    pass


def _among_alike(process: int, seen: dict[int, str]) -> tuple[int, int]:
    """The number of a process among those that see the same GPUs, and their count."""
    alike = sorted(index for index, sees in seen.items() if sees == seen[process])
    return alike.index(process), len(alike)


def _resolved(host: str, port: int, where: str, wait: float) -> str:
    """The host's address, IPv4 where it has one."""
    deadline = time.monotonic() + wait
    while True:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])
        except (OSError, UnicodeError) as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"{where}: no host {host!r} ({one_line(error)}); expected HOST:PORT of process 0, such as "
                    "10.0.0.1:8476"
                ) from None
        time.sleep(0.5)


def _is_bound_alone(host: str, address: str) -> bool:
    """Whether to listen at this address alone. A machine's own name may mean 127.0.1.1 there, and elsewhere not."""
    return host in (address, "localhost") or not ipaddress.ip_address(address).is_loopback


def _listener(bind: str, port: int, where: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        return socket.create_server((bind, port), family=family, backlog=128)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise InputError(
            f"{where}: process 0 cannot listen there ({why}); take a free port of the machine that process 0 runs on "
            "(--coordinator, or JAX_COORDINATOR_PORT where a cluster gives the address)"
        ) from None


def _held_port(bind: str) -> int:
    """A port that nobody else is given before JAX's coordinator listens there: beside a socket that does not, and that
    stays to the end of the process."""
    held = socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the coordinator sets it too, and may share the port
    held.bind((bind, 0))
    port: int = held.getsockname()[1]
    held.detach()
    return port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
