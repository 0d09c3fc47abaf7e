"""A gateway on disk with the keys of its site, and simulated devices behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from edge_client.gateway.block import own_gateway
from edge_client.provisioning.identity import make_identity
from models.telemetry import DeviceId
from models.wire.envelope import SigningKey, trusted_keys
from models.wire.rounds import LocalRecipe, RoundTask
from models.wire.site_credential import GatewayCredential, SiteDevice, site_bytes, site_digest
from models.wire.site_grant import DeviceGrant
from simulations.seeded_noise import SeededNoise
from simulations.site_devices import SiteDevices, SiteFault
from tests.support.made_up_rows import made_up_rows
from tests.support.site_parts import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edge_client.gateway.block import GatewayBlock
    from models.training_rows import TrainingRows
    from privacy import NoiseSource

GATEWAY = "gateway-1"


@dataclass(frozen=True, slots=True)
class MadeUpData:
    """Rows that follow from a device's name, and randomness that can be repeated."""

    num_rows: int = 40

    def rows(self, device_id: str) -> TrainingRows:
        seed = int.from_bytes(seeded(device_id)[:4])
        made: TrainingRows = made_up_rows(self.num_rows, seed=seed)  # type: ignore[no-untyped-call]
        return made

    def source(self, device_id: str, *, stream: str, index: int) -> NoiseSource:
        return SeededNoise(3, "device", stream, device_id, index)


RECIPE = LocalRecipe(least_rows=20)


@dataclass(frozen=True, slots=True)
class GatewayOnDisk:
    """A gateway's files.

    Attributes:
        folder: where they are.
        device_ids: of its devices.
        server: signs its credential.
        broker: host and port.
    """

    folder: Path
    device_ids: Sequence[str]
    broker: tuple[str, int]
    server: SigningKey
    data: MadeUpData = MadeUpData()

    @property
    def node_config(self) -> dict[str, Any]:
        """What its SuperNode is told."""
        return {
            "telemetry-db": str(self.folder / "gateway.db"),
            "gateway-site": str(self.folder / "site.json"),
            "policy-keys": str(self.folder / "server.json"),
            "gateway-broker": f"{self.broker[0]}:{self.broker[1]}",
            "gateway-deadline-s": 20,
            "hardware-id-file": str(self.folder / "machine-id"),
        }

    def block(self, now: datetime | None = None, **changes: Any) -> GatewayBlock:
        """Return the gateway, as its SuperNode's app makes it for each message."""
        return own_gateway({**self.node_config, **changes}, now=now or datetime.now(UTC))

    def devices(self, faults: Mapping[str, SiteFault] | None = None) -> SiteDevices:
        """Return the devices behind it."""
        host, port = self.broker
        return SiteDevices(
            device_ids=self.device_ids,
            gateway=GATEWAY,
            seed="test",
            data=self.data,
            believe=self.believe,
            host=host,
            port=port,
            faults=faults or {},
        )

    def believe(self, shown: str) -> DeviceGrant:
        """Return a grant that the server signed."""
        trusted = trusted_keys(self.server.verify_key)
        return DeviceGrant.from_envelope(shown, trusted, datetime.now(UTC))

    def task(self, **changes: Any) -> RoundTask:
        """Return a task of all of its devices."""
        values: dict[str, Any] = {
            "stream": "run-1",
            "index": 0,
            "clipping_norm": 0.5,
            "cohort_size": len(self.device_ids),
            "device_ids": tuple(self.device_ids),
            "recipe": RECIPE,
            "deadline_s": 20.0,
        }
        named = {**values, **changes}
        if "pseudonyms" not in changes:
            named["pseudonyms"] = tuple(map(pseudonym_of, named["device_ids"]))
        return RoundTask(**named)

    def write_site(self, devices: Sequence[SiteDevice], **changes: Any) -> None:
        """Write the site file and the server's public key."""
        identity, _ = make_identity(
            self.folder / "gateway.db", device_id=GATEWAY, hardware_id=b"this machine"
        )
        public = identity.public()[GATEWAY]
        now = datetime.now(UTC).replace(microsecond=0)
        values = {
            "gateway": DeviceId(GATEWAY),
            "issued": now - timedelta(days=1),
            "not_after": now + timedelta(days=90),
            "verify_key": public["sign"],
            "seal_key": public["seal"],
            "most_devices": len(devices),
            "site_digest": site_digest(devices),
        }
        credential = GatewayCredential(**{**values, **changes})
        (self.folder / "site.json").write_bytes(site_bytes(credential, devices, self.server))
        key = self.server.verify_key
        (self.folder / "server.json").write_text(json.dumps({key.key_id: key.to_bytes().hex()}))


def pseudonym_of(device: str) -> str:
    """Return a device's pseudonym in a step."""
    return seeded(f"pseudonym {device}").hex()[:32]


def gateway_on_disk(folder: Path, broker: tuple[str, int], *, num_devices: int) -> GatewayOnDisk:
    """Make a gateway with simulated devices behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine-id").write_text("this machine")
    server = SigningKey.from_bytes(seeded("server"))
    names = [f"meter-{number:04d}" for number in range(num_devices)]
    made = GatewayOnDisk(folder, names, broker, server)
    made.write_site(made.devices().site_devices())
    return made
