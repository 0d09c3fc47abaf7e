"""A joined device behind a joined gateway, over TLS and the access list that the fleet writes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edge_client.gateway.block import own_gateway
from edge_client.privacy.receipts import read_receipts
from edge_client.provisioning.identity import make_identity, read_identity
from edge_client.provisioning.membership import Membership, membership_folder, write_membership
from models.wire.topics import Up, from_all_devices
from server.authority.sites import write_site
from tests.support.brokers import Heard, wait_until
from tests.support.device_processes import DeviceProcess, peak_mb
from tests.support.gateway_sites import GATEWAY, GatewayOnDisk, pseudonym_of
from tests.support.secured_fleets import DeviceOnPaper, free_port, secured_broker, secured_fleet
from tests.support.site_devices import POLICY, WEIGHTS, debited, site_store
from tests.support.training_tasks import KEY, receipt_of, release_of, task_of

pytestmark = pytest.mark.broker

NAME = "meter-1"
MOST_MB = 100


def join(fleet, store, name):
    """Make a store's device a member, as `fedcell-device join` would."""
    identity, now = read_identity(store), datetime.now(UTC)
    device = DeviceOnPaper(name, signing_key=identity.signing_key, opening_key=identity.opening_key)
    answer = fleet.enrol(device, now=now)
    place = membership_folder(store)
    place.mkdir(mode=0o700)
    membership = Membership(
        folder=place,
        device_id=name,
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
        membership, certificate=answer.certificate, key=device.key, authorities=answer.authorities
    )


@pytest.fixture
def fleet(tmp_path):
    port = free_port()
    with secured_fleet(tmp_path, port=port, now=datetime.now(UTC)) as fleet:
        fleet.port = port
        public = KEY.verify_key
        keys = {public.key_id: public.to_bytes().hex()}
        fleet.home.keep(replace(fleet.home.fleet, server_keys=keys))
        yield fleet


@pytest.fixture
def device(tmp_path, fleet):
    store = site_store(tmp_path / "device", NAME, until=datetime.now(UTC))
    join(fleet, store, NAME)
    return store


@pytest.fixture
def gateway(tmp_path, fleet, device):
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "machine-id").write_text("this machine")
    make_identity(folder / "gateway.db", device_id=GATEWAY, hardware_id=b"this machine")
    join(fleet, folder / "gateway.db", GATEWAY)
    with fleet.database.transaction() as connection:
        site = write_site(
            connection,
            fleet.home,
            GATEWAY,
            devices=(NAME,),
            most_devices=None,
            key=KEY,
            life=timedelta(days=90),
            now=datetime.now(UTC),
        )
    (folder / "site.json").write_bytes(site.content)
    told = GatewayOnDisk(folder, (NAME,), ("127.0.0.1", fleet.port), KEY).node_config
    return {name: told[name] for name in told if name not in {"gateway-broker", "policy-keys"}}


def test_joined_device_takes_part_by_its_membership_alone(fleet, device, gateway):
    born = Heard()
    asked = {"device_ids": (NAME,), "pseudonyms": (pseudonym_of(NAME),), "deadline_s": 30.0}
    with secured_broker(fleet, port=fleet.port) as broker:
        hub = broker.link("fedcell-hub", fleet.hub)
        hub.subscribe(from_all_devices(Up.BIRTH), born)
        with hub, DeviceProcess(device, None, "--gateway-rounds", "on", now=None) as process:
            assert born.wait_for(1)
            block = own_gateway(gateway, now=datetime.now(UTC))
            task = task_of(POLICY, **asked)
            total, num_devices, _ = block.relay_task(task, WEIGHTS, waited_s=0.0)
            block.keep_receipt(receipt_of(release_of(POLICY, index=0)))
            assert wait_until(lambda: read_receipts(device))
            peak = peak_mb(process.pid)
    print(f"peak {peak:.1f} MB with TLS")
    assert (num_devices, bool(total.any())) == (1, True)
    assert debited(device) == [0]
    assert peak <= MOST_MB
