"""How fast does a fleet live, with nothing measured and nothing written?

Half a million devices for two years are 365 million device-days; here a part of that fleet lives
for one year. The whole fleet is in `tests/integration/test_simulated_fleet_at_full_size.py` (soak).
"""

from __future__ import annotations

import statistics
import time
import tracemalloc

from simulations import FleetRecipe, simulate_fleet
from simulations.physics import live_fleet
from simulations.scenarios import load_scenario
from tests.support.figures import Figures

FIGURES = Figures("simulation")
DAYS = 365
TARGET_TWO_CORES = 4e6
BLOCK = 16_384
USUAL = FleetRecipe()


def lived(num_devices, *, processes, recipe=USUAL):
    """Return device-days and the packs of a fleet that lived."""
    truths = live_fleet(
        num_devices=num_devices, num_days=DAYS, seed=7, recipe=recipe, processes=processes
    )
    return num_devices * DAYS, sum(len(truth.packs) for truth in truths)


def test_physics_alone_on_two_cores():
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        device_days, packs = lived(4 * BLOCK, processes=2)
        rates.append(device_days / (time.perf_counter() - began))
        assert packs > 4 * BLOCK
    rate = statistics.median(rates)
    FIGURES.add(
        "physics alone, two processes",
        rate,
        unit="device-days a second",
        target=TARGET_TWO_CORES,
        better="higher",
        spread=(min(rates), max(rates)),
        against="start of the processes included",
    )
    assert rate >= TARGET_TWO_CORES


def test_physics_alone_in_cpu_time():
    rates = []
    for _ in range(5):
        began = time.process_time()
        device_days, _ = lived(BLOCK // 2, processes=1)
        rates.append(device_days / (time.process_time() - began))
    rate = statistics.median(rates)
    FIGURES.add(
        "physics alone, one process",
        rate,
        unit="device-days a CPU second",
        target=TARGET_TWO_CORES / 2,
        better="higher",
        spread=(min(rates), max(rates)),
    )
    assert rate >= TARGET_TWO_CORES / 2


def test_four_chemistries_against_one():
    mixed = load_scenario("mixed-chemistry").recipe
    ratios = []
    for _ in range(5):
        began = time.process_time()
        lived(BLOCK // 4, processes=1, recipe=mixed)
        several = time.process_time() - began
        began = time.process_time()
        lived(BLOCK // 4, processes=1, recipe=load_scenario("reference").recipe)
        ratios.append(several / (time.process_time() - began))
    FIGURES.add(
        "four chemistries",
        statistics.median(ratios),
        unit="times the CPU time of one",
        target=None,
        better="lower",
        spread=(min(ratios), max(ratios)),
        against="the reference fleet, NMC111 alone",
    )
    assert statistics.median(ratios) < 5


def test_measured_fleet_against_its_lives():
    """What telemetry costs on top: 256 devices measured every six hours, against lives alone."""
    ratios = []
    for _ in range(5):
        began = time.process_time()
        fleet = simulate_fleet(num_devices=256, num_days=DAYS, seed=7, recipe=USUAL)
        measured = time.process_time() - began
        began = time.process_time()
        lived(256, processes=1)
        ratios.append(measured / (time.process_time() - began))
    FIGURES.add(
        "fleet with telemetry",
        statistics.median(ratios),
        unit="times the CPU time of its lives",
        target=None,
        better="lower",
        spread=(min(ratios), max(ratios)),
        against="lives alone in blocks of the same size",
    )
    assert len(fleet.telemetry) > 256 * DAYS


def test_memory_of_a_block():
    tracemalloc.start()
    lived(BLOCK, processes=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    FIGURES.add(
        "memory of a block that lives",
        peak / 1e6,
        unit="MB",
        target=100.0,
        better="lower",
        against=f"{BLOCK:,} devices",
    )
    assert peak < 100e6
