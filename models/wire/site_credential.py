"""A gateway's credential, and the site file that names the devices behind it.

A site is a gateway and the small devices that take part in rounds through it. The fleet's authority
writes the site file: the gateway's credential, the devices with the keys that they sign with, bound
to the credential by a digest, and for each device its grant. Credential and grants are signed by
the server's key that devices trust for notices. The gateway shows each device that device's own
grant; credential and list stay with the gateway.
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
from .site_grant import KEY_TEXT, DeviceGrant
from .topics import MAX_DEVICE_ID_BYTES, PREFIX, checked_device_id

MOST_SITE_DEVICES = 4_000
"""Devices behind one gateway: its rights are lines of the broker's access list, one for each device
and kind, and the broker goes through them at every message (0.7 ms of one core for so many)."""
MAX_SITE_BYTES = 1 << 23
"""Above what so many devices with the longest names take."""


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
        str, Declared(kind=KEY_TEXT, what="Ed25519 public key that the gateway signs with, hex")
    ]
    seal_key: Annotated[
        str, Declared(kind=KEY_TEXT, what="X25519 public key that contributions are sealed to, hex")
    ]
    most_devices: Annotated[
        int,
        Declared(
            kind=Whole(1, MOST_SITE_DEVICES),
            what="devices that it may answer for in one step, at most",
        ),
    ]
    site_digest: Annotated[
        str, Declared(kind=KEY_TEXT, what="SHA-256 of the canonical list of its devices, hex")
    ]

    def check_address(self) -> None:
        """Check the name of the gateway."""
        checked_device_id(self.gateway)

    def inconsistency(self) -> str | None:
        """Say that it ends before it begins, None where it does not."""
        return "not_after must lie after issued" if self.not_after <= self.issued else None

    def signed(self, key: SigningKey) -> str:
        """Return it as it travels: an envelope signed by the server."""
        return sign_payload(encode(self), key).decode("ascii")

    @staticmethod
    def from_envelope(
        envelope: str | bytes, trusted: Mapping[str, VerifyKey], now: datetime
    ) -> "GatewayCredential":
        """Return the credential of an envelope that the server signed and that is not over.

        Args:
            envelope: of the site file.
            trusted: the server's keys, by key id.
            now: aware time.

        Raises:
            WireError: it is no envelope of a credential.
            SignatureError: `unknown_key`, `bad_signature`, or `expired`.
        """
        raw = envelope.encode() if isinstance(envelope, str) else envelope
        found = decode(open_signed(raw, trusted), GatewayCredential)
        if now >= found.not_after:
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
            KEY_TEXT.to_json(self.verify_key)
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
        devices: behind the gateway, by name.
        grants: what is shown to each device, by its name: envelopes that the server signed.
    """

    credential: GatewayCredential
    devices: tuple[SiteDevice, ...]
    grants: Mapping[str, str]

    def require_grants(self, trusted: Mapping[str, VerifyKey], now: datetime) -> None:
        """Look at each grant as its device will: 0.4 ms of a processor each.

        Args:
            trusted: the server's keys, by key id.
            now: aware time.

        Raises:
            WireError: a grant is none, or not the one by which this gateway may ask that device.
            SignatureError: the server did not sign it, or it is over.
        """
        for device, envelope in self.grants.items():
            found = DeviceGrant.from_envelope(envelope, trusted, now)
            if found != grant_for(self.credential, DeviceId(device)):
                raise WireError("wrong_site", f"the grant of {device} is for something else")


def site_digest(devices: Sequence[SiteDevice]) -> str:
    """Return SHA-256 of the canonical JSON of the devices, sorted by name, 64 hex digits."""
    return hashlib.sha256(canonical_json({"devices": _listed(devices)})).hexdigest()


def grant_for(credential: GatewayCredential, device: DeviceId) -> DeviceGrant:
    """Return by what a gateway may ask one device: its keys, and as long as its credential."""
    return DeviceGrant(
        device=device,
        gateway=credential.gateway,
        issued=credential.issued,
        not_after=credential.not_after,
        verify_key=credential.verify_key,
        seal_key=credential.seal_key,
    )


def site_bytes(
    credential: GatewayCredential, devices: Sequence[SiteDevice], key: SigningKey
) -> bytes:
    """Return a site file.

    Args:
        credential: of the gateway.
        devices: whose digest stands in the credential.
        key: signs the credential, and a grant for each device.
    """
    listed = _listed(devices)
    for entry in listed:
        entry["grant"] = grant_for(credential, entry["device_id"]).signed(key)
    body = {
        "schema_version": SCHEMA_VERSION,
        "credential": credential.signed(key),
        "devices": listed,
    }
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_site(content: bytes, trusted: Mapping[str, VerifyKey], now: datetime) -> Site:
    """Return the site of a file, where the server signed its credential and its list is that one.

    The grants are taken as they are, for devices look at their own: see `Site.require_grants`.

    Args:
        content: of the file.
        trusted: the server's keys, by key id.
        now: aware time.

    Raises:
        WireError: it is no site file, or its list is not the one that was signed.
        SignatureError: its credential is not to be believed, or over.
    """
    body = parse_object(content, limit=MAX_SITE_BYTES)
    envelope, listed = body.get("credential"), body.get("devices")
    if not isinstance(envelope, str) or not isinstance(listed, list):
        raise WireError("bad_field", "a site file holds a text credential and a list devices")
    credential = GatewayCredential.from_envelope(envelope, trusted, now)
    found = dict(map(_device, listed))
    devices = tuple(sorted(found, key=lambda one: one.device_id))
    if len({one.device_id for one in devices}) != len(listed):
        raise WireError("wrong_site", "it names a device twice")
    if site_digest(devices) != credential.site_digest:
        raise WireError("wrong_site", "its devices are not those that the credential is for")
    if len(devices) > credential.most_devices:
        what = f"{len(devices)} devices, the credential is for {credential.most_devices}"
        raise WireError("wrong_site", what)
    return Site(credential, devices, {str(one.device_id): found[one] for one in devices})


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
    granted = "envelope of the device's device_grant, signed by the same key"
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
                    "properties": {
                        "device_id": device_id.schema(),
                        "grant": {"description": granted, "type": "string"},
                        "verify_key": KEY_TEXT.schema(),
                    },
                    "required": ["device_id", "grant", "verify_key"],
                },
            },
        },
        "required": ["credential", "devices", "schema_version"],
        "additionalProperties": True,
    }


def _listed(devices: Sequence[SiteDevice]) -> list[JsonObject]:
    ordered = sorted(devices, key=lambda one: one.device_id)
    return [{"device_id": one.device_id, "verify_key": one.verify_key} for one in ordered]


def _device(entry: object) -> tuple[SiteDevice, str]:
    if not isinstance(entry, dict):
        raise WireError("bad_field", "site.devices must hold objects")
    name, key, grant = (entry.get(field) for field in ("device_id", "verify_key", "grant"))
    if not isinstance(name, str) or not isinstance(key, str) or not isinstance(grant, str):
        what = "site.devices must hold the texts device_id, verify_key and grant"
        raise WireError("bad_field", what)
    return SiteDevice(DeviceId(name), key), grant
