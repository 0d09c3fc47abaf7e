"""Rounds over MQTT: what a gateway says to one device, on `dn/round`.

    round_offer, count_offer   a step to answer; what it is about stands beside, by digest
    missing_parts              parts of an answer that have not come: the same bytes again
    step_release               the ledger's entry of a step that was released

Each is an envelope signed by the gateway, and brings the device's own grant, in which the server
signed that this gateway may ask this device. So a device believes a gateway that it has never heard
of, keeps no list of gateways, and answers no gateway of another site, whoever runs the broker. An
offer counts from its receipt: devices' clocks are wrong. A device answers a step once, for ever; an
offer of a step that it answered brings the same sealed bytes again while it has them, else zeros.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final

from .codec import (
    ADDRESSING,
    MAX_PAYLOAD_BYTES,
    SCHEMA_VERSION,
    Payload,
    decode,
    encode,
    parse_object,
    schema,
)
from .contribution import ContributionForm, Step, StepKind
from .counts import CountQuestion, CountTask
from .envelope import SigningKey, open_signed, sign_payload, signed_parts, trusted_keys
from .errors import SignatureError, WireError
from .fields import Declared, JsonObject, Text, Whole
from .parts import MOST_PARTS, TAG_BYTES
from .round_material import MOST_MATERIAL_BYTES, RoundMaterial
from .rounds import LocalRecipe, ReleaseReceipt, RoundTask
from .site_grant import DeviceGrant
from .topics import MAX_DEVICE_ID_BYTES, checked_device_id

MOST_DEADLINE_S: Final = 7 * 86_400
_LARGEST: Final = 2**53 - 1
_MOST_COHORT: Final = 2**26
_MOST_STEPS: Final = 10_000
_MOST_ROWS: Final = 1_000_000
_ENVELOPE = Text("[ -~]+", MAX_PAYLOAD_BYTES)
_DIGEST = Text("[0-9a-f]{64}", 64)
_NAME = Text("[!-~]+", 128)
_PSEUDONYM = Text("[0-9a-f]{32}", 32)


@dataclass(frozen=True, slots=True)
class OneDeviceTask:
    """The task of exactly one device, without its policy, as a JSON object."""

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the object."""
        recipe = {name: {"type": "number"} for name in LocalRecipe.__slots__}
        return {
            "type": "object",
            "properties": {
                "stream": _NAME.schema(),
                "index": Whole(0, _LARGEST).schema(),
                "clipping_norm": {"type": "number", "exclusiveMinimum": 0},
                "cohort_size": Whole(1, _MOST_COHORT).schema(),
                "device_ids": {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": 1,
                    "maxItems": 1,
                },
                "pseudonyms": {"type": "array", "items": _PSEUDONYM.schema(), "maxItems": 1},
                "has_norm_bit": {"type": "boolean"},
                **recipe,
            },
            "required": ["clipping_norm", "cohort_size", "device_ids", "index", "stream"],
            "additionalProperties": True,
        }

    def to_json(self, value: Any) -> JsonObject:
        """Return the task's plain values, checked."""
        if not isinstance(value, RoundTask):
            raise TypeError(f"must be a task, got {type(value).__name__}")
        _require_one_device(value)
        return {name: entry for name, entry in value.to_plain().items() if name != "policy"}

    def from_json(self, value: Any) -> RoundTask:
        """Return the task of an object."""
        if not isinstance(value, dict):
            raise TypeError(f"must be an object, got {type(value).__name__}")
        task = RoundTask.from_plain({name: value[name] for name in value if name != "policy"})
        _require_one_device(task)
        return task


def _require_one_device(task: RoundTask) -> None:
    """Refuse what no gateway offers one device.

    Raises:
        ValueError: it is for other than one device, or a number in it has no end.
    """
    if task.policy:
        raise ValueError("must leave the policy out, which stands beside")
    if len(task.device_ids) != 1 or len(task.pseudonyms) > 1:
        raise ValueError(f"must be for one device, got {len(task.device_ids)}")
    for pseudonym in task.pseudonyms:
        _PSEUDONYM.to_json(pseudonym)
    _NAME.to_json(task.stream)
    bounds = {
        "index": (task.index, _LARGEST),
        "cohort_size": (task.cohort_size, _MOST_COHORT),
        "deadline_s": (task.deadline_s, MOST_DEADLINE_S),
        "steps": (task.recipe.steps, _MOST_STEPS),
        "least_rows": (task.recipe.least_rows, _MOST_ROWS),
        "expected_batch_size": (task.recipe.expected_batch_size, _MOST_ROWS),
    }
    for name, (value, most) in bounds.items():
        if value > most:
            raise ValueError(f"{name} must be at most {most}, got {value}")


@dataclass(frozen=True, slots=True)
class PartNumbers:
    """Numbers of parts, ascending; none names them all."""

    def schema(self) -> JsonObject:
        """Return the JSON Schema of the list."""
        items = Whole(0, MOST_PARTS - 1).schema()
        return {"type": "array", "items": items, "maxItems": MOST_PARTS, "uniqueItems": True}

    def to_json(self, value: Any) -> list[int]:
        """Return the numbers, checked."""
        if not isinstance(value, tuple | list) or len(value) > MOST_PARTS:
            raise ValueError(f"must be at most {MOST_PARTS} numbers")
        for one in value:
            Whole(0, MOST_PARTS - 1).to_json(one)
        if any(low >= high for low, high in itertools.pairwise(value)):
            raise ValueError("must ascend")
        return list(value)

    def from_json(self, value: Any) -> tuple[int, ...]:
        """Return the numbers of a list."""
        return tuple(self.to_json(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteMessage(Payload):
    """What a gateway says to one device."""

    schema_version: Annotated[
        int, Declared(kind=Whole(1, 1_000_000), what="version of the schema", purpose=ADDRESSING)
    ] = SCHEMA_VERSION
    grant: Annotated[
        str,
        Declared(
            kind=_ENVELOPE,
            what="the device's grant, signed by the server: by which gateway it may be asked",
            purpose="believe the gateway",
        ),
    ]
    device: Annotated[
        str,
        Declared(
            kind=Text("[^+#/]+", MAX_DEVICE_ID_BYTES),
            what="id of the device that it is for",
            purpose=ADDRESSING,
        ),
    ]

    def check_address(self) -> None:
        """Check the name of the device."""
        checked_device_id(self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(SiteMessage):
    """A step that a device may answer until its deadline."""

    material: Annotated[
        str, Declared(kind=_DIGEST, what="SHA-256 of what all devices read for the step")
    ]
    material_bytes: Annotated[
        int, Declared(kind=Whole(1, MOST_MATERIAL_BYTES), what="its size, in bytes")
    ]
    deadline_s: Annotated[
        int,
        Declared(
            kind=Whole(1, MOST_DEADLINE_S),
            what="seconds from the offer's receipt after which an answer counts for nothing",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOffer(Offer):
    """A device is asked for its update in one step of a stream."""

    TYPE: ClassVar[str] = "round_offer"

    task: Annotated[
        RoundTask,
        Declared(kind=OneDeviceTask(), what="what it is asked to train, for this device alone"),
    ]

    def inconsistency(self) -> str | None:
        """The task is the device's own."""
        return None if self.task.device_ids == (self.device,) else "task is another device's"

    def step(self, gateway: str) -> Step:
        """Return the step that an answer names."""
        return Step(
            kind=StepKind.UPDATE,
            stream=self.task.stream,
            index=self.task.index,
            gateway=gateway,
            material=self.material,
        )

    def task_with(self, material: RoundMaterial) -> RoundTask:
        """Return the whole task, with the policy that stood beside."""
        return replace(self.task, policy=material.policy, deadline_s=float(self.deadline_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOffer(Offer):
    """A device is asked for its answer to one question for counts."""

    TYPE: ClassVar[str] = "count_offer"

    channel: Annotated[str, Declared(kind=_NAME, what="which counts")]
    index: Annotated[int, Declared(kind=Whole(0, _LARGEST), what="which release of them")]
    cohort_size: Annotated[
        int, Declared(kind=Whole(1, _MOST_COHORT), what="devices asked over all nodes")
    ]

    def step(self, gateway: str) -> Step:
        """Return the step that an answer names."""
        return Step(
            kind=StepKind.COUNT,
            stream=self.channel,
            index=self.index,
            gateway=gateway,
            material=self.material,
        )

    def task_with(self, material: RoundMaterial) -> CountTask:
        """Return the whole question, with the text and the policy that stood beside.

        Raises:
            WireError: `bad_material`: the text is no question.
        """
        try:
            question = CountQuestion.from_text(material.question)
        except (ValueError, ArithmeticError) as error:
            raise WireError("bad_material", str(error)[:200]) from None
        return CountTask(
            channel=self.channel,
            index=self.index,
            cohort_size=self.cohort_size,
            device_ids=(self.device,),
            question=question,
            policy=material.policy,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingParts(SiteMessage):
    """Parts of a device's answer have not come."""

    TYPE: ClassVar[str] = "missing_parts"

    tag: Annotated[
        str,
        Declared(
            kind=Text(f"[0-9a-f]{{{2 * TAG_BYTES}}}", 2 * TAG_BYTES),
            what="which step's answer, as its parts name it",
        ),
    ]
    parts: Annotated[
        tuple[int, ...],
        Declared(kind=PartNumbers(), what="which parts, ascending; none: all of them"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRelease(SiteMessage):
    """A step that a device was asked for is released."""

    TYPE: ClassVar[str] = "step_release"

    stream: Annotated[str, Declared(kind=_NAME, what="of the step")]
    index: Annotated[int, Declared(kind=Whole(0, _LARGEST), what="of the step")]
    entry: Annotated[
        str,
        Declared(kind=_ENVELOPE, what="the server's ledger entry that pays for it, signed by it"),
    ]

    @property
    def receipt(self) -> ReleaseReceipt:
        """What the server hands to the devices that were invited."""
        return ReleaseReceipt(stream=self.stream, index=self.index, entry=self.entry)


SITE_MESSAGES: Final[tuple[type[SiteMessage], ...]] = (
    RoundOffer,
    CountOffer,
    MissingParts,
    StepRelease,
)


def update_form(task: RoundTask, *, num_weights: int) -> ContributionForm:
    """Return the form of the answers to a task.

    Raises:
        WireError: `bad_form`.
    """
    entries = num_weights + (1 if task.has_norm_bit else 0)
    return ContributionForm(kind=StepKind.UPDATE, num_entries=entries)


def count_form(question: CountQuestion) -> ContributionForm:
    """Return the form of the answers to a question."""
    return ContributionForm(kind=StepKind.COUNT, num_entries=question.size)


def signed_by_gateway(message: SiteMessage, key: SigningKey) -> bytes:
    """Return a message as it travels.

    Raises:
        MessageTooLargeError: it would not fit.
    """
    return sign_payload(encode(message), key)


def open_from_gateway(
    envelope: bytes, *, device: str, believe: Callable[[str], DeviceGrant]
) -> tuple[DeviceGrant, SiteMessage]:
    """Return what a gateway said to a device, and who the gateway is.

    Args:
        envelope: what came on `dn/round`.
        device: on whose topic.
        believe: returns the grant of an envelope that the server signed, or raises.

    Raises:
        WireError: it is none of the declared messages, or for another device.
        SignatureError: the server did not sign the grant, or for another device
            (`foreign_grant`), or the gateway that it names did not sign the message.
    """
    if len(envelope) > MAX_PAYLOAD_BYTES:
        raise WireError("oversize", f"{len(envelope)} bytes")
    _, _, unbelieved = signed_parts(envelope)
    body = parse_object(unbelieved)
    shown = body.get("grant")
    if not isinstance(shown, str):
        raise WireError("missing_field", "grant is missing")
    grant = believe(shown)
    if grant.device != device:
        what = f"{grant.gateway} may ask {grant.device}, not {device}"
        raise SignatureError("foreign_grant", what)
    payload = open_signed(envelope, trusted_keys(grant.verifier))
    kinds = {kind.TYPE: kind for kind in SITE_MESSAGES}
    named = body.get("type")
    kind = kinds.get(named) if isinstance(named, str) else None
    if kind is None:
        raise WireError("wrong_type", f"no such message: {json.dumps(named)[:40]}")
    message = decode(payload, kind)
    if message.device != device:
        raise WireError("foreign_device", f"for {message.device[:70]!r}, not for {device}")
    return grant, message


def site_schemas() -> dict[str, JsonObject]:
    """Return the JSON Schemas (draft 2020-12) of all messages by their type."""
    return {message.TYPE: schema(message) for message in SITE_MESSAGES}
