"""Names of folders in buckets: `gs://bucket/path` and `s3://bucket/path`."""

from __future__ import annotations

import re
from pathlib import Path

from jaxvsr.errors import InputError

# As it was typed, or as `Path` has made it, with one slash; also behind `NAME=` and `,`. A letter alone is a drive.
_URL = re.compile(r"(?:^|[=,*])([A-Za-z][A-Za-z0-9+.-]+:/{1,2}[^,]*)")

_BUCKET = re.compile(r"(gs|s3):/{1,2}([^/]+)((?:/+[^/]+)*)/*")


def bucket_url(folder: Path | str) -> str | None:
    """The URL of a folder in a bucket, without a slash at its end; None for a folder of this machine.

    >>> bucket_url(Path("s3://b/data/")), bucket_url("data")
    ('s3://b/data', None)

    Raises:
        InputError: a URL that names no folder of a bucket.
    """
    if (url := url_in(folder)) is None:
        return None
    found = _BUCKET.fullmatch(str(folder))
    if found is None or {".", ".."} & set(found[3].split("/")):
        raise InputError(f"{url}: expected a folder, or gs://BUCKET/FOLDER or s3://BUCKET/FOLDER")
    return f"{found[1]}://{found[2]}{re.sub('/+', '/', found[3])}"


def url_in(value: object) -> str | None:
    """The first URL in what a flag or a field was given; None where there is none, as in numbers and names of files."""
    if isinstance(value, list | tuple):
        return next((url for one in value if (url := url_in(one)) is not None), None)
    found = _URL.search(str(value)) if isinstance(value, str | Path) else None
    return None if found is None else re.sub(r":/+", "://", found[1], count=1)


def refuse_url(value: object, what: str = "") -> None:
    """Refuse a URL where only a file or folder of this machine can be: it would become a folder named `gs:`.

    Args:
        what: it was given as, such as `--out`.

    Raises:
        InputError: `value` is a URL, or has one in it.
    """
    if (url := url_in(value)) is not None:
        raise InputError(f"{what} {url}: takes a file or folder of this machine, no URL".strip())
