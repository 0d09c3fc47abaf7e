"""Which bundle a node may run."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edge_client.rounds_node.pin_source import PinSource
from edge_client.rounds_node.pinning import BundleRefusal, OfferedBundle, newest_pin, refusal_of
from models.wire.app_pin import AppPin
from models.wire.envelope import SigningKey, trusted_keys

NOW = datetime(2026, 11, 22, 18, tzinfo=UTC)
KEY, OTHER = SigningKey.from_bytes(bytes(range(32))), SigningKey.from_bytes(bytes(32))
TRUSTED = trusted_keys(KEY.verify_key)
PIN = AppPin(
    app="fedcell/fedcell", version="0.1.0", fab_sha256="ab" * 32, flwr="1.41.0", issued=NOW
)
LATER = replace(PIN, fab_sha256="cd" * 32, issued=NOW + timedelta(days=1))
OFFERED = OfferedBundle(
    app="fedcell/fedcell", version="0.1.0", named_sha256="ab" * 32, sha256="ab" * 32
)


def test_the_pinned_bundle_may_run():
    assert refusal_of(OFFERED, PIN) is None


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"sha256": "cd" * 32, "named_sha256": "cd" * 32}, BundleRefusal.ANOTHER_BUNDLE),
        ({"sha256": "cd" * 32}, BundleRefusal.CONTENT_DIFFERS),
        ({"named_sha256": ""}, BundleRefusal.CONTENT_DIFFERS),
        ({"app": "fedcell/other"}, BundleRefusal.ANOTHER_APP),
        ({"version": "0.1.0/../../../tmp"}, BundleRefusal.ANOTHER_APP),
    ],
)
def test_any_other_may_not(changed, refusal):
    assert refusal_of(replace(OFFERED, **changed), PIN) is refusal


def test_without_a_pin_nothing_may_run():
    assert refusal_of(OFFERED, None) is BundleRefusal.NO_PIN


def test_the_newest_pin_of_a_trusted_key_counts():
    forged = replace(LATER, issued=NOW + timedelta(days=9)).signed(OTHER)
    told = [LATER.signed(KEY), PIN.signed(KEY), forged, b"no envelope", b""]

    assert newest_pin(told, TRUSTED) == LATER
    assert newest_pin([forged, b"{}"], TRUSTED) is None


@pytest.fixture
def source(tmp_path):
    return PinSource(
        host="127.0.0.1",
        port=1,
        authorities=tmp_path / "authorities.pem",
        kept=tmp_path / "app-pin.json",
        file=tmp_path / "from-the-image.json",
        keys={name: key.to_bytes().hex() for name, key in TRUSTED.items()},
    )


def test_a_node_that_has_seen_a_pin_takes_no_earlier_one(source):
    assert source.newest(None) is None
    assert source.newest(PIN.signed(KEY)) == PIN
    assert source.newest(LATER.signed(KEY)) == LATER

    assert source.newest(PIN.signed(KEY)) == LATER
    assert source.newest(None) == LATER


def test_a_pin_of_the_image_counts_until_a_newer_one_is_handed_out(source):
    source.file.write_bytes(PIN.signed(KEY))

    assert source.newest(None) == PIN
    assert source.newest(b"<html>no pin</html>") == PIN
    assert source.newest(LATER.signed(KEY)) == LATER
    assert source.kept.read_bytes() == LATER.signed(KEY)


def test_a_kept_pin_of_a_fleet_that_was_left_counts_no_more(source):
    source.newest(LATER.signed(KEY))
    left = replace(source, keys={OTHER.verify_key.key_id: OTHER.verify_key.to_bytes().hex()})

    assert left.newest(None) is None
    assert left.newest(PIN.signed(OTHER)) == PIN
