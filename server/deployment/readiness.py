"""Whether the parts of a deployment answer, and whether their ports are free."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from typing import TYPE_CHECKING

from models.wire.app_pin import APP_PIN_PATH

from .place import INNER_NAME, LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

    from .place import Deployment

ANSWER_S = 2.0
_EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104 - compared with, not listened at


def superlink_answers(deployment: Deployment) -> bool:
    """Tell whether the SuperLink says that it is well."""
    place = (LOOPBACK, deployment.inner_port)
    status = _get(deployment.inner_authority, place, name=INNER_NAME, path="/health")
    return status in range(200, 300)


def proxy_answers(deployment: Deployment) -> bool:
    """Tell whether the proxy hands out the pin under the deployment's name."""
    host = LOOPBACK if deployment.listen in _EVERYWHERE else deployment.listen
    place, name = (host, deployment.port), deployment.hosts[0]
    return _get(deployment.authorities, place, name=name, path=APP_PIN_PATH) == 200


def taken_port(deployment: Deployment, *, with_proxy: bool) -> int | None:
    """Return a port of the deployment that another process holds, None where they are free.

    Raises:
        OSError: this process may not listen there, or the address is not of this machine.
    """
    places = [(LOOPBACK, deployment.inner_port)]
    if with_proxy:
        places.append((deployment.listen or "0.0.0.0", deployment.port))  # noqa: S104 - as nginx does
    for host, port in places:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            # As servers do: an old connection that lingers holds no port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return port
                raise
    return None


def _get(authorities: Path, place: tuple[str, int], *, name: str, path: str) -> int | None:
    """Return the status of an answer over TLS by who is named so; None where none came."""
    try:
        context = ssl.create_default_context(cafile=str(authorities))
        with (
            socket.create_connection(place, timeout=ANSWER_S) as plain,
            # An address is no server name of TLS; the certificate is held against it all the same.
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            return _status(secured, path)
    except (OSError, http.client.HTTPException, ValueError):
        return None


def _status(secured: ssl.SSLSocket, path: str) -> int:
    asked = f"GET {path} HTTP/1.1\r\nHost: {INNER_NAME}\r\nConnection: close\r\n\r\n"
    secured.sendall(asked.encode())
    answer = http.client.HTTPResponse(secured)
    try:
        answer.begin()
        return answer.status
    finally:
        answer.close()
