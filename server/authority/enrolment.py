"""Enrolment, renewal and revocation: who gets a certificate. Each is one transaction.

The used token, the device's keys and its certificate are durable together, before the answer
leaves. So a device whose answer was lost asks again with the same keys and gets the same answer,
and whoever comes with the same token and other keys gets nothing.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from models.wire.enrolment import EnrolmentAnswer, read_enrolment, read_renewal, verify_renewal
from models.wire.envelope import VerifyKey
from models.wire.errors import SignatureError, WireError

from ..errors import AuthorityError, CertificateError, EnrolmentError
from ..storage.enrolments import EnrolledDevice, Enrolments
from ..storage.sites import Sites
from .certificates import checked_supernode_key, key_digest, requested_key
from .home import Kind
from .issuing import issue
from .tokens import TOKEN, token_hash

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from sqlalchemy import Connection

    from models.wire.enrolment import EnrolmentRequest

    from ..storage.database import Database
    from ..storage.enrolments import KeptCertificate
    from .home import AuthorityHome

logger = logging.getLogger(__name__)

EARLIEST_RENEWAL = 0.5
"""Part of a certificate's life before which no other is given: devices renew after two thirds."""
LATEST_RENEWAL = timedelta(days=730)
"""So long after its certificate is over, a device needs a new token."""


def enrol(
    database: Database, home: AuthorityHome, body: bytes, *, now: datetime
) -> EnrolmentAnswer:
    """Enrol the device that a request is from, or give it the answer that was lost.

    Raises:
        EnrolmentError: why not; the token stays as it was.
        StorageUnavailableError: the database could not keep it; the token stays unused.
    """
    try:
        request = read_enrolment(body)
        public_key = requested_key(request.certificate_request.encode(), name=request.device_id)
        supernode = request.supernode and checked_supernode_key(request.supernode)
    except SignatureError as error:
        raise EnrolmentError("bad_signature", str(error)) from None
    except (WireError, CertificateError) as error:
        raise EnrolmentError("bad_request", str(error)) from None
    request = replace(request, supernode=supernode)
    with database.transaction() as connection:
        pem = _enrolled(Enrolments(connection), home, request, public_key, now=now)
    logger.info("enrolled %s", request.device_id)
    return answer_for(home, request.device_id, pem, now=now)


def renew(
    database: Database, home: AuthorityHome, body: bytes, *, now: datetime
) -> EnrolmentAnswer:
    """Give a device a new certificate, by proof of the key that enrolled.

    Raises:
        EnrolmentError: why not.
        StorageUnavailableError: the database could not keep it.
    """
    try:
        request = read_renewal(body)
        public_key = requested_key(request.certificate_request.encode(), name=request.device_id)
    except SignatureError as error:
        raise EnrolmentError("bad_signature", str(error)) from None
    except (WireError, CertificateError) as error:
        raise EnrolmentError("bad_request", str(error)) from None
    with database.transaction() as connection:
        enrolments = Enrolments(connection)
        device = enrolments.device(request.device_id)
        if device is None:
            raise EnrolmentError("unknown_device", "no such device is enrolled")
        try:
            verify_renewal(body, VerifyKey.from_bytes(device.sign_key))
        except SignatureError:
            what = "not signed by the key that enrolled"
            raise EnrolmentError("bad_signature", what) from None
        if device.revoked_at is not None:
            raise EnrolmentError("revoked", "the device is shut out")
        held = enrolments.certificate(device.serial)
        if held is None:
            raise EnrolmentError("unknown_device", "no such device is enrolled")
        digest = key_digest(public_key)
        if held.key_digest == digest and held.not_after > now:
            pem = held.pem
        else:
            _require_turn(held, request.replaces, home=home, now=now)
            made = _certified(home, device.device_id, public_key, now=now)
            enrolments.add_certificate(replace(made, replaces=held.serial))
            enrolments.keep_device(replace(device, serial=made.serial))
            pem = made.pem
    logger.info("renewed %s", request.device_id)
    return answer_for(home, request.device_id, pem, now=now)


def revoke(connection: Connection, device_id: str, *, because: str, now: datetime) -> int:
    """Shut a device out: its certificates, its place at a gateway, any token made for it.

    Where it is a gateway, its devices are behind none from then on. The broker learns of it by its
    revocation list; until then nothing has changed there.

    Returns:
        How many certificates were revoked.

    Raises:
        AuthorityError: there is no such device, or it is shut out already.
    """
    enrolments = Enrolments(connection)
    device = enrolments.device(device_id)
    if device is None:
        remedy = "see who is: fedcell fleet status --devices"
        raise AuthorityError(device_id, "was never enrolled", remedy)
    if device.revoked_at is not None:
        what = f"is revoked since {device.revoked_at:%Y-%m-%d %H:%M} UTC"
        raise AuthorityError(device_id, what, "nothing is left to do")
    enrolments.keep_device(replace(device, revoked_at=now, revoked_because=because[:160]))
    enrolments.withdraw_tokens(device_id, now=now)
    Sites(connection).leave(device_id)
    return enrolments.revoke_certificates(device_id, now=now)


def answer_for(home: AuthorityHome, device_id: str, pem: str, *, now: datetime) -> EnrolmentAnswer:
    """Return what a device is told with its certificate."""
    return EnrolmentAnswer(
        device_id=device_id,
        certificate=pem,
        authorities=home.trusted_pem(Kind.SERVER).decode("ascii"),
        broker=home.fleet.broker,
        server_keys=dict(home.fleet.server_keys),
        time=now,
        superlink=home.fleet.superlink,
    )


def keys_digest(request: EnrolmentRequest, public_key: EllipticCurvePublicKey) -> str:
    """Return SHA-256 of everything that a device brings, but for the token."""
    parts = (request.device_id, request.sign, request.seal, request.supernode)
    return hashlib.sha256("\n".join((*parts, key_digest(public_key))).encode()).hexdigest()


def _enrolled(
    enrolments: Enrolments,
    home: AuthorityHome,
    request: EnrolmentRequest,
    public_key: EllipticCurvePublicKey,
    *,
    now: datetime,
) -> str:
    digest = keys_digest(request, public_key)
    well_formed = TOKEN.fullmatch(request.token) is not None
    token = enrolments.token(token_hash(request.token)) if well_formed else None
    if token is None:
        raise EnrolmentError("bad_token", "there is no such token")
    known = enrolments.device(request.device_id)
    if token.used_at is not None:
        kept = None if token.serial is None else enrolments.certificate(token.serial)
        is_same = token.used_by == request.device_id and token.keys_digest == digest
        if not is_same or kept is None or kept.revoked_at is not None:
            raise EnrolmentError("bad_token", "it was used before")
        return kept.pem
    if now >= token.expires_at:
        raise EnrolmentError("bad_token", "its time is over")
    _require_place(token.device_id, known, request)
    if request.supernode and enrolments.has_supernode_of_another(
        request.device_id, request.supernode
    ):
        raise EnrolmentError("taken", "another device has this key for Flower")
    made = _certified(home, request.device_id, public_key, now=now)
    if not enrolments.use_token(
        token.token_hash, by=request.device_id, keys_digest=digest, serial=made.serial, now=now
    ):
        raise EnrolmentError("bad_token", "it was used before")
    if known is not None:
        enrolments.revoke_certificates(request.device_id, now=now)
    enrolments.add_certificate(made)
    enrolments.keep_device(
        EnrolledDevice(
            device_id=request.device_id,
            sign_key=bytes.fromhex(request.sign),
            seal_key=bytes.fromhex(request.seal),
            supernode_key=request.supernode or None,
            serial=made.serial,
            enrolled_at=now,
        )
    )
    return made.pem


def _require_place(
    bound_to: str | None, known: EnrolledDevice | None, request: EnrolmentRequest
) -> None:
    """Refuse a token of another device, and the name of one that a free token would take over."""
    if bound_to is not None:
        if bound_to != request.device_id:
            raise EnrolmentError("bad_token", "it was made for another device")
        return
    if known is None:
        return
    if known.revoked_at is not None or known.sign_key.hex() != request.sign:
        what = "a device of this name is enrolled"
        raise EnrolmentError("taken", what)


def _require_turn(
    held: KeptCertificate, replaces: str, *, home: AuthorityHome, now: datetime
) -> None:
    """Refuse a request that was recorded before, comes early, or comes years too late."""
    if replaces not in {held.serial, held.replaces}:
        what = "it replaces another certificate than the newest"
        raise EnrolmentError("bad_request", what)
    if now > held.not_after + LATEST_RENEWAL:
        raise EnrolmentError("unknown_device", "it was away too long")
    life = held.not_after - held.issued_at
    is_of_former = held.generation < home.fleet.issuing(Kind.DEVICE).number
    was_lost = replaces != held.serial
    if now < held.issued_at + life * EARLIEST_RENEWAL and not (is_of_former or was_lost):
        raise EnrolmentError("too_early", "the certificate it holds is still new")


def _certified(
    home: AuthorityHome, device_id: str, public_key: EllipticCurvePublicKey, *, now: datetime
) -> KeptCertificate:
    life = timedelta(days=home.fleet.life_days)
    return issue(home, Kind.DEVICE, public_key, name=device_id, life=life, now=now)
