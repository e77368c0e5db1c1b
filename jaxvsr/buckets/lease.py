"""Two commands never write into one folder of a bucket at once: a lock by conditional writes, which ends with its
owner.

The lock is one object that says who has it. Its owner writes it again every `RENEW_SECONDS`; who finds one watches it
for `DEAD_SECONDS`, and takes it over where nobody has written it in that time. Each write holds only if the object is
still the one that was read, so of two that try one succeeds. No clock is compared with another's.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jaxvsr.buckets.objects import asking, objects
from jaxvsr.errors import InputError
from jaxvsr.locks import LOCK_FILE

if TYPE_CHECKING:
    import tensorstore

RENEW_SECONDS = 5.0
DEAD_SECONDS = 60.0  # longer than a request is tried again
_LOOK_SECONDS = 1.0


@contextlib.contextmanager
def only_sender(url: str) -> Iterator[Callable[[], None]]:
    """No other command sends to a folder in a bucket inside the block. It gives a check, to be called before something
    is sent, which raises where another command has taken the folder over: this one had not been heard of for a minute.

    Raises:
        InputError: another does, or the bucket refuses.
    """
    lock = _Lock(url)
    lock.take()
    ended = threading.Event()
    renewing = threading.Thread(target=lock.renew_until, args=(ended,), daemon=True)
    renewing.start()
    try:
        yield lock.check
    finally:
        ended.set()
        renewing.join()
        lock.leave()


class _Lock:
    def __init__(self, url: str):
        self._url, self._lost = url, False
        self._mine = b""  # generation of what was written last
        self._id = uuid.uuid4().hex

    def take(self) -> None:
        """Write the lock, where nobody has it or its owner has died."""
        found, end = self._read(), time.monotonic() + DEAD_SECONDS
        while found.state == "value" and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            now = self._read()
            if now.state == "value" and now.stamp.generation != found.stamp.generation:
                raise self._taken(now)
            found = now
        self._mine = self._write(found.stamp.generation)
        if not self._mine:
            raise self._taken(self._read())

    def renew_until(self, ended: threading.Event) -> None:
        """Write the lock again and again; a bucket that does not answer for a while is asked again."""
        while not ended.wait(RENEW_SECONDS) and not self._lost:
            with contextlib.suppress(InputError):
                written = self._write(self._mine)
                if not written:  # by another, or by a request of this one whose answer did not come
                    found = self._read()
                    self._lost = self._id.encode() not in found.value
                    written = b"" if self._lost else found.stamp.generation
                self._mine = written

    def check(self) -> None:
        """`InputError` where another command has the lock by now."""
        if self._lost:
            raise self._taken(self._read())

    def leave(self) -> None:
        """Remove the lock, if it is still the own one."""
        if self._lost:
            return
        with contextlib.suppress(InputError), asking(self._url):
            objects(self._url).write(LOCK_FILE, None, if_equal=self._mine).result()

    def _taken(self, found: tensorstore.KvStore.ReadResult) -> InputError:
        holder = found.value.decode(errors="replace").partition(",")[0]
        named = f"process {holder}" if holder.isprintable() and holder else "another process"
        return InputError(f"{self._url}: {named} writes into it; wait for it, or name another folder")

    def _read(self) -> tensorstore.KvStore.ReadResult:
        with asking(f"{self._url}/{LOCK_FILE}"):
            return objects(self._url).read(LOCK_FILE).result()

    def _write(self, before: bytes) -> bytes:
        """The generation of the lock that was written over `before`; empty where that is not there any more."""
        value = f"{os.getpid()} on {platform.node()}, {self._id}, {uuid.uuid4().hex}"
        with asking(f"{self._url}/{LOCK_FILE}"):
            return objects(self._url).write(LOCK_FILE, value.encode(), if_equal=before).result().generation
