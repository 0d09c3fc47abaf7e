"""Make fleet_bits.json: digests of simulated fleets, and a few of their values.

    .venv/bin/python -m tests.golden.make_fleet_bits

All but the last were written by the simulator of version 0.1.0 before it knew more than one
chemistry. A fleet that a recipe names keeps its bits for ever: bundles, studies and model cards
name fleets by recipe and seed. Bits depend on the processor's exp, log, cos and cbrt too, so the
file holds a fingerprint of theirs; elsewhere the values must agree closely.
"""

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from models.telemetry import SECONDS_PER_DAY
from simulations import FleetRecipe
from simulations.fleet import simulate_devices

TARGET = Path(__file__).with_name("fleet_bits.json")
DEVICES, DAYS = 48, 240
VALUES_ON = (0, 60, 150, 239)
RECIPES = {
    "default": {},
    "worn": {"fade_scale": 2.0, "resistance_prone_share": 0.3, "swelling_a_year": 0.9},
    "laboratory-like": {
        "efc_median": 1.2,
        "efc_sigma": 0.4,
        "gauge_noise": 0.002,
        "gauge_step": 0.0,
        "cadence_h": 24,
        "aged_share": 0.2,
    },
    "untidy": {
        "cadence_h": 12,
        "missing_value_share": 0.1,
        "outage_interval_days": 20.0,
        "clock_fault_interval_days": 30.0,
        "duplicate_share": 0.05,
        "reboot_interval_days": 40.0,
        "relearn_interval_days": 15.0,
        "warming_c": 6.0,
    },
    "four chemistries that change": {
        "device_model_mix": "tracker=0.3,meter=0.3,scanner=0.2,station=0.2",
        "user_changes_a_year": 2.0,
        "new_model": "gateway",
        "new_model_share": 0.2,
        "new_model_from_day": 60.0,
        "past_knee_share": 0.8,
        "knee_soh_mean": 0.93,
        "fade_scale": 1.5,
    },
}


def numerics():
    """Return a fingerprint of the functions that round differently from machine to machine."""
    x = np.linspace(0.01, 30.0, 20_001)
    digest = hashlib.sha256()
    for function in (np.exp, np.log, np.cos, np.cbrt, np.sqrt):
        digest.update(function(x).tobytes())
    return digest.hexdigest()


def fleet_of(settings):
    """Simulate the fleet of a recipe, with two packs replaced after a notice."""
    recipe = FleetRecipe.of(settings)
    notices = np.full(DEVICES, np.nan)
    notices[[5, 17]] = recipe.start_at.timestamp() + 70.3 * SECONDS_PER_DAY
    return simulate_devices(
        np.arange(100, 100 + DEVICES),
        num_days=DAYS,
        seed=2024,
        recipe=recipe,
        notice_replacements_s=notices,
    )


def digests_of(fleet):
    """Return a digest of each part of a fleet."""
    truth = replace(fleet.truth, packs=None)
    parts = {
        "telemetry": [fleet.telemetry.offsets, fleet.telemetry.at_s, fleet.telemetry.values],
        "profiles": [getattr(fleet.profiles, f.name) for f in fields(fleet.profiles)],
        "outcomes": [
            fleet.outcomes.observed_until_s,
            fleet.outcomes.failed_at_s,
            fleet.outcomes.primary_cause,
        ],
        "truth": [getattr(truth, f.name) for f in fields(truth) if f.name != "packs"],
        "packs": [getattr(fleet.truth.packs, f.name) for f in fields(fleet.truth.packs)],
    }
    return {name: _digest(arrays) for name, arrays in parts.items()}


def _digest(arrays):
    digest = hashlib.sha256()
    for array in arrays:
        if array.dtype == object:
            digest.update(json.dumps(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def values_of(fleet):
    """Return some values that another machine must nearly agree with."""
    capacity = fleet.truth.capacity_mah[:, VALUES_ON].astype(float)
    return {
        "readings": len(fleet.telemetry),
        "packs": len(fleet.truth.packs),
        "capacity_mah": np.where(np.isnan(capacity), -1.0, np.round(capacity, 2)).tolist(),
    }


def main():
    """Write the file."""
    golden = {"numerics": numerics(), "fleets": {}}
    for name, settings in RECIPES.items():
        fleet = fleet_of(settings)
        golden["fleets"][name] = {"digests": digests_of(fleet), "values": values_of(fleet)}
    TARGET.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
