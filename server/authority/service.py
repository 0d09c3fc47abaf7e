"""The enrolment service: four addresses over HTTPS, bounded in what they read and how often.

It logs who was enrolled and why somebody was not; never a token, a request or a key.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from models.wire.enrolment import (
    AUTHORITIES_PATH,
    ENROL_PATH,
    MAX_BODY_BYTES,
    RENEW_PATH,
    TIME_PATH,
    answer_bytes,
)

from ..errors import AuthorityError, EnrolmentError, StorageUnavailableError
from .enrolment import enrol, renew
from .home import Kind, open_home
from .rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.wire.enrolment import EnrolmentAnswer

    from ..clock import Clock
    from ..storage.database import Database
    from .home import AuthorityHome

    Step = Callable[[Database, AuthorityHome, bytes], EnrolmentAnswer]

logger = logging.getLogger(__name__)

BODY_WITHIN_S = 10.0
FAILURES_PER_MINUTE = 6.0
FAILURES_AT_ONCE = 20
STATUS = {"too_early": 409, "taken": 409, "revoked": 403, "bad_token": 403, "unknown_device": 403}
"""HTTP status by an enrolment's reason; any other is 400."""


def enrolment_app(database: Database, folder: Path, *, clock: Clock) -> FastAPI:
    """Return the service.

    Args:
        database: where enrolments are kept.
        folder: of the authorities, looked at anew at every request.
        clock: the time.
    """
    # No pages that describe it, and no validation errors that quote what was sent.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    failures = RateLimit(per_minute=FAILURES_PER_MINUTE, at_once=FAILURES_AT_ONCE)

    async def answer(request: Request, step: Step) -> Response:
        caller = "" if request.client is None else request.client.host
        # Taken before the answer is known: many guesses at once are still many.
        if not failures.take(caller, elapsed_s=time.monotonic()):
            return _refused(429, "too_often", "too many refused requests; wait a minute")
        body = await _bounded_body(request)
        if body is None:
            return _refused(413, "too_large", f"at most {MAX_BODY_BYTES} bytes are read")
        try:
            given = await run_in_threadpool(lambda: step(database, open_home(folder), body))
        except EnrolmentError as error:
            logger.info("refused a request: %s", error.reason)
            return _refused(STATUS.get(error.reason, 400), error.reason, str(error))
        except (StorageUnavailableError, AuthorityError) as error:
            logger.error("cannot enrol: %s", error)  # noqa: TRY400 - the line says it all
            return _refused(503, "unavailable", "the service cannot answer now; try again later")
        failures.give_back(caller)
        return Response(answer_bytes(given), media_type="application/json")

    async def enrol_device(request: Request) -> Response:
        return await answer(request, lambda *parts: enrol(*parts, now=clock()))

    async def renew_device(request: Request) -> Response:
        return await answer(request, lambda *parts: renew(*parts, now=clock()))

    async def authorities(_request: Request) -> Response:
        pem = await run_in_threadpool(lambda: open_home(folder).trusted_pem(Kind.SERVER))
        return Response(pem, media_type="application/x-pem-file")

    async def tell_time(_request: Request) -> Response:
        return JSONResponse({"time": clock().isoformat()})

    app.add_route(ENROL_PATH, enrol_device, methods=["POST"])
    app.add_route(RENEW_PATH, renew_device, methods=["POST"])
    app.add_route(AUTHORITIES_PATH, authorities, methods=["GET"])
    app.add_route(TIME_PATH, tell_time, methods=["GET"])
    return app


async def _bounded_body(request: Request) -> bytes | None:
    """Read a body within its bounds of size and time, None beyond them."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:12]) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return None
    except (TimeoutError, ClientDisconnect):
        return None
    return bytes(body)


def _refused(status: int, reason: str, what: str) -> Response:
    return JSONResponse({"reason": reason, "what": what}, status_code=status)
