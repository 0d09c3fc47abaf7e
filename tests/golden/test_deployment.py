"""What deployments wrote in the first form loads for ever and means the same."""

import json

import jsonschema

from models.wire.app_pin import AppPin, pin_schema
from models.wire.envelope import SigningKey, open_signed, trusted_keys
from server.deployment.folder import open_deployment
from tests.golden.make_deployment import (
    FOLDER,
    PIN,
    SERVER_KEY,
    recorded_deployment,
    recorded_pin,
)

TRUSTED = trusted_keys(SigningKey.from_bytes(SERVER_KEY).verify_key)


def test_a_recorded_pin_means_what_it_meant():
    assert AppPin.from_envelope(PIN.read_bytes(), TRUSTED) == recorded_pin()


def test_a_recorded_pin_is_of_its_schema_and_takes_fields_of_tomorrow():
    content = json.loads(open_signed(PIN.read_bytes(), TRUSTED))

    jsonschema.validate(content, pin_schema())
    jsonschema.validate(content | {"tomorrow": 1}, pin_schema())


def test_a_recorded_deployment_opens_as_it_was():
    assert open_deployment(FOLDER) == recorded_deployment()
