"""How many simulated devices train in a second, together and one after the other?

500 devices of 64 rows, 5 local steps of 32 expected rows, the real network, clipping to C and the
sum on the grid included. The ways to train take turns in one run. Ratios are of processor time, one
thread each, so that whatever else the machine does is shared; what two processes reach by the clock
is told beside them. The loop in torch has its rows scaled beforehand, as the cohort engine has.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from edge_client.local_training import local_trainer, train_block
from models.closed_form_batches import ScaledRows
from models.network_shape import NUM_WEIGHTS
from models.training.local_epochs import LocalNetwork, local_steps, new_flat_weights
from models.wire.rounds import LocalRecipe, RoundTask
from privacy import UpdateGrid
from privacy.dp_sgd import make_private
from privacy.poisson_sampling import poisson_batches
from simulations.cohort_engine import CohortProcesses, CohortTraining, FastSeededNoise
from simulations.seeded_noise import SeededNoise
from simulations.training_row_files import write_row_files
from tests.support.figures import Figures
from tests.support.made_up_rows import made_up_rows
from tests.support.system_parts import REPOSITORY

FIGURES = Figures("simulation")
COHORT, ROWS, LOOPED, TURNS = 500, 64, 10, 7
GRID = UpdateGrid(clipping_norm=0.5)
PRIVATE = LocalRecipe(
    steps=5,
    sampling_rate=0.5,
    expected_batch_size=32,
    learning_rate=0.1,
    least_rows=1,
    record_noise_multiplier=1.0,
)
PLAIN = replace(PRIVATE, record_noise_multiplier=0.0)
TABLES = [made_up_rows(ROWS, seed=seed) for seed in range(COHORT)]
SCALED = [ScaledRows.of(rows) for rows in TABLES]
WEIGHTS = new_flat_weights(seed=1)
NAMES = {"plain SGD": PLAIN, "DP-SGD": PRIVATE}


class TorchLoop:
    """One device after the other, through Opacus where rows are private."""

    def __init__(self, recipe):
        self.recipe = recipe
        self.network = LocalNetwork(learning_rate=recipe.learning_rate / recipe.expected_batch_size)
        self.rows = [self.network.scale(rows) for rows in TABLES[:LOOPED]]
        self.pair = None
        if recipe.is_record_private:
            self.pair = make_private(
                self.network.module,
                self.network.optimizer,
                noise_multiplier=recipe.record_noise_multiplier,
                max_grad_norm=recipe.record_max_grad_norm,
            )

    def __call__(self):
        total = np.zeros(NUM_WEIGHTS, np.int64)
        trained = self.pair or self.network
        for number, rows in enumerate(self.rows):
            source = SeededNoise(1, "device", number)
            if self.pair:
                self.pair.draw_from(source)
            self.network.load(WEIGHTS)
            coins = poisson_batches(
                ROWS,
                sampling_rate=self.recipe.sampling_rate,
                steps=self.recipe.steps,
                source=source,
            )
            local_steps(trained.module, trained.optimizer, rows, coins)
            total += GRID.contribution(self.network.weights().astype(np.float64) - WEIGHTS)
        return total


def cohort(recipe, kind, count=COHORT):
    devices = ((SCALED[n % COHORT], kind(1, "device", n)) for n in range(count))
    return CohortTraining(recipe).contributions(devices, weights=WEIGHTS, grid=GRID)


def one_by_one(recipe):
    devices = [(rows, SeededNoise(1, "device", n)) for n, rows in enumerate(TABLES)]
    return train_block(local_trainer(recipe), devices, weights=WEIGHTS, grid=GRID)


def rate(train, count):
    """Devices a second of processor time."""
    began = time.process_time()
    assert train().any()
    return count / (time.process_time() - began)


def told(name, values, *, target=None, unit="devices a second of processor time", against=None):
    FIGURES.add(
        name,
        statistics.median(values),
        unit=unit,
        target=target,
        better="higher",
        spread=(min(values), max(values)),
        against=against,
    )
    return statistics.median(values)


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [("plain SGD", SeededNoise, 20.0), ("DP-SGD", FastSeededNoise, 35.0)],
)
def test_cohort_against_a_loop_in_torch(name, kind, target):
    recipe = NAMES[name]
    loop = TorchLoop(recipe)
    ways = {
        "loop": (loop, LOOPED),
        "cohort": (lambda: cohort(recipe, kind), COHORT),
        "devices": (lambda: one_by_one(recipe), COHORT),
    }
    if kind is not SeededNoise:
        ways["seeded"] = (lambda: cohort(recipe, SeededNoise), COHORT)
    rates = {way: [] for way in ways}
    for turn in range(TURNS + 1):
        for way in list(ways)[:: 1 if turn % 2 else -1]:
            measured = rate(*ways[way])
            if turn > 0:
                rates[way].append(measured)
    noise = "" if recipe is PLAIN else ", float32 Gaussians of SFC64"
    peer = "sequential loop in torch" + ("" if recipe is PLAIN else " with Opacus")
    slow = statistics.median(rates["loop"])
    ratios = {
        way: [fast / one for fast, one in zip(rates[way], rates["loop"], strict=True)]
        for way in ways
        if way != "loop"
    }
    against = f"{peer}, {slow:.0f} devices a second of processor time, in turns"
    reached = told(
        f"cohort engine, {name}{noise}: over a loop in torch",
        ratios["cohort"],
        unit="times",
        target=target,
        against=against,
    )
    if "seeded" in ratios:
        told(
            f"cohort engine, {name}, numbers of SeededNoise: over a loop in torch",
            ratios["seeded"],
            unit="times",
            against=against,
        )
    told(
        f"closed form, products one a device, {name}: over a loop in torch",
        ratios["devices"],
        unit="times",
        against=f"{against}; scales its rows each time",
    )
    told(f"cohort engine, {name}{noise}", rates["cohort"])
    assert reached >= target


@pytest.mark.parametrize("name", NAMES)
def test_throughput_of_larger_cohorts(name):
    ratios = []
    for _ in range(TURNS):
        small = rate(lambda: cohort(NAMES[name], FastSeededNoise), COHORT)
        large = rate(lambda: cohort(NAMES[name], FastSeededNoise, 4 * COHORT), 4 * COHORT)
        ratios.append(large / small)
    reached = told(
        f"cohort engine, {name}: throughput at {4 * COHORT:,} devices over {COHORT}",
        ratios,
        unit="times",
        target=0.8,
    )
    assert reached >= 0.8


def test_two_processes_by_the_clock(tmp_path):
    rows = made_up_rows(ROWS, num_devices=COHORT, seed=1)
    ids = tuple(f"device-{number}" for number in range(COHORT))
    write_row_files(tmp_path, device_ids=ids, rows=rows, num_blocks=2)
    sums = {}
    for number in (1, 2):
        began = time.perf_counter()
        with CohortProcesses(
            tmp_path, seed=1, num_processes=number, has_fast_noise=True
        ) as processes:
            for name, recipe in NAMES.items():
                task = RoundTask(
                    stream="s",
                    index=0,
                    clipping_norm=GRID.clipping_norm,
                    cohort_size=COHORT,
                    device_ids=ids,
                    recipe=recipe,
                )
                totals = [processes.sum_of(task, WEIGHTS)]
                if name == "plain SGD":
                    FIGURES.add(
                        f"cohort engine, {number} processes: start and first round",
                        time.perf_counter() - began,
                        unit="s",
                        target=1.0,
                        better="lower",
                    )
                rates = []
                for _ in range(TURNS):
                    began = time.perf_counter()
                    totals.append(processes.sum_of(task, WEIGHTS))
                    rates.append(COHORT / (time.perf_counter() - began))
                told(
                    f"cohort engine, {name}, {number} processes, rows from disk",
                    rates,
                    unit="devices a second by the clock",
                )
                assert all(np.array_equal(total, totals[0]) for total in totals)
                sums.setdefault(name, []).append(totals[0])
    assert all(np.array_equal(one, two) for one, two in sums.values())


ALONE = f"""
from pathlib import Path
import numpy as np
from models.closed_form_batches import ScaledRows
from models.network_shape import NUM_WEIGHTS
from models.wire.rounds import LocalRecipe
from privacy import UpdateGrid
from simulations.cohort_engine import CohortTraining, FastSeededNoise
from tests.support.made_up_rows import made_up_rows
rows = [ScaledRows.of(made_up_rows({ROWS}, seed=seed)) for seed in range({COHORT})]
recipe = LocalRecipe(steps=5, sampling_rate=0.5, expected_batch_size=32, least_rows=1)
weights = np.random.default_rng(1).normal(0, 0.2, NUM_WEIGHTS).astype(np.float32)
CohortTraining(recipe).contributions(
    ((one, FastSeededNoise(1, n)) for n, one in enumerate(rows)),
    weights=weights,
    grid=UpdateGrid(clipping_norm=0.5),
)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def test_memory_of_a_process_that_trains():
    said = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    peak = int(said) * 1024 / 1e6
    FIGURES.add(
        "cohort engine, DP-SGD: memory of a process, rows included",
        peak,
        unit="MB",
        target=200.0,
        better="lower",
        against=f"{COHORT} devices of {ROWS} rows",
    )
    assert peak <= 200
