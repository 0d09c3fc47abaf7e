"""Rules of a secured fleet: access list, configuration, rate limit, certificates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_client.provisioning.device_certificate import make_request
from models.wire import topics
from models.wire.parts import MOST_PARTS
from models.wire.site_credential import weights_topic
from server.authority.certificates import (
    certify,
    make_authority,
    new_key,
    requested_key,
    revocation_list,
    serial_of,
)
from server.authority.rate_limit import MOST_ADDRESSES, RateLimit
from server.broker_setup.configuration import (
    OF_SITES,
    RELEASES_CLIENT_ID,
    BrokerPlace,
    access_list,
    configuration,
)
from server.errors import CertificateError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def allowed(text, user, action, topic):
    """Decide as Mosquitto does: a user's own lines first, then patterns, else no."""
    own, patterns, current = [], [], None
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "user":
            current = rest
        elif word == "topic" and current == user:
            own.append(rest.split(" ", 1))
        elif word == "pattern":
            access, name = rest.split(" ", 1)
            patterns.append([access, name.replace("%u", user)])
    for access, name in [*own, *patterns]:
        if matches(name, topic):
            if access == "deny":
                return False
            if access == action:
                return True
    return False


def matches(pattern, topic):
    asked, said = pattern.split("/"), topic.split("/")
    if asked[-1] == "#":
        return said[: len(asked) - 1] == asked[:-1]
    return len(asked) == len(said) and all(
        one in {"+", other} for one, other in zip(asked, said, strict=True)
    )


def test_access_list_gives_each_device_its_own_topics_and_no_others():
    text = access_list()
    for kind in topics.Up:
        own, other = topics.up("device-1", kind), topics.up("device-2", kind)
        assert allowed(text, "device-1", "write", own)
        assert not allowed(text, "device-1", "read", own)
        assert not allowed(text, "device-1", "write", other)
        assert not allowed(text, "device-1", "read", other)
        assert allowed(text, topics.HUB_CLIENT_ID, "read", own) is (kind not in OF_SITES)
    for kind in topics.Down:
        own, other = topics.down("device-1", kind), topics.down("device-2", kind)
        assert allowed(text, "device-1", "read", own)
        assert not allowed(text, "device-1", "write", own)
        assert not allowed(text, "device-1", "read", other)
        assert allowed(text, topics.HUB_CLIENT_ID, "write", own) is (kind not in OF_SITES)


def test_releases_are_read_by_all_and_written_by_the_server_alone():
    text = access_list()

    for topic in ("fedcell/v1/all/release", "fedcell/v1/ring/canary/release"):
        assert allowed(text, "device-1", "read", topic)
        assert not allowed(text, "device-1", "write", topic)
        assert not allowed(text, topics.HUB_CLIENT_ID, "write", topic)
        assert allowed(text, RELEASES_CLIENT_ID, "write", topic)


def test_a_gateway_asks_and_hears_its_own_devices_alone():
    text = access_list(sites={"gateway-1": ["device-1"]})
    offer, answer = topics.Down.ROUND, topics.Up.CONTRIBUTION
    assert allowed(text, "gateway-1", "write", topics.down("device-1", offer))
    assert allowed(text, "gateway-1", "read", topics.up("device-1", answer))
    assert not allowed(text, "gateway-1", "write", topics.down("device-2", offer))
    assert not allowed(text, "gateway-1", "read", topics.up("device-2", answer))
    assert not allowed(text, "device-1", "write", topics.down("device-1", offer))


def test_no_line_of_a_device_or_gateway_leaves_a_part_of_a_topic_free():
    """What may be written may be retained, for ever: only what can be counted may be written."""
    text = access_list(sites={"gateway-1": ["device-1"]})
    of_clients = text[text.index("user gateway-1\n") :]

    written = [line for line in of_clients.splitlines() if " write " in line]
    assert written
    assert [line for line in written if "+" in line or "#" in line] == []
    for part, is_its_own in ((0, True), (MOST_PARTS - 1, True), (MOST_PARTS, False)):
        topic = weights_topic("gateway-1", part)
        assert allowed(text, "gateway-1", "write", topic) is is_its_own
    assert not allowed(text, "device-1", "write", "fedcell/v1/100/d/device-1/up/status")


def test_revoked_device_is_denied_what_its_pattern_would_allow():
    text = access_list(["device-1"])

    assert not allowed(text, "device-1", "write", topics.up("device-1", topics.Up.ACK))
    assert not allowed(text, "device-1", "read", topics.down("device-1", topics.Down.NOTIFY))
    assert allowed(text, "device-2", "write", topics.up("device-2", topics.Up.ACK))


def test_configuration_has_one_listener_and_knows_everybody_by_certificate():
    place = BrokerPlace(folder=Path("/etc/fleet"), host="", port=8883, user="mosquitto")
    lines = configuration(place).splitlines()

    assert [line for line in lines if line.startswith("listener")] == ["listener 8883"]
    for needed in (
        "require_certificate true",
        "allow_anonymous false",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "acl_file /etc/fleet/access.acl",
        "crlfile /etc/fleet/revoked.crl",
        "cafile /etc/fleet/clients.pem",
        "max_packet_size 5120",
        "memory_limit 2147483648",
        "user mosquitto",
    ):
        assert needed in lines


def test_tries_run_out_and_come_back():
    limit = RateLimit(per_minute=6.0, at_once=3)

    assert [limit.take("a", elapsed_s=0.0) for _ in range(4)] == [True, True, True, False]
    assert limit.take("b", elapsed_s=0.0)
    assert not limit.take("a", elapsed_s=9.0)
    assert limit.take("a", elapsed_s=11.0)
    limit.give_back("a")
    assert limit.take("a", elapsed_s=11.0)


def test_many_callers_are_forgotten_oldest_first():
    limit = RateLimit(per_minute=6.0, at_once=1)
    for number in range(MOST_ADDRESSES + 1):
        assert limit.take(f"address-{number}", elapsed_s=0.0)

    assert limit.take("address-0", elapsed_s=0.0)
    assert not limit.take(f"address-{MOST_ADDRESSES}", elapsed_s=0.0)


@pytest.fixture(scope="module")
def authority():
    return make_authority("test", now=NOW, life=10 * DAY)


def test_certificate_is_for_one_name_and_one_use_and_ends_with_its_authority(authority):
    certificate, key = authority
    made = certify(
        new_key().public_key(),
        name="device-1",
        authority=certificate,
        authority_key=key,
        now=NOW,
        end=NOW + 100 * DAY,
    )

    use = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(use) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.not_valid_after_utc == NOW + 10 * DAY
    assert made.not_valid_before_utc == NOW - DAY
    made.verify_directly_issued_by(certificate)


def test_list_of_what_is_revoked_holds_as_long_as_its_authority(authority):
    certificate, key = authority
    number = int(NOW.timestamp()) + 7
    pem = revocation_list(
        [("0a" * 20, NOW)], authority=certificate, authority_key=key, number=number
    )
    found = x509.load_pem_x509_crl(pem)

    assert [f"{entry.serial_number:040x}" for entry in found] == ["0a" * 20]
    assert found.next_update_utc == certificate.not_valid_after_utc
    assert found.last_update_utc == NOW - DAY + timedelta(seconds=7)
    assert found.is_signature_valid(certificate.public_key())
    assert len(serial_of(certificate)) == 40


def test_request_is_believed_for_its_key_alone():
    _, request = make_request("device-1")

    requested_key(request.encode(), name="device-1")
    for name, pem in (("device-2", request), ("device-1", "x"), ("device-1", request[:-40])):
        with pytest.raises(CertificateError):
            requested_key(pem.encode(), name=name)
