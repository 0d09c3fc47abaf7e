"""What the server announces to many devices at once: that a release is there; never the model.

Retained on `fedcell/v1/all/release` and `fedcell/v1/ring/{ring}/release`, signed like any message
from the server. An announcement makes a device look sooner and decides nothing: what a device
shall run stands in the repository's own metadata.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar

from .codec import (
    ADDRESSING,
    MESSAGE_ID,
    SCHEMA_VERSION,
    Payload,
    of_object,
    parse_object,
    schema,
)
from .fields import Declared, JsonObject, Moment, Text, Whole
from .topics import PREFIX

RING_NAME = Text("[a-z][a-z0-9_-]*", 32)
FLEET_RING = "fleet"
"""The ring of every device that was told no other; what is announced to all is announced to it."""
_VERSION = Text("[A-Za-z0-9][A-Za-z0-9._+-]*", 64)
_LARGEST = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAnnouncement(Payload):
    """A release is there for a ring."""

    TYPE: ClassVar[str] = "release"

    schema_version: Annotated[
        int, Declared(kind=Whole(1, 1_000_000), what="version of the schema", purpose=ADDRESSING)
    ] = SCHEMA_VERSION
    id: Annotated[
        str,
        Declared(kind=MESSAGE_ID, what="128 random bits that name the message", purpose=ADDRESSING),
    ]
    sequence: Annotated[
        int,
        Declared(
            kind=Whole(0, _LARGEST),
            what="grows with each announcement of this server; the authority against replay",
            purpose=ADDRESSING,
        ),
    ]
    issued: Annotated[
        datetime,
        Declared(kind=Moment(), what="time of the server's clock, UTC", purpose=ADDRESSING),
    ]
    expires: Annotated[
        datetime, Declared(kind=Moment(), what="after this nobody looks because of it, UTC")
    ]
    ring: Annotated[str, Declared(kind=RING_NAME, what="for which ring")]
    release: Annotated[
        int, Declared(kind=Whole(0, _LARGEST), what="number of the release; grows with each")
    ]
    version: Annotated[str, Declared(kind=_VERSION, what="version of its model")]
    feature_spec_version: Annotated[
        str, Declared(kind=_VERSION, what="which definitions of features it needs")
    ]
    least_client_version: Annotated[
        str, Declared(kind=_VERSION, what="which version of fedcell it needs at least")
    ]
    sha256: Annotated[
        str, Declared(kind=Text("[0-9a-f]{64}", 64), what="SHA-256 of the bundle's file")
    ]
    num_bytes: Annotated[int, Declared(kind=Whole(1, 1 << 26), what="size of the bundle's file")]
    spread_s: Annotated[
        int, Declared(kind=Whole(0, 7 * 86_400), what="seconds over which devices look, at random")
    ]

    def inconsistency(self) -> str | None:
        """Say that it ends before it begins, None where it does not."""
        return "expires must lie after issued" if self.expires <= self.issued else None


def decode_announcement(payload: bytes) -> ReleaseAnnouncement:
    """Return the announcement that a payload holds, which may leave its schema's version out.

    Raises:
        WireError: whatever is wrong with it; the only error that this raises.
    """
    body = {"schema_version": SCHEMA_VERSION, **parse_object(payload)}
    return of_object(body, ReleaseAnnouncement)


def announcement_schema() -> JsonObject:
    """Return the JSON Schema (draft 2020-12)."""
    found = schema(ReleaseAnnouncement)
    return found | {"required": [name for name in found["required"] if name != "schema_version"]}


def release_topic(ring: str) -> str:
    """Return where a ring's releases are announced: to all for the fleet.

    Raises:
        ValueError: the name cannot be a ring's.
    """
    if re.fullmatch(RING_NAME.pattern, ring) is None or len(ring) > RING_NAME.max_length:
        raise ValueError(f"ring must match {RING_NAME.pattern}, got {ring!r}")
    return f"{PREFIX}/all/release" if ring == FLEET_RING else f"{PREFIX}/ring/{ring}/release"


RELEASE_FILTERS = (f"{PREFIX}/all/release", f"{PREFIX}/ring/+/release")
"""What a device listens to: all rings, so that one that changes its ring needs no new session."""
