"""A gateway in a whole deployment: nginx, SuperLink, `fedcell-device node`, Mosquitto with TLS.

Every certificate is the fleet's, the bundle is pinned, and the broker grants what the fleet's
commands wrote.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edge_client.gateway.record import gateway_folder, read_status
from edge_client.provisioning.device_certificate import make_supernode_key
from edge_client.provisioning.identity import make_identity, own_identity
from edge_client.provisioning.membership import Membership, membership_folder, write_membership
from edge_client.telemetry_store import TelemetryStore
from models.telemetry import DeviceId
from models.wire.envelope import SigningKey
from server.authority.sites import write_site
from server.storage.database import open_database
from tests.support.brokers import wait_until
from tests.support.edge_devices import PROFILE
from tests.support.gateway_sites import GATEWAY, GatewayOnDisk, MadeUpData
from tests.support.node_deployments import NodeProcess, wait_for
from tests.support.operator_keys import make_stream_key_file
from tests.support.secured_fleets import DeviceOnPaper, SecuredFleet, free_port, secured_broker
from tests.support.system_parts import NGINX
from tests.support.whole_deployments import WholeDeployment, report_of

pytestmark = [pytest.mark.soak, pytest.mark.broker]
HARDWARE = b"this machine"
DEVICES = ("meter-2", "meter-5", "meter-7")
"""None is held out."""


class DeployedSite:
    """A gateway that has joined, and devices behind it that have."""

    def __init__(self, deployment, fleet, broker_port):
        self.folder = deployment.folder / "gateway"
        self.folder.mkdir()
        key = SigningKey.from_pem((deployment.folder / "server.pem").read_bytes())
        self.disk = GatewayOnDisk(
            self.folder, DEVICES, ("127.0.0.1", broker_port), key, data=MadeUpData(200)
        )
        (self.folder / "machine-id").write_bytes(HARDWARE)
        self.devices = self.disk.devices()
        shown = {name: self._enrol(fleet, name) for name in DEVICES}
        self.devices.tls_of = shown.get
        self.store = self._join(fleet)
        with fleet.database.transaction() as connection:
            written = write_site(
                connection,
                fleet.home,
                GATEWAY,
                devices=DEVICES,
                most_devices=None,
                key=key,
                life=timedelta(days=90),
                now=datetime.now(UTC),
            )
        (self.folder / "site.json").write_bytes(written.content)

    @property
    def settings(self):
        return (
            f'hardware_id_file = "{self.folder / "machine-id"}"\n'
            f'[node]\ngateway-site = "site.json"\n'
            f'gateway-broker = "127.0.0.1:{self.disk.broker[1]}"\n'
        )

    def _enrol(self, fleet, name):
        device = DeviceOnPaper(name, signing_key=self.devices.key(name))
        answer = fleet.enrol(device, now=datetime.now(UTC))
        return fleet.shown(name, answer.certificate, device.key)

    def _join(self, fleet):
        store, now = self.folder / "gateway.db", datetime.now(UTC)
        identity, _ = make_identity(store, device_id=GATEWAY, hardware_id=HARDWARE)
        with TelemetryStore.create(
            store, profile=replace(PROFILE, device_id=DeviceId(GATEWAY))
        ) as made:
            own_identity(made, device_id=GATEWAY, hardware_id=HARDWARE)
        private, public = make_supernode_key()
        device = DeviceOnPaper(
            GATEWAY,
            signing_key=identity.signing_key,
            opening_key=identity.opening_key,
            supernode=public,
        )
        answer = fleet.enrol(device, now=now)
        place = membership_folder(store)
        place.mkdir(mode=0o700)
        membership = Membership(
            folder=place,
            device_id=GATEWAY,
            service="https://127.0.0.1:1",
            broker=answer.broker,
            server_keys=dict(answer.server_keys),
            number=1,
            serial="0" * 40,
            not_before=now,
            not_after=now + timedelta(days=30),
            server_time=now,
            superlink=answer.superlink,
        )
        write_membership(
            membership,
            certificate=answer.certificate,
            key=device.key,
            authorities=answer.authorities,
            supernode=private,
        )
        return store


@pytest.mark.skipif(NGINX.find() is None, reason=NGINX.is_missing_line())
def test_a_gateway_takes_part_in_a_whole_deployment(tmp_path):
    deployment = WholeDeployment(tmp_path / "fleet")
    deployment.make()
    make_stream_key_file(tmp_path / "stream.operator")
    out = tmp_path / "run"
    with open_database(f"sqlite:///{deployment.folder / 'hub.db'}") as database:
        fleet, port = SecuredFleet(deployment.folder, database), free_port()
        site = DeployedSite(deployment, fleet, port)
        node = NodeProcess(site.store, settings=site.settings)
        deployment.nodes[GATEWAY] = node
        with secured_broker(fleet, port=port):
            try:
                deployment.start()
                node.start()
                node.wait_for("connected", seconds=180)
                with site.devices as devices:
                    deployment.begin(
                        {
                            "out": out,
                            "start-weights": "default",
                            "privacy-home": tmp_path / "home",
                            "stream-key-file": tmp_path / "stream.operator",
                            "least-nodes": 1,
                            "rounds": 1,
                            "cohort": len(DEVICES),
                            "deadline-s": 90.0,
                        }
                    )
                    wait_for(
                        lambda: report_of(out).get("status") == "finished",
                        what="the run",
                        logs=deployment.logs(),
                        seconds=300,
                    )
                    assert wait_until(lambda: len(devices.told) == len(DEVICES), 60)
            finally:
                node.stop()
                deployment.stop()

    (record,) = report_of(out)["rounds"]
    assert record["replied"] == len(DEVICES)
    step = read_status(gateway_folder(site.store))["steps"][-1]
    assert (step["answered"], step["refused"]) == (len(DEVICES), {})
