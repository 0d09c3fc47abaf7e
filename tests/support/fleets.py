"""Small fleets for tests: readings by hand, a simulated fleet, and bundles without training."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from models.bundle import Bundle
from models.calibration import Calibration
from models.model_card import ModelCard, public_data_statement
from models.telemetry import (
    COLUMN,
    MEASUREMENTS,
    SECONDS_PER_DAY,
    DeviceProfiles,
    Telemetry,
)
from models.training_rows import TrainingRows, first_packs, training_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.training.network import HazardNetwork
    from simulations.fleet import SimulatedFleet

DAY = SECONDS_PER_DAY
START_S = 1_767_225_600  # 2026-01-01T00:00Z
DESIGN_MAH = 3000.0
END_OF_LIFE_MAH = 2400.0

SHORT = {
    "capacity": "full_charge_capacity_mah",
    "cycles": "charge_cycle_count",
    "charge": "charge_duration_min",
    "temp_max": "battery_temp_max_c",
    "temp_avg": "battery_temp_avg_c",
    "shutdowns": "unexpected_shutdown_count",
    "usage": "usage_hours",
    "resistance": "internal_resistance_mohm",
}


def times(days: float, *, per_day: int = 4, start_s: int = START_S) -> NDArray[np.int64]:
    """Return evenly spaced reading times that end at midnight after `days` days."""
    count = round(days * per_day)
    return start_s + np.arange(1, count + 1, dtype=np.int64) * DAY // per_day


def days_of(at_s: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return days since the start."""
    return (at_s - START_S) / DAY


def readings(at_s: NDArray[np.int64], *, device_id: str = "d0", **channels: object) -> Telemetry:
    """Make one device's readings; a channel is an array, one number for all, or left out."""
    values = np.full((len(at_s), len(MEASUREMENTS)), np.nan, np.float32)
    for short, data in channels.items():
        values[:, COLUMN[SHORT[short]]] = data
    at_s = np.asarray(at_s, np.int64)
    return Telemetry((device_id,), np.array([0, len(at_s)], np.int64), at_s, values)


def together(*tables: Telemetry) -> Telemetry:
    """Stack the readings of several devices."""
    counts = [len(table) for table in tables]
    return Telemetry(
        tuple(name for table in tables for name in table.device_ids),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([table.at_s for table in tables]),
        np.concatenate([table.values for table in tables]),
    )


def profiles(
    count: int = 1,
    *,
    design: float = DESIGN_MAH,
    end_of_life: float = END_OF_LIFE_MAH,
    manufactured_at_s: int = START_S - 10 * DAY,
) -> DeviceProfiles:
    """Make equal profiles named d0, d1, ..."""

    def text(value: str) -> NDArray[np.object_]:
        return np.full(count, value, dtype=object)

    return DeviceProfiles(
        device_id=np.array([f"d{i}" for i in range(count)], dtype=object),
        device_model=text("Meter 3"),
        chemistry=text("NMC111"),
        design_capacity_mah=np.full(count, design),
        end_of_life_capacity_mah=np.full(count, end_of_life),
        manufactured_at_s=np.full(count, manufactured_at_s, np.int64),
        region=text("north"),
        climate=text("temperate"),
        criticality=text("medium"),
    )


def random_life(seed: int, *, days: int = 130, device_id: str = "d0") -> Telemetry:
    """Make an untidy life: own cadence, gaps, missing values, resets, perhaps a new pack.

    Readings are in the order of time; channels may be absent.
    """
    rng = np.random.default_rng(seed)
    cadence = float(rng.choice([0.15, 0.25, 0.4, 1.0, 2.3]))
    steps = cadence * rng.uniform(0.6, 1.4, round(days / cadence))
    steps[rng.random(len(steps)) < 0.02] += rng.uniform(1, 12)
    day = np.cumsum(steps)
    at_s = START_S + np.unique(np.round(day * DAY).astype(np.int64))
    day = days_of(at_s)
    changed = rng.uniform(30, 100) if rng.random() < 0.4 else np.inf
    own_day = np.where(day >= changed, day - changed, day)
    fresh = np.where(day >= changed, 1.0, rng.uniform(0.85, 1.0))
    fade = rng.uniform(0.0, 0.002)
    count = len(at_s)
    step = rng.choice([1.0, 30.0])
    capacity = DESIGN_MAH * (fresh - fade * own_day) * (1 + 0.005 * rng.standard_normal(count))
    shutdowns = np.cumsum(rng.random(count) < 0.02).astype(float)
    cycles = np.floor(own_day * rng.uniform(0.2, 1.5)) + np.where(day < changed, 90.0, 0.0)
    if rng.random() < 0.3:
        reset = rng.integers(count)
        cycles[reset:] = np.maximum(cycles[reset:] - cycles[reset], 0)
        shutdowns[reset:] -= shutdowns[reset]
    table = readings(
        at_s,
        device_id=device_id,
        capacity=np.round(capacity / step) * step,
        cycles=cycles,
        charge=60 + 0.2 * own_day + rng.normal(0, 2, count),
        temp_max=30 + rng.normal(0, 4, count),
        temp_avg=24 + rng.normal(0, 2, count),
        shutdowns=shutdowns,
        usage=rng.uniform(0, 24 * min(cadence, 1), count),
        resistance=80 * (1 + 0.003 * own_day) + rng.normal(0, 1, count),
    )
    values = table.values
    values[rng.random(values.shape) < rng.choice([0.0, 0.05, 0.4])] = np.nan
    values[:, rng.random(len(MEASUREMENTS)) < 0.15] = np.nan
    return table


@cache
def simulated_fleet() -> SimulatedFleet:
    """Simulate 60 devices for 260 days: untidy readings, several failures, new packs."""
    from dataclasses import replace

    from simulations import FleetRecipe, simulate_fleet

    recipe = replace(FleetRecipe(), fade_scale=1.5, resistance_prone_share=0.2)
    return simulate_fleet(num_devices=60, num_days=260, seed=3, recipe=recipe)


@cache
def simulated_rows() -> TrainingRows:
    """Return training rows of the simulated fleet, by the truth of its first packs."""
    from models.featurize import featurize

    fleet = simulated_fleet()
    table = featurize(fleet.telemetry, fleet.profiles)
    return training_rows(table, first_packs(fleet.outcomes), max_rows=None, least_rows=1)


def random_network(seed: int, *, gain: float = 1.0) -> HazardNetwork:
    """Make a network whose head is not flat, so that its outputs differ from row to row."""
    import torch

    from models.training.network import HazardNetwork

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = HazardNetwork()
        torch.nn.init.normal_(network.head.weight, std=0.5 * gain)
        torch.nn.init.normal_(network.head.bias, std=0.5 * gain)
        with torch.no_grad():
            for parameter in network.trunk.parameters():
                parameter.mul_(gain)
    return network


CARD = ModelCard(
    title="A card for tests",
    purpose="None.",
    trained_on=("nothing",),
    metrics={},
    privacy=public_data_statement({"nothing": "0" * 64}),
    limits=("random weights",),
)


@cache
def random_bundle(seed: int = 1) -> Bundle:
    """Build an unsigned bundle of random weights whose threshold splits the simulated rows."""
    from models.training.export_onnx import parameters_of
    from models.training.recipe import TrainedModel, bundle_of

    rows = simulated_rows()
    model = TrainedModel(parameters_of(random_network(seed)), Calibration(scale=1.2), 0.5)
    threshold = float(np.quantile(model.probability(rows.features[:2000]), 0.9))
    model = TrainedModel(model.parameters, model.calibration, threshold)
    return bundle_of(model, rows, name="random", card=CARD)
