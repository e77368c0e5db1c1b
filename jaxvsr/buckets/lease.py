"""Two commands never write into one folder of a bucket at once: a lock by conditional writes, which ends with its
owner. Several that share a folder have a lock each, in `.sharing/`.

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
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from jaxvsr.buckets.objects import asking, names_below, objects
from jaxvsr.errors import InputError
from jaxvsr.locks import LOCK_FILE

if TYPE_CHECKING:
    import tensorstore

SHARING = ".sharing/"
RENEW_SECONDS = 5.0
DEAD_SECONDS = 60.0  # longer than a request is tried again
_LOOK_SECONDS = 1.0
_MOST_REFUSED = 5


@contextlib.contextmanager
def only_sender(url: str) -> Iterator[Callable[[], None]]:
    """No other command sends to a folder in a bucket inside the block. It gives a check, to be called before something
    is sent, which raises where another command has taken the folder over: this one had not been heard of for a minute.

    Raises:
        InputError: another does, or the bucket refuses.
    """
    with locked(url) as check:
        _remove_dead([_Lock(url, f"{SHARING}{name}") for name in names_below(f"{url}/{SHARING}".rstrip("/"))])
        yield check


@contextlib.contextmanager
def one_of_several(url: str) -> Iterator[Callable[[], None]]:
    """Others that ask for this may send to a folder in a bucket too inside the block, but no `only_sender`.

    Raises:
        InputError: a command sends to it alone, or the bucket refuses.
    """
    with locked(url, f"{SHARING}{uuid.uuid4().hex}") as check:
        _remove_dead([_Lock(url, LOCK_FILE)])
        yield check


@contextlib.contextmanager
def locked(url: str, name: str = LOCK_FILE, *, wait: bool = False) -> Iterator[Callable[[], None]]:
    """The lock that is the object `name` of a folder in a bucket; it gives a check, as `only_sender` does.

    Args:
        wait: until nobody has it, instead of raising.
    """
    lock = _Lock(url, name)
    lock.take(wait)
    ended = threading.Event()
    renewing = threading.Thread(target=lock.renew_until, args=(ended,), daemon=True)
    renewing.start()
    try:
        yield lock.check
    finally:
        ended.set()
        renewing.join()
        lock.leave()


def _dead(locks: Sequence[_Lock], *, wait: bool = False) -> list[tensorstore.KvStore.ReadResult]:
    """What the locks are once nobody has any of them: not there, or not written for `DEAD_SECONDS`.

    Raises:
        InputError: one is renewed, and `wait` is not asked for.
    """
    found, since = [lock.read() for lock in locks], time.monotonic()
    while any(one.state == "value" for one in found) and time.monotonic() < since + DEAD_SECONDS:
        time.sleep(_LOOK_SECONDS)
        for number, lock in enumerate(locks):
            before, found[number] = found[number], lock.read()
            now = found[number]
            if now.state == before.state == "value" and now.stamp.generation != before.stamp.generation:
                if not wait:
                    raise lock.taken(now)
                since = time.monotonic()
    return found


def _remove_dead(locks: Sequence[_Lock]) -> None:
    for lock, found in zip(locks, _dead(locks), strict=True):
        lock.remove(found.stamp.generation)


class _Lock:
    def __init__(self, url: str, name: str):
        self._url, self._name, self._lost = url, name, False
        self._mine = b""  # generation of what was written last
        self._id = uuid.uuid4().hex

    def take(self, wait: bool) -> None:
        """Write the lock, where nobody has it or its owner has died."""
        refused = 0  # although nobody has it
        while not self._mine:
            (found,) = _dead([self], wait=wait)
            self._mine = self._write(found.stamp.generation)
            if self._mine:
                return
            now = self.read()
            refused = 0 if now.state == "value" else refused + 1
            if refused == _MOST_REFUSED:  # S3 says no more where there is no bucket
                raise InputError(f"{self._url}: cannot be written into; is there such a bucket?")
            if now.state == "value" and not wait:
                raise self.taken(now)

    def renew_until(self, ended: threading.Event) -> None:
        """Write the lock again and again; a bucket that does not answer for a while is asked again."""
        while not ended.wait(RENEW_SECONDS) and not self._lost:
            with contextlib.suppress(InputError):
                written = self._write(self._mine)
                if not written:  # by another, or by a request of this one whose answer did not come
                    found = self.read()
                    self._lost = self._id.encode() not in found.value
                    written = b"" if self._lost else found.stamp.generation
                self._mine = written

    def check(self) -> None:
        """`InputError` where another command has the lock by now."""
        if self._lost:
            raise self.taken(self.read())

    def leave(self) -> None:
        """Remove the lock, if it is still the own one."""
        if not self._lost:
            with contextlib.suppress(InputError):
                self.remove(self._mine)

    def remove(self, generation: bytes) -> None:
        """Remove the lock if it is still this one."""
        with asking(f"{self._url}/{self._name}"):
            objects(self._url).write(self._name, None, if_equal=generation).result()

    def taken(self, found: tensorstore.KvStore.ReadResult) -> InputError:
        holder = found.value.decode(errors="replace").partition(",")[0]
        named = f"process {holder}" if holder.isprintable() and holder else "another process"
        return InputError(f"{self._url}: {named} writes into it; wait for it, or name another folder")

    def read(self) -> tensorstore.KvStore.ReadResult:
        """What is there."""
        with asking(f"{self._url}/{self._name}"):
            return objects(self._url).read(self._name).result()

    def _write(self, before: bytes) -> bytes:
        """The generation of the lock that was written over `before`; empty where that is not there any more."""
        value = f"{os.getpid()} on {platform.node()}, {self._id}, {uuid.uuid4().hex}"
        with asking(f"{self._url}/{self._name}"):
            return objects(self._url).write(self._name, value.encode(), if_equal=before).result().generation
