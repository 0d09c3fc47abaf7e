"""The device's side of the enrolment service: HTTPS, bounded in time and size.

The service is known by its authority: by the fingerprint that came with the token before a device
has joined, by the authorities that it was given afterwards. Where the device's clock is not to be
trusted, the time within which a certificate holds is not looked at; name and signature always are.
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from models.wire.enrolment import (
    AUTHORITIES_PATH,
    ENROL_PATH,
    MAX_BODY_BYTES,
    RENEW_PATH,
    TIME_PATH,
    EnrolmentAnswer,
    read_answer,
)
from models.wire.errors import WireError
from models.wire.link_tls import NO_CHECK_TIME

from ..errors import JoinError, JoinRefusedError, ServiceUnreachableError
from .device_certificate import pinned_authorities

TIMEOUT_S = 20.0
DEFAULT_PORT = 8443
REMEDIES = {
    "bad_token": "ask the operator for a new token",
    "taken": "ask the operator for a token that is made for this device",
    "revoked": "ask the operator for a token that is made for this device",
    "unknown_device": "ask the operator for a token",
    "bad_signature": "join with a new token: fedcell-device join URL --token T --anew",
    "bad_request": "join with a new token: fedcell-device join URL --token T --anew",
    "too_early": "nothing is to do yet",
    "too_often": "wait a minute, then try again",
    "unavailable": "try again later",
}


@dataclass(frozen=True, slots=True)
class EnrolmentService:
    """An enrolment service, and by what it is known.

    Attributes:
        host: its name or address, as its certificate bears it.
        port: TCP port.
        authorities: who may speak for it, PEM; empty: those that the machine trusts.
        looks_at_time: whether certificates that are over are refused.
    """

    host: str
    port: int
    authorities: str = ""
    looks_at_time: bool = True

    def enrol(self, body: bytes) -> EnrolmentAnswer:
        """Ask to be enrolled.

        Raises:
            JoinRefusedError: the service says why not.
            ServiceUnreachableError: no answer came; asking again with the same keys is right.
        """
        return _answer(self._exchange("POST", ENROL_PATH, body), self.host)

    def renew(self, body: bytes) -> EnrolmentAnswer:
        """Ask for a new certificate; errors as for `enrol`."""
        return _answer(self._exchange("POST", RENEW_PATH, body), self.host)

    def time(self) -> datetime:
        """Return the service's clock; errors as for `enrol`."""
        try:
            told = datetime.fromisoformat(json.loads(self._exchange("GET", TIME_PATH))["time"])
            if told.tzinfo is not None:
                return told
        except (ValueError, KeyError, TypeError):
            pass
        raise JoinError(self.host, "answers as no enrolment service does", "check the address")

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return _exchange(self.host, self.port, self._context(), method, path, body)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authorities or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if not self.looks_at_time:
            context.verify_flags |= NO_CHECK_TIME
        return context


def service_at(address: str, *, fingerprint: str | None) -> EnrolmentService:
    """Return the service at an address, for a device that has not joined.

    Nothing that is secret is sent before the service is known.

    Args:
        address: such as `https://fleet.example:8443`.
        fingerprint: SHA-256 of the authority's certificate, hex; None: the machine's own
            authorities must know the service.

    Raises:
        JoinError: the address is none, or no authority has this fingerprint.
        ServiceUnreachableError: nobody answers.
    """
    host, port = address_of(address)
    if fingerprint is None:
        return EnrolmentService(host, port)
    pinned = fingerprint.lower().replace(":", "")
    if len(pinned) != 64 or not set(pinned) <= set("0123456789abcdef"):
        what = "is no fingerprint of 64 hex digits"
        raise JoinError("--ca-fingerprint", what, "copy it as 'fedcell fleet token' prints it")
    unknown = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unknown.check_hostname = False
    unknown.verify_mode = ssl.CERT_NONE
    named = _exchange(host, port, unknown, "GET", AUTHORITIES_PATH, None)
    authority = pinned_authorities(named, fingerprint=pinned)
    # A new device's clock may say 1970, and what was pinned just now needs no clock.
    return EnrolmentService(host, port, authority, looks_at_time=False)


def address_of(address: str) -> tuple[str, int]:
    """Return host and port of an `https` address.

    Raises:
        JoinError: it is none.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    if parts.scheme != "https" or not host or parts.path.strip("/") or parts.query:
        what = f"is no address of an enrolment service: {address[:80]!r}"
        raise JoinError("URL", what, "give https://HOST:PORT")
    return host, port


def _exchange(
    host: str, port: int, context: ssl.SSLContext, method: str, path: str, body: bytes | None
) -> bytes:
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read(MAX_BODY_BYTES + 1)
    except ssl.SSLCertVerificationError as error:
        what = f"is not known by an authority of the fleet: {error.verify_message}"
        raise JoinError(f"{host}:{port}", what, "give --ca-fingerprint, and check it") from None
    except (OSError, http.client.HTTPException) as error:
        what = f"no answer: {str(error) or type(error).__name__}"
        remedy = "check address and network; the same command goes on where this one ended"
        raise ServiceUnreachableError(f"{host}:{port}", what, remedy) from None
    finally:
        connection.close()
    if len(content) > MAX_BODY_BYTES:
        raise JoinError(f"{host}:{port}", "answers with too much", "check the address")
    if response.status != http.HTTPStatus.OK:
        raise _refusal(f"{host}:{port}", response.status, content)
    return content


def _refusal(where: str, status: int, content: bytes) -> JoinError:
    try:
        said: Any = json.loads(content)
        reason, what = str(said["reason"]), str(said["what"])
    except (ValueError, KeyError, TypeError):
        what = f"answers with HTTP status {status}"
        return ServiceUnreachableError(where, what, "check the address, or try again later")
    if reason in {"too_often", "unavailable"}:
        return ServiceUnreachableError(where, what[:200], REMEDIES[reason])
    remedy = REMEDIES.get(reason, "tell the operator")
    return JoinRefusedError(where, what[:200], remedy, reason=reason)


def _answer(content: bytes, host: str) -> EnrolmentAnswer:
    try:
        return read_answer(content)
    except WireError as error:
        raise JoinError(host, str(error), "check the address; tell the operator") from None
