import json
from dataclasses import fields

import jsonschema
import pytest

from models.telemetry import CAUSES, CRITICALITIES
from models.wire import topics
from models.wire.codec import MAX_PAYLOAD_BYTES, Message, specification
from models.wire.errors import MessageTooLargeError, WireError
from models.wire.messages import (
    MESSAGES,
    Ack,
    Criticality,
    NoticeState,
    PrimaryIssue,
    Summary,
    decode,
    encode,
    recognise,
    schemas,
)
from tests.support.wire_messages import ack, notice, one_of_each, soon_summary, summary

SCHEMAS = schemas()


def altered(message: Message, **changes: object) -> bytes:
    body = json.loads(encode(message)) | changes
    return json.dumps({name: value for name, value in body.items() if value != "absent"}).encode()


@pytest.mark.parametrize("message", one_of_each(), ids=lambda message: message.TYPE)
def test_a_message_survives_the_wire(message):
    assert decode(encode(message), type(message)) == message


@pytest.mark.parametrize("message", one_of_each(), ids=lambda message: message.TYPE)
def test_what_is_encoded_fits_the_schema(message):
    validator = jsonschema.Draft202012Validator(SCHEMAS[message.TYPE])

    assert list(validator.iter_errors(json.loads(encode(message)))) == []


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_valid_and_accept_unknown_fields(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])

    assert SCHEMAS[name]["additionalProperties"] is True
    assert "schema_version" in SCHEMAS[name]["required"]


def test_canonical_bytes_are_sorted_compact_and_padded():
    payload = encode(ack())

    assert payload.rstrip() == (
        b'{"correlation":"00000000000000000000000000000002","device":"device-1",'
        b'"id":"00000000000000000000000000000003","issued":"2026-06-01T12:00:00Z",'
        b'"schema_version":1,"sequence":1,"state":"received","type":"ack","version":2}'
    )
    assert len(payload) == 512


@pytest.mark.parametrize(
    "message", [m for m in one_of_each() if isinstance(m.TOPIC, topics.Up)], ids=lambda m: m.TYPE
)
def test_messages_of_one_type_from_a_device_have_one_length(message):
    longest = type(message)(
        **{
            entry.name: getattr(message, entry.name)
            for entry in fields(message)
            if entry.name not in {"device", "sequence"}
        },
        device="d" * topics.MAX_DEVICE_ID_BYTES,
        sequence=2**53 - 1,
    )

    assert len(encode(longest)) == len(encode(message)) == type(message).PADDED_BYTES


def test_a_reader_accepts_later_versions_and_fields_it_does_not_know():
    later = altered(summary(), schema_version=7, humidity_band="dry")

    assert decode(later, Summary) == summary(schema_version=7)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[1]", "not_an_object"),
        (b'{"type":"summary","type":"summary"}', "not_json"),
        (b"[" * 4000, "not_json"),
        (b'{"type":"summary","sequence":NaN}', "not_json"),
        (b'{"type":"summary","sequence":' + b"9" * 4000 + b"}", "missing_field"),
        (b"{}" + b" " * MAX_PAYLOAD_BYTES, "oversize"),
        (encode(ack()), "wrong_type"),
        (altered(summary(), urgency="absent"), "missing_field"),
        (altered(summary(), schema_version="absent"), "missing_field"),
        (altered(summary(), schema_version=0), "bad_field"),
        (altered(summary(), schema_version=True), "bad_field"),
        (altered(summary(), urgency="panic"), "bad_field"),
        (altered(summary(), urgency=["critical"]), "bad_field"),
        (altered(summary(), flagged=1), "bad_field"),
        (altered(summary(), sequence=1.5), "bad_field"),
        (altered(summary(), sequence=-1), "bad_field"),
        (altered(summary(), issued="2026-06-01T12:00:00"), "bad_field"),
        (altered(summary(), issued="2026-02-30T12:00:00Z"), "bad_field"),
        (altered(summary(), issued="1960-01-01T00:00:00Z"), "bad_field"),
        (altered(summary(), issued=1_780_000_000), "bad_field"),
        (altered(summary(), device="a/b"), "bad_field"),
        (altered(summary(), device="$share"), "bad_device_id"),
        (altered(summary(), device="\ud800"), "bad_field"),
        (altered(summary(), quiet_from_hour=22), "bad_field"),
        (altered(summary(), quiet_from_hour=22, quiet_until_hour=22), "bad_field"),
        (altered(summary(), quiet_from_hour=24, quiet_until_hour=7), "bad_field"),
        (altered(summary(), zone="../etc/passwd"), "bad_field"),
        (altered(summary(), zone=None), "bad_field"),
    ],
)
def test_what_is_no_summary_is_refused_with_a_reason(payload, reason):
    with pytest.raises(WireError) as refused:
        decode(payload, Summary)

    assert refused.value.reason == reason


def test_a_refusal_names_field_and_value():
    with pytest.raises(WireError, match=r"summary\.days_band must be one of under_7, .* 'soon'"):
        decode(altered(summary(), days_band="soon"), Summary)


def test_a_message_that_breaks_the_contract_cannot_be_made():
    with pytest.raises(WireError, match=r"notice: expires must lie after issued"):
        notice(expires=notice().issued)
    with pytest.raises(WireError, match="whole second"):
        summary(issued=summary().issued.replace(microsecond=1))
    with pytest.raises(WireError, match="queued"):
        ack(state=NoticeState.QUEUED)


def test_a_message_larger_than_the_limit_is_not_encoded(monkeypatch):
    monkeypatch.setattr(Ack, "PADDED_BYTES", MAX_PAYLOAD_BYTES + 1)

    with pytest.raises(MessageTooLargeError) as refused:
        encode(ack())

    assert (refused.value.size, refused.value.limit) == (4097, 4096)


def test_no_figure_leaves_a_device_only_bands():
    kinds = {
        name: type(declared.kind).__name__ for name, (declared, _) in specification(Summary).items()
    }
    numbers = {name for name, kind in kinds.items() if kind == "Whole"}

    assert numbers == {"schema_version", "sequence", "quiet_from_hour", "quiet_until_hour"}


def test_words_of_the_wire_are_the_words_of_the_contracts():
    assert tuple(PrimaryIssue) == CAUSES
    assert tuple(Criticality) == CRITICALITIES


def test_a_tap_recognises_each_declared_message():
    found = {
        recognise(
            topics.up(message.device, message.TOPIC)
            if isinstance(message.TOPIC, topics.Up)
            else topics.down(message.device, message.TOPIC),
            encode(message),
        )
        for message in one_of_each()
    }

    assert found == set(one_of_each())


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("fedcell/v1/all/release", encode(summary()), "bad_topic"),
        (topics.up("device-1", topics.Up.REPLY), encode(summary()), "undeclared"),
        (
            topics.up("device-1", topics.Up.SUMMARY),
            altered(summary(), capacity_mah=2711.5),
            "undeclared",
        ),
        (topics.up("device-2", topics.Up.SUMMARY), encode(soon_summary()), "foreign_device"),
    ],
)
def test_a_tap_refuses_what_is_not_declared(topic, payload, reason):
    with pytest.raises(WireError) as refused:
        recognise(topic, payload)

    assert refused.value.reason == reason


def test_each_topic_carries_one_type():
    assert len({message.TYPE for message in MESSAGES.values()}) == len(MESSAGES)
