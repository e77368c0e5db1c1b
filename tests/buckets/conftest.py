"""The buckets of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jaxvsr.buckets import fetching, objects
from tests.support.buckets import SERVERS, Bucket


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """One server for all tests, S3's and Google's in turn."""
    with pytest.MonkeyPatch.context() as patch, SERVERS[request.param](patch) as bucket:
        yield bucket


@pytest.fixture
def bucket(server: Bucket, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket without faults, and a cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "_RETRIES", {**objects._RETRIES, "initial_delay": "20ms"})
    for cached in (fetching.fetched, objects.objects, objects.context):
        cached.cache_clear()
    server.requests.clear()
    yield server
    server.fault = lambda method, path: None
