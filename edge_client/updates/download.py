"""Fetching a bundle: over HTTP(S), resumed where it broke off, or from a local folder.

What arrives is not trusted; the gate that follows verifies it. Here only size, time and place are
bounded. Beside an unfinished file stands what the server called it (`.part.json`), so that a later
process goes on where this one was killed, and begins anew where the server changed the file.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from models.bundle import FILES, MANIFEST, MAX_FILE_BYTES
from models.durable_file import sync_folder, write_durably
from models.errors import BundleError

from ..errors import DownloadError, InputError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO, Any

    Progress = Callable[[int, int | None], None]

CHUNK_BYTES = 1 << 16
MAX_RECORD_BYTES = 1 << 14
SCHEMES = ("http", "https")
_PARTIAL, _RANGE_BEYOND = 206, 416
_AGAIN = "run the same command again to go on where it broke off"


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """What a download may use.

    Attributes:
        max_bytes: of the file; no bundle is larger.
        total_s: seconds for all attempts together, whatever arrives meanwhile.
        silence_s: seconds without a byte.
        attempts: how often a connection that broke off is made again.
        pause_s: seconds before the second attempt; doubled before each further one.
    """

    max_bytes: int = len(FILES) * MAX_FILE_BYTES
    total_s: float = 600.0
    silence_s: float = 30.0
    attempts: int = 3
    pause_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """What an unfinished file is part of: the address, and the server's name for the content."""

    url: str
    validator: str


def is_address(source: str) -> bool:
    """Say whether a source is an HTTP address, and no path."""
    return urlsplit(source).scheme.lower() in SCHEMES


def local_bundle(source: Path) -> Path:
    """Return the bundle at a path: the path itself, or the one zip in a folder.

    Raises:
        InputError: the folder holds several zips, and is no bundle.
    """
    if not source.is_dir() or (source / MANIFEST).exists():
        return source
    found = sorted(source.glob("*.zip"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise InputError(source, f"holds {len(found)} bundles ({names})", "name one of them")
    return found[0] if found else source


def download(
    url: str,
    folder: Path,
    *,
    limits: DownloadLimits | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file over HTTP(S), or what is missing of it.

    Args:
        url: its address.
        folder: where it is put as `download.zip`; made if it is not there.
        limits: of size, time and attempts.
        progress: called with bytes that are here and bytes in all, None where that is not known.

    Returns:
        The complete file, durable.

    Raises:
        DownloadError: the server, the link or the disk failed; what arrived is kept for next time.
        BundleError: the file is larger than any bundle.
    """
    allowed = limits or DownloadLimits()
    if not is_address(url):
        raise DownloadError(url, "is no HTTP address", "give one that begins with https://")
    deadline = time.monotonic() + allowed.total_s
    broken = _BrokenOffError("took too long")
    for attempt in range(allowed.attempts):
        if attempt:
            time.sleep(allowed.pause_s * 2 ** (attempt - 1))
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            bounds = replace(allowed, total_s=remaining)
            return _Transfer(url, folder, bounds, progress).finished()
        except _BrokenOffError as error:
            broken = error
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise DownloadError(folder, what, "check the folder and the disk") from error
    raise DownloadError(url, str(broken), _AGAIN) from broken


def discard(folder: Path) -> None:
    """Remove what was downloaded, complete or not."""
    for name in ("download.zip", "download.zip.part", "download.zip.part.json"):
        (folder / name).unlink(missing_ok=True)


class _BrokenOffError(Exception):
    """The connection failed in a way that another attempt may mend."""


class _Transfer:
    """One attempt."""

    def __init__(
        self, url: str, folder: Path, limits: DownloadLimits, progress: Progress | None
    ) -> None:
        self._url, self._limits, self._progress = url, limits, progress
        self._target = folder / "download.zip"
        self._part = folder / "download.zip.part"
        self._record = folder / "download.zip.part.json"

    def finished(self) -> Path:
        known = self._known()
        have = self._part.stat().st_size if known is not None else 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "fedcell-device"}
        if known is not None and have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
        with (
            _errors_of_link(self._url),
            opened(self._url, headers=headers, limits=self._limits) as answer,
        ):
            if answer.status == _RANGE_BEYOND:
                return self._at_the_end(answer.headers.get("Content-Range", ""), have)
            start = self._start_of(answer, have)
            total = self._total_of(answer, start)
            self._remember(answer)
            have = self._receive(answer, start, total)
        if total is not None and have != total:
            raise _BrokenOffError(f"broke off after {have} of {total} bytes")
        return self._keep()

    def _known(self) -> _Unfinished | None:
        """Return what an earlier process left here of the same address."""
        try:
            with self._record.open("rb") as file:
                content = json.loads(file.read(MAX_RECORD_BYTES))
            known = _Unfinished(url=str(content["url"]), validator=str(content["validator"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return known if known.url == self._url and self._part.is_file() else None

    def _remember(self, answer: http.client.HTTPResponse) -> None:
        tag = answer.headers.get("ETag", "")
        validator = "" if tag.startswith("W/") else tag
        validator = validator or answer.headers.get("Last-Modified", "")
        if not validator or len(validator) > MAX_RECORD_BYTES // 4:
            self._record.unlink(missing_ok=True)
            return
        content = {"url": self._url, "validator": validator}
        write_durably(self._record, json.dumps(content).encode())

    def _at_the_end(self, content_range: str, have: int) -> Path:
        """Handle the answer that nothing follows: the file is complete, or not the same."""
        if have and content_range.strip() == f"bytes */{have}":
            return self._keep()
        discard(self._target.parent)
        raise _BrokenOffError("the server changed the file")

    def _start_of(self, answer: http.client.HTTPResponse, have: int) -> int:
        if answer.status != _PARTIAL:
            self._part.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)
            return 0
        given = answer.headers.get("Content-Range", "")
        if not have or not given.startswith(f"bytes {have}-"):
            discard(self._target.parent)
            raise _BrokenOffError(f"the server sent {given!r} instead of what was asked for")
        return have

    def _total_of(self, answer: http.client.HTTPResponse, start: int) -> int | None:
        coding = answer.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise DownloadError(self._url, f"is encoded as {coding!r}", "serve the file as it is")
        length = answer.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return None
        total = start + int(length[:18])
        if total > self._limits.max_bytes:
            self._refuse_size()
        return total

    def _receive(self, answer: http.client.HTTPResponse, start: int, total: int | None) -> int:
        have = start
        with self._part.open("ab" if start else "wb") as file:
            while chunk := answer.read1(CHUNK_BYTES):
                have += len(chunk)
                if have > self._limits.max_bytes:
                    self._refuse_size()
                file.write(chunk)
                file.flush()
                if self._progress is not None:
                    self._progress(have, total)
            os.fsync(file.fileno())
        return have

    def _refuse_size(self) -> None:
        discard(self._target.parent)
        what = f"is larger than {self._limits.max_bytes} bytes"
        remedy = "no bundle is; check the address"
        raise BundleError(self._url, what, remedy, reason="too_large")

    def _keep(self) -> Path:
        self._part.replace(self._target)
        self._record.unlink(missing_ok=True)
        sync_folder(self._target.parent)
        return self._target


@contextmanager
def _errors_of_link(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        what = f"the server answers {error.code} {error.reason}"
        if error.code >= 500 or error.code == 429:
            raise _BrokenOffError(what) from error
        raise DownloadError(url, what, "check the address") from error
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _BrokenOffError(f"broke off ({_words(error)})") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            what = f"its certificate is not trusted ({error.reason.verify_message})"
            raise DownloadError(url, what, "check the address and this device's clock") from error
        raise _BrokenOffError(f"cannot be reached ({_words(error)})") from error
    except ValueError as error:
        raise DownloadError(url, f"is no address ({error})", "check it") from error


def _words(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


@contextmanager
def opened(
    url: str, *, headers: dict[str, str], limits: DownloadLimits, authorities: Path | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Open an address; within `total_s` the connection is closed, however slowly bytes drip.

    A redirect is followed to https or to the same server, never from https to http.

    Args:
        url: the address.
        headers: of the request.
        limits: of size and time.
        authorities: PEM file of authorities that are believed beside this machine's own.

    Raises:
        OSError: the server cannot be reached, does not answer, or answers with an error.
        TimeoutError: the time was over before the caller was done.
    """
    sockets: list[socket.socket] = []
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _WatchedHTTP(sockets),
        _WatchedHTTPS(sockets, authorities),
        urllib.request.HTTPDefaultErrorHandler(),
        _CarefulRedirects(),
        _Errors(),
    ):
        opener.add_handler(handler)
    is_over = threading.Event()
    watch = threading.Timer(limits.total_s, _shut, [sockets, is_over])
    watch.daemon = True
    watch.start()
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - schemes are checked
        answer = opener.open(request, timeout=min(limits.silence_s, limits.total_s))
        with answer:
            yield answer
        if is_over.is_set():
            raise TimeoutError("took too long")
    finally:
        watch.cancel()


def _shut(sockets: list[socket.socket], is_over: threading.Event) -> None:
    import socket

    is_over.set()

    for open_socket in sockets:
        try:
            open_socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # It was closed in the meantime, which is what was wanted.
            continue


def _watched(kind: type[http.client.HTTPConnection], sockets: list[socket.socket]) -> Any:
    class Watched(kind):  # type: ignore[valid-type, misc]
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Watched


class _WatchedHTTP(urllib.request.HTTPHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._kind = _watched(http.client.HTTPConnection, sockets)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._kind, request)


class _WatchedHTTPS(urllib.request.HTTPSHandler):
    def __init__(self, sockets: list[socket.socket], authorities: Path | None) -> None:
        context = None
        if authorities is not None:
            context = ssl.create_default_context()
            context.load_verify_locations(cafile=authorities)
        super().__init__(context=context)
        self._trust = context
        self._kind = _watched(http.client.HTTPSConnection, sockets)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._kind, request, context=self._trust)


class _Errors(urllib.request.HTTPErrorProcessor):
    """Raises for every answer that is no success, except that nothing follows the part."""

    def http_response(
        self, request: urllib.request.Request, response: http.client.HTTPResponse
    ) -> http.client.HTTPResponse:
        if response.status == _RANGE_BEYOND:
            return response
        found: http.client.HTTPResponse = super().http_response(request, response)
        return found

    https_response = http_response


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self,
        request: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        message: str,
        headers: http.client.HTTPMessage,
        new_url: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(request.full_url), urlsplit(urljoin(request.full_url, new_url))
        is_same = (before.scheme, before.netloc) == (after.scheme, after.netloc)
        if after.scheme != "https" and not is_same:
            what = f"redirects to {new_url[:200]}, which is neither https nor the same server"
            raise DownloadError(request.full_url, what, "check the address")
        return super().redirect_request(request, fp, code, message, headers, new_url)
