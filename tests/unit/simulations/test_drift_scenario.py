"""The scenario `drift` is seen in features that another seed of the reference leaves alone."""

import numpy as np
import pytest

from models.featurize import featurize
from models.private_histograms import drift_question, spread_of
from simulations import load_scenario, simulate_fleet

DEVICES, DAYS = 200, 270
# Population stability: below 0.1 is taken as no change, above 0.25 as a change to act on.
CHANGED = 0.25


def rows(name, *, seed):
    """Features of the last 30 days of a fleet."""
    recipe = load_scenario(name).recipe
    fleet = simulate_fleet(num_devices=DEVICES, num_days=DAYS, seed=seed, recipe=recipe)
    table = featurize(fleet.telemetry, fleet.profiles)
    late = table.as_of_s > fleet.truth.day_start_s[-30]
    return table.features[table.is_ok() & late]


def stability(question, expected, seen):
    """Return the population stability index of each feature."""
    found = {}
    for name, shares in spread_of(question, expected).items():
        one = np.maximum(shares, 1e-3)
        other = np.maximum(spread_of(question, seen)[name], 1e-3)
        found[name] = float(((other - one) * np.log(other / one)).sum())
    return found


@pytest.mark.slow
def test_drift_is_seen_and_the_reference_fleet_is_not():
    expected = rows("reference", seed=21)
    question = drift_question(expected, as_of_s=0)

    usual = stability(question, expected, rows("reference", seed=22))
    drifted = stability(question, expected, rows("drift", seed=22))

    assert max(usual.values()) < CHANGED
    assert sum(value > CHANGED for value in drifted.values()) >= 2
