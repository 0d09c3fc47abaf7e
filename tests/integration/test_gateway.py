"""A gateway and its devices over a real Mosquitto: one sum, whoever is hostile, whatever dies."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from edge_client.errors import SiteUnreachableError, TaskRefusedError
from edge_client.gateway.record import gateway_folder, read_answered, read_status
from models.feature_spec import FEATURE_NAMES
from models.network_shape import NUM_WEIGHTS
from models.wire.counts import Bins, CountKind, CountQuestion, CountTask
from models.wire.rounds import DeviceReceipt, ReleaseReceipt
from models.wire.site_credential import weights_topic
from simulations.site_devices import HARMLESS, SiteFault, bin_of, expected_sum
from tests.support.brokers import Heard, link_to, mosquitto_in, wait_until
from tests.support.gateway_sites import gateway_on_disk, pseudonym_of
from tests.support.system_parts import REPOSITORY

pytestmark = pytest.mark.broker
WEIGHTS = np.random.default_rng(1).normal(0, 0.1, NUM_WEIGHTS).astype(np.float32)


@pytest.fixture
def broker(tmp_path):
    with mosquitto_in(tmp_path) as running:
        yield running


@pytest.fixture
def site(tmp_path, broker):
    return gateway_on_disk(tmp_path / "gateway", (broker.host, broker.port), num_devices=12)


def ask(site, **changes):
    task = site.task(**changes)
    return task, site.block().relay_task(task, WEIGHTS, waited_s=0.0)


def sum_of(site, devices, task):
    return expected_sum(devices, data=site.data, task=task, weights=WEIGHTS)


def told(site):
    return read_status(gateway_folder(site.folder / "gateway.db"))["steps"][-1]


def test_a_gateways_sum_is_its_devices_alone_and_a_step_is_answered_once(site, broker):
    heard = Heard()
    with link_to(broker, "watching") as watching, site.devices() as devices:
        task, (total, num_devices, receipts) = ask(site)
        _, again = ask(site)
        site.block().keep_receipt(ReleaseReceipt(stream="run-1", index=0, entry="paid"))
        assert wait_until(lambda: len(devices.told) == len(site.device_ids))
        _, later = ask(site, index=1, device_ids=tuple(site.device_ids[:2]))
    watching.close()

    assert num_devices == len(receipts) == 12
    assert (total == sum_of(site, site.device_ids, task)).all()
    said = [DeviceReceipt.from_line(line).pseudonym for line in receipts]
    assert said == list(map(pseudonym_of, site.device_ids))
    assert (again[0] == 0).all()
    assert again[1:] == (0, ())
    assert later[1] == 2
    assert devices.told["meter-0003"].receipt.entry == "paid"
    # What all devices read for the step is gone with it.
    reader = link_to(broker, "reader")
    reader.subscribe(weights_topic("gateway-1", "+"), heard)
    with reader:
        time.sleep(0.2)
    assert heard.messages == []
    assert read_answered(gateway_folder(site.folder / "gateway.db")).retained_parts == 0


@pytest.mark.slow
def test_what_hostile_devices_send_counts_as_nothing_and_is_named(site):
    faults = dict(zip(site.device_ids, SiteFault, strict=False))
    (replaying,) = (one for one in faults if faults[one] is SiteFault.REPLAY)
    with site.devices(faults) as devices:
        devices.late_s = 6.2
        # An answer to the step before is what one of them says to the next.
        _, before = ask(site, device_ids=(replaying,))
        task, (total, num_devices, _) = ask(site, index=1, deadline_s=10.0)
        step = told(site)
        # What came late waits with the broker, and is no answer to the step after either.
        time.sleep(1.0)
        _, (_, num_after, _) = ask(site, index=2, device_ids=tuple(site.device_ids[-1:]))

    good = [one for one in site.device_ids if faults.get(one) in {None, *HARMLESS}]
    assert before[1] == 1
    assert num_devices == len(good) == 3
    assert (total == sum_of(site, good, task)).all()
    assert num_after == 1
    assert told(site)["refused"]["not_invited"] >= 1
    assert set(step["silent"]) == set(site.device_ids) - set(good)
    reasons = ("bad_signature", "beyond_bound", "foreign_receipt", "foreign_part", "not_sealed")
    assert {*reasons, "duplicate"} <= set(step["refused"])


def test_counts_are_relayed_like_updates(site):
    question = CountQuestion(
        kind=CountKind.SIMILAR_DEVICES,
        as_of_s=86_400,
        horizon_days=30,
        bins=(Bins(FEATURE_NAMES[0], (0.0, 1.0)),),
    )
    task = CountTask(
        channel="similar",
        index=0,
        cohort_size=12,
        device_ids=tuple(site.device_ids),
        question=question,
        policy="an envelope",
        deadline_s=16.0,
    )
    with site.devices():
        total = site.block().count(task)
        again = site.block().count(task)

    expected = np.zeros(question.size, np.int64)
    for device in site.device_ids:
        expected[bin_of(device, question.size)] += 1
    assert (total == expected).all()
    assert (again == 0).all()
    assert told(site)["kind"] == "count"


@pytest.mark.slow
def test_devices_that_come_late_and_a_broker_that_is_killed_lose_no_round(site, broker):
    answer = {}

    def gateway():
        answer["task"], answer["got"] = ask(site, deadline_s=18.0)

    asking = threading.Thread(target=gateway)
    asking.start()
    time.sleep(0.7)
    with site.devices({"meter-0000": SiteFault.SILENT}) as devices:
        time.sleep(0.3)
        broker.kill()
        broker.start()
        assert wait_until(lambda: len(devices._kept) == 11, 15)
        devices.faults = {}
        asking.join(30)

    total, num_devices, _ = answer["got"]
    assert num_devices == 12
    assert (total == sum_of(site, site.device_ids, answer["task"])).all()


KILLED = """
import sys, pickle
import numpy as np
from tests.support.gateway_sites import gateway_on_disk
from pathlib import Path
folder, port = Path(sys.argv[1]), int(sys.argv[2])
site = gateway_on_disk(folder, ("127.0.0.1", port), num_devices=12)
weights = np.random.default_rng(1).normal(0, 0.1, {weights}).astype(np.float32)
site.block().relay_task(site.task(), weights, waited_s=0.0)
"""


def test_a_gateway_killed_in_mid_round_and_asked_again_counts_everybody_once(site, broker):
    with site.devices({"meter-0000": SiteFault.SILENT}) as devices:
        words = [sys.executable, "-c", KILLED.format(weights=NUM_WEIGHTS), str(site.folder)]
        child = subprocess.Popen([*words, str(broker.port)], cwd=REPOSITORY)
        assert wait_until(lambda: len(devices._kept) == 11, 20)
        sent_before = {device: kept.parts for device, kept in devices._kept.items()}
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        devices.faults = {}
        task, (total, num_devices, _) = ask(site)

    assert num_devices == 12
    assert (total == sum_of(site, site.device_ids, task)).all()
    # Nobody trained twice: the same sealed bytes came again.
    assert all(devices._kept[one].parts == parts for one, parts in sent_before.items())


def test_devices_of_other_sites_and_a_broker_that_is_away_are_errors(site, broker):
    with pytest.raises(TaskRefusedError, match="not of this site"):
        ask(site, device_ids=("meter-9999",))
    broker.stop()
    with pytest.raises(SiteUnreachableError):
        ask(site, deadline_s=5.0)
    assert not read_answered(gateway_folder(site.folder / "gateway.db")).last_index
    broker.start()


def test_a_task_of_more_devices_than_the_credential_is_for_is_refused(site):
    site.write_site(site.devices().site_devices(), most_devices=12)
    block = site.block()
    few = replace(block.site.site.credential, most_devices=3)
    narrowed = replace(
        block, site=replace(block.site, site=replace(block.site.site, credential=few))
    )
    with pytest.raises(TaskRefusedError, match="credential"):
        narrowed.relay_task(site.task(), WEIGHTS, waited_s=0.0)


def test_a_status_that_cannot_be_written_keeps_no_sum_back(site):
    (gateway_folder(site.folder / "gateway.db") / "status.json").mkdir(parents=True)
    with site.devices():
        _, (_, num_devices, _) = ask(site)

    assert num_devices == 12
