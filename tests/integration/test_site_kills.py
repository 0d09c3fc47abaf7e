"""SIGKILL at random moments of real agents in a gateway's rounds, over a real broker."""

import time
from random import Random

import pytest

from models.wire.parts import read_part
from tests.support.brokers import mosquitto_in, wait_until
from tests.support.device_processes import DeviceProcess
from tests.support.site_devices import SiteDriver, debited, site_store

pytestmark = [pytest.mark.broker, pytest.mark.soak]

STEPS = 4
OPTIONS = ("--gateway-rounds", "on", "--bytes-per-day", "10000000")


def wholes_of(driver, offer, path):
    """Return for each different answer to a step, of which all parts came, whether it is one."""
    came = driver.parts_of(offer)
    found = []
    for digest in {read_part(part).digest for part in came}:
        own = [part for part in came if read_part(part).digest == digest]
        if {read_part(part).number for part in own} == set(range(driver.form(offer).num_parts)):
            found.append(bool(driver.opened_from(offer, path, own).values.any()))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_agents_that_are_killed_answer_each_step_once(tmp_path, seed):
    """Four kills a seed, so that an interrupted soak can go on with the rest."""
    random, path = Random(seed), site_store(tmp_path / "device")
    with mosquitto_in(tmp_path) as broker, SiteDriver(broker) as driver:
        driver.broadcast()
        offers, updates = [], 0
        for index in range(STEPS):
            driver.born.clear()
            with DeviceProcess(path, broker, *OPTIONS) as device:
                assert wait_until(lambda: driver.born)
                offers.append(driver.offer(index=index))
                time.sleep(random.uniform(0.0, 0.8))
                device.kill()
            driver.born.clear()
            with DeviceProcess(path, broker, *OPTIONS):
                assert wait_until(lambda: driver.born)
                # A gateway offers a step again to whom it did not hear whole.
                driver.offer(index=index)
                assert wait_until(lambda: wholes_of(driver, offers[-1], path), 30)
            answers = wholes_of(driver, offers[-1], path)
            assert len(answers) == 1, answers
            updates += sum(answers)
    assert debited(path) == list(range(STEPS))
    assert 0 < updates <= STEPS
