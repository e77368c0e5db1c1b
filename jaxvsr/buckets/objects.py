"""Objects in buckets, by TensorStore's drivers: they read frames in place, and bring and send all other files.

One client for both: the same credentials, endpoints, retries and conditional writes, and nothing more to install.

    s3   AWS's chain of credentials (environment, profile, web identity, ECS, IMDS); AWS_REGION; AWS_ENDPOINT_URL
    gs   Google's application default credentials; TENSORSTORE_GCS_HTTP_URL or STORAGE_EMULATOR_HOST
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxvsr.errors import BucketError, InputError, one_line

if TYPE_CHECKING:
    import tensorstore

CACHE_BYTES = 2**28  # of frames that were read last, in memory of each process
# 0.5, 1, 2, 4, 8 and 8 s apart: a server that fails twice is asked again, one that is down is said after half a minute.
_RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "8s"}
_STALLED_SECONDS = "20"  # without 256 bytes in them, a request is made again
_REASONS = {
    "PERMISSION_DENIED": "no permission",
    "UNAUTHENTICATED": "no permission",
    "NOT_FOUND": "no such bucket or object",
    "ABORTED": "the server failed or did not answer, also when it was asked again",
    "UNAVAILABLE": "the server did not answer",
    "DEADLINE_EXCEEDED": "the server did not answer",
}


@functools.cache
def context() -> tensorstore.Context:
    """What all requests of this process share: retries, credentials, and a bounded cache of what was read."""
    import tensorstore

    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", _STALLED_SECONDS)
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "256")
    if (emulator := os.environ.get("STORAGE_EMULATOR_HOST")) is not None:
        emulator = emulator if "://" in emulator else f"http://{emulator}"
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", emulator)
    shared: dict[str, Any] = {"s3_request_retries": _RETRIES, "gcs_request_retries": _RETRIES}
    if "AWS_ACCESS_KEY_ID" in os.environ:  # the chain would say on stderr that there are no profiles
        shared["aws_credentials"] = {"type": "environment"}
    return tensorstore.Context({**shared, "cache_pool": {"total_bytes_limit": CACHE_BYTES}})


def spec_of(url: str) -> dict[str, Any]:
    """TensorStore's spec of the objects below a folder in a bucket."""
    scheme, _, rest = url.partition("://")
    bucket, _, folder = rest.partition("/")
    spec: dict[str, Any] = {"driver": {"gs": "gcs", "s3": "s3"}[scheme], "bucket": bucket}
    spec["path"] = f"{folder}/" if folder else ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        spec |= {"endpoint": endpoint.rstrip("/"), "aws_region": region}
    return spec


@functools.cache
def objects(url: str) -> tensorstore.KvStore:
    """The objects below a folder in a bucket, by their names from there."""
    import tensorstore

    with asking(url):
        return tensorstore.KvStore.open(spec_of(url), context=context()).result()


def names_below(url: str) -> list[str]:
    """The names of all objects below a folder in a bucket, sorted; without marks of folders (`frames/`).

    Raises:
        InputError: the bucket does not give them, or one of them can be no file.
    """
    with asking(url):
        names = sorted(key.decode() for key in objects(url).list().result())
        if not names:  # Google's driver takes a list that is refused for an empty one; a read that is refused is said
            objects(url).read("jaxvsr-asks-whether-it-may-read").result()
    names = [name for name in names if not name.endswith("/")]
    for name in names:
        if {"", ".", ".."} & set(name.split("/")):
            raise InputError(f"{url}: an object in it has the name {name!r}, which no file can have")
    return names


@contextlib.contextmanager
def asking(url: str) -> Iterator[None]:
    """What TensorStore raises where a bucket refuses or fails, as one line that begins with the URL."""
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{url}: an object in it has a name that is not UTF-8") from None
    except (ValueError, RuntimeError, OSError) as error:
        raise BucketError(f"{url}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Why a request failed, in words, with what the server said."""
    said = one_line(error, 1000)
    status = re.match(r"[A-Z_]+(?=: )", said)
    words = _REASONS.get(status[0]) if status is not None else None
    said = re.sub(r"\s*\[\w+='.*", "", said.removeprefix(f"{status[0]}: ") if status else said)[-240:]
    return f"{words} ({said})" if words else said
