"""Announcements of releases: what they may hold, and where they go."""

import json
from datetime import timedelta

import jsonschema
import pytest

from models.wire.announcements import (
    announcement_schema,
    decode_announcement,
    release_topic,
)
from models.wire.codec import encode, parse_object
from models.wire.errors import WireError
from tests.support.wire_messages import ISSUED, announcement


def test_what_is_encoded_is_decoded_and_fits_its_schema():
    payload = encode(announcement())

    assert decode_announcement(payload) == announcement()
    jsonschema.Draft202012Validator(announcement_schema()).validate(parse_object(payload))
    assert len(payload) < 600


def test_later_fields_are_left_out():
    body = parse_object(encode(announcement()))
    body["later"] = 1
    del body["schema_version"]

    assert decode_announcement(json.dumps(body).encode()) == announcement()


@pytest.mark.parametrize(
    "changes",
    [
        {"ring": "all/#"},
        {"ring": ""},
        {"release": -1},
        {"version": "../x"},
        {"sha256": "xy"},
        {"expires": ISSUED},
        {"spread_s": 10**9},
        {"expires": ISSUED - timedelta(days=1)},
    ],
)
def test_what_the_contract_forbids_is_refused(changes):
    with pytest.raises(WireError):
        announcement(**changes)


@pytest.mark.parametrize(
    "payload", [b"[]", b"{}", b'{"type":"notice"}', b"\xff", b'{"type":"release"}']
)
def test_what_is_no_announcement_is_refused(payload):
    with pytest.raises(WireError):
        decode_announcement(payload)


def test_a_ring_has_its_topic_and_the_fleet_is_all():
    assert release_topic("fleet") == "fedcell/v1/all/release"
    assert release_topic("canary") == "fedcell/v1/ring/canary/release"
    with pytest.raises(ValueError, match="must match"):
        release_topic("a/b")
