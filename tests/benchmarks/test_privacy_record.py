"""How much faster is a step of DP-SGD in closed form than through Opacus' hooks?

The real network, 32 rows, clipping, noise and the step itself, from one kind of source: the
operating system's entropy, as on a device, and a seeded one, as in simulations. The two take turns
in one run and are timed by the processor's clock, so that whatever else the machine does is shared.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from models.closed_form import clipped_sums
from models.closed_form_batches import RaggedBatch, ScaledRows
from models.network_shape import NUM_WEIGHTS
from models.training.local_epochs import LocalNetwork, local_steps, new_flat_weights
from privacy import OperatingSystemNoise
from privacy.dp_sgd import make_private
from simulations.seeded_noise import SeededNoise
from tests.support.figures import Figures
from tests.support.made_up_rows import made_up_rows

FIGURES = Figures("privacy")
BATCH = 32
ROUNDS, STEPS_A_ROUND = 15, 20
DEVICES, ROWS_A_DEVICE = 200, 100
RATE, SIGMA, BOUND = 0.01, 1.25, 1.0


class HookedStep:
    """A step as Opacus takes it."""

    def __init__(self, weights, rows, source):
        network = LocalNetwork(learning_rate=RATE)
        network.load(weights)
        self.rows = network.scale(rows)
        self.pair = make_private(
            network.module,
            network.optimizer,
            noise_multiplier=SIGMA,
            max_grad_norm=BOUND,
            source=source,
        )

    def __call__(self, picked):
        local_steps(self.pair.module, self.pair.optimizer, self.rows, [picked])


class ClosedFormStep:
    """The same step in NumPy, weights included."""

    def __init__(self, weights, rows, source):
        self.weights = weights.copy()
        self.rows = ScaledRows.of(rows)
        self.source = source

    def __call__(self, picked):
        batch = RaggedBatch.picked(self.rows, [picked])
        total = clipped_sums(self.weights[None], batch, max_grad_norm=BOUND)[0]
        total += self.source.gaussian(NUM_WEIGHTS, std=SIGMA * BOUND)
        self.weights = (self.weights - RATE * total).astype(np.float32)


def seconds_a_step(step, batches):
    began = time.process_time()
    for picked in batches:
        step(picked)
    return (time.process_time() - began) / len(batches)


@pytest.mark.parametrize(
    ("noise", "source"),
    [("the operating system's", OperatingSystemNoise()), ("seeded", SeededNoise(1))],
)
def test_closed_form_step_is_eight_times_as_fast_as_hooks(noise, source):
    weights, rows = new_flat_weights(seed=1), made_up_rows(365, seed=3)
    generator = np.random.default_rng(1)
    hooked, closed = HookedStep(weights, rows, source), ClosedFormStep(weights, rows, source)
    took = {"hooked": [], "closed": []}
    for number in range(ROUNDS + 1):
        batches = [generator.choice(365, BATCH, replace=False) for _ in range(STEPS_A_ROUND)]
        in_turn = [("hooked", hooked), ("closed", closed)]
        for name, step in in_turn if number % 2 else in_turn[::-1]:
            seconds = seconds_a_step(step, batches)
            if number > 0:
                took[name].append(seconds)
    ratios = [slow / fast for slow, fast in zip(took["hooked"], took["closed"], strict=True)]
    FIGURES.add(
        f"closed-form DP-SGD step, batch 32, {noise} noise: speed over Opacus' hooks",
        statistics.median(ratios),
        unit="times",
        target=8.0,
        better="higher",
        spread=(min(ratios), max(ratios)),
        against=f"Opacus' hooks, {1e6 * statistics.median(took['hooked']):.0f} µs of processor "
        "time a step, same rows, same source, in turns",
    )
    FIGURES.add(
        f"closed-form DP-SGD step, batch 32, {noise} noise",
        1e6 * statistics.median(took["closed"]),
        unit="µs of processor time",
        target=None,
        better="lower",
        spread=(1e6 * min(took["closed"]), 1e6 * max(took["closed"])),
    )
    assert statistics.median(ratios) >= 8.0


def test_many_devices_side_by_side_cost_little_each():
    rows = ScaledRows.of(made_up_rows(ROWS_A_DEVICE, num_devices=DEVICES, seed=4))
    weights = new_flat_weights(seed=1)[None]
    picks = [np.arange(ROWS_A_DEVICE) + ROWS_A_DEVICE * device for device in range(DEVICES)]
    took = []
    for _ in range(9):
        began = time.perf_counter()
        sums = clipped_sums(weights, RaggedBatch.picked(rows, picks), max_grad_norm=BOUND)
        took.append(1e6 * (time.perf_counter() - began) / DEVICES)
    FIGURES.add(
        f"clipped gradient sum of a device with {ROWS_A_DEVICE} rows, {DEVICES} side by side",
        statistics.median(took),
        unit="µs",
        target=None,
        better="lower",
        spread=(min(took), max(took)),
    )
    assert np.isfinite(sums).all()
