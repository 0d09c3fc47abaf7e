"""A site file of schema version 1, as recorded, loads for ever and means the same."""

from datetime import timedelta

import jsonschema

from models.wire.codec import parse_object
from models.wire.envelope import SigningKey, trusted_keys
from models.wire.site_credential import MAX_SITE_BYTES, read_site, site_bytes, site_schema
from tests.golden.make_site_file import (
    FILE,
    ISSUED,
    SERVER_KEY,
    recorded_credential,
    recorded_devices,
)


def test_a_recorded_site_means_what_it_meant():
    content = FILE.read_bytes()
    key = SigningKey.from_bytes(SERVER_KEY)

    site = read_site(content, trusted_keys(key.verify_key), ISSUED + timedelta(days=89))

    assert site.credential == recorded_credential()
    assert set(site.devices) == set(recorded_devices())
    assert [one.device_id for one in site.devices] == ["meter-1", "meter-2", "meter-zwölf"]
    assert list(site.grants) == ["meter-1", "meter-2", "meter-zwölf"]
    assert site_bytes(recorded_credential(), recorded_devices(), key) == content
    body = parse_object(content, limit=MAX_SITE_BYTES)
    jsonschema.Draft202012Validator(site_schema()).validate(body)
