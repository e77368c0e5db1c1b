"""Writing to a bucket: a command writes into a folder of this machine, whose files are sent as whole objects.

    with published(place("s3://bucket/runs/a", "written")) as sending:
        ...                     # write files as in any folder, append to them, rename them
        sending.send()          # at each checkpoint
    # all is sent, and the folder of this machine is gone

Several processes may share the bucket's folder, each with a folder of this machine of its own; what all of them write,
one writes after the other (`alone_in`).

An object is either the old or the new one, never a part. What marks that others are whole is sent last and removed
first: whoever reads takes a checkpoint or an array with its mark, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxvsr.buckets.fetching import CHECKPOINT_MARK, VALUES, bring, bring_names, is_kept_here, stamp, wanted_of
from jaxvsr.buckets.lease import locked, one_of_several, only_sender
from jaxvsr.buckets.objects import asking, names_below, objects
from jaxvsr.buckets.places import named, places_root, url_at
from jaxvsr.errors import BucketError, InputError
from jaxvsr.files import read_json_object, write_text
from jaxvsr.locks import LOCK_FILE, only_writer

_MARKS = (CHECKPOINT_MARK, "zarr.json", "config.json")
_NOT_YET = re.compile(r"(?:.*/)?(?:\.[^/]*\.(?:partial|lock|before)(?:/.*)?|[^/]*orbax-checkpoint-tmp[^/]*/.*)")
_NOTED = ".{}.sent.json"  # beside a place: name → generation of the object, size and time of the file
S3_MOST_BYTES = 5 * 2**30  # of an object, by the request that TensorStore makes
_SEND_SECONDS = 30.0
_AT_ONCE, _BYTES_AT_ONCE = 8, 2**28  # objects that are sent at once, and their size, unless one alone is larger


class Sending:
    """Sends the files of a folder of this machine to its folder in a bucket."""

    def __init__(
        self, here: Path, url: str, sent: dict[str, list[Any]], check: Callable[[], None], noted: Path | None = None
    ):
        self._here, self.url, self._checks, self._noted = here, url, [check], noted
        self._sent = sent  # name → generation of the object, size and time of the file
        self._one_at_a_time, self._last = threading.Lock(), time.monotonic()

    def send(self) -> None:
        """Send what is new or has changed, and remove what is gone; marks of others last and first.

        Raises:
            InputError: the bucket does not take it, or another command has taken the folder over.
        """
        with self._one_at_a_time:
            for check in self._checks:
                check()
            self._last = time.monotonic()
            try:
                self._send()
            finally:
                self.note()

    def note(self) -> None:
        """Keep what is sent, for the next command, where this one is killed or cannot send the rest."""
        if self._noted is not None:
            self._noted.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._noted, json.dumps(self._sent))

    def _send(self) -> None:
        files = whole_files(self._here)
        changed = [name for name, now in files.items() if self._sent.get(name, [""])[1:] != now]
        self._check_sizes({name: files[name][0] for name in changed})
        # Whoever has the old description of an array must not find new values behind it.
        values = [name for name in changed if VALUES.fullmatch(name)]
        described = {f"{name.rpartition('/c/')[0]}/zarr.json" for name in values}
        self._write(sorted(described & self._sent.keys()), None)
        for names in _by_turn(changed):
            self._write(names, files)
        # What is not kept here once it is sent is not gone.
        gone = [name for name in self._sent if name not in files and not VALUES.fullmatch(name)]
        for names in reversed(_by_turn(gone)):
            self._write(names, None)

    def _check_sizes(self, sizes: dict[str, int]) -> None:
        too_large = next((name for name, size in sizes.items() if size > S3_MOST_BYTES), None)
        if too_large is not None and self.url.startswith("s3:"):
            raise InputError(
                f"{self.url}/{too_large}: has {sizes[too_large] / 2**30:.1f} GiB, and S3 takes at most "
                f"{S3_MOST_BYTES / 2**30:.0f} in one request; nothing was sent, all of it stays on this machine in "
                f"{self._here.relative_to(places_root().parent)} of the cache"
            )

    @contextlib.contextmanager
    def alone(self, lock: str) -> Iterator[None]:
        """No other process is in a block of this lock. Inside, what all have sent is here; what is written is sent."""
        self.send()
        with locked(self.url, lock, wait=True) as check:
            self._sent = bring(self.url, self._here, self._sent, empty=True, may_go=True)
            self._checks.append(check)
            try:
                yield
                self.send()
            finally:
                self._checks.remove(check)

    def send_now_and_then(self) -> None:
        """`send` where the last time is half a minute ago: of much that is written little is lost by a kill."""
        if time.monotonic() - self._last > _SEND_SECONDS:
            self.send()

    def try_to_send(self) -> None:
        """`send`; where the bucket does not take it, a line says so, and the next time sends that too."""
        try:
            self.send()
        except InputError as error:
            print(named(f"warning: {error}; it is sent at the next checkpoint"), file=sys.stderr, flush=True)

    def _write(self, names: list[str], files: dict[str, list[int]] | None) -> None:
        """Send files, or where `files` is None remove objects, and wait for all."""
        waiting: deque[tuple[str, Any]] = deque()

        def take() -> None:
            name, writing = waiting.popleft()
            with asking(f"{self.url}/{name}"):
                written = writing.result()
            if files is None:
                del self._sent[name]
            else:
                self._sent[name] = [written.generation.hex(), *files[name]]
                if VALUES.fullmatch(name):
                    (self._here / name).unlink()

        for name in names:
            value = None
            if files is not None:
                try:
                    value = (self._here / name).read_bytes()
                except FileNotFoundError:  # of a checkpoint that has just been removed
                    continue
            waiting.append((name, objects(self.url).write(name, value)))
            while len(waiting) >= _AT_ONCE or (files and sum(files[name][0] for name, _ in waiting) > _BYTES_AT_ONCE):
                take()
        while waiting:
            take()


def _is_mark(name: str) -> bool:
    return name.rpartition("/")[2] in _MARKS


def _by_turn(names: list[str]) -> list[list[str]]:
    """The names in the order of sending: marks wait for all others."""
    marks = [name for name in names if _is_mark(name)]
    return [[name for name in names if name not in set(marks)], marks]


def whole_files(here: Path) -> dict[str, list[int]]:
    """The files of a folder that are to be sent, each with its size and time."""
    found = {}
    for folder, _, names in os.walk(here):
        for name in names:
            path = Path(folder) / name
            below = path.relative_to(here).as_posix()
            if name != LOCK_FILE and not _NOT_YET.fullmatch(below) and (now := stamp(path)):
                found[below] = now
    return found


def _left_over(url: str, here: Path, noted: Path) -> dict[str, list[Any]] | None:
    """What the bucket has of a folder that a command which was killed, or could not send, has left; None where there is
    nothing to send, or others have written since: an object is neither what was sent nor what is here or its beginning.

    What is not here any more is brought, so that nothing is removed from the bucket because of it.
    """
    try:
        sent = read_json_object(noted)
    except InputError:  # no such file
        return None
    files = whole_files(here)
    unsent = [name for name, now in files.items() if sent.get(name, [""])[1:] != now]
    if not unsent:
        return None
    names = names_below(url)
    of_others = [name for name in sent if name in files and name not in {*names} and not _is_mark(name)]
    sent = {name: sent[name] for name in names if name in sent}
    for name in filter(is_kept_here, names):
        known = bytes.fromhex(sent[name][0]) if name in sent else None
        with asking(f"{url}/{name}"):
            read = objects(url).read(name, if_not_equal=known).result()
        own = (here / name).read_bytes() if read.state == "value" and name in files else None
        if own == read.value:
            sent[name] = [read.stamp.generation.hex(), *files[name]]
        elif own is not None and own.startswith(read.value):  # rows that were sent, before more were written
            sent.pop(name, None)
        elif read.state != "unspecified":
            of_others.append(name)
    left = f"{len(unsent)} files that an earlier command has left on this machine, such as {unsent[0]}"
    others = f"has been written by others since, such as {of_others[0]}; dropped:" if of_others else "sending"
    print(f"{url}: {others} {left}", file=sys.stderr, flush=True)
    if of_others:
        return None
    return sent | bring_names(url, here, [name for name in wanted_of(names) if name not in files])


_shared: dict[Path, Sending] = {}


@contextlib.contextmanager
def alone_in(folder: Path, lock: str) -> Iterator[None]:
    """No other process is in a block of this lock for a folder; it waits for one that is.

    In a bucket, what others have sent is brought before, and what is written is sent.
    """
    with _shared[folder].alone(lock) if folder in _shared else only_writer(folder, name=lock, wait=True):
        yield


@contextlib.contextmanager
def published(folder: Path, *, shared: bool = False) -> Iterator[Sending | None]:
    """A folder to write into; one that is the place of a folder in a bucket holds what that does, and all that is
    written into it is sent when the block ends. Of a folder of this machine nothing is done, and None is given.

    Args:
        shared: other processes that ask for this may write too, each from a folder of its own.

    Raises:
        InputError: another command writes into the bucket's folder, or the bucket refuses.
    """
    url = url_at(folder)
    if url is None:
        yield None
        return
    with one_of_several(url) if shared else only_sender(url) as check:
        noted = folder.with_name(_NOTED.format(folder.name))
        sent = None if shared else _left_over(url, folder, noted)
        if sent is not None:
            sending = Sending(folder, url, sent, check, noted)
            sending.send()
        else:
            noted.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            sent = bring(url, folder, empty=True, may_go=shared)
            sending = Sending(folder, url, sent, check, None if shared else noted)
            sending.note()
        if shared:
            _shared[folder] = sending
        try:
            yield sending
        finally:
            _shared.pop(folder, None)
            try:
                sending.send()
            except BucketError as error:
                if shared:
                    raise
                raise InputError(
                    f"{error}; what is not sent stays on this machine, and the next command sends it"
                ) from None
            noted.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
