"""A gateway's credential and site file: what is believed, and what is refused."""

import json
from dataclasses import fields
from datetime import timedelta

import jsonschema
import pytest

from models.wire.codec import encode, parse_object
from models.wire.envelope import SigningKey, open_signed, sign_payload, trusted_keys
from models.wire.errors import SignatureError, WireError
from models.wire.site_credential import (
    GatewayCredential,
    SiteDevice,
    credential_schema,
    read_site,
    site_bytes,
    site_digest,
    weights_topic,
)
from tests.golden.make_site_file import (
    GATEWAY_KEY,
    ISSUED,
    SERVER_KEY,
    recorded_credential,
    recorded_devices,
)
from tests.support.wire_messages import notice

SERVER = SigningKey.from_bytes(SERVER_KEY)
TRUSTED = trusted_keys(SERVER.verify_key)
ENVELOPE = recorded_credential().signed(SERVER)


def test_a_signed_credential_is_believed_until_it_is_over():
    credential = recorded_credential()
    last = credential.not_after - timedelta(seconds=1)

    assert GatewayCredential.from_envelope(ENVELOPE, TRUSTED, last) == credential
    assert GatewayCredential.from_envelope(ENVELOPE.encode(), TRUSTED, ISSUED) == credential
    with pytest.raises(SignatureError, match="expired"):
        GatewayCredential.from_envelope(ENVELOPE, TRUSTED, credential.not_after)


def test_it_fits_its_schema_and_a_message_with_room_to_spare():
    body = parse_object(open_signed(ENVELOPE.encode(), TRUSTED))

    jsonschema.Draft202012Validator(credential_schema()).validate(body)
    assert len(ENVELOPE) < 1_000


def test_a_credential_that_the_server_did_not_sign_is_refused():
    gateway = SigningKey.from_bytes(GATEWAY_KEY)
    altered = json.loads(ENVELOPE) | {"body": json.loads(ENVELOPE)["body"][:-4] + "AAAA"}

    with pytest.raises(SignatureError, match="unknown_key"):
        GatewayCredential.from_envelope(recorded_credential().signed(gateway), TRUSTED, ISSUED)
    with pytest.raises(SignatureError, match="bad_signature"):
        GatewayCredential.from_envelope(json.dumps(altered), TRUSTED, ISSUED)


def test_another_message_of_the_server_is_no_credential():
    said = sign_payload(encode(notice()), SERVER)

    with pytest.raises(WireError, match="wrong_type"):
        GatewayCredential.from_envelope(said, TRUSTED, ISSUED)


@pytest.mark.parametrize(
    "changes",
    [
        {"gateway": "a/b"},
        {"gateway": "fedcell-hub-2"},
        {"not_after": ISSUED},
        {"most_devices": 0},
        {"most_devices": 4_001},
        {"verify_key": "ab"},
        {"seal_key": "X" * 64},
    ],
)
def test_what_the_contract_forbids_is_refused(changes):
    said = {**vars_of(recorded_credential()), **changes}

    with pytest.raises(WireError):
        GatewayCredential(**said)


def vars_of(credential):
    return {one.name: getattr(credential, one.name) for one in fields(credential)}


def test_a_list_that_was_changed_after_the_signature_is_refused():
    *kept, _last = recorded_devices()
    strange = SiteDevice(kept[0].device_id, "ab" * 32)

    for devices in (kept, [*recorded_devices(), strange], [strange, *recorded_devices()[1:]]):
        with pytest.raises(WireError, match="wrong_site"):
            read_site(site_bytes(recorded_credential(), devices, SERVER), TRUSTED, ISSUED)


@pytest.mark.parametrize("most", [1, 2])
def test_more_devices_than_the_cap_are_refused_though_they_were_signed(most):
    said = {**vars_of(recorded_credential()), "most_devices": most}
    credential = GatewayCredential(**said)

    with pytest.raises(WireError, match=f"3 devices, the credential is for {most}"):
        read_site(site_bytes(credential, recorded_devices(), SERVER), TRUSTED, ISSUED)


def test_a_device_that_is_named_twice_is_refused_though_it_was_signed():
    devices = (*recorded_devices(), recorded_devices()[0])
    said = {**vars_of(recorded_credential()), "site_digest": site_digest(devices)}
    credential = GatewayCredential(**said)

    with pytest.raises(WireError, match="twice"):
        read_site(site_bytes(credential, devices, SERVER), TRUSTED, ISSUED)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"credential": 1, "devices": []}',
        b'{"credential": "{}", "devices": []}',
        b'{"credential": "x", "devices": {}}',
    ],
)
def test_what_is_no_site_file_is_refused(content):
    with pytest.raises(WireError):
        read_site(content, TRUSTED, ISSUED)


ENTRIES = [1, {}, {"device_id": "a"}, {"device_id": "a", "verify_key": 1, "grant": "x"}]
ENTRIES += [{"device_id": "a", "verify_key": "ab" * 32, "grant": grant} for grant in (1, None)]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_list_of_something_else_is_refused(entry):
    content = json.dumps({"credential": ENVELOPE, "devices": [entry]}).encode()

    with pytest.raises(WireError, match="bad_field"):
        read_site(content, TRUSTED, ISSUED)


def test_a_gateway_speaks_to_all_under_its_own_name():
    assert weights_topic("gateway-1", 3) == "fedcell/v1/gateway/gateway-1/weights/3"
    assert weights_topic("gateway-1", "+") == "fedcell/v1/gateway/gateway-1/weights/+"
    with pytest.raises(WireError):
        weights_topic("a/b", 0)
