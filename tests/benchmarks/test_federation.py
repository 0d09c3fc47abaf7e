"""What federation costs against central training, and what noise costs on top, from random weights.

One simulated fleet of 2,000 devices with rule labels, as devices make them; judged on those that
never train. The rounds are real Flower runs and take some minutes.
"""

from __future__ import annotations

import statistics
from datetime import UTC, datetime

import pytest

from models.training.central import train_centrally
from models.training.export_onnx import parameters_of
from server.engine.quality_looks import HeldOutPart
from simulations.fleet_rows import fleet_rows
from simulations.fleet_writing import write_simulated_fleet
from simulations.recipe import FleetRecipe
from simulations.rounds import run_rounds
from simulations.rounds_recipes import plan_for
from tests.support.figures import Figures

FIGURES = Figures("model")
NUM_DEVICES, NUM_DAYS = 2_000, 600
CENTRAL_SEEDS = (0, 1, 2)
CENTRAL_STEPS = 1_500
ROUNDS, COHORT = 200, 320
PRIVATE_ROUNDS = 4
DELTA = 1e-8


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation") / "fleet"
    write_simulated_fleet(
        folder,
        num_devices=NUM_DEVICES,
        num_days=NUM_DAYS,
        seed=11,
        recipe=FleetRecipe(),
        on_devices_done=lambda _: None,
    )
    return fleet_rows(folder)


def _rounds(rows, out, **decided):
    """Run rounds from random weights; return the last look at the held-out part and the report."""
    plan = plan_for(delta=DELTA, is_warm=False, seed=0, **decided)
    few = rows.held_out.take(slice(5000))
    report = run_rounds(rows, out, plan, clock=lambda: datetime.now(UTC), reference=few).report
    return report["rounds"][-1]["metrics"]["average_precision"], report


def test_rounds_from_random_weights_come_near_central_training(rows, tmp_path):
    look = HeldOutPart(rows.held_out)
    networks = [
        train_centrally(rows.training, seed=seed, num_steps=CENTRAL_STEPS) for seed in CENTRAL_SEEDS
    ]
    central = [look.metrics(parameters_of(network).flat()) for network in networks]
    reached = [metrics["average_precision"] for metrics in central]
    without_noise, _ = _rounds(
        rows,
        tmp_path / "without noise",
        num_rounds=ROUNDS,
        cohort_size=COHORT,
        epsilon=None,
        is_record_private=False,
        evaluate_every=ROUNDS,
    )
    with_noise, report = _rounds(
        rows,
        tmp_path / "with noise",
        num_rounds=PRIVATE_ROUNDS,
        cohort_size=None,
        epsilon=2.0,
        is_record_private=True,
        evaluate_every=PRIVATE_ROUNDS,
    )
    privacy, prevalence = report["privacy"], central[0]["prevalence"]
    noise = (
        f"{PRIVATE_ROUNDS} rounds of all devices, σ = {privacy['noise_multiplier']:.2f}, "
        f"δ = {DELTA:g}, ε_record = {privacy['record_epsilon']:.1f}"
    )
    FIGURES.add(
        "central training, rule labels: average precision on held-out devices",
        statistics.median(reached),
        unit=f"average precision at a prevalence of {prevalence:.4f}",
        target=None,
        better="higher",
        spread=(min(reached), max(reached)),
    )
    for name, value, target in (
        (f"{ROUNDS} rounds of {COHORT} devices without noise", without_noise, 0.05),
        (f"epsilon = 2, {noise}", with_noise, None),
    ):
        FIGURES.add(
            f"federated from random weights, {name}: average precision below central",
            statistics.median(reached) - value,
            unit="average precision",
            target=target,
            better="lower",
            spread=(min(reached) - value, max(reached) - value),
            against="the same network trained centrally on the same rows; 3 seeds",
        )
    assert statistics.median(reached) - without_noise <= 0.05
