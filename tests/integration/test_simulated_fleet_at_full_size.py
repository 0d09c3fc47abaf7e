"""Half a million devices for two years, nothing measured and nothing written."""

import resource
import time

import pytest

from simulations.physics import live_fleet
from simulations.prevalence import summarise
from simulations.truth import FleetTruth
from tests.support.figures import Figures

DEVICES, DAYS = 500_000, 730
MOST_BYTES = 4e9
LEAST_A_SECOND = 4e6


@pytest.mark.soak
def test_half_a_million_devices_live_for_two_years():
    began = time.perf_counter()
    truth = FleetTruth.joined(
        list(live_fleet(num_devices=DEVICES, num_days=DAYS, seed=1, processes=2))
    )
    rate = DEVICES * DAYS / (time.perf_counter() - began)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    held = 1024 * (own + 2 * largest_child)
    figures = Figures("simulation")
    figures.add(
        "physics alone, 500,000 devices for two years",
        rate,
        unit="device-days a second",
        target=LEAST_A_SECOND,
        better="higher",
        against="two processes",
    )
    figures.add(
        "memory of physics alone",
        held / 1e9,
        unit="GB",
        target=MOST_BYTES / 1e9,
        better="lower",
        against="peaks of all three processes together",
    )

    assert len(truth.device_index) == DEVICES
    assert 0.01 < (summarise(truth).prevalence_30d or 0.0) < 0.03
    assert held <= MOST_BYTES
    assert rate >= LEAST_A_SECOND
