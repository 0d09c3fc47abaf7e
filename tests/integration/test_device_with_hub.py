"""Device and hub on one broker: the way of a notice, with nothing played by a test."""

import threading
from dataclasses import replace

import pytest

from edge_client.agent import AgentPlan, Until, run_agent
from edge_client.client import EdgeClient
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.quiet_hours import QuietHours
from models.telemetry import DeviceId
from models.wire.messages import NoticeState
from server.broker import BrokerKind, running_broker
from server.config import ServerConfig
from server.hub_process import connected_hub
from server.signer import load_signer, make_key_file
from server.storage.database import open_database
from server.storage.notices import Notices
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.line_bundle import trusted_keys, write_line_bundle


class Fleet:
    """Devices that run one after the other against a hub that runs all the time."""

    def __init__(self, folder, broker):
        self.folder = folder
        self.broker = broker
        self.bundle = write_line_bundle(folder / "line.zip")
        make_key_file(folder / "key.pem")
        key = load_signer(folder / "key.pem").verify_key
        self.server_keys = {key.key_id: key.to_bytes()}
        self.shown = {}

    def run(self, name, *, last_capacity_mah, until, timeout_s, **choices):
        path = self.folder / f"{name}.db"
        profile = replace(PROFILE, device_id=DeviceId(name))
        with TelemetryStore.create(path, profile=profile, **choices) as store:
            store.record_many(fading_life(last_capacity_mah=last_capacity_mah), now=NOW)
            for purpose in (Purpose.SUMMARIES, Purpose.NOTICES):
                store.set_consent(purpose, granted=True, now=NOW)
        with EdgeClient(path, self.bundle, trusted_keys=trusted_keys()) as client:
            return run_agent(
                client,
                broker=(self.broker.host, self.broker.port),
                server_keys=self.server_keys,
                plan=AgentPlan(
                    until=until, timeout_s=timeout_s, answer=NoticeState.ACCEPTED, poll_s=0.1
                ),
                clock=lambda: NOW,
                on_start=lambda _agent: None,
                on_report=lambda _report: None,
                show=lambda _id, shown: self.shown.update({name: shown}),
            )


@pytest.mark.parametrize(
    "kind",
    [pytest.param(BrokerKind.MOSQUITTO, marks=pytest.mark.broker), BrokerKind.EMBEDDED],
)
def test_failing_devices_hear_of_it_and_others_do_not(tmp_path, kind):
    with running_broker(tmp_path / "broker", kind=kind) as broker:
        fleet = Fleet(tmp_path, broker)
        config = ServerConfig(
            db=f"sqlite:///{tmp_path / 'hub.db'}",
            broker=f"{broker.host}:{broker.port}",
            key=tmp_path / "key.pem",
            human_contact="0800 123 456",
        )
        stop = threading.Event()
        with connected_hub(config, clock=lambda: NOW) as hub:
            working = threading.Thread(target=hub.run, args=(stop,))
            working.start()
            try:
                acked = {"until": Until.ACKED, "timeout_s": 15.0}
                fleet.run("urgent", last_capacity_mah=2410.0, language="de", **acked)
                fleet.run("soon", last_capacity_mah=2470.0, **acked)
                sent = {"until": Until.SENT, "timeout_s": 15.0}
                fleet.run("healthy", last_capacity_mah=2900.0, **sent)
                quiet = QuietHours(10, 20, "UTC")
                fleet.run("quiet", last_capacity_mah=2410.0, quiet_hours=quiet, **sent)
            finally:
                stop.set()
                hub.wake()
                working.join()

    assert set(fleet.shown) == {"urgent", "soon"}
    assert fleet.shown["urgent"].template == "battery.under_7"
    assert fleet.shown["soon"].template == "battery.7_to_30"
    assert "0800 123 456" in fleet.shown["soon"].text()
    assert fleet.shown["urgent"].language == "de"
    with open_database(config.db) as database, database.transaction() as connection:
        assert Notices(connection).count_by_state() == {"accepted": 2}
