"""A notice over TLS: sealed to the key that enrolled, to a device that its certificate names."""

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from edge_client.agent import AgentParts, AgentPlan, Until, run_agent
from edge_client.client import EdgeClient
from edge_client.provisioning.first_boot import add_identity
from edge_client.provisioning.identity import own_identity
from edge_client.provisioning.joining import join
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId
from models.wire.link_settings import LinkTls
from server.authority.enrolment import revoke
from server.authority.serving import running_service
from server.broker import LOOPBACK
from server.config import ServerConfig
from server.errors import SettingError
from server.hub_process import connected_hub
from server.hub_status import hub_status
from server.signer import load_signer, make_key_file
from tests.support.brokers import wait_until
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.line_bundle import trusted_keys, write_line_bundle
from tests.support.secured_fleets import secured_broker, secured_fleet

pytestmark = pytest.mark.broker


def failing_device(folder, name):
    profile = replace(PROFILE, device_id=DeviceId(name))
    with TelemetryStore.create(folder / f"{name}.db", profile=profile) as store:
        store.record_many(fading_life(last_capacity_mah=2410.0), now=NOW)
        for purpose in (Purpose.SUMMARIES, Purpose.NOTICES):
            store.set_consent(purpose, granted=True, now=NOW)
        add_identity(store, hardware_id=None)
        return own_identity(store, device_id=name, hardware_id=None)


def run_device(folder, name, broker, membership, *, until):
    key = load_signer(folder / "key.pem").verify_key
    tls = LinkTls(authorities=membership.authorities, certificate=membership.certificate)
    with EdgeClient(
        folder / f"{name}.db", folder / "line.zip", trusted_keys=trusted_keys()
    ) as client:
        return run_agent(
            client,
            broker=(broker.host, broker.port),
            server_keys={key.key_id: key.to_bytes()},
            plan=AgentPlan(until=until, timeout_s=15.0, poll_s=0.1),
            clock=lambda: NOW,
            on_start=lambda _agent: None,
            on_report=lambda _report: None,
            show=lambda _id, _shown: None,
            parts=AgentParts(tls=lambda: tls),
        )


def test_enrolled_device_hears_and_whoever_is_shut_out_is_sent_nothing(tmp_path):
    now = datetime.now(UTC)
    write_line_bundle(tmp_path / "line.zip")
    make_key_file(tmp_path / "key.pem")
    with (
        secured_fleet(tmp_path, now=now) as fleet,
        running_service(
            fleet.database, fleet.home, host=LOOPBACK, port=0, clock=lambda: now
        ) as port,
        secured_broker(fleet) as broker,
    ):
        joined = {
            name: join(
                tmp_path / f"{name}.db",
                failing_device(tmp_path, name),
                address=f"https://{LOOPBACK}:{port}",
                token=fleet.token(now=now),
                fingerprint=fleet.pinned,
            ).membership
            for name in ("heard", "shut-out")
        }
        with fleet.database.transaction() as connection:
            revoke(connection, "shut-out", because="test", now=now)
        config = ServerConfig(
            db=f"sqlite:///{tmp_path / 'hub.db'}",
            broker=f"{broker.host}:{broker.port}",
            key=tmp_path / "key.pem",
            tls_ca=fleet.hub.authorities,
            tls_certificate=fleet.hub.certificate,
            tls_key=fleet.hub.key,
        )
        stop = threading.Event()
        with connected_hub(config, clock=lambda: NOW) as hub:
            working = threading.Thread(target=hub.run, args=(stop,))
            working.start()
            try:
                heard = run_device(tmp_path, "heard", broker, joined["heard"], until=Until.ACKED)
                # The broker has not been told yet; the server goes by its own database.
                run_device(tmp_path, "shut-out", broker, joined["shut-out"], until=Until.SENT)
                # The broker has it; the hub may not have read it yet.
                wait_until(lambda: hub_status(fleet.database).suppressed)
            finally:
                stop.set()
                hub.wake()
                working.join()
        told = hub_status(fleet.database)

    assert heard.shown == 1
    assert (told.devices, told.sent) == (2, 1)
    assert told.suppressed == {"no_device_key": 1}


def test_tls_settings_come_together_or_not_at_all(tmp_path):
    assert ServerConfig().broker_tls() is None
    with pytest.raises(SettingError, match="tls_key"):
        ServerConfig(tls_ca=tmp_path, tls_certificate=tmp_path).broker_tls()
