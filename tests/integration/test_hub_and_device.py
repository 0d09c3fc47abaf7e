"""Real devices and the real hub on both brokers, with a tap on the wire: the way of the demo."""

import json
from dataclasses import replace
from threading import Thread

import pytest

from edge_client.agent import AgentPlan, Until, run_agent
from edge_client.client import EdgeClient
from edge_client.provisioning.first_boot import add_identity, identity_line
from edge_client.provisioning.identity import read_identity
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.quiet_hours import QuietHours
from models.telemetry import DeviceId
from models.wire.envelope import trusted_keys
from models.wire.messages import MESSAGES, NoticeState, recognise
from models.wire.sealing import is_sealed, open_message
from models.wire.topics import Up, parse
from server.broker import BrokerKind, running_broker
from server.device_configuration import ConfigurationSender, DeviceSettings
from server.device_keys import DeviceKeyFile
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


def make_device(folder, name, *, last_capacity_mah, quiet_hours=None):
    """Make a device with a history, and tell the server's file of its keys."""
    path = folder / f"{name}.db"
    with TelemetryStore.create(path, profile=replace(PROFILE, device_id=DeviceId(name))) as store:
        store.record_many(fading_life(last_capacity_mah=last_capacity_mah), now=NOW)
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=NOW)
        if quiet_hours is not None:
            store.set_quiet_hours(quiet_hours)
        add_identity(store, hardware_id=None)
    with (folder / "keys.jsonl").open("a") as keys:
        keys.write(json.dumps(identity_line(path)) + "\n")


def run_device(folder, bundle, broker, name, *, until=Until.ACKED, while_not=None):
    """Run a device's agent for a while, and return what its owner saw."""
    path, shown = folder / f"{name}.db", []

    def stop_later(agent):
        if while_not is not None:
            Thread(target=lambda: wait_until(while_not) and agent.stop(), daemon=True).start()

    with EdgeClient(path, bundle, trusted_keys=line_bundle.trusted_keys()) as device:
        run_agent(
            device,
            broker=(broker.host, broker.port),
            server_keys=KEYS,
            plan=AgentPlan(
                until=until,
                timeout_s=10.0,
                answer=NoticeState.ACCEPTED,
                poll_s=0.1,
            ),
            clock=lambda: NOW,
            on_start=stop_later,
            on_report=lambda _report: None,
            show=lambda _id, notice: shown.append(notice.template),
        )
    return shown


@pytest.mark.parametrize("kind", KINDS)
def test_owners_are_told_and_nothing_undeclared_passes_the_wire(tmp_path, bundle, kind):
    heard = Heard()
    make_device(tmp_path, "urgent", last_capacity_mah=2410.0)
    make_device(tmp_path, "soon", last_capacity_mah=2470.0)
    quiet_hours = QuietHours(9, 15, "Europe/Berlin")
    make_device(tmp_path, "quiet", last_capacity_mah=2410.0, quiet_hours=quiet_hours)
    keys = DeviceKeyFile(tmp_path / "keys.jsonl")
    with running_broker(tmp_path / "broker", kind=kind) as broker:
        tap = link_to(broker, "tap")
        tap.subscribe("fedcell/#", heard)
        with tap, running_hub(broker, tmp_path, clock=lambda: NOW, device_keys=keys) as (hub, base):
            urgent = run_device(tmp_path, bundle, broker, "urgent")
            soon = run_device(tmp_path, bundle, broker, "soon")
            quiet = run_device(tmp_path, bundle, broker, "quiet", until=Until.SENT)
            assert wait_until(lambda: hub_status(base).suppressed)
            assert wait_until(lambda: hub_status(base).notices == {"accepted": 2})
            stop_training(base, "soon")
            hub.wake()
            assert wait_until(lambda: any("config" in topic for topic, _ in heard.messages))
            run_device(
                tmp_path,
                bundle,
                broker,
                "soon",
                until=Until.STOPPED,
                while_not=lambda: hub_status(base).configurations == {"in_force": 1},
            )
            found = hub_status(base)

    assert (urgent, soon, quiet) == (["battery.under_7"], ["battery.7_to_30"], [])
    assert (found.sent, found.acknowledged, found.configurations) == (2, 2, {"in_force": 1})
    assert found.suppressed["quiet_hours"] == 1
    assert found.dead_letters == {}
    seen = {type(declared(tmp_path, *said)) for said in heard.messages}
    assert seen == set(MESSAGES.values())


def stop_training(database, name):
    with database.transaction() as connection:
        sender = ConfigurationSender(connection, SIGNER, lambda: "c" * 32)
        sender.send(name, DeviceSettings(training=False), now=NOW)


def declared(folder, topic, payload):
    """Return the message that a tap saw; anything that is not declared is an error."""
    place = parse(topic)
    if isinstance(place.kind, Up):
        message = recognise(topic, payload)
        assert len(payload) == message.PADDED_BYTES
        return message
    assert is_sealed(payload)
    identity = read_identity(folder / f"{place.device}.db")
    opened = open_message(
        payload,
        topic=topic,
        trusted=trusted_keys(SIGNER.verify_key),
        opening_key=identity.opening_key,
    )
    return recognise(topic, opened)
