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
from .home import open_home
from .service import enrolment_app
from .services import Service, service_files, service_states
from .sites import site_states

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from ..clock import Clock
    from ..storage.database import Database
    from .home import AuthorityHome

logger = logging.getLogger(__name__)

START_WITHIN_S = 10.0
MOST_CONNECTIONS = 256


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
    config = _configured(database, home, host=host, port=port, clock=clock)
    try:
        opened = config.bind_socket()
    except SystemExit:
        remedy = "choose another port"
        raise AuthorityError(f"{host}:{port}", "the port is in use", remedy) from None
    server = uvicorn.Server(config)
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


def _configured(
    database: Database, home: AuthorityHome, *, host: str, port: int, clock: Clock
) -> uvicorn.Config:
    files = service_files(home, Service.ENROLMENT.value)
    config = uvicorn.Config(
        enrolment_app(database, home.folder, clock=clock),
        host=host,
        port=port,
        ssl_certfile=str(files.certificate),
        ssl_keyfile=str(files.key),
        # Addresses of devices are nobody's business, and requests are not to be found in logs.
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16_384,
        http="h11",
        ws="none",
        lifespan="off",
    )
    try:
        config.load()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise AuthorityError(files.certificate, what, "fedcell fleet certify") from None
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return config
