"""Pins in a deployment's folder, one after the other, and what nodes make of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_client.rounds_node.pinning import newest_pin
from models.wire.envelope import SigningKey, trusted_keys
from server.deployment.app_bundle import AppBundle
from server.deployment.app_pin import keep_bundle, read_pin
from server.deployment.place import Deployment

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW = (AppBundle(code, "0.1.0", "1.41.0") for code in (b"old", b"new"))


@pytest.fixture
def place(tmp_path):
    found = Deployment(
        folder=tmp_path,
        hosts=("rounds.example",),
        policy_key=Path("/etc/fedcell/server.pem"),
        database="sqlite:///hub.db",
    )
    found.bundle.parent.mkdir()
    return found


@pytest.mark.parametrize("days", [-400, 0, 400])
@pytest.mark.parametrize("bundle", [OLD, NEW])
def test_a_pin_of_a_new_key_is_later_than_that_of_the_key_before(place, bundle, days):
    before, key = SigningKey.generate(), SigningKey.generate()
    keep_bundle(place, OLD, before, now=NOW)
    seen = place.pin.read_bytes()

    made, is_new = keep_bundle(place, bundle, key, now=NOW + timedelta(days=days))

    trusted = trusted_keys(before.verify_key, key.verify_key)
    assert is_new
    assert newest_pin([place.pin.read_bytes(), seen], trusted) == made
    assert newest_pin([seen, place.pin.read_bytes()], trusted) == made
    assert read_pin(place, before.verify_key) is None
    assert keep_bundle(place, bundle, key, now=NOW + timedelta(days=days)) == (made, False)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40])
def test_a_damaged_pin_is_made_anew(place, content):
    place.pin.write_bytes(content)

    made, is_new = keep_bundle(place, NEW, SigningKey.generate(), now=NOW)

    assert (is_new, made.issued) == (True, NOW)
