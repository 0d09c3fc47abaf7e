"""A device's grant: whom it lets ask, until when, and that the site file holds no other."""

import json
from dataclasses import replace
from datetime import timedelta

import jsonschema
import pytest

from models.telemetry import DeviceId
from models.wire.codec import MAX_PAYLOAD_BYTES, encode, parse_object
from models.wire.envelope import SigningKey, open_signed, sign_payload, trusted_keys
from models.wire.errors import MessageTooLargeError, SignatureError, WireError
from models.wire.rounds import LocalRecipe
from models.wire.site_credential import (
    MAX_SITE_BYTES,
    MOST_SITE_DEVICES,
    grant_for,
    read_site,
    site_bytes,
)
from models.wire.site_grant import DeviceGrant, grant_schema
from models.wire.site_rounds import StepRelease, open_from_gateway, signed_by_gateway
from models.wire.topics import MAX_DEVICE_ID_BYTES
from tests.golden.make_site_file import (
    GATEWAY_KEY,
    ISSUED,
    SERVER_KEY,
    recorded_credential,
    recorded_devices,
)
from tests.support.site_parts import NOW, PaperSite, material_of, one_device_task, seeded
from tests.support.wire_messages import notice

SERVER = SigningKey.from_bytes(SERVER_KEY)
GATEWAY = SigningKey.from_bytes(GATEWAY_KEY)
TRUSTED = trusted_keys(SERVER.verify_key)
GRANT = grant_for(recorded_credential(), DeviceId("meter-1"))
LONG = "n" * MAX_DEVICE_ID_BYTES


def test_a_signed_grant_is_believed_until_it_is_over():
    last = GRANT.not_after - timedelta(seconds=1)
    envelope = GRANT.signed(SERVER)

    found = DeviceGrant.from_envelope(envelope, TRUSTED, last)

    assert found == GRANT == DeviceGrant.from_envelope(envelope.encode(), TRUSTED, last)
    found.verifier.verify(GATEWAY.sign(b"said"), b"said")
    assert found.sealer.to_bytes().hex() == recorded_credential().seal_key
    with pytest.raises(SignatureError, match="expired"):
        DeviceGrant.from_envelope(envelope, TRUSTED, GRANT.not_after)


def test_what_the_server_did_not_sign_as_a_grant_is_none():
    with pytest.raises(SignatureError, match="unknown_key"):
        DeviceGrant.from_envelope(GRANT.signed(GATEWAY), TRUSTED, ISSUED)
    for said in (notice(), recorded_credential()):
        with pytest.raises(WireError, match="wrong_type"):
            DeviceGrant.from_envelope(sign_payload(encode(said), SERVER), TRUSTED, ISSUED)
    for changes in ({"device": "a/b"}, {"gateway": "+"}, {"not_after": ISSUED}, {"seal_key": "0"}):
        with pytest.raises(WireError):
            replace(GRANT, **changes)


def test_it_fits_its_schema_and_every_message_of_a_gateway_with_room_to_spare():
    grant = replace(GRANT, device=DeviceId(LONG), gateway=DeviceId(LONG)).signed(SERVER)
    site = PaperSite((LONG,))
    task = one_device_task(LONG, recipe=LocalRecipe(proximal=0.123456789012), has_norm_bit=True)
    offer = site.offer(task, material_of(900), grant=grant)

    jsonschema.Draft202012Validator(grant_schema()).validate(
        parse_object(open_signed(grant.encode(), TRUSTED))
    )
    assert len(GRANT.signed(SERVER)) < 700
    assert len(signed_by_gateway(offer, site.key)) < 0.7 * MAX_PAYLOAD_BYTES
    release = StepRelease(grant=grant, device=LONG, stream="s" * 128, index=9, entry="e" * 1_200)
    assert len(signed_by_gateway(release, site.key)) < MAX_PAYLOAD_BYTES
    with pytest.raises(MessageTooLargeError):
        signed_by_gateway(replace(release, entry="e" * 3_000), site.key)


def test_a_gateway_of_another_site_is_not_answered_whatever_the_server_signed_for_it():
    own = PaperSite(("device-1",))
    other = PaperSite(
        ("other-1",),
        gateway="gateway-2",
        server=own.server,
        key=SigningKey.from_bytes(seeded("other gateway")),
    )
    offer = other.offer(one_device_task("device-1"), material_of(9), grant=other.grant("other-1"))
    borrowed = replace(offer, grant=own.grant("device-1"))

    for told, reason in ((offer, "foreign_grant"), (borrowed, "unknown_key")):
        with pytest.raises(SignatureError, match=reason):
            open_from_gateway(
                signed_by_gateway(told, other.key), device="device-1", believe=own.believe
            )


def require_grants(body):
    read_site(json.dumps(body).encode(), TRUSTED, ISSUED).require_grants(TRUSTED, ISSUED)


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "meter-2"},
        {"gateway": "gateway-2"},
        {"seal_key": "ab" * 32},
        {"verify_key": "ab" * 32},
        {"not_after": NOW + timedelta(days=3650)},
    ],
)
def test_a_site_file_with_a_grant_for_something_else_is_found(changes):
    body = json.loads(site_bytes(recorded_credential(), recorded_devices(), SERVER))
    require_grants(body)
    body["devices"][0]["grant"] = replace(GRANT, **changes).signed(SERVER)

    with pytest.raises(WireError, match="wrong_site: the grant of meter-1"):
        require_grants(body)
    body["devices"][0]["grant"] = GRANT.signed(GATEWAY)
    with pytest.raises(SignatureError, match="unknown_key"):
        require_grants(body)


def test_the_largest_site_fits_its_file():
    letter = "ß" * ((MAX_DEVICE_ID_BYTES - 4) // 2)
    device = replace(recorded_devices()[0], device_id=DeviceId(f"{letter}0000"))
    one = len(site_bytes(recorded_credential(), [device], SERVER))

    assert one * MOST_SITE_DEVICES < MAX_SITE_BYTES
