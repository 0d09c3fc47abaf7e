"""A device's grant: by which gateway it may be asked, in the words of the server.

A device answers a gateway that shows its grant alone, signed by the server's key: for this device,
this gateway and its keys, until an end. So neither a gateway of another site nor whoever
runs the broker can ask a device in the place of its own gateway.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar

from ..telemetry import DeviceId
from .codec import ADDRESSING, SCHEMA_VERSION, Payload, decode, encode, schema
from .envelope import SigningKey, VerifyKey, open_signed, sign_payload
from .errors import SignatureError
from .fields import Declared, JsonObject, Moment, Text, Whole
from .sealing import SealKey
from .topics import MAX_DEVICE_ID_BYTES, checked_device_id

KEY_TEXT = Text("[0-9a-f]{64}", 64)
"""A raw key of 32 bytes, or a SHA-256."""
_NAME = Text("[^+#/]+", MAX_DEVICE_ID_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGrant(Payload):
    """By which gateway one device may be asked to take part in rounds, and until when."""

    TYPE: ClassVar[str] = "device_grant"

    schema_version: Annotated[
        int, Declared(kind=Whole(1, 1_000_000), what="version of the schema", purpose=ADDRESSING)
    ] = SCHEMA_VERSION
    device: Annotated[DeviceId, Declared(kind=_NAME, what="id of the device that may be asked")]
    gateway: Annotated[DeviceId, Declared(kind=_NAME, what="id of the gateway that may ask it")]
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

    def check_address(self) -> None:
        """Check both names."""
        checked_device_id(self.device)
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
        envelope: str | bytes, trusted: Mapping[str, VerifyKey], now: datetime
    ) -> "DeviceGrant":
        """Return the grant of an envelope that the server signed and that is not over.

        Whether it is for the device that reads it is for the caller to say.

        Args:
            envelope: what the gateway showed.
            trusted: the server's keys, by key id.
            now: aware time; of a device whose clock is known to be wrong, the newest that it knows
                from the server.

        Raises:
            WireError: it is no envelope of a grant.
            SignatureError: `unknown_key`, `bad_signature`, or `expired`.
        """
        raw = envelope.encode() if isinstance(envelope, str) else envelope
        found = decode(open_signed(raw, trusted), DeviceGrant)
        if now >= found.not_after:
            what = f"what {found.gateway} may ask {found.device} ended"
            raise SignatureError("expired", f"{what} at {found.not_after.isoformat()}")
        return found


def grant_schema() -> JsonObject:
    """Return the JSON Schema (draft 2020-12) of a grant."""
    return schema(DeviceGrant)
