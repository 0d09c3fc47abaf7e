"""Joining a fleet with a one-time token, and renewing what came of it.

Keys are made here, kept durably, and only then asked for a certificate: whatever is lost on the
way, asking again asks with the same keys, and the service gives the same answer for a used token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.wire.enrolment import (
    EnrolmentRequest,
    RenewalRequest,
    signed_enrolment,
    signed_renewal,
)

from ..errors import JoinError
from .device_certificate import checked_certificate, make_request, make_supernode_key
from .enrolment_client import EnrolmentService, address_of, service_at
from .membership import (
    JOIN_ANEW,
    Membership,
    Pending,
    changing,
    keep_pending,
    read_membership,
    read_pending,
    write_membership,
)

if TYPE_CHECKING:
    from pathlib import Path

    from models.wire.enrolment import EnrolmentAnswer

    from .identity import DeviceIdentity


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer is kept: folder, device, service, and number of the files."""

    folder: Path
    device_id: str
    service: str
    number: int


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of joining.

    Attributes:
        membership: the device's place in its fleet.
        made: whether it was made now.
    """

    membership: Membership
    made: bool


def join(
    store: Path,
    identity: DeviceIdentity,
    *,
    address: str,
    token: str,
    fingerprint: str | None,
    anew: bool = False,
) -> Joined:
    """Become a member of a fleet; a device that is one already stays what it is.

    Args:
        store: path of the device's store.
        identity: its own keys.
        address: of the enrolment service.
        token: one-time token; not used where the device has joined.
        fingerprint: of the fleet's authority over services, None: the machine's trust it.
        anew: whether to join although there is a membership.

    Raises:
        JoinError: what is wrong, and what to do; nothing on disk counts that did not before.
        StoreBusyError: another process joins, or the disk refuses.
    """
    host, port = address_of(address)
    service_name = f"https://{host}:{port}"
    with changing(store) as folder:
        before = None if anew else read_membership(store)
        if before is not None:
            if before.service != service_name:
                what = f"has joined the fleet at {before.service}"
                raise JoinError(identity.device_id, what, "to leave that one: --anew")
            return Joined(before, made=False)
        pending = _pending(folder, identity.device_id, with_supernode=True)
        service = service_at(address, fingerprint=fingerprint)
        public = identity.public()[identity.device_id]
        request = EnrolmentRequest(
            device_id=identity.device_id,
            token=token,
            certificate_request=pending.request,
            sign=public["sign"],
            seal=public["seal"],
            supernode=pending.supernode_public,
        )
        answer = service.enrol(signed_enrolment(request, identity.signing_key))
        place = Place(folder, identity.device_id, service_name, _next(folder))
        membership = _kept(place, answer, pending)
    return Joined(membership, made=True)


def renew(store: Path, identity: DeviceIdentity, *, looks_at_time: bool) -> Membership:
    """Get a new certificate for a new key, by proof of the device's own signing key.

    Args:
        store: path of the device's store.
        identity: its own keys.
        looks_at_time: whether the device's clock can be relied on.

    Raises:
        JoinError: what is wrong; the certificate that was there still counts.
        StoreBusyError: another process renews, or the disk refuses.
    """
    with changing(store) as folder:
        before = read_membership(store)
        if before is None:
            remedy = "join one: fedcell-device join URL --token T"
            raise JoinError(identity.device_id, "has joined no fleet", remedy)
        pending = _pending(folder, identity.device_id, with_supernode=False)
        request = RenewalRequest(
            device_id=identity.device_id,
            replaces=before.serial,
            certificate_request=pending.request,
        )
        service = service_of(before, looks_at_time=looks_at_time)
        answer = service.renew(signed_renewal(request, identity.signing_key))
        place = Place(folder, identity.device_id, before.service, before.number + 1)
        return _kept(place, answer, pending)


def service_of(membership: Membership, *, looks_at_time: bool) -> EnrolmentService:
    """Return the service of a fleet that a device has joined, known by the fleet's authorities.

    Raises:
        JoinError: the file of authorities is missing.
    """
    host, port = address_of(membership.service)
    try:
        authorities = membership.authorities.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise JoinError(membership.authorities, "cannot be read", JOIN_ANEW) from None
    return EnrolmentService(host, port, authorities, looks_at_time=looks_at_time)


def _pending(folder: Path, device_id: str, *, with_supernode: bool) -> Pending:
    pending = read_pending(folder)
    if pending is not None and bool(pending.supernode) == with_supernode:
        return pending
    key, request = make_request(device_id)
    private, public = make_supernode_key() if with_supernode else ("", "")
    pending = Pending(key=key, request=request, supernode=private, supernode_public=public)
    keep_pending(folder, pending)
    return pending


def _kept(place: Place, answer: EnrolmentAnswer, pending: Pending) -> Membership:
    facts = checked_certificate(answer.certificate, key_pem=pending.key, device_id=place.device_id)
    membership = Membership(
        folder=place.folder,
        device_id=place.device_id,
        service=place.service,
        broker=answer.broker,
        server_keys=answer.server_keys,
        number=place.number,
        serial=facts.serial,
        not_before=facts.not_before,
        not_after=facts.not_after,
        server_time=answer.time,
        superlink=answer.superlink,
    )
    try:
        membership.broker_address()
    except ValueError:
        what = f"names no broker: {answer.broker[:80]!r}"
        raise JoinError(place.service, what, "tell the operator") from None
    write_membership(
        membership,
        certificate=answer.certificate,
        key=pending.key,
        authorities=answer.authorities,
        supernode=pending.supernode,
    )
    return membership


def _next(folder: Path) -> int:
    numbers = [path.stem.rpartition("-")[2] for path in folder.glob("device-*.pem")]
    return max((int(number) for number in numbers if number.isdigit()), default=0) + 1
