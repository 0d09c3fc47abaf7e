"""The pin of an app bundle: the one program that a node of the fleet may run for the server.

Flower hands a node code to run. The pin says which, in the server's words: a node keeps the newest
pin that a trusted key signed, and refuses a run whose bundle has another SHA-256.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar

from .codec import ADDRESSING, SCHEMA_VERSION, Payload, decode, encode, schema
from .envelope import SigningKey, VerifyKey, open_signed, sign_payload
from .fields import Declared, JsonObject, Moment, Text, Whole

APP_PIN_PATH = "/v1/app-pin"
"""Where the server's proxy hands the newest pin out, beside Flower's own paths."""
APP_PIN_FILE = "app-pin.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPin(Payload):
    """Which app bundle nodes may run, and since when."""

    TYPE: ClassVar[str] = "app_pin"

    schema_version: Annotated[
        int, Declared(kind=Whole(1, 1_000_000), what="version of the schema", purpose=ADDRESSING)
    ] = SCHEMA_VERSION
    app: Annotated[
        str,
        Declared(kind=Text("[A-Za-z0-9-]+/[A-Za-z0-9-]+", 100), what="publisher/name of the app"),
    ]
    version: Annotated[str, Declared(kind=Text("[A-Za-z0-9.+-]+", 40), what="of the app")]
    fab_sha256: Annotated[
        str, Declared(kind=Text("[0-9a-f]{64}", 64), what="SHA-256 of the bundle, hex")
    ]
    flwr: Annotated[
        str,
        Declared(kind=Text("[A-Za-z0-9.+-]+", 40), what="version of Flower that the server runs"),
    ]
    issued: Annotated[
        datetime,
        Declared(
            kind=Moment(),
            what="time of the server's clock, UTC; a node that has seen a pin takes no earlier one",
        ),
    ]

    def signed(self, key: SigningKey) -> bytes:
        """Return it as it is handed out: an envelope signed by the server."""
        return sign_payload(encode(self), key)

    @staticmethod
    def from_envelope(envelope: bytes, trusted: Mapping[str, VerifyKey]) -> "AppPin":
        """Return the pin of an envelope that the server signed.

        Args:
            envelope: content of the file, or of the answer.
            trusted: the server's keys, by key id.

        Raises:
            WireError: it is no envelope of a pin.
            SignatureError: `unknown_key` or `bad_signature`.
        """
        return decode(open_signed(envelope, trusted), AppPin)


def pin_schema() -> JsonObject:
    """Return the JSON Schema (draft 2020-12) of a pin."""
    return schema(AppPin)
