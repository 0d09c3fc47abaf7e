"""A gateway's credential, and the site file that names the devices behind it.

A site is a gateway and the small devices that take part in rounds through it. The fleet's authority
writes the site file: the gateway's credential, signed by the server's key that devices trust for
notices, and the devices with the keys that they sign with. The gateway shows the credential to its
devices; the list of devices stays with the gateway and is bound to the credential by a digest.

A device believes a credential because the server signed it. That it is the gateway's own device is
the broker's access list to say, which alone lets a gateway speak to a device.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar

from ..telemetry import DeviceId
from .codec import (
    ADDRESSING,
    SCHEMA_VERSION,
    Payload,
    canonical_json,
    decode,
    encode,
    parse_object,
    schema,
)
from .envelope import SigningKey, VerifyKey, open_signed, sign_payload
from .errors import SignatureError, WireError
from .fields import Declared, JsonObject, Moment, Text, Whole
from .sealing import SealKey
from .topics import MAX_DEVICE_ID_BYTES, PREFIX, checked_device_id

MOST_SITE_DEVICES = 4_000
"""Devices behind one gateway: its rights are lines of the broker's access list, one for each device
and kind, and the broker goes through them at every message (0.7 ms of one core for so many)."""
MAX_SITE_BYTES = 1 << 22
_KEY = Text("[0-9a-f]{64}", 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayCredential(Payload):
    """Who a gateway is, and for how many devices it may answer, in the server's words."""

    TYPE: ClassVar[str] = "gateway_credential"

    schema_version: Annotated[
        int, Declared(kind=Whole(1, 1_000_000), what="version of the schema", purpose=ADDRESSING)
    ] = SCHEMA_VERSION
    gateway: Annotated[
        DeviceId,
        Declared(kind=Text("[^+#/]+", MAX_DEVICE_ID_BYTES), what="id of the gateway"),
    ]
    issued: Annotated[datetime, Declared(kind=Moment(), what="time of the authority's clock, UTC")]
    not_after: Annotated[
        datetime, Declared(kind=Moment(), what="from then on it counts for nothing, UTC")
    ]
    verify_key: Annotated[
        str, Declared(kind=_KEY, what="Ed25519 public key that the gateway signs with, hex")
    ]
    seal_key: Annotated[
        str, Declared(kind=_KEY, what="X25519 public key that contributions are sealed to, hex")
    ]
    most_devices: Annotated[
        int,
        Declared(
            kind=Whole(1, MOST_SITE_DEVICES),
            what="devices that it may answer for in one step, at most",
        ),
    ]
    site_digest: Annotated[
        str, Declared(kind=_KEY, what="SHA-256 of the canonical list of its devices, hex")
    ]

    def check_address(self) -> None:
        """Check the name of the gateway."""
        checked_device_id(self.gateway)

    def inconsistency(self) -> str | None:
        """Say that it ends before it begins, None where it does not."""
        return "not_after must lie after issued" if self.not_after <= self.issued else None

    @property
    def verifier(self) -> VerifyKey:
        """The key that the gateway's messages are checked with."""
        return VerifyKey.from_bytes(bytes.fromhex(self.verify_key))

    @property
    def sealer(self) -> SealKey:
        """The key that contributions are sealed to."""
        return SealKey.from_bytes(bytes.fromhex(self.seal_key))

    def signed(self, key: SigningKey) -> str:
        """Return it as it travels: an envelope signed by the server."""
        return sign_payload(encode(self), key).decode("ascii")

    @staticmethod
    def from_envelope(
        envelope: str | bytes, trusted: Mapping[str, VerifyKey], now: datetime | None
    ) -> "GatewayCredential":
        """Return the credential of an envelope that the server signed and that is not over.

        Args:
            envelope: what the gateway showed.
            trusted: the server's keys, by key id.
            now: aware time; None on a device whose clock is known to be wrong, which then takes
                one that is over, as it does the broker's certificate.

        Raises:
            WireError: it is no envelope of a credential.
            SignatureError: `unknown_key`, `bad_signature`, or `expired`.
        """
        raw = envelope.encode() if isinstance(envelope, str) else envelope
        found = decode(open_signed(raw, trusted), GatewayCredential)
        if now is not None and now >= found.not_after:
            what = f"the credential of {found.gateway} ended at {found.not_after.isoformat()}"
            raise SignatureError("expired", what)
        return found


@dataclass(frozen=True, slots=True)
class SiteDevice:
    """A device behind a gateway.

    Attributes:
        device_id: its name.
        verify_key: Ed25519 public key that it signs its contributions with, 64 hex digits.

    Raises:
        WireError: no device can be called so, or have such a key.
    """

    device_id: DeviceId
    verify_key: str

    def __post_init__(self) -> None:
        """Check both."""
        checked_device_id(self.device_id)
        try:
            _KEY.to_json(self.verify_key)
        except (TypeError, ValueError) as error:
            raise WireError("bad_field", f"site.devices.verify_key {error}") from None

    @property
    def verifier(self) -> VerifyKey:
        """The key that the device's contributions are checked with."""
        return VerifyKey.from_bytes(bytes.fromhex(self.verify_key))


@dataclass(frozen=True, slots=True)
class Site:
    """What a site file says, after it was checked.

    Attributes:
        credential: of the gateway.
        envelope: the credential as the server signed it, to show to devices.
        devices: behind the gateway, by name.
    """

    credential: GatewayCredential
    envelope: str
    devices: tuple[SiteDevice, ...]


def site_digest(devices: Sequence[SiteDevice]) -> str:
    """Return SHA-256 of the canonical JSON of the devices, sorted by name, 64 hex digits."""
    return hashlib.sha256(canonical_json({"devices": _listed(devices)})).hexdigest()


def site_bytes(envelope: str, devices: Sequence[SiteDevice]) -> bytes:
    """Return a site file.

    Args:
        envelope: of the credential, signed.
        devices: whose digest stands in the credential.
    """
    body = {
        "schema_version": SCHEMA_VERSION,
        "credential": envelope,
        "devices": _listed(devices),
    }
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_site(content: bytes, trusted: Mapping[str, VerifyKey], now: datetime | None) -> Site:
    """Return the site of a file, where the server signed its credential and its list is that one.

    Args:
        content: of the file.
        trusted: the server's keys, by key id.
        now: aware time; None: also one that is over.

    Raises:
        WireError: it is no site file, or its list is not the one that was signed.
        SignatureError: its credential is not to be believed, or over.
    """
    body = parse_object(content, limit=MAX_SITE_BYTES)
    envelope, listed = body.get("credential"), body.get("devices")
    if not isinstance(envelope, str) or not isinstance(listed, list):
        raise WireError("bad_field", "a site file holds a text credential and a list devices")
    credential = GatewayCredential.from_envelope(envelope, trusted, now)
    devices = tuple(sorted(map(_device, listed), key=lambda one: one.device_id))
    if site_digest(devices) != credential.site_digest:
        raise WireError("wrong_site", "its devices are not those that the credential is for")
    if len({one.device_id for one in devices}) != len(devices):
        raise WireError("wrong_site", "it names a device twice")
    if len(devices) > credential.most_devices:
        what = f"{len(devices)} devices, the credential is for {credential.most_devices}"
        raise WireError("wrong_site", what)
    return Site(credential, envelope, devices)


def weights_topic(gateway: str, part: int | str) -> str:
    """Return where a gateway says one part of what all its devices read; `+` for all parts."""
    return f"{PREFIX}/gateway/{checked_device_id(gateway)}/weights/{part}"


WEIGHTS_FILTER = f"{PREFIX}/gateway/+/weights/+"
"""What every device may read."""


def credential_schema() -> JsonObject:
    """Return the JSON Schema (draft 2020-12) of a credential."""
    return schema(GatewayCredential)


def site_schema() -> JsonObject:
    """Return the JSON Schema (draft 2020-12) of a site file."""
    device_id = Text("[^+#/]+", MAX_DEVICE_ID_BYTES)
    what = "envelope of a gateway_credential, signed by the server's key"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:fedcell:v1:site",
        "title": "site",
        "description": "A gateway's site file: its credential, and the devices behind it.",
        "type": "object",
        "properties": {
            "schema_version": Whole(1, 1_000_000).schema(),
            "credential": {"description": what, "type": "string"},
            "devices": {
                "type": "array",
                "maxItems": MOST_SITE_DEVICES,
                "items": {
                    "type": "object",
                    "properties": {"device_id": device_id.schema(), "verify_key": _KEY.schema()},
                    "required": ["device_id", "verify_key"],
                },
            },
        },
        "required": ["credential", "devices", "schema_version"],
        "additionalProperties": True,
    }


def _listed(devices: Sequence[SiteDevice]) -> list[JsonObject]:
    ordered = sorted(devices, key=lambda one: one.device_id)
    return [{"device_id": one.device_id, "verify_key": one.verify_key} for one in ordered]


def _device(entry: object) -> SiteDevice:
    if not isinstance(entry, dict):
        raise WireError("bad_field", "site.devices must hold objects")
    name, key = entry.get("device_id"), entry.get("verify_key")
    if not isinstance(name, str) or not isinstance(key, str):
        raise WireError("bad_field", "site.devices must hold the texts device_id and verify_key")
    return SiteDevice(DeviceId(name), key)
