"""Two commands never write into one folder at once. A lock ends with the process that holds it, however it dies.

The lock is `flock` on a file, which NFS passes on to its server (a lock on a folder itself it does not): so it holds
between machines wherever their disk has locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxvsr.buckets.urls import refuse_url
from jaxvsr.errors import InputError
from jaxvsr.files import partial_name

LOCK_FILE = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_TRIES_TO_SHARE = 25
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}\.partial")


@contextlib.contextmanager
def only_writer(folder: Path, *, shared: bool = False, wait: bool = False, name: str = LOCK_FILE) -> Iterator[None]:
    """No other process writes into `folder` inside the block. The folder is made; if it is empty at the end, it goes
    again.

    Args:
        shared: several processes that ask for this may write side by side, none beside one that does not.
        wait: until the folder is free, instead of raising.
        name: of the file that is locked; locks of different names do not exclude each other.

    Raises:
        InputError: another process writes into it, it cannot be written into, or it cannot be a folder.
    """
    refuse_url(folder)
    missing = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    try:
        with _locked(folder / name, folder, shared=shared, wait=wait):
            yield
    finally:
        with contextlib.suppress(OSError):  # not there, or not empty
            for place in missing:
                place.rmdir()


def is_held(path: Path) -> bool:
    """Whether a process has the lock on a file, or may have: its disk has no locks. False where there is no file."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


@contextlib.contextmanager
def only_maker(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write into; it takes the name of `folder`, which must be empty or not there, when
    the block ends without an error, and is gone when it does not.

    Raises:
        InputError: another process makes the folder, or it cannot be written.
    """
    refuse_url(folder)
    with _locked(folder.with_name(f".{folder.name}.lock"), folder):
        remove_partials(folder.parent, [f".{glob.escape(folder.name)}."])
        partial = partial_name(folder)
        try:
            partial.mkdir()
            yield partial
            if folder.exists():
                folder.rmdir()
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def remove_partials(folder: Path, beginnings: Iterable[str]) -> None:
    """Remove what processes that died had begun to write: files and folders with a name of `files.partial_name`.

    Only for the process that alone may write there.

    Args:
        beginnings: patterns below `folder` that such names begin with: `frames/`, `features/*/`.
    """
    for beginning in beginnings:
        for path in folder.glob(f"{beginning}*.partial"):
            if not _PARTIAL.fullmatch(path.name):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, folder: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """A lock on the file `path`, which is made, and goes again with its last holder."""
    file, kind = None, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    there = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(f"{folder}: cannot be a folder, because {there} is a file")
    try:
        while file is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                if os.path.lexists(path.parent) and not path.parent.is_dir():
                    raise
                continue  # its last holder removed the empty folder while it was looked at
            with contextlib.suppress(FileNotFoundError):  # its last holder has just removed the empty folder
                file = _lock(path, folder, kind)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: cannot be written into ({reason})") from None
    try:
        if not shared:
            with contextlib.suppress(OSError):  # for the line that refuses others; a full disk has its own
                os.write(file, f"{os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # alone, or the others still share it
            path.unlink()
        os.close(file)


def _lock(path: Path, folder: Path, kind: int) -> int | None:
    """The locked file; None if its holder removed it while it was opened."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        for _ in range(_TRIES_TO_SHARE if kind == fcntl.LOCK_SH | fcntl.LOCK_NB else 0):
            with contextlib.suppress(BlockingIOError):  # one that ends has it alone for a moment
                fcntl.flock(file, kind)
                break
            time.sleep(0.02)
        fcntl.flock(file, kind)
    except OSError as error:
        holder = os.read(file, 200).decode(errors="replace")
        os.close(file)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            named = f"process {holder}" if holder.isprintable() and holder else "another process"
            raise InputError(f"{folder}: {named} writes into it; wait for it, or name another folder") from None
        if error.errno not in _NO_LOCKS:
            raise
        print(f"{folder}: its disk has no locks; let no other command write into it", file=sys.stderr, flush=True)
        return os.open(path, os.O_RDWR)
    try:
        if os.path.samestat(os.stat(path), os.fstat(file)):
            os.ftruncate(file, 0)
            return file
    except FileNotFoundError:
        pass
    os.close(file)
    return None
