"""The messages between device and server: the one list of what may leave a device.

Whatever is not declared here does not pass. JSON Schemas and the table "what leaves the device" are
derived from these declarations. All meaning is in the payload; topics and MQTT 5 properties only
carry it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

from ..prediction import Confidence, Urgency
from .announcements import RING_NAME
from .bands import DaysBand, HealthBand, ProbabilityBand
from .codec import MESSAGE_ID, Message, decode, encode, parse_object, schema, unknown_fields
from .errors import WireError
from .fields import Choice, Consent, Declared, Flag, JsonObject, Moment, Personal, Text, Whole
from .topics import Down, Up, parse

__all__ = [
    "ACK_STATES",
    "MESSAGES",
    "Ack",
    "Birth",
    "Configuration",
    "Criticality",
    "Message",
    "ModelRefusal",
    "Notice",
    "NoticeState",
    "Presence",
    "PrimaryIssue",
    "Status",
    "Summary",
    "Template",
    "decode",
    "encode",
    "recognise",
    "schemas",
]

LANGUAGE = Text("[a-z]{2,3}(-[A-Z]{2})?", 6)
VERSION = Text("[A-Za-z0-9][A-Za-z0-9._+-]*", 64)
ZONE = Text("[A-Za-z0-9][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", 64)
HOUR = Whole(0, 23)
CONTACT = Text(r"[^\x00-\x1f\x7f]+", 200)


class PrimaryIssue(StrEnum):
    """The likeliest cause; the members are those of `telemetry.CAUSES`."""

    CAPACITY_FADE = "capacity_fade"
    RESISTANCE_GROWTH = "resistance_growth"
    SWELLING = "swelling"
    CHARGER_FAULT = "charger_fault"
    SUDDEN_DEATH = "sudden_death"


class Criticality(StrEnum):
    """What hangs on the device."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Template(StrEnum):
    """Which text the device shows, filled with its own figures; the more urgent first."""

    UNDER_7 = "battery.under_7"
    FROM_7_TO_30 = "battery.7_to_30"


class NoticeState(StrEnum):
    """The life of a notice; `queued` and `expired` are the server's words, the rest a device's."""

    QUEUED = "queued"
    RECEIVED = "received"
    SHOWN = "shown"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    SNOOZED = "snoozed"
    REPLACED = "replaced"
    FAILED = "failed"
    EXPIRED = "expired"


ACK_STATES = tuple(
    state for state in NoticeState if state not in {NoticeState.QUEUED, NoticeState.EXPIRED}
)
"""The states that a device reports."""


class Presence(StrEnum):
    """Whether a device holds a connection."""

    ONLINE = "online"
    OFFLINE = "offline"


class ModelRefusal(StrEnum):
    """Why a device does not run a model that it was given; the last ones: it went back."""

    ALTERED = "altered"
    TOO_LARGE = "too_large"
    UNTRUSTED = "untrusted"
    CLIENT_TOO_OLD = "client_too_old"
    UNSUPPORTED_SPEC = "unsupported_spec"
    STRUCTURE = "structure"
    LIMITS = "limits"
    LOAD = "load"
    GOLDEN = "golden"
    OLDER_RELEASE = "older_release"
    REPOSITORY = "repository"
    OTHER = "other"
    ROLLED_BACK_BEFORE = "rolled_back_before"
    NO_REPORT = "no_report"
    SLOT_DAMAGED = "slot_damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Message):
    """A prediction in bands, with what the owner wishes to hear and when."""

    TYPE: ClassVar[str] = "summary"
    TOPIC: ClassVar[Up | Down] = Up.SUMMARY
    PURPOSE: ClassVar[str] = "decide whether the owner should hear of a failing battery"
    CONSENT: ClassVar[Consent] = Consent.SUMMARIES
    PADDED_BYTES: ClassVar[int] = 1024

    urgency: Annotated[
        Urgency,
        Declared(
            kind=Choice(Urgency), what="urgency by the bands of days, at least high if flagged"
        ),
    ]
    flagged: Annotated[
        bool,
        Declared(kind=Flag(), what="whether the 30-day probability reaches the model's threshold"),
    ]
    days_band: Annotated[
        DaysBand, Declared(kind=Choice(DaysBand), what="estimated days to failure, in bands")
    ]
    probability_band: Annotated[
        ProbabilityBand,
        Declared(
            kind=Choice(ProbabilityBand),
            what="probability of a failure within 30 days, in bands of percent",
        ),
    ]
    health_band: Annotated[
        HealthBand,
        Declared(kind=Choice(HealthBand), what="capacity against new, in bands of percent"),
    ]
    confidence: Annotated[
        Confidence, Declared(kind=Choice(Confidence), what="confidence in the days, in three words")
    ]
    primary_issue: Annotated[
        PrimaryIssue, Declared(kind=Choice(PrimaryIssue), what="the likeliest cause")
    ]
    criticality: Annotated[
        Criticality, Declared(kind=Choice(Criticality), what="what hangs on the device")
    ]
    model_version: Annotated[str, Declared(kind=VERSION, what="which model predicted")]
    language: Annotated[
        str,
        Declared(
            kind=LANGUAGE,
            what="language the owner reads",
            purpose="say it in the owner's language",
            consent=Consent.NOTICES,
            personal=Personal.INDIRECT,
        ),
    ]
    notices_wanted: Annotated[
        bool,
        Declared(
            kind=Flag(),
            what="whether the owner agreed to notices",
            purpose="send nothing to an owner who wants nothing",
            consent=Consent.NOTICES,
        ),
    ]
    quiet_from_hour: Annotated[
        int | None,
        Declared(
            kind=HOUR,
            what="local hour at which the owner's quiet hours begin",
            purpose="hold notices while the owner wants quiet",
            consent=Consent.NOTICES,
            personal=Personal.INDIRECT,
        ),
    ] = None
    quiet_until_hour: Annotated[
        int | None,
        Declared(
            kind=HOUR,
            what="local hour at which they end",
            purpose="hold notices while the owner wants quiet",
            consent=Consent.NOTICES,
            personal=Personal.INDIRECT,
        ),
    ] = None
    zone: Annotated[
        str | None,
        Declared(
            kind=ZONE,
            what="IANA name of the time zone of the quiet hours",
            purpose="hold notices while the owner wants quiet",
            consent=Consent.NOTICES,
            personal=Personal.INDIRECT,
        ),
    ] = None

    def inconsistency(self) -> str | None:
        """Quiet hours have a beginning and an end, and leave an hour in which to speak."""
        if (self.quiet_from_hour is None) != (self.quiet_until_hour is None):
            return "quiet_from_hour and quiet_until_hour belong together"
        if self.quiet_from_hour is not None and self.quiet_from_hour == self.quiet_until_hour:
            return "quiet hours must not last the whole day; withdraw notices_wanted instead"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Message):
    """What the owner should hear; the device fills in its own figures."""

    TYPE: ClassVar[str] = "notice"
    TOPIC: ClassVar[Up | Down] = Down.NOTIFY
    PURPOSE: ClassVar[str] = "tell the owner of a failing battery"
    CONSENT: ClassVar[Consent] = Consent.NOTICES

    expires: Annotated[
        datetime, Declared(kind=Moment(), what="after this it is not shown any more, UTC")
    ]
    correlation: Annotated[
        str, Declared(kind=MESSAGE_ID, what="id of the summary that gave rise to it")
    ]
    template: Annotated[Template, Declared(kind=Choice(Template), what="which text is shown")]
    language: Annotated[
        str, Declared(kind=LANGUAGE, what="language of the text", personal=Personal.INDIRECT)
    ]
    urgency: Annotated[Urgency, Declared(kind=Choice(Urgency), what="as in the summary")]
    days_band: Annotated[DaysBand, Declared(kind=Choice(DaysBand), what="as in the summary")]
    probability_band: Annotated[
        ProbabilityBand, Declared(kind=Choice(ProbabilityBand), what="as in the summary")
    ]
    health_band: Annotated[HealthBand, Declared(kind=Choice(HealthBand), what="as in the summary")]
    confidence: Annotated[Confidence, Declared(kind=Choice(Confidence), what="as in the summary")]
    human_contact: Annotated[str, Declared(kind=CONTACT, what="where the owner reaches a person")]
    version: Annotated[
        int, Declared(kind=Whole(1, 2**31 - 1), what="number of the notice's state; queued is 1")
    ]

    def inconsistency(self) -> str | None:
        """A notice lives for a while."""
        return None if self.expires > self.issued else "expires must lie after issued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack(Message):
    """What became of a notice on the device."""

    TYPE: ClassVar[str] = "ack"
    TOPIC: ClassVar[Up | Down] = Up.ACK
    PURPOSE: ClassVar[str] = "stop repeating a notice, and learn what the owner chose"
    CONSENT: ClassVar[Consent] = Consent.NOTICES
    PADDED_BYTES: ClassVar[int] = 512

    correlation: Annotated[str, Declared(kind=MESSAGE_ID, what="id of the notice")]
    state: Annotated[NoticeState, Declared(kind=Choice(ACK_STATES), what="what became of it")]
    version: Annotated[
        int,
        Declared(
            kind=Whole(2, 2**31 - 1),
            what="number of the state: one more than that of the state before",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth(Message):
    """A device says after connecting what it can run."""

    TYPE: ClassVar[str] = "birth"
    TOPIC: ClassVar[Up | Down] = Up.BIRTH
    PURPOSE: ClassVar[str] = "send only what the device can use, and what it has missed"
    CONSENT: ClassVar[Consent] = Consent.LINK
    PADDED_BYTES: ClassVar[int] = 512

    client_version: Annotated[str, Declared(kind=VERSION, what="version of the device's fedcell")]
    model_version: Annotated[str, Declared(kind=VERSION, what="which model is installed")]
    feature_spec_version: Annotated[
        str, Declared(kind=VERSION, what="which definitions of features it computes")
    ]
    refused_model: Annotated[
        str | None, Declared(kind=VERSION, what="which model it was given last and does not run")
    ] = None
    refused_because: Annotated[
        ModelRefusal | None, Declared(kind=Choice(ModelRefusal), what="why not")
    ] = None
    configuration_sequence: Annotated[
        int | None,
        Declared(
            kind=Whole(0, 2**53 - 1),
            what="sequence number of the configuration in force; left out before the first",
        ),
    ] = None

    def inconsistency(self) -> str | None:
        """A refused model has its reason."""
        if (self.refused_model is None) != (self.refused_because is None):
            return "refused_model and refused_because belong together"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Message):
    """Whether a device is connected; retained, and left with the broker as its last will."""

    TYPE: ClassVar[str] = "status"
    TOPIC: ClassVar[Up | Down] = Up.STATUS
    PURPOSE: ClassVar[str] = "know which devices can be reached"
    CONSENT: ClassVar[Consent] = Consent.LINK
    PADDED_BYTES: ClassVar[int] = 512

    presence: Annotated[Presence, Declared(kind=Choice(Presence), what="online or offline")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration(Message):
    """What a device shall not do until told otherwise; in place of the configuration before it.

    It narrows what the owner has agreed to, and grants nothing: true, or left out, leaves it to the
    owner.
    """

    TYPE: ClassVar[str] = "configuration"
    TOPIC: ClassVar[Up | Down] = Down.CONFIG
    PURPOSE: ClassVar[str] = "stop from afar what does harm, costs too much or is over"
    CONSENT: ClassVar[Consent] = Consent.LINK

    expires: Annotated[
        datetime,
        Declared(
            kind=Moment(),
            what="after this it is not taken any more, UTC; one that was taken stays in force",
        ),
    ]
    training: Annotated[
        bool | None, Declared(kind=Flag(), what="false: no training, and no part in rounds")
    ] = None
    prediction: Annotated[bool | None, Declared(kind=Flag(), what="false: no predictions")] = None
    summaries: Annotated[
        bool | None, Declared(kind=Flag(), what="false: no summary leaves the device")
    ] = None
    notices: Annotated[
        bool | None,
        Declared(kind=Flag(), what="false: no notice is taken, shown or acknowledged"),
    ] = None
    predict_every_h: Annotated[
        int | None, Declared(kind=Whole(1, 168), what="hours from one prediction to the next")
    ] = None
    ring: Annotated[
        str | None,
        Declared(
            kind=RING_NAME,
            what="which ring's releases it takes; left out: those of the fleet",
            purpose="try a model on few devices before it goes to all",
        ),
    ] = None


MESSAGES: Mapping[Up | Down, type[Message]] = {
    message.TOPIC: message for message in (Summary, Ack, Birth, Status, Notice, Configuration)
}
"""Every message by the topic it travels on."""


def schemas() -> dict[str, JsonObject]:
    """Return the JSON Schemas (draft 2020-12) of all messages by their type."""
    return {message.TYPE: schema(message) for message in MESSAGES.values()}


def recognise(topic: str, payload: bytes) -> Message:
    """Return the message that travels on a topic, and refuse whatever is not declared.

    This is for a tap on the wire: unlike `decode`, it accepts no unknown field, no foreign topic
    and no message on another device's topic. Payloads from the server come in an envelope; open
    it first.

    Raises:
        WireError: it is not one of the declared messages, or holds more than is declared.
    """
    place = parse(topic)
    message = MESSAGES.get(place.kind)
    if message is None:
        raise WireError("undeclared", f"nothing is declared for {place.kind.value}")
    surplus = unknown_fields(parse_object(payload), message)
    if surplus:
        raise WireError("undeclared", f"{message.TYPE} holds {', '.join(surplus)[:200]}")
    found = decode(payload, message)
    if found.device != place.device:
        raise WireError("foreign_device", f"{found.device} spoke on the topic of {place.device}")
    return found
