"""A gateway with its membership, behind TLS and the access list that the fleet's commands write."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edge_client.commands.gateway import NOT_LET
from edge_client.gateway.block import own_gateway
from edge_client.provisioning.identity import make_identity
from edge_client.provisioning.membership import Membership, membership_folder, write_membership
from models.network_shape import NUM_WEIGHTS
from models.wire import topics
from models.wire.envelope import SigningKey
from models.wire.rounds import ReleaseReceipt
from server.authority.enrolment import revoke
from server.authority.sites import write_site
from server.broker_setup.broker_folder import have_it_read
from simulations.site_devices import expected_sum
from tests.support.brokers import wait_until
from tests.support.gateway_sites import GATEWAY, GatewayOnDisk
from tests.support.secured_fleets import DeviceOnPaper, free_port, secured_broker, secured_fleet

pytestmark = pytest.mark.broker
DEVICES = ("meter-1", "meter-2", "meter-3")
STRANGER = "meter-9"
UNREACHABLE = 6
WEIGHTS = np.random.default_rng(1).normal(0, 0.1, NUM_WEIGHTS).astype(np.float32)


class SecuredSite:
    """A gateway and its devices, enrolled in a fleet; one more device that is not of the site."""

    def __init__(self, folder, fleet, broker_port):
        self.fleet, self.folder = fleet, folder
        self.key = SigningKey.generate()
        public = self.key.verify_key
        home = fleet.home
        home.keep(replace(home.fleet, server_keys={public.key_id: public.to_bytes().hex()}))
        folder.mkdir()
        self.disk = GatewayOnDisk(folder, DEVICES, ("127.0.0.1", broker_port), self.key)
        (folder / "machine-id").write_text("this machine")
        self.devices = self.disk.devices()
        self.shown = {name: self._enrol(name) for name in (*DEVICES, STRANGER)}
        self.devices.tls_of = self.shown.get
        self._join_gateway()
        self.write_site()

    @property
    def node_config(self):
        told = self.disk.node_config
        return {name: told[name] for name in told if name not in {"gateway-broker", "policy-keys"}}

    def block(self):
        return own_gateway(self.node_config, now=datetime.now(UTC))

    def write_site(self, devices=DEVICES):
        with self.fleet.database.transaction() as connection:
            written = write_site(
                connection,
                self.fleet.home,
                GATEWAY,
                devices=devices,
                most_devices=None,
                key=self.key,
                life=timedelta(days=90),
                now=datetime.now(UTC),
            )
        (self.folder / "site.json").write_bytes(written.content)

    def _enrol(self, name):
        device = DeviceOnPaper(name, signing_key=self.devices.key(name))
        answer = self.fleet.enrol(device, now=datetime.now(UTC))
        return self.fleet.shown(name, answer.certificate, device.key)

    def _join_gateway(self):
        store, now = self.folder / "gateway.db", datetime.now(UTC)
        identity, _ = make_identity(store, device_id=GATEWAY, hardware_id=b"this machine")
        device = DeviceOnPaper(
            GATEWAY, signing_key=identity.signing_key, opening_key=identity.opening_key
        )
        answer = self.fleet.enrol(device, now=now)
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
        )
        write_membership(
            membership,
            certificate=answer.certificate,
            key=device.key,
            authorities=answer.authorities,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("secured"), free_port()
    with secured_fleet(folder, port=port, now=datetime.now(UTC)) as fleet:
        made = SecuredSite(folder / "gateway", fleet, port)
        with secured_broker(fleet, port=port) as broker:
            made.broker = broker
            yield made


def test_a_round_over_tls_and_the_access_list_is_the_devices_alone(site):
    task = site.disk.task()
    with site.devices as devices:
        total, num_devices, _ = site.block().relay_task(task, WEIGHTS, waited_s=0.0)
        site.block().keep_receipt(ReleaseReceipt(stream="run-1", index=0, entry="paid"))
        assert wait_until(lambda: len(devices.told) == len(DEVICES))

    assert num_devices == len(DEVICES)
    alone = expected_sum(DEVICES, data=site.disk.data, task=task, weights=WEIGHTS)
    assert (total == alone).all()


def test_a_gateways_check_says_what_it_stands_for(site, capsys):
    from edge_client.cli import main

    config = site.folder / "device.toml"
    config.write_text(
        f'store = "{site.folder / "gateway.db"}"\n'
        f'hardware_id_file = "{site.folder / "machine-id"}"\n'
        f'[node]\ngateway-site = "site.json"\n'
    )
    assert main(["gateway", "check", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "3, at most 3" in said
    assert "over TLS" in said
    assert "yes: the broker takes" in said


def test_a_device_of_another_site_is_neither_asked_nor_heard(site):
    """A site file that names more than the broker grants: the access list has the last word."""
    stranger = site.broker.link(STRANGER, site.shown[STRANGER])
    heard = []
    stranger.subscribe(topics.down(STRANGER, topics.Down.ROUND), lambda *said: heard.append(said))
    wide = site.disk.devices().site_devices()
    site.disk.write_site([*wide, *_device_of(site, STRANGER)])
    try:
        task = site.disk.task(
            stream="run-2", device_ids=(*DEVICES, STRANGER), cohort_size=4, deadline_s=6.0
        )
        with stranger, site.devices:
            _, num_devices, _ = site.block().relay_task(task, WEIGHTS, waited_s=0.0)
    finally:
        site.write_site()

    assert num_devices == len(DEVICES)
    assert heard == []


def _device_of(site, name):
    named = site.disk.devices()
    named.device_ids = (name,)
    return named.site_devices()


def test_a_gateway_that_is_shut_out_says_nothing_any_more(site, capsys):
    from edge_client.cli import main

    with site.fleet.database.transaction() as connection:
        revoke(connection, GATEWAY, now=datetime.now(UTC), because="stolen")
    site.broker.write()
    have_it_read(site.broker.folder)
    config = site.folder / "device.toml"
    words = ["gateway", "check", "--config", str(config)]

    # Until the broker has read the lists anew it may still let the certificate in.
    assert wait_until(lambda: main(words) in {NOT_LET, UNREACHABLE}, 10)
    capsys.readouterr()
    assert main(words) in {NOT_LET, UNREACHABLE}
    assert "yes" not in capsys.readouterr().out
