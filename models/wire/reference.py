"""What is generated from the messages: JSON Schemas, and the table of what leaves a device.

`python -m models.wire.reference` in the project's folder writes both; a test keeps them in step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from . import rounds
from .announcements import ReleaseAnnouncement, announcement_schema
from .app_pin import APP_PIN_PATH, AppPin, pin_schema
from .codec import MAX_PAYLOAD_BYTES, Message, specification
from .fields import Consent
from .messages import MESSAGES, schemas
from .site_credential import GatewayCredential, credential_schema, site_schema
from .site_grant import DeviceGrant, grant_schema
from .site_rounds import SITE_MESSAGES, site_schemas
from .topics import Down, Up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .codec import Payload
    from .fields import Declared
    from .site_rounds import SiteMessage

RELEASE = ReleaseAnnouncement.TYPE
RELEASE_PURPOSE = "have devices look sooner; what they run stands in the repository's metadata"
CREDENTIAL = GatewayCredential.TYPE
GRANT = DeviceGrant.TYPE
GRANT_PURPOSE = "answer the one gateway that the server signed for this device"
PIN = AppPin.TYPE
PIN_PURPOSE = "know which program a node may run for the server"
SITE = "site"
SCHEMA_FOLDER = Path("models/wire/schemas")
TABLE_FILE = Path("docs/reference/what-leaves.md")

ROUND_PURPOSE = "learn together with other devices"
ROUND_FIELDS: Mapping[str, tuple[str, bool, str]] = {
    rounds.FLAT_ARRAY: (
        (
            "sum of the clipped updates of the devices behind a node, whole numbers on a grid; "
            "where the clipping norm adapts, over that norm, and last how many were not cut off "
            "less how many were"
        ),
        True,
        "no",
    ),
    "schema_version": ("version of the reply", False, "no"),
    "stream": ("which run of rounds is answered", False, "no"),
    "index": ("which step of it", False, "no"),
    "num_devices": (
        "number of invited devices in the sum, whether they trained or not",
        False,
        "no",
    ),
    "receipts": (
        (
            "for each device: its pseudonym in this step, and from its own ledger the number of "
            "steps and the sum of 1/σ² that it has debited, and the last entry's hash"
        ),
        False,
        "pseudonym",
    ),
    "device_ids": (
        "when a node is asked once: the ids of the devices behind it",
        False,
        "pseudonym",
    ),
    "failure": (
        f"in place of all others: why there is no answer, {', '.join(rounds.NodeFailure)}",
        False,
        "no",
    ),
}
"""What `rounds` sends up: in words, whether it is accounted, what it says about a person."""

COUNT_PURPOSE = "know how good the model is, whether its inputs drift, and how similar devices fare"
COUNT_FIELDS: Mapping[str, tuple[str, bool, str]] = {
    rounds.FLAT_ARRAY: (
        (
            "sum of the answers of the devices behind a node: zeros, but for a 1 in each bin that "
            "a device falls into; the question fixes the bins and their number"
        ),
        True,
        "no",
    ),
    "schema_version": ("version of the answer", False, "no"),
    "channel": ("which counts are answered", False, "no"),
    "index": ("which release of them", False, "no"),
    "num_devices": (
        "number of devices asked behind the node, whether they had anything to count or not",
        False,
        "no",
    ),
}
"""What `counts` sends up: in words, whether it is accounted, what it says about a person."""

SITE_PURPOSE = "take part in rounds through the gateway of the site"
SITE_FIELDS: Mapping[str, tuple[str, bool, str]] = {
    "values": (
        (
            "the device's clipped update on the grid, or its answer to a question for counts; "
            "zeros where it sits out or must not answer"
        ),
        True,
        "no",
    ),
    "receipt": (
        (
            "its pseudonym in this step, and from its own ledger the number of steps and the sum "
            "of 1/σ² that it has debited, and the last entry's hash; not beside counts"
        ),
        False,
        "pseudonym",
    ),
    "signature": ("by the device's key, over who answers which step to whom", False, "pseudonym"),
    "tag": ("which step is answered, as a hash; readable on the way", False, "no"),
    "digest": ("SHA-256 of what is sealed; readable on the way", False, "no"),
    "number": ("of the part; readable on the way", False, "no"),
    "num_parts": ("how many there are; readable on the way", False, "no"),
}
"""What `contribution` and `parts` send up: in words, accounted or not, what it says of a person."""

ENVELOPE_PURPOSE = "bring an answer to the question that it belongs to"
ENVELOPE_FIELDS: Mapping[str, tuple[str, bool, str]] = {
    "run_id": ("Flower's number of the run, from the question", False, "no"),
    "message_id": ("hash of the answer, by which Flower names it; empty before", False, "no"),
    "src_node_id": ("Flower's number of the node that answers", False, "pseudonym"),
    "dst_node_id": ("Flower's number of the server", False, "no"),
    "reply_to_message_id": ("the question's name", False, "no"),
    "group_id": ("the step or release, from the question", False, "no"),
    "ttl": (
        "seconds for which the answer is kept: what is left of the question's time",
        False,
        "no",
    ),
    "message_type": ("of the question: training, a count, a receipt", False, "no"),
    "created_at": ("time of the node's clock, seconds since 1970; it may be wrong", False, "no"),
    "src_task_id": ("Flower's number of the work on the node, where it has one", False, "no"),
    "dst_task_id": ("of the work on the server, from the question", False, "no"),
    "code": ("in place of an answer: Flower's number of what failed", False, "no"),
}
"""What Flower writes around an answer: its metadata, and the number of an error."""

ENROLMENT_PURPOSE = "have the device certified, and renewed by its own key"
ENROLMENT_FIELDS: Mapping[str, str] = {
    "device_id": "the device's name",
    "token": "the one-time token that it was given; at the enrolment alone",
    "certificate_request": "public key for MQTT, signed by its private half",
    "sign": "public key that it signs with",
    "seal": "public key to which its notices are sealed",
    "supernode": "public key for Flower",
    "replaces": "number of the certificate that it holds; at a renewal alone",
    "signature": "of all of it, by the key that it signs with",
}
"""What a device sends to be certified: in words. All of it under the consent to the link."""

INTRODUCTION = """# What leaves the device

Generated from `models/wire/messages.py` by `python -m models.wire.reference`; do not edit.

Everything that a device sends is in this page, field by field. Raw readings are not, and neither is
any figure of one device: where a figure matters, its band leaves. A test taps the wire and fails on
anything else.

Consents: `link` = the owner connected the device to a server at all; `summaries`, `notices` and
`training` are asked for one by one, and nothing leaves under one that was not given. Accounted:
whether the privacy ledger is charged. Bands and acknowledgements are outside differential privacy:
they are sent to the server in the clear, because the owner asked to be told.

Every message is padded with spaces to one size per kind, so that its length says nothing.
"""
ARRIVAL = """# What arrives on the device

Everything that a device takes from the server comes signed with Ed25519; it is also sealed to the
device's own key (HPKE) where the server knows that key. A message whose signature does not hold,
that is meant for another device, or whose sequence number is not above the last, is dropped and
counted.
"""


def what_leaves() -> str:
    """Return the page "what leaves the device" in Markdown."""
    sections = [INTRODUCTION]
    sections += [_section(m) for topic, m in MESSAGES.items() if isinstance(topic, Up)]
    sections += [_round_section(), _count_section(), _envelope_section(), _site_section()]
    sections += [_enrolment_section(), ARRIVAL]
    sections += [_arrival_section(m) for topic, m in MESSAGES.items() if isinstance(topic, Down)]
    sections += [_announcement_section(), _pin_section(), _grant_section()]
    sections += [_from_gateway_section(message) for message in SITE_MESSAGES]
    return "\n".join(sections)


def generated_files() -> Mapping[Path, str]:
    """Return each generated file's content by its path within the project."""
    more = {
        RELEASE: announcement_schema(),
        CREDENTIAL: credential_schema(),
        GRANT: grant_schema(),
        PIN: pin_schema(),
        SITE: site_schema(),
        **site_schemas(),
    }
    files = {
        SCHEMA_FOLDER / f"{name}.schema.json": json.dumps(body, indent=2, sort_keys=True) + "\n"
        for name, body in {**schemas(), **more}.items()
    }
    return files | {TABLE_FILE: what_leaves()}


def _section(message: type[Message]) -> str:
    topic = f"`fedcell/v1/{{shard}}/d/{{device}}/up/{message.TOPIC.value}`"
    return _field_table(
        message,
        f"Topic {topic}, {message.PADDED_BYTES} bytes.",
        ("consent", "accounted", "personal"),
        lambda declared: ("yes" if declared.accounted else "no", declared.personal.value),
    )


def _arrival_section(message: type[Message]) -> str:
    topic = f"`fedcell/v1/{{shard}}/d/{{device}}/dn/{message.TOPIC.value}`"
    return _field_table(
        message, f"Topic {topic}.", ("taken only with consent to",), lambda _declared: ()
    )


def _from_gateway_section(message: type[SiteMessage]) -> str:
    lines = [
        f"## {message.TYPE}",
        "",
        (
            f"{(message.__doc__ or '').splitlines()[0]} Topic "
            "`fedcell/v1/{shard}/d/{device}/dn/round`, from the gateway of the device's site, "
            "signed by it and not sealed."
        ),
        "",
        "| field | what | purpose | taken only with consent to |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {declared.what} | {declared.purpose or SITE_PURPOSE} "
        f"| {Consent.TRAINING.value} |"
        for name, (declared, _) in specification(message).items()
    ]
    return "\n".join(lines) + "\n"


def _announcement_section() -> str:
    return _payload_section(
        ReleaseAnnouncement,
        "A release is there for a ring. Topics `fedcell/v1/all/release` and "
        "`fedcell/v1/ring/{ring}/release`, retained, signed and not sealed: it names no device.",
        RELEASE_PURPOSE,
    )


def _pin_section() -> str:
    return _payload_section(
        AppPin,
        "The one app bundle that a device's node may run. Signed by the server, handed out at "
        f"`GET {APP_PIN_PATH}` where nodes meet the SuperLink, or as a file.",
        PIN_PURPOSE,
    )


def _grant_section() -> str:
    return _payload_section(
        DeviceGrant,
        "By which gateway this device may be asked. Signed by the server, shown by the gateway "
        "with each message on `fedcell/v1/{shard}/d/{device}/dn/round`; a device drops what comes "
        "with another's.",
        GRANT_PURPOSE,
    )


def _payload_section(payload: type[Payload], opening: str, purpose: str) -> str:
    lines = [f"## {payload.TYPE}", "", opening, "", "| field | what | purpose |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {declared.what} | {declared.purpose or purpose} |"
        for name, (declared, _) in specification(payload).items()
    ]
    return "\n".join(lines) + "\n"


def _field_table(
    message: type[Message],
    place: str,
    headings: tuple[str, ...],
    more: Callable[[Declared], tuple[str, ...]],
) -> str:
    """Return a message's section: its first sentence, its place, and a row for each field.

    Args:
        message: whose fields.
        place: topic and size in words.
        headings: of the columns from the consent on.
        more: returns the cells after the consent.
    """
    columns = ("field", "what", "may be left out", "purpose", *headings)
    lines = [
        f"## {message.TYPE}",
        "",
        f"{(message.__doc__ or '').splitlines()[0]} {place}",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for name, (declared, required) in specification(message).items():
        cells = (
            f"`{name}`",
            declared.what,
            "no" if required else "yes",
            declared.purpose or message.PURPOSE,
            (declared.consent or message.CONSENT).value,
            *more(declared),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _round_section() -> str:
    return _flower_section(
        "round contribution",
        "The answer to one step of federated training, over Flower. No loss, no number of rows.",
        ROUND_PURPOSE,
        ROUND_FIELDS,
    )


def _count_section() -> str:
    return _flower_section(
        "count answer",
        "The answer to one question for counts, over Flower. Who may not answer sends zeros.",
        COUNT_PURPOSE,
        COUNT_FIELDS,
    )


def _site_section() -> str:
    return _flower_section(
        "contribution",
        "The answer of a device behind a gateway to a step or a question for counts. Topic "
        "`fedcell/v1/{shard}/d/{device}/up/contribution`, in parts of at most "
        f"{MAX_PAYLOAD_BYTES} bytes, sealed to the gateway. Number and size of the parts follow "
        "from the task alone.",
        SITE_PURPOSE,
        SITE_FIELDS,
    )


def _envelope_section() -> str:
    return _flower_section(
        "envelope of an answer",
        "What Flower writes around each answer to a round or a count. Its length and when it comes "
        "say when a device answers, and nothing of what.",
        ENVELOPE_PURPOSE,
        ENVELOPE_FIELDS,
    )


def _enrolment_section() -> str:
    lines = [
        "## enrolment",
        "",
        (
            "What `fedcell-device join` and each renewal send to the fleet's enrolment service, "
            "over HTTPS. Private halves of keys never leave."
        ),
        "",
        "| field | what | purpose | consent | accounted | personal |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {what} | {ENROLMENT_PURPOSE} | {Consent.LINK.value} | no | pseudonym |"
        for name, what in ENROLMENT_FIELDS.items()
    ]
    return "\n".join(lines) + "\n"


def _flower_section(
    title: str, opening: str, purpose: str, fields: Mapping[str, tuple[str, bool, str]]
) -> str:
    lines = [
        f"## {title}",
        "",
        opening,
        "",
        "| field | what | purpose | consent | accounted | personal |",
        "|---|---|---|---|---|---|",
    ]
    for name, (what, accounted, personal) in fields.items():
        charged = "yes" if accounted else "no"
        cells = (f"`{name}`", what, purpose, Consent.TRAINING.value, charged, personal)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the generated files under the current folder."""
    for path, content in generated_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
