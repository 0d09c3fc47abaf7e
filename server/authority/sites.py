"""The sites of a fleet: which devices take part in rounds through which gateway.

A gateway is a device that enrolled like any other. Its site file holds what the server signed of
it, the keys of the devices behind it, as they are enrolled now, and for each of them the grant that
lets it be asked. A device is behind one gateway
at most: two that stand for it would count it twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.telemetry import DeviceId
from models.wire.codec import encode
from models.wire.site_credential import (
    MOST_SITE_DEVICES,
    GatewayCredential,
    SiteDevice,
    site_bytes,
    site_digest,
)

from ..errors import AuthorityError
from ..storage.enrolments import Enrolments
from ..storage.sites import KeptGateway, Sites

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from models.wire.envelope import SigningKey

    from ..storage.enrolments import EnrolledDevice
    from .home import AuthorityHome

_SEE = "see who is: fedcell fleet status --devices"


@dataclass(frozen=True, slots=True)
class WrittenSite:
    """A site file, made and kept.

    Attributes:
        content: of the file.
        credential: that the server signed.
        devices: behind the gateway.
        left_out: devices that were named and are shut out.
    """

    content: bytes
    credential: GatewayCredential
    devices: tuple[SiteDevice, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """How a gateway's site is.

    Attributes:
        gateway: its name.
        devices: behind it that are not shut out.
        most_devices: that it may answer for in one step.
        issued_at: when its credential was signed.
        not_after: until when that holds.
        is_current: whether the file that was written last says what holds now; where not, a key
            has changed or a device has left since.
    """

    gateway: str
    devices: tuple[str, ...]
    most_devices: int
    issued_at: datetime
    not_after: datetime
    is_current: bool

    def is_due(self, now: datetime) -> bool:
        """Tell whether its file has to be written anew: it is not right, or in its last third."""
        return not self.is_current or now >= self.not_after - (self.not_after - self.issued_at) / 3


def write_site(
    connection: Connection,
    home: AuthorityHome,
    gateway_id: str,
    *,
    devices: Iterable[str] | None,
    most_devices: int | None,
    key: SigningKey,
    life: timedelta,
    now: datetime,
) -> WrittenSite:
    """Make a gateway's site file, and keep who is behind it.

    Args:
        connection: a transaction.
        home: the authorities, which say whose signature devices believe.
        gateway_id: an enrolled device that shall be a gateway, or is one.
        devices: behind it; None: those that are.
        most_devices: that it may answer for in one step; None: as before, and at least as many as
            there are.
        key: signs the credential and the grants.
        life: for how long that holds.
        now: aware time.

    Raises:
        AuthorityError: one of them is not enrolled or behind another gateway, none is left, there
            are more than may be, or devices do not believe the key.
    """
    trusted = home.fleet.server_keys
    if trusted and key.verify_key.key_id not in trusted:
        what = f"devices of this fleet do not believe the key {key.verify_key.key_id}"
        raise AuthorityError(home.folder, what, f"sign with one of {', '.join(trusted)}")
    sites = Sites(connection)
    known = sites.gateway(gateway_id)
    if devices is None and known is None:
        what = "is no gateway yet"
        raise AuthorityError(gateway_id, what, "name the devices behind it: --devices")
    gateway = _gateway(connection, gateway_id)
    named = sites.devices_of(gateway_id) if devices is None else dict.fromkeys(devices)
    found, left_out = _members(connection, gateway_id, named)
    most = most_devices or max(len(found), 0 if known is None else known.most_devices)
    if len(found) > most:
        what = f"{len(found)} devices are behind it, and it may answer for {most}"
        raise AuthorityError(gateway_id, what, "raise --most-devices, or name fewer")
    begin = now.replace(microsecond=0)
    credential = _credential(gateway, found, most=most, issued=begin, not_after=begin + life)
    kept = KeptGateway(
        gateway_id=gateway_id,
        most_devices=most,
        issued_at=credential.issued,
        not_after=credential.not_after,
        credential_digest=_digest(credential),
    )
    sites.keep(kept, [one.device_id for one in found])
    content = site_bytes(credential, found, key)
    return WrittenSite(content, credential, tuple(found), left_out)


def site_states(connection: Connection) -> tuple[SiteState, ...]:
    """Return how the sites of all gateways are that are not shut out, by name."""
    sites = Sites(connection)
    granted = sites.granted()
    enrolled = {one.device_id: one for one in Enrolments(connection).devices()}
    states = []
    for kept in sites.gateways():
        gateway = enrolled.get(kept.gateway_id)
        if gateway is None or gateway.revoked_at is not None:
            continue
        names = granted.get(kept.gateway_id, ())
        credential = _credential(
            gateway,
            [_site_device(enrolled[name]) for name in names],
            most=kept.most_devices,
            issued=kept.issued_at,
            not_after=kept.not_after,
        )
        states.append(
            SiteState(
                gateway=kept.gateway_id,
                devices=names,
                most_devices=kept.most_devices,
                issued_at=kept.issued_at,
                not_after=kept.not_after,
                is_current=_digest(credential) == kept.credential_digest,
            )
        )
    return tuple(states)


def _gateway(connection: Connection, gateway_id: str) -> EnrolledDevice:
    found = Enrolments(connection).device(gateway_id)
    if found is None:
        remedy = f"let it join first: fedcell fleet token --device {gateway_id}"
        raise AuthorityError(gateway_id, "was never enrolled", remedy)
    if found.revoked_at is not None:
        remedy = f"let it join anew: fedcell fleet token --device {gateway_id}"
        raise AuthorityError(gateway_id, "is shut out", remedy)
    other = Sites(connection).gateway_of(gateway_id)
    if other is not None:
        what = f"is a device behind {other}"
        raise AuthorityError(gateway_id, what, f"take it from there: fedcell fleet gateway {other}")
    return found


def _members(
    connection: Connection, gateway_id: str, names: Iterable[str]
) -> tuple[list[SiteDevice], tuple[str, ...]]:
    """Return the devices that may be behind a gateway, and those that are shut out."""
    enrolled = {one.device_id: one for one in Enrolments(connection).devices()}
    sites = Sites(connection)
    gateways = {one.gateway_id for one in sites.gateways()}
    found, left_out = [], []
    for name in names:
        device = enrolled.get(name)
        if device is None:
            raise AuthorityError(name, "was never enrolled", _SEE)
        if name in gateways or name == gateway_id:
            raise AuthorityError(name, "is a gateway itself", "name devices alone")
        other = sites.gateway_of(name)
        if other not in {None, gateway_id}:
            what = f"is behind {other}"
            remedy = f"take it from there first: fedcell fleet gateway {other} --devices ..."
            raise AuthorityError(name, what, remedy)
        if device.revoked_at is not None:
            left_out.append(name)
        else:
            found.append(_site_device(device))
    if not found:
        raise AuthorityError(gateway_id, "no device is left behind it", "name one: --devices")
    if len(found) > MOST_SITE_DEVICES:
        what = f"{len(found)} devices are more than the {MOST_SITE_DEVICES} of one site"
        raise AuthorityError(gateway_id, what, "set a second gateway up")
    return found, tuple(left_out)


def _credential(
    gateway: EnrolledDevice,
    devices: Sequence[SiteDevice],
    *,
    most: int,
    issued: datetime,
    not_after: datetime,
) -> GatewayCredential:
    return GatewayCredential(
        gateway=DeviceId(gateway.device_id),
        issued=issued,
        not_after=not_after,
        verify_key=gateway.sign_key.hex(),
        seal_key=gateway.seal_key.hex(),
        most_devices=most,
        site_digest=site_digest(devices),
    )


def _site_device(device: EnrolledDevice) -> SiteDevice:
    return SiteDevice(DeviceId(device.device_id), device.sign_key.hex())


def _digest(credential: GatewayCredential) -> str:
    return hashlib.sha256(encode(credential)).hexdigest()
