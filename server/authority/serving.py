"""The enrolment service on a port: uvicorn, TLS 1.3 alone, until it is told to stop."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from ..errors import AuthorityError, StorageUnavailableError
from .connections import Door, protocol_at
from .home import open_home
from .service import enrolment_app
from .services import Service, service_files, service_states
from .sites import site_states

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from ..clock import Clock
    from ..storage.database import Database
    from .home import AuthorityHome

logger = logging.getLogger(__name__)

START_WITHIN_S = 10.0


class _Server(uvicorn.Server):
    """Ends with nobody at the door."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Turn out who has not asked, then let the answers end that are on their way."""
        self._door.close()
        await super().shutdown(sockets)


@contextmanager
def running_service(
    database: Database, home: AuthorityHome, *, host: str, port: int, clock: Clock
) -> Iterator[int]:
    """Serve enrolments for as long as the context lasts.

    Args:
        database: where enrolments are kept.
        home: the authorities, with a certificate of the service.
        host: address to listen at.
        port: TCP port, 0 for a free one.
        clock: the time.

    Yields:
        The port.

    Raises:
        AuthorityError: the certificate is missing, or the port is taken.
    """
    door = Door(_tls(home))
    config = _configured(database, home, host=host, port=port, clock=clock, door=door)
    try:
        opened = config.bind_socket()
    except SystemExit:
        remedy = "choose another port"
        raise AuthorityError(f"{host}:{port}", "the port is in use", remedy) from None
    server = _Server(config, door)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [opened]}, name="fedcell-enrolment", daemon=True
    )
    thread.start()
    deadline = time.monotonic() + START_WITHIN_S
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        if not server.started:
            raise AuthorityError(f"{host}:{port}", "the service did not start", "see its log")
        yield int(opened.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(START_WITHIN_S)
        opened.close()


def warn_of_due(database: Database, folder: Path, *, now: datetime) -> None:
    """Log which services have to be certified anew, and which sites written anew, and how.

    Args:
        database: where enrolments are kept.
        folder: of the authorities.
        now: aware time.
    """
    try:
        due = [one for one in service_states(open_home(folder), now=now) if one.is_due]
        with database.reading() as connection:
            sites = [one for one in site_states(connection) if one.is_due(now)]
    except (AuthorityError, StorageUnavailableError) as error:
        logger.warning("cannot look at what is due: %s", error)
        return
    for one in due:
        ends = "is missing" if one.not_after is None else f"ends on {one.not_after:%Y-%m-%d}"
        logger.warning(
            "the certificate of %s %s: fedcell fleet certify %s, then start it anew",
            *(one.service.value, ends, one.service.value),
        )
    for site in sites:
        why = "ends" if site.is_current else "is not right any more, and ends"
        logger.warning(
            "the site of %s %s on %s: fedcell fleet gateway %s --out FILE",
            *(site.gateway, why, f"{site.not_after:%Y-%m-%d}", site.gateway),
        )


def _tls(home: AuthorityHome) -> ssl.SSLContext:
    files = service_files(home, Service.ENROLMENT.value)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise AuthorityError(files.certificate, what, "fedcell fleet certify") from None
    return context


def _configured(
    database: Database, home: AuthorityHome, *, host: str, port: int, clock: Clock, door: Door
) -> uvicorn.Config:
    return uvicorn.Config(
        enrolment_app(database, home.folder, clock=clock),
        host=host,
        port=port,
        # Addresses of devices are nobody's business, and requests are not to be found in logs.
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16_384,
        loop="asyncio",
        http=protocol_at(door),
        ws="none",
        lifespan="off",
    )
