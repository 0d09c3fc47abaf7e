"""A site's keys on paper: server, gateway, devices, and the messages between them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from models.telemetry import DeviceId
from models.wire.envelope import SigningKey, trusted_keys
from models.wire.round_material import RoundMaterial
from models.wire.rounds import LocalRecipe, RoundTask
from models.wire.sealing import OpeningKey
from models.wire.site_credential import (
    GatewayCredential,
    SiteDevice,
    grant_for,
    site_bytes,
    site_digest,
)
from models.wire.site_grant import DeviceGrant
from models.wire.site_rounds import RoundOffer

if TYPE_CHECKING:
    from collections.abc import Sequence

GATEWAY = "gateway-1"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def seeded(text: str) -> bytes:
    """Return 32 bytes that a text stands for."""
    return hashlib.sha256(text.encode()).digest()


def device_key(device_id: str) -> SigningKey:
    """Return the key that a device on paper signs with."""
    return SigningKey.from_bytes(seeded(f"sign {device_id}"))


@dataclass(frozen=True, slots=True)
class PaperSite:
    """A gateway and its devices, with all of their keys.

    Attributes:
        device_ids: of the devices behind the gateway.
        gateway: its name.
    """

    device_ids: Sequence[str]
    gateway: str = GATEWAY
    server: SigningKey = field(default_factory=lambda: SigningKey.from_bytes(seeded("server")))
    key: SigningKey = field(default_factory=lambda: SigningKey.from_bytes(seeded("gateway")))
    opening: OpeningKey = field(default_factory=lambda: OpeningKey.from_bytes(seeded("opening")))

    @property
    def devices(self) -> list[SiteDevice]:
        """The devices as a site file names them."""
        return [
            SiteDevice(DeviceId(one), device_key(one).verify_key.to_bytes().hex())
            for one in self.device_ids
        ]

    def credential(self, **changes: Any) -> GatewayCredential:
        """Return the gateway's credential."""
        values = {
            "gateway": DeviceId(self.gateway),
            "issued": NOW - timedelta(days=1),
            "not_after": NOW + timedelta(days=3650),
            "verify_key": self.key.verify_key.to_bytes().hex(),
            "seal_key": self.opening.seal_key.to_bytes().hex(),
            "most_devices": max(len(self.device_ids), 1),
            "site_digest": site_digest(self.devices),
        }
        return GatewayCredential(**{**values, **changes})

    def grant(self, device: str, **changes: Any) -> str:
        """Return a device's grant as the server signed it."""
        return replace(grant_for(self.credential(), DeviceId(device)), **changes).signed(
            self.server
        )

    def site_file(self, **changes: Any) -> bytes:
        """Return the site file."""
        return site_bytes(self.credential(**changes), self.devices, self.server)

    def believe(self, shown: str) -> DeviceGrant:
        """Return the grant of an envelope, as a device checks it."""
        trusted = trusted_keys(self.server.verify_key)
        return DeviceGrant.from_envelope(shown, trusted, NOW)

    def offer(self, task: RoundTask, material: RoundMaterial, **changes: Any) -> RoundOffer:
        """Return the offer of a task of one device."""
        whole = material.to_bytes()
        values = {
            "grant": self.grant(task.device_ids[0]),
            "device": task.device_ids[0],
            "material": hashlib.sha256(whole).hexdigest(),
            "material_bytes": len(whole),
            "deadline_s": 60,
            "task": task,
        }
        return RoundOffer(**{**values, **changes})


def one_device_task(device_id: str, **changes: Any) -> RoundTask:
    """Return a task of one device."""
    values: dict[str, Any] = {
        "stream": "run-1",
        "index": 0,
        "clipping_norm": 0.5,
        "cohort_size": 4,
        "device_ids": (device_id,),
        "recipe": LocalRecipe(),
        "pseudonyms": (seeded(f"pseudonym {device_id}").hex()[:32],),
    }
    return RoundTask(**{**values, **changes})


def material_of(num_weights: int, policy: str = "") -> RoundMaterial:
    """Return what devices read for a step, with weights that differ from each other."""
    weights = np.linspace(-1, 1, num_weights, dtype=np.float32)
    return RoundMaterial(weights=weights, policy=policy)
