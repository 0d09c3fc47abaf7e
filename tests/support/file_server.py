"""A small HTTP server of files that can break off, drip, redirect, lie, and never end."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Served:
    """What the server gives, and what it was asked.

    Attributes:
        files: content by path.
        break_after: bytes after which the next answers break off, first come first served.
        pause_s: seconds before each chunk of 1,000 bytes.
        redirects: address by path.
        has_tag: whether answers carry an ETag, a date, or neither.
        ignores_ranges: answer with the whole file whatever is asked for.
        says_length: whether answers carry their length.
        is_endless: send zeros for ever.
        status: of every answer, where it is no success.
        extra: headers of every answer.
        asked: range asked for and bytes sent, of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    pause_s: float = 0.0
    redirects: dict[str, str] = field(default_factory=dict)
    has_tag: str = "strong"
    ignores_ranges: bool = False
    says_length: bool = True
    is_endless: bool = False
    status: int = 200
    extra: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str | None, int]] = field(default_factory=list)
    find: Callable[[str], bytes | None] | None = None
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def log_message(self, *_: object) -> None:
        """Keep the tests' output quiet."""

    def do_GET(self) -> None:
        served = self.served
        if self.path in served.redirects:
            self.send_response(302)
            self.send_header("Location", served.redirects[self.path])
            self.end_headers()
            return
        content = served.find(self.path) if served.find else served.files.get(self.path)
        if served.status != 200 or content is None:
            self.send_error(served.status if content is not None else 404)
            return
        if served.is_endless:
            self._endless()
            return
        self._file(content)

    def _validator(self, content: bytes) -> str:
        tag = hashlib.sha256(content).hexdigest()[:16]
        return {"strong": f'"{tag}"', "weak": f'W/"{tag}"', "none": ""}[self.served.has_tag]

    def _file(self, content: bytes) -> None:
        served, wanted = self.served, self.headers.get("Range")
        validator = self._validator(content)
        start = 0
        is_same = self.headers.get("If-Range", validator) == validator
        if wanted and is_same and not served.ignores_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                # Noted before the answer leaves: who has it may look at once.
                served.asked.append((wanted, 0))
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        most = served.break_after.pop(0) if served.break_after else len(content)
        rest = content[start : start + most]
        served.asked.append((wanted, len(rest)))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if validator:
            self.send_header("ETag", validator)
        if served.says_length:
            self.send_header("Content-Length", str(len(content) - start))
        for name, value in served.extra.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(rest)

    def _send(self, rest: bytes) -> None:
        size = 1000 if self.served.pause_s else 1 << 16
        try:
            for first in range(0, len(rest), size):
                time.sleep(self.served.pause_s)
                self.wfile.write(rest[first : first + size])
                self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        sent = 0
        try:
            while True:
                sent += self.wfile.write(bytes(1 << 16))
        except OSError:
            self.served.asked.append((None, sent))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def serving(*, certificate: Path | None = None, **choices: object) -> Iterator[Served]:
    """Serve until the block ends; `address` is the server's.

    Args:
        certificate: PEM file of a certificate and its key, to serve by TLS.
        choices: fields of `Served`.
    """
    served = Served(**choices)
    handler = type("Handler", (_Handler,), {"served": served})
    server = _Server(("127.0.0.1", 0), handler)
    scheme = "http" if certificate is None else "https"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    served.address = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
