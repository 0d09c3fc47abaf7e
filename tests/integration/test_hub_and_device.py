"""Real devices and the real hub on both brokers, with a tap on the wire: the way of the demo."""

from dataclasses import replace

import pytest

from edge_client.agent import AgentPlan, Until, run_agent
from edge_client.client import EdgeClient
from edge_client.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.quiet_hours import QuietHours
from models.telemetry import DeviceId
from models.wire.envelope import open_signed, trusted_keys
from models.wire.messages import MESSAGES, NoticeState, recognise
from models.wire.topics import Up, parse
from server.broker import BrokerKind, running_broker
from server.hub_status import hub_status
from tests.support import line_bundle
from tests.support.brokers import Heard, link_to, wait_until
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.hubs import SIGNER, running_hub

KINDS = [pytest.param(BrokerKind.MOSQUITTO, marks=pytest.mark.broker), BrokerKind.EMBEDDED]
KEYS = {SIGNER.verify_key.key_id: SIGNER.verify_key.to_bytes()}


@pytest.fixture
def bundle(tmp_path):
    return line_bundle.write_line_bundle(tmp_path / "line.zip")


def run_device(folder, bundle, broker, name, *, last_capacity_mah, quiet_hours=None):
    """Make a device with a history, run its agent for a while, and return what its owner saw."""
    path, shown = folder / f"{name}.db", []
    with TelemetryStore.create(path, profile=replace(PROFILE, device_id=DeviceId(name))) as store:
        store.record_many(fading_life(last_capacity_mah=last_capacity_mah), now=NOW)
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
        if quiet_hours is not None:
            store.set_quiet_hours(quiet_hours)
    with EdgeClient(path, bundle, trusted_keys=line_bundle.trusted_keys()) as device:
        run_agent(
            device,
            broker=(broker.host, broker.port),
            server_keys=KEYS,
            plan=AgentPlan(
                until=Until.ACKED if quiet_hours is None else Until.SENT,
                timeout_s=10.0,
                answer=NoticeState.ACCEPTED,
                poll_s=0.1,
            ),
            clock=lambda: NOW,
            on_start=lambda _agent: None,
            on_report=lambda _report: None,
            show=lambda _id, notice: shown.append(notice.template),
        )
    return shown


@pytest.mark.parametrize("kind", KINDS)
def test_owners_are_told_and_nothing_undeclared_passes_the_wire(tmp_path, bundle, kind):
    heard = Heard()
    with running_broker(tmp_path / "broker", kind=kind) as broker:
        tap = link_to(broker, "tap")
        tap.subscribe("fedcell/#", heard)
        with tap, running_hub(broker, tmp_path, clock=lambda: NOW) as (_, database):
            urgent = run_device(tmp_path, bundle, broker, "urgent", last_capacity_mah=2410.0)
            soon = run_device(tmp_path, bundle, broker, "soon", last_capacity_mah=2470.0)
            quiet = run_device(
                tmp_path,
                bundle,
                broker,
                "quiet",
                last_capacity_mah=2410.0,
                quiet_hours=QuietHours(9, 15, "Europe/Berlin"),
            )
            assert wait_until(lambda: hub_status(database).suppressed)
            assert wait_until(lambda: hub_status(database).notices == {"accepted": 2})
            found = hub_status(database)

    assert (urgent, soon, quiet) == (["battery.under_7"], ["battery.7_to_30"], [])
    assert (found.sent, found.acknowledged, found.suppressed) == (2, 2, {"quiet_hours": 1})
    assert found.dead_letters == {}
    assert {type(declared(*said)) for said in heard.messages} == set(MESSAGES.values())


def declared(topic, payload):
    """Return the message that a tap saw; anything that is not declared is an error."""
    if isinstance(parse(topic).kind, Up):
        message = recognise(topic, payload)
        assert len(payload) == message.PADDED_BYTES
        return message
    return recognise(topic, open_signed(payload, trusted_keys(SIGNER.verify_key)))
