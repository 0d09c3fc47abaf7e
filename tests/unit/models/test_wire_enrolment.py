"""What a device and its authority say to each other: signed by the right key, or not read."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from models.wire.enrolment import (
    MAX_BODY_BYTES,
    EnrolmentAnswer,
    EnrolmentRequest,
    RenewalRequest,
    answer_bytes,
    read_answer,
    read_enrolment,
    read_renewal,
    signed_enrolment,
    signed_renewal,
    verify_renewal,
)
from models.wire.envelope import SigningKey
from models.wire.errors import SignatureError, WireError

KEY = SigningKey.from_bytes(bytes(range(32)))
OTHER = SigningKey.from_bytes(bytes(32))
REQUEST = EnrolmentRequest(
    device_id="device-1",
    token="fct_secret",
    certificate_request="PEM",
    sign=KEY.verify_key.to_bytes().hex(),
    seal="11" * 32,
)
RENEWAL = RenewalRequest(device_id="device-1", replaces="ab" * 20, certificate_request="PEM")
ANSWER = EnrolmentAnswer(
    device_id="device-1",
    certificate="PEM",
    authorities="PEM",
    broker="localhost:8883",
    server_keys={"0123456789abcdef": "22" * 32},
    time=datetime(2026, 3, 1, tzinfo=UTC),
)


def test_what_was_signed_is_read_as_it_was():
    assert read_enrolment(signed_enrolment(REQUEST, KEY)) == REQUEST
    assert read_renewal(signed_renewal(RENEWAL, KEY)) == RENEWAL
    assert read_answer(answer_bytes(ANSWER)) == ANSWER


def test_an_answer_names_the_superlink_where_the_fleet_has_one():
    with_one = replace(ANSWER, superlink="rounds.example:9443")
    of_yesterday = json.loads(answer_bytes(ANSWER))
    del of_yesterday["superlink"]

    assert read_answer(answer_bytes(with_one)).superlink == "rounds.example:9443"
    assert read_answer(json.dumps(of_yesterday).encode()) == ANSWER


def test_request_says_its_token_to_no_log():
    assert "fct_secret" not in repr(REQUEST)


def test_only_the_key_that_is_brought_enrols_and_only_the_key_that_enrolled_renews():
    verify_renewal(signed_renewal(RENEWAL, KEY), KEY.verify_key)
    with pytest.raises(SignatureError):
        read_enrolment(signed_enrolment(REQUEST, OTHER))
    with pytest.raises(SignatureError):
        verify_renewal(signed_renewal(RENEWAL, OTHER), KEY.verify_key)


def test_signature_of_one_kind_is_none_of_the_other():
    said = json.loads(signed_enrolment(REQUEST, KEY))["said"]
    signature = KEY.sign(b"fedcell/v1/renew\n" + said.encode()).hex()

    with pytest.raises(SignatureError):
        read_enrolment(json.dumps({"said": said, "signature": signature}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"said": 1, "signature": ""}',
        b'{"said": "{}", "signature": ""}',
        b'{"said": "{}", "signature": "zz"}',
        b" " * (MAX_BODY_BYTES + 1),
    ],
)
def test_what_is_none_is_refused(body):
    for read in (read_enrolment, read_renewal, read_answer):
        with pytest.raises((WireError, SignatureError)):
            read(body)


@pytest.mark.parametrize(
    "changed",
    [
        {"device_id": "a/b"},
        {"device_id": "fedcell-hub"},
        {"sign": "11"},
        {"seal": "AA" * 32},
        {"certificate_request": "x" * 7000},
        {"token": 5},
    ],
)
def test_fields_are_looked_at(changed):
    values = {name: getattr(REQUEST, name) for name in REQUEST.__dataclass_fields__} | changed
    said = json.dumps(values)
    signature = KEY.sign(b"fedcell/v1/enrol\n" + said.encode()).hex()

    with pytest.raises((WireError, SignatureError)):
        read_enrolment(json.dumps({"said": said, "signature": signature}).encode())


def test_time_without_a_zone_is_no_time():
    content = json.loads(answer_bytes(ANSWER)) | {"time": "2026-03-01T00:00:00"}

    with pytest.raises(WireError):
        read_answer(json.dumps(content).encode())
