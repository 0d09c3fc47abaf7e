"""The real gateway and three real devices in processes of their own: one round, and its release."""

from contextlib import ExitStack

import numpy as np
import pytest

from edge_client.privacy.receipts import read_receipts
from edge_client.provisioning.identity import read_identity
from edge_client.site_rounds.kept_step import Ending
from models.telemetry import DeviceId
from models.wire.rounds import DeviceReceipt
from models.wire.site_credential import SiteDevice
from models.wire.topics import Up, from_all_devices
from privacy import UpdateGrid
from tests.support.brokers import Heard, link_to, mosquitto_in, wait_until
from tests.support.device_processes import DeviceProcess
from tests.support.gateway_sites import GatewayOnDisk, pseudonym_of
from tests.support.site_devices import POLICY, WEIGHTS, debited, site_store, step_of
from tests.support.training_tasks import KEY, receipt_of, release_of, task_of

pytestmark = pytest.mark.broker

NAMES = ("meter-1", "meter-2", "meter-3")


@pytest.fixture
def paths(tmp_path):
    return {name: site_store(tmp_path / name, name) for name in NAMES}


def site_of(folder, paths, broker):
    folder.mkdir()
    (folder / "machine-id").write_text("this machine")
    site = GatewayOnDisk(folder, NAMES, (broker.host, broker.port), KEY)
    keys = {name: read_identity(path).signing_key.verify_key for name, path in paths.items()}
    site.write_site(
        [SiteDevice(DeviceId(name), key.to_bytes().hex()) for name, key in keys.items()]
    )
    return site


def test_round_of_a_gateway_and_three_devices_and_its_release(tmp_path, paths):
    names = {"device_ids": NAMES, "pseudonyms": tuple(map(pseudonym_of, NAMES))}
    task = task_of(POLICY, deadline_s=30.0, **names)
    born = Heard()
    with ExitStack() as stack:
        broker = stack.enter_context(mosquitto_in(tmp_path))
        watching = link_to(broker, "watching")
        watching.subscribe(from_all_devices(Up.BIRTH), born)
        stack.enter_context(watching)
        site = site_of(tmp_path / "gateway", paths, broker)
        started = [
            DeviceProcess(path, broker, "--gateway-rounds", "on", now=None)
            for path in paths.values()
        ]
        for device in started:
            stack.enter_context(device)
        assert len(born.wait_for(3, 20)) >= 3

        total, num_devices, receipts = site.block().relay_task(task, WEIGHTS, waited_s=0.0)
        again = site.block().relay_task(task, WEIGHTS, waited_s=0.0)
        site.block().keep_receipt(receipt_of(release_of(POLICY, index=0)))
        for path in paths.values():
            assert wait_until(lambda path=path: read_receipts(path))

    assert num_devices == 3
    assert [DeviceReceipt.from_line(line).participations for line in receipts] == [1, 1, 1]
    moved = UpdateGrid(clipping_norm=POLICY.privacy.clipping_norm).restore(total)
    assert 0.0 < np.linalg.norm(moved) <= 3 * POLICY.privacy.clipping_norm
    assert again[1] == 0
    for path in paths.values():
        assert debited(path) == [0]
        assert [receipt["state"] for receipt in read_receipts(path)] == ["matches"]
        assert step_of(path).ending is Ending.RELEASED
