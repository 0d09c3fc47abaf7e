"""What does a round behind a gateway take of a device without torch: memory, time, processor?

A device's agent in a process of its own, with two years of readings in its store, is offered step
after step over a real broker. Memory is the most that the process has held since it began, report
and model included. What the steps take is compared with making the same rows and training on them
in this process, in turns.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from edge_client.local_training import local_trainer, train_on_device
from edge_client.own_training import own_device
from edge_client.provisioning.identity import make_identity, own_identity
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from privacy import UpdateGrid
from tests.support.brokers import mosquitto_in, wait_until
from tests.support.device_processes import DeviceProcess, children_of, cpu_s, peak_mb
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.figures import Figures
from tests.support.site_devices import POLICY, WEIGHTS, SiteDriver, debited
from tests.support.training_tasks import task_of

pytestmark = pytest.mark.broker

FIGURES = Figures("deployment")
STEPS = 9
WARM = 1
"""Steps before the measured ones: the first loads what trains."""
TAKING_PART = ("--gateway-rounds", "on", "--bytes-per-day", "1000000")
MOST_MB = 100.0
AGAINST = "making the same rows and training on them in this process, interleaved"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "device.db"
    make_identity(path, device_id="device-1", hardware_id=None)
    profile = replace(PROFILE, manufactured_at=NOW - timedelta(days=800))
    with TelemetryStore.create(path, profile=profile) as store:
        store.record_many(fading_life(days=720), now=NOW)
        store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
        own_identity(store, device_id="device-1", hardware_id=None)
    return path


def train_here(device):
    """Return the seconds that rows and training take without anything around them."""
    begun = time.perf_counter()
    train_on_device(
        local_trainer(task_of(POLICY).recipe),
        device.rows("device-1"),
        weights=WEIGHTS,
        grid=UpdateGrid(clipping_norm=POLICY.privacy.clipping_norm),
        source=device.source("device-1", stream="s", index=0),
    )
    return time.perf_counter() - begun


def add(name, values, *, unit, target=None, against=None):
    FIGURES.add(
        name,
        statistics.median(values),
        unit=unit,
        target=target,
        better="lower",
        spread=(min(values), max(values)),
        against=against,
    )


def answered_step(driver, device, path, index):
    """Return seconds from an offer to its answer's last part, and of the processor."""
    cpu_before, begun = cpu_s(device.pid), time.perf_counter()
    offer = driver.offer(index=index)
    assert wait_until(partial(driver.has_answer, offer))
    took = time.perf_counter() - begun
    assert driver.opened(offer, path).values.any()
    driver.release(offer)
    return took, cpu_s(device.pid) - cpu_before


def test_step_of_a_device_with_two_years_of_readings(path, tmp_path):
    with ExitStack() as stack:
        broker = stack.enter_context(mosquitto_in(tmp_path))
        driver = stack.enter_context(SiteDriver(broker))
        with DeviceProcess(path, broker) as silent:
            assert wait_until(lambda: driver.born)
            without_mb = peak_mb(silent.pid)
        driver.born.clear()
        driver.broadcast()
        device = stack.enter_context(DeviceProcess(path, broker, *TAKING_PART))
        assert wait_until(lambda: driver.born)
        waiting_mb = peak_mb(device.pid)
        here = own_device({"telemetry-db": str(path)}, now=NOW, policy_keys={})
        took, busy, bare = [], [], []
        for index in range(STEPS):
            bare.append(train_here(here))
            seconds, processor = answered_step(driver, device, path, index)
            took.append(seconds)
            busy.append(processor)
        most_mb = peak_mb(device.pid)
        assert children_of(device.pid) == []

    assert debited(path) == list(range(STEPS))
    add("device behind a gateway: peak memory in rounds", [most_mb], unit="MB", target=MOST_MB)
    add("device behind a gateway: peak memory before a round", [waiting_mb], unit="MB")
    more = waiting_mb - without_mb
    add("device behind a gateway: memory of hearing offers", [more], unit="MB", target=2.0)
    add("device behind a gateway: first step, offer to last part", took[:WARM], unit="s")
    add("device behind a gateway: a step, offer to last part", took[WARM:], unit="s")
    add("device behind a gateway: a step, processor", busy[WARM:], unit="s")
    pairs = zip(took[WARM:], bare[WARM:], strict=True)
    ratios = [step / plain for step, plain in pairs]
    add("device behind a gateway: a step over bare training", ratios, unit="x", against=AGAINST)
    assert most_mb <= MOST_MB
    assert more <= 2.0
