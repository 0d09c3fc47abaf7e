"""Gateways and the devices behind them, within one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select, update

from .tables import enrolled_devices, gateways, site_devices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

_COLUMNS = tuple(column.name for column in gateways.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptGateway:
    """A gateway whose site was written.

    Attributes:
        gateway_id: its name.
        most_devices: that it may answer for in one step.
        issued_at: when its credential was signed.
        not_after: until when the credential holds.
        credential_digest: SHA-256 of the credential, hex.
    """

    gateway_id: str
    most_devices: int
    issued_at: datetime
    not_after: datetime
    credential_digest: str


@dataclass(frozen=True, slots=True)
class Sites:
    """Which devices are behind which gateway."""

    connection: Connection

    def gateways(self) -> Iterator[KeptGateway]:
        """Return all, by name."""
        rows = self.connection.execute(select(*gateways.c).order_by(gateways.c.gateway_id))
        return (_gateway_of(row) for row in rows)

    def gateway(self, gateway_id: str) -> KeptGateway | None:
        """Return a gateway, None where no site was ever written for it."""
        row = self.connection.execute(
            select(*gateways.c).where(gateways.c.gateway_id == gateway_id)
        ).one_or_none()
        return None if row is None else _gateway_of(row)

    def gateway_of(self, device_id: str) -> str | None:
        """Return the gateway that a device is behind, None where it speaks for itself."""
        found: str | None = self.connection.scalar(
            select(site_devices.c.gateway_id).where(site_devices.c.device_id == device_id)
        )
        return found

    def devices_of(self, gateway_id: str) -> tuple[str, ...]:
        """Return the devices behind a gateway, by name."""
        named = site_devices.c
        rows = self.connection.scalars(
            select(named.device_id).where(named.gateway_id == gateway_id).order_by(named.device_id)
        )
        return tuple(rows)

    def keep(self, gateway: KeptGateway, devices: Iterable[str]) -> None:
        """Keep a gateway and the devices behind it, in place of what was known of it."""
        values = {name: getattr(gateway, name) for name in _COLUMNS}
        changed = self.connection.execute(
            update(gateways).where(gateways.c.gateway_id == gateway.gateway_id).values(**values)
        )
        if changed.rowcount == 0:
            self.connection.execute(insert(gateways).values(**values))
        named = site_devices.c
        self.connection.execute(delete(site_devices).where(named.gateway_id == gateway.gateway_id))
        rows = [{"device_id": one, "gateway_id": gateway.gateway_id} for one in devices]
        if rows:
            self.connection.execute(insert(site_devices), rows)

    def leave(self, name: str) -> None:
        """Have a device be behind no gateway, and a gateway be none."""
        named = site_devices.c
        self.connection.execute(
            delete(site_devices).where((named.device_id == name) | (named.gateway_id == name))
        )
        self.connection.execute(delete(gateways).where(gateways.c.gateway_id == name))

    def granted(self) -> dict[str, tuple[str, ...]]:
        """Return the devices that each gateway may speak with, nobody of them shut out."""
        known = enrolled_devices.c
        revoked = select(known.device_id).where(known.revoked_at.is_not(None))
        named = site_devices.c
        rows = self.connection.execute(
            select(named.gateway_id, named.device_id)
            .where(named.gateway_id.not_in(revoked), named.device_id.not_in(revoked))
            .order_by(named.gateway_id, named.device_id)
        )
        found: dict[str, list[str]] = {}
        for gateway_id, device_id in rows:
            found.setdefault(gateway_id, []).append(device_id)
        return {gateway_id: tuple(names) for gateway_id, names in found.items()}


def _gateway_of(row: Any) -> KeptGateway:
    return KeptGateway(**dict(zip(_COLUMNS, row, strict=True)))
