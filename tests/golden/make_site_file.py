"""Records a gateway's site file in schema version 1.

Run it once: python -m tests.golden.make_site_file. A file that is there is never overwritten: what
authorities have written must load for ever.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from models.telemetry import DeviceId
from models.wire.envelope import SigningKey
from models.wire.sealing import OpeningKey
from models.wire.site_credential import GatewayCredential, SiteDevice, site_bytes, site_digest

FILE = Path(__file__).parent / "site_v1.json"
SERVER_KEY = bytes(range(32))
GATEWAY_KEY = bytes(range(32, 64))
GATEWAY_OPENING_KEY = bytes(range(64, 96))
ISSUED = datetime(2026, 6, 1, 12, tzinfo=UTC)


def recorded_devices() -> tuple[SiteDevice, ...]:
    """Return three devices, the second of a name beyond ASCII."""
    return tuple(
        SiteDevice(
            DeviceId(name), SigningKey.from_bytes(bytes([n]) * 32).verify_key.to_bytes().hex()
        )
        for n, name in enumerate(("meter-1", "meter-zwölf", "meter-2"))
    )


def recorded_credential() -> GatewayCredential:
    """Return the credential of their gateway."""
    return GatewayCredential(
        gateway=DeviceId("gateway-1"),
        issued=ISSUED,
        not_after=ISSUED + timedelta(days=90),
        verify_key=SigningKey.from_bytes(GATEWAY_KEY).verify_key.to_bytes().hex(),
        seal_key=OpeningKey.from_bytes(GATEWAY_OPENING_KEY).seal_key.to_bytes().hex(),
        most_devices=5,
        site_digest=site_digest(recorded_devices()),
    )


def main() -> None:
    if not FILE.exists():
        key = SigningKey.from_bytes(SERVER_KEY)
        FILE.write_bytes(site_bytes(recorded_credential(), recorded_devices(), key))


if __name__ == "__main__":
    main()
