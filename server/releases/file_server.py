"""A plain HTTP server of the repository's files, for a laboratory: one range at a time, read only.

A fleet is served by nginx or a content network; the repository is a folder of files that never
change, but for `timestamp.json`.
"""

from __future__ import annotations

import re
import shutil
import ssl
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from ..errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
_NAME = re.compile(r"/(metadata|targets/[a-z0-9_-]{1,32})/[A-Za-z0-9][A-Za-z0-9._+-]{0,200}")
TIMEOUT_S: Final = 30.0


class FileServer(ThreadingHTTPServer):
    """Serves a repository's `metadata` and `targets`, and nothing else.

    Args:
        folder: of the repository.
        host: address to listen at.
        port: TCP port, 0 for any free one.
        certificate: PEM file of a certificate, to serve by TLS; None: in the clear, which metadata
            and signatures allow.
        key: PEM file of its key; None: in the same file.

    Raises:
        SettingError: no certificate and key can be read there.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        folder: Path,
        *,
        host: str,
        port: int,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        self.folder = folder
        context = None if certificate is None else _tls_context(certificate, key)
        super().__init__((host, port), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.scheme = "http" if certificate is None else "https"

    @property
    def address(self) -> str:
        """Where devices find it."""
        return f"{self.scheme}://{self.server_address[0]!s}:{self.server_port}"


def _tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        what = f"cannot be used with its key: {error.strerror or error}"
        remedy = "give --certificate and --key; in a fleet: fedcell fleet certify release-files"
        raise SettingError("certificate", f"{certificate} {what}", remedy) from None
    return context


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server_version, sys_version = "fedcell", ""

    def log_message(self, *_: object) -> None:
        """Keep no record of who fetches what."""

    def do_GET(self) -> None:
        """Send a file, or what is asked of it."""
        self._answer(is_wanted=True)

    def do_HEAD(self) -> None:
        """Say how long a file is."""
        self._answer(is_wanted=False)

    def _answer(self, *, is_wanted: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if _NAME.fullmatch(path) is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            file = (self.server.folder / path.lstrip("/")).open("rb")
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._send(path, file, is_wanted=is_wanted)

    def _send(self, path: str, file: IO[bytes], *, is_wanted: bool) -> None:
        size = file.seek(0, 2)
        tag = f'"{path.rpartition("/")[2]}-{size}"'
        start, end = 0, size
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        is_current = path.endswith("/timestamp.json")
        if asked and not is_current and self.headers.get("If-Range", tag) == tag:
            start = int(asked[1])
            end = min(size, int(asked[2]) + 1) if asked[2] else size
            if start >= end:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        is_part = (start, end) != (0, size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if is_current:
            self.send_header("Cache-Control", "no-cache")
        else:
            self.send_header("ETag", tag)
            self.send_header("Cache-Control", "public, max-age=31536000, immutable")
        self.end_headers()
        if is_wanted:
            file.seek(start)
            if is_part:
                self.wfile.write(file.read(end - start))
            else:
                shutil.copyfileobj(file, self.wfile)
