"""An S3 server (moto) and a GCS server (gcp-storage-emulator) in threads, and a proxy before each that makes faults."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

BUCKET = "rooms-bucket"
_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
Fault = Callable[[str, str], str | None]  # of a method and a path → none, or a fault of `_Proxy`


class Bucket:
    """A bucket; `fault` is asked about every request: a status (`503`), `cut`, `close`, `slow` or nothing."""

    def __init__(self, scheme: str, port: int):
        self.url, self._port = f"{scheme}://{BUCKET}", port
        self.fault: Fault = lambda method, path: None
        self.one_at_a_time = threading.Lock()
        self.requests: list[tuple[str, str]] = []

    def put(self, name: str, value: bytes) -> None:
        """Write an object, past the proxy."""
        path, method = f"/{BUCKET}/{quote(name)}", "PUT"
        if self.url.startswith("gs"):
            path, method = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}", "POST"
        status, body = _ask(self._port, method, path, value, _SIGNED)
        assert status == 200, (status, body)

    def remove(self, name: str) -> None:
        """Delete an object, past the proxy."""
        gs = self.url.startswith("gs")
        path = f"/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}" if gs else f"/{BUCKET}/{quote(name)}"
        assert _ask(self._port, "DELETE", path, None, _SIGNED)[0] in (200, 204)

    def put_folder(self, folder: Path, name: str) -> str:
        """Write all files of a folder; returns its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.url}/{name}"


def _ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()


class _Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket
    port: int

    def log_message(self, *_: object) -> None:
        pass

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        path = unquote(self.path)
        self.bucket.requests.append((self.command, path))
        fault = self.bucket.fault(self.command, path)
        if fault == "close":
            self.close_connection = True
            return
        if fault is not None and fault.isdecimal():
            said = json.dumps({"error": {"code": int(fault), "message": "made by the test"}}).encode()
            self._reply(int(fault), [], said)
            return
        if fault == "slow":
            time.sleep(1.5)
        gs = self.bucket.url.startswith("gs")
        with self.bucket.one_at_a_time if gs and "ifGenerationMatch" in self.path else contextlib.nullcontext():
            if gs and (refused := self._refused_by_generation()):
                self._reply(refused, [], b"{}")
            else:
                self._ask_server(body, gs, cut=fault == "cut")

    def _ask_server(self, body: bytes | None, gs: bool, *, cut: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        with contextlib.closing(connection):
            headers = {name.lower(): text for name, text in self.headers.items()}
            if gs and (last := headers.get("range", "").partition("bytes=-")[2]):
                headers["range"] = f"bytes={max(int(self._description().get('size', 0)) - int(last), 0)}-"
            path = self.path
            if gs and self.command == "POST" and not body and "uploadType=media" in path:
                path, body = path.replace("uploadType=media", "uploadType=multipart"), _EMPTY
                headers |= {"content-type": "multipart/related; boundary=x", "content-length": str(len(_EMPTY))}
            connection.request(self.command, path, body, headers)
            response = connection.getresponse()
            value = response.read()
            answered = [(k, v) for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP]
        if gs and response.status in (200, 206) and "alt=media" in self.path:
            answered.append(("x-goog-generation", str(self._generation())))
        if gs and "startOffset" in self.path and response.status == 200:
            value = self._in_range(value)
        self._reply(response.status, answered, value, cut=cut)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def _reply(self, status: int, headers: list[tuple[str, str]], value: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        has_body = self.command != "HEAD" and status not in (204, 304)
        if has_body:
            self.send_header("Content-Length", str(len(value)))
        self.end_headers()
        if has_body:
            self.wfile.write(value[: len(value) // 2] if cut else value)
        self.close_connection = self.close_connection or cut

    # The emulator takes no range of names, no last bytes of an object and no empty object in one part, tells no
    # generation of what is read and takes no condition on it; Google's server does.

    def _in_range(self, value: bytes) -> bytes:
        query, found = parse_qs(urlsplit(self.path).query), json.loads(value)
        first, end = query["startOffset"][0], query.get("endOffset", ["\U0010ffff"])[0]
        found["items"] = [item for item in found.get("items", []) if first <= item["name"] < end]
        return json.dumps(found).encode()

    def _description(self) -> dict[str, str]:
        """Of the object that is asked for; nothing where there is none."""
        parts, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        _, _, name = parts.path.partition("/o/")
        name = name or quote(query.get("name", [""])[0], safe="")
        status, body = _ask(self.port, "GET", f"/storage/v1/b/{BUCKET}/o/{name}")
        return json.loads(body) if status == 200 else {}

    def _generation(self) -> int:
        return int(self._description().get("generation", 0))

    def _refused_by_generation(self) -> int | None:
        query = parse_qs(urlsplit(self.path).query)
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"][0]) != self._generation():
            return 412
        same = "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"][0]) == self._generation()
        return 304 if same else None


_EMPTY = b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\n\r\n--x--\r\n"


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that waits no more is no news."""


_HOP_BY_HOP = ("content-length", "connection", "transfer-encoding", "server", "date")


@contextlib.contextmanager
def _proxy(scheme: str, port: int) -> Iterator[tuple[Bucket, int]]:
    bucket = Bucket(scheme, port)
    handler = type("Proxy", (_Proxy,), {"bucket": bucket, "port": port})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket, server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def s3_bucket(patch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of an S3 server; the environment names it to this process and those that it starts."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with _proxy("s3", server.server_port) as (bucket, port):
        _ask(
            server.server_port,
            "PUT",
            f"/{BUCKET}",
            headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a/b/us-east-1/s3/aws4_request"},
        )
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        yield bucket
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def gs_bucket(patch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of a GCS server; the environment names it to this process and those that it starts."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    with _proxy("gs", server._api._httpd.server_address[1]) as (bucket, port):
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{port}")
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "test")
        yield bucket
    server.stop()


SERVERS = {"s3": s3_bucket, "gs": gs_bucket}
