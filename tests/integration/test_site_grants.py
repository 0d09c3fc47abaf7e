"""Whom a device answers, as `run` has it: the gateway of its own grant, until that ends."""

from argparse import Namespace
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from edge_client.commands.connection import _site_rounds
from edge_client.config import DeviceConfig
from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.traffic import TrafficMeter
from edge_client.provisioning.membership import Membership
from edge_client.provisioning.renewal import CertificateKeeper
from models.telemetry import DeviceId
from models.wire.envelope import SigningKey, VerifyKey, trusted_keys
from models.wire.sealing import OpeningKey
from models.wire.site_rounds import signed_by_gateway
from models.wire.topics import Down, down
from tests.support.edge_devices import NOW
from tests.support.site_devices import debited, site_store, step_of
from tests.support.site_power_cut import DirectLink, Gateway
from tests.support.training_tasks import KEYS

DAY = timedelta(days=1)


class OtherGateway(Gateway):
    """The gateway of another site, whose broker lets it say whatever it likes."""

    def _prepare(self):
        self.signing_key = SigningKey.from_bytes(bytes(range(3, 35)))
        self.opening_key = OpeningKey.from_bytes(bytes(range(4, 36)))
        super()._prepare()

    def grant(self, device="other-1", **changes):
        return super().grant(device, **({"gateway": DeviceId("gateway-2")} | changes))


class Device:
    """A device that joined a fleet at NOW, and hears gateways as its agent has it hear."""

    def __init__(self, path, clock):
        self.path, self.counters = path, AgentCounters()
        self.link = DirectLink(())
        membership = Membership(
            folder=Path(f"{path}.fleet"),
            device_id="device-1",
            service="https://fleet:8443",
            broker="fleet:8883",
            server_keys={},
            number=1,
            serial="00" * 20,
            not_before=NOW - DAY,
            not_after=NOW + 30 * DAY,
            server_time=NOW,
        )
        keeper = CertificateKeeper(
            path, None, membership, clock=lambda: clock, elapsed_s=lambda: 0.0, jitter=Random(1)
        )
        config = DeviceConfig(store=path, gateway_rounds="on")
        listener = Listener(
            path=path,
            device_id="device-1",
            trusted=trusted_keys(*map(VerifyKey.from_bytes, KEYS.values())),
            clock=lambda: clock,
            counters=self.counters,
        )
        meter = TrafficMeter(1 << 20, clock=lambda: clock)
        rounds = _site_rounds(Namespace(), config, KEYS, keeper, clock=lambda: clock)
        rounds.listen(self.link, listener, wake=lambda: None, meter=meter)

    def hear(self, gateway, offer):
        topic = down("device-1", Down.ROUND)
        self.link.handlers[topic](topic, signed_by_gateway(offer, gateway.signing_key))
        return self.counters.refused

    @property
    def answers(self):
        kept = step_of(self.path)
        return None if kept is None else kept.gateway


@pytest.fixture
def path(tmp_path):
    return site_store(tmp_path / "device", days=2)


@pytest.mark.parametrize("clock", [NOW, datetime(1970, 1, 1, tzinfo=UTC)])
def test_no_gateway_of_another_site_is_answered(path, clock):
    own, other, device = Gateway(None), OtherGateway(None), Device(path, clock)
    offer = other.offer_of("device-1", grant=other.grant())

    assert device.hear(other, offer) == {"foreign_grant": 1}
    refused = device.hear(other, replace(offer, grant=own.grant()))
    assert refused == {"foreign_grant": 1, "unknown_key": 1}
    assert (device.answers, debited(path)) == (None, [])
    device.hear(own, own.offer_of())
    assert device.answers == "gateway-1"


def test_a_clock_that_is_known_to_be_wrong_keeps_no_grant_beyond_the_servers_last_word(path):
    gateway, device = Gateway(None), Device(path, datetime(1970, 1, 1, tzinfo=UTC))
    ended = gateway.grant(issued=NOW - 200 * DAY, not_after=NOW)
    holds = gateway.grant(issued=NOW - 29 * DAY, not_after=NOW + DAY)

    assert device.hear(gateway, gateway.offer_of(grant=ended)) == {"expired": 1}
    assert device.answers is None
    assert device.hear(gateway, gateway.offer_of(grant=holds)) == {"expired": 1}
    assert device.answers == "gateway-1"


def test_a_device_that_was_given_to_another_gateway_has_left_the_first(path):
    first, second, device = Gateway(None), OtherGateway(None), Device(path, NOW)
    device.hear(first, first.offer_of())
    device.hear(second, second.offer_of("device-1", grant=second.grant("device-1", issued=NOW)))
    assert device.answers == "gateway-2"

    assert device.hear(first, first.offer_of(index=1)) == {"superseded": 1}
    assert device.answers == "gateway-2"
