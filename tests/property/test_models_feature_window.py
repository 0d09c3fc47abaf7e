"""Features from closed days and what came since, against features from all readings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.feature_window import FeatureWindow, features_now
from models.featurize import featurize_now
from models.telemetry import Telemetry
from tests.support.examples import examples
from tests.support.fleets import DAY, START_S, profiles, random_life

NUM_MOMENTS = 12


def disturbed(life, rng):
    """Swap neighbours, repeat readings, set the clock wrong for some, and fall silent for long."""
    keep = np.ones(len(life), bool)
    if rng.random() < 0.3:
        silent_from = START_S + rng.uniform(20, 100) * DAY
        keep &= (life.at_s < silent_from) | (life.at_s > silent_from + rng.uniform(20, 120) * DAY)
    life = life.rows(keep)
    order = np.arange(len(life))
    at_s = life.at_s.copy()
    for _ in range(rng.integers(0, 4)):
        first = rng.integers(0, max(len(life) - 1, 1))
        order[first : first + 2] = order[first : first + 2][::-1]
    for _ in range(rng.integers(0, 3)):
        at_s[rng.integers(len(at_s))] += round(rng.choice([-1, 1]) * rng.uniform(0.1, 900) * DAY)
    values = life.values[order]
    return life.at_s, Telemetry(life.device_ids, life.offsets, at_s[order], values)


def after(life, window, *, num_seen, num_known):
    """Return what a store gives: readings after the window, None where one lies before its end."""
    known = life.at_s[:num_known]
    if window is None or (known[num_seen:] <= window.closed_until_s).any():
        return None
    rows = np.arange(len(life)) < num_known
    return life.rows(rows & (life.at_s > window.closed_until_s))


def same(one, other):
    assert one.status.tolist() == other.status.tolist()
    assert one.pack.tolist() == other.pack.tolist()
    assert one.pack_since_s.tolist() == other.pack_since_s.tolist()
    for name in (
        "features",
        "capacity_mah",
        "capacity_reference_mah",
        "charge_reference_min",
        "resistance_reference_mohm",
    ):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-6, nan_ok=True), name


@pytest.mark.slow
@settings(max_examples=examples(10))
@given(st.integers(0, 2**32 - 1))
def test_a_window_gives_the_features_of_all_readings(seed):
    rng = np.random.default_rng(seed)
    recorded_at_s, life = disturbed(random_life(seed, days=int(rng.integers(20, 260))), rng)
    owner = profiles()
    window, num_seen, used = None, 0, 0
    moments = START_S + rng.integers(0, recorded_at_s[-1] - START_S, NUM_MOMENTS)
    moments[::5] = -(-moments[::5] // DAY) * DAY
    moments = np.concatenate([moments, *(moments + hours * 3600 for hours in (2, 7))])
    for now_s in np.sort(moments).tolist():
        num_known = int(np.count_nonzero(recorded_at_s <= now_s))
        known = life.rows(np.arange(len(life)) < num_known)
        if not len(known):
            continue
        readings = after(life, window, num_seen=num_seen, num_known=num_known)
        used += readings is not None
        if readings is None:
            window = None
        table, kept = features_now(
            known if readings is None else readings, owner, now_s=now_s, window=window
        )
        same(table, featurize_now(known, owner, now_s=now_s))
        if kept is not window:
            num_seen = num_known
        window = None if kept is None else FeatureWindow.from_bytes(kept.to_bytes())
        assert (kept is None) == (window is None)
    assert used or len(life) < 50 or not (np.diff(life.at_s) > 0).all()


def test_bytes_of_another_format_are_no_window():
    assert FeatureWindow.from_bytes(b"") is None
    assert FeatureWindow.from_bytes(b'{"format": 2}\n') is None
    assert FeatureWindow.from_bytes(b'{"format": 1, "num_days": 5, "num_anchors": 1}\nabc') is None
