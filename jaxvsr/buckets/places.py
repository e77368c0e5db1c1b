"""Where a folder in a bucket is on this machine, and back: everything else works on folders of this machine.

    CACHE/buckets/read/s3/BUCKET/PATH       what was brought of s3://BUCKET/PATH; kept for the next command
    CACHE/buckets/written/gs/BUCKET/PATH    what a command writes for gs://BUCKET/PATH; gone when all of it is sent
    CACHE/buckets/own/ID/PART/…             the same of one process alone, gone when it ends

CACHE is jaxvsr's folder in the user's cache (XDG_CACHE_HOME).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from jaxvsr.buckets.urls import bucket_url
from jaxvsr.files import user_cache

Role = Literal["read", "written"]
_PLACE = "{root}/(?:read|written|own/[^/]+/[^/]+)/(gs|s3)/"


def place(folder: Path | str, role: Role) -> Path:
    """The folder of this machine that a folder is: its place where it is in a bucket, else itself.

    Raises:
        InputError: a URL that names no folder of a bucket.
    """
    url = bucket_url(folder)
    return Path(folder) if url is None else below(places_root() / role, url)


def below(root: Path, url: str) -> Path:
    """Where a folder of a bucket is below a folder of this machine that holds several."""
    return root / url.replace("://", "/", 1)


def url_at(path: Path) -> str | None:
    """The URL of what is at a path below a place; None for other paths."""
    url, found = re.subn(rf"^{_pattern()}", r"\1://", str(path))
    return url if found else None


def named(text: str) -> str:
    """A text with URLs for the paths of their places, as users know them.

    Only texts that are shown or kept in files need it.
    """
    return re.sub(_pattern(), r"\1://", text) if "/buckets/" in text else text


def places_root() -> Path:
    """The folder of all places."""
    return user_cache().absolute() / "buckets"


def _pattern() -> str:
    return _PLACE.format(root=re.escape(str(places_root())))
