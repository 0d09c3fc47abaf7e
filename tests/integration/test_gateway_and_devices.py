"""A real gateway and real devices' agents over Mosquitto: from the task to the release."""

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from edge_client.gateway.record import gateway_folder, read_status
from edge_client.provisioning.identity import read_identity
from models.wire.contribution import open_contribution
from models.wire.parts import join, read_part
from models.wire.rounds import DeviceReceipt
from models.wire.site_credential import SiteDevice
from models.wire.site_rounds import update_form
from tests.support.brokers import mosquitto_in, wait_until
from tests.support.gateway_sites import GatewayOnDisk
from tests.support.line_bundle import write_line_bundle
from tests.support.site_devices import POLICY, WEIGHTS, SiteAgent, debited, site_store, step_of
from tests.support.training_tasks import KEY, receipt_of, release_of, signed, task_of

pytestmark = pytest.mark.broker
NAMES = ("device-1", "device-2")
ASKED = {
    "device_ids": NAMES,
    "pseudonyms": ("0" * 31 + "1", "0" * 31 + "2"),
    "policy": signed(POLICY),
    "deadline_s": 30.0,
}


@pytest.fixture
def site(tmp_path):
    stores = {name: site_store(tmp_path / name, name) for name in NAMES}
    with mosquitto_in(tmp_path) as broker:
        folder = tmp_path / "gateway"
        folder.mkdir()
        (folder / "machine-id").write_text("this machine")
        disk = GatewayOnDisk(folder, NAMES, (broker.host, broker.port), KEY)
        keys = {name: read_identity(store).signing_key.verify_key for name, store in stores.items()}
        disk.write_site([SiteDevice(name, key.to_bytes().hex()) for name, key in keys.items()])
        bundle = write_line_bundle(tmp_path / "line.zip")
        yield SimpleNamespace(stores=stores, broker=broker, disk=disk, keys=keys, bundle=bundle)


def kept_values(site, name, task):
    """What a device keeps of its answer, which the gateway alone can open."""
    step = step_of(site.stores[name])
    parts = list(map(read_part, step.parts))
    form = update_form(task, num_weights=WEIGHTS.size)
    return open_contribution(
        join(parts, digest=parts[0].digest, size=form.sealed_bytes),
        step=step.step,
        form=form,
        device=name,
        key=site.keys[name],
        opening_key=site.disk.block().site.identity.opening_key,
    ).values


def test_real_devices_train_through_a_gateway_and_hear_of_the_release(site):
    task = task_of(POLICY, **ASKED)
    with (
        SiteAgent(site.stores["device-1"], site.bundle, site.broker),
        SiteAgent(site.stores["device-2"], site.bundle, site.broker),
    ):
        total, num_devices, receipts = site.disk.block().relay_task(task, WEIGHTS, waited_s=0.0)
        own = {name: kept_values(site, name, task) for name in NAMES}
        site.disk.block().keep_receipt(receipt_of(release_of(POLICY)))
        closed = wait_until(lambda: all(step_of(one).parts == () for one in site.stores.values()))

    assert num_devices == 2
    assert (total == own["device-1"] + own["device-2"]).all()
    assert all(values.any() for values in own.values())
    said = [DeviceReceipt.from_line(line) for line in receipts]
    assert [one.pseudonym for one in said] == list(task.pseudonyms)
    assert [one.participations for one in said] == [1, 1]
    assert closed
    assert [debited(store) for store in site.stores.values()] == [[0], [0]]
    told = read_status(gateway_folder(site.disk.folder / "gateway.db"))["steps"][-1]
    assert (told["answered"], told["refused"]) == (2, {})
    assert datetime.fromisoformat(told["at"]).tzinfo == UTC


def test_a_device_whose_ledger_refuses_looks_like_any_other_to_its_gateway(site):
    """A step that is asked for again brings zeros, where a gateway has lost its memory of it."""
    task = task_of(POLICY, **ASKED)
    with (
        SiteAgent(site.stores["device-1"], site.bundle, site.broker),
        SiteAgent(site.stores["device-2"], site.bundle, site.broker),
    ):
        first, _, _ = site.disk.block().relay_task(task, WEIGHTS, waited_s=0.0)
        site.disk.block().keep_receipt(receipt_of(release_of(POLICY)))
        assert wait_until(lambda: all(step_of(one).parts == () for one in site.stores.values()))
        (gateway_folder(site.disk.folder / "gateway.db") / "answered.json").unlink()
        again, num_devices, receipts = site.disk.block().relay_task(task, WEIGHTS, waited_s=0.0)

    assert first.any()
    assert num_devices == len(receipts) == 2
    assert not np.any(again)
    assert [debited(store) for store in site.stores.values()] == [[0], [0]]
