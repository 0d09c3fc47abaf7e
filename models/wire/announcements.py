"""What the server announces to many devices at once: that a release is there; never the model.

Retained on `fedcell/v1/all/release` and `fedcell/v1/ring/{ring}/release`, signed like any message
from the server. An announcement makes a device look sooner and decides nothing: what a device
shall run stands in the repository's own metadata.
"""

import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, ClassVar, get_args

from .codec import ADDRESSING, MESSAGE_ID, SCHEMA_VERSION, canonical_json, parse_object
from .errors import WireError
from .fields import Declared, JsonObject, Moment, Text, Whole
from .topics import PREFIX

RING_NAME = Text("[a-z][a-z0-9_-]*", 32)
FLEET_RING = "fleet"
"""The ring of every device that was told no other; what is announced to all is announced to it."""
_VERSION = Text("[A-Za-z0-9][A-Za-z0-9._+-]*", 64)
_LARGEST = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAnnouncement:
    """A release is there for a ring.

    Raises:
        WireError: `bad_field`: a value that the contract does not allow.
    """

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

    def __post_init__(self) -> None:
        """Check every field against what is declared about it."""
        for name, declared in declarations().items():
            try:
                declared.kind.to_json(getattr(self, name))
            except (TypeError, ValueError) as error:
                raise WireError("bad_field", f"{self.TYPE}.{name} {error}") from None
        if self.expires <= self.issued:
            raise WireError("bad_field", f"{self.TYPE}: expires must lie after issued")


def declarations() -> dict[str, Declared]:
    """Return what is declared about each field."""
    return {
        entry.name: next(fact for fact in get_args(entry.type) if isinstance(fact, Declared))
        for entry in fields(ReleaseAnnouncement)
    }


def encode_announcement(announcement: ReleaseAnnouncement) -> bytes:
    """Return the canonical bytes of an announcement."""
    body: JsonObject = {"type": announcement.TYPE}
    for name, declared in declarations().items():
        body[name] = declared.kind.to_json(getattr(announcement, name))
    return canonical_json(body)


def decode_announcement(payload: bytes) -> ReleaseAnnouncement:
    """Return the announcement that a payload holds; unknown fields are left out.

    Raises:
        WireError: whatever is wrong with it; the only error that this raises.
    """
    body = parse_object(payload)
    if body.get("type") != ReleaseAnnouncement.TYPE:
        raise WireError("wrong_type", f"expected release, got {str(body.get('type'))[:40]!r}")
    values: dict[str, Any] = {}
    for name, declared in declarations().items():
        if name not in body:
            if name == "schema_version":
                continue
            raise WireError("missing_field", f"release.{name} is missing")
        try:
            values[name] = declared.kind.from_json(body[name])
        except (TypeError, ValueError) as error:
            raise WireError("bad_field", f"release.{name} {error}") from None
    return ReleaseAnnouncement(**values)


def announcement_schema() -> JsonObject:
    """Return the JSON Schema (draft 2020-12)."""
    declared = declarations()
    properties: JsonObject = {"type": {"const": ReleaseAnnouncement.TYPE}}
    properties |= {
        name: {"description": one.what, **one.kind.schema()} for name, one in declared.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:fedcell:v1:{ReleaseAnnouncement.TYPE}",
        "title": ReleaseAnnouncement.TYPE,
        "description": "A release is there for a ring.",
        "type": "object",
        "properties": properties,
        "required": sorted(["type", *(name for name in declared if name != "schema_version")]),
        "additionalProperties": True,
    }


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
