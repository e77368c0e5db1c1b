"""The way from JAX's client in this process to JAX's coordinator in process 0.

Where that connection closes, JAX aborts the process at once, with a stack trace. Through a relay it does not see this:
the connection to the relay stays open, and `peers` says which process has died.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any


def relay(host: str, port: int) -> str:
    """Listen on this machine alone and pass everything on to host and port; returns the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            near, _ = listener.accept()
            _start(_connect, near, host, port)

    _start(accept)
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _connect(near: socket.socket, host: str, port: int) -> None:
    with contextlib.suppress(OSError), near, socket.create_connection((host, port), timeout=60) as far:
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _start(_copy, far, near)
        _copy(near, far)
        far.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until the source closes. The target is left open: that is what a relay is here for."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)


def _start(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, name="relay", daemon=True).start()
