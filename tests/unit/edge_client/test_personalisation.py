"""What is learnt is kept, fits one pack, is handed on to a new model, and bends nothing else."""

import json
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from edge_client.personalisation.in_force import FACT, own_log_factor
from edge_client.personalisation.learning import PARAMETERS, kept_state, learn, reset
from edge_client.telemetry_store import TelemetryStore
from models.feature_spec import FEATURE_NAMES, FEATURE_SPEC_VERSION, NUM_FEATURES
from tests.support.edge_devices import NOW, new_store

MARGIN = FEATURE_NAMES.index("health_margin_fitted_30d")
FIRST_VERSION = """
{
 "format": 1,
 "model_digest": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
 "feature_spec_version": "1",
 "pack_since_s": 1700000000,
 "log_factor": -0.7,
 "same_from_day": 20661.0,
 "same_until_day": 20675.0,
 "parameters": [
  -0.7,
  0.10387648938596249,
  0.024705468885617123,
  4.0,
  0.0,
  0.0,
  0.0
 ],
 "waiting": [
  20661.0,
  0.7879999876022339,
  null,
  1800.0
 ]
}
"""


def table_of(margin, *, pack_since_s=1_700_000_000):
    features = np.full((1, NUM_FEATURES), np.nan, np.float32)
    features[0, MARGIN] = margin
    return SimpleNamespace(features=features, pack_since_s=np.array([pack_since_s]))


def taught(store, *, days=60, digest="a" * 64, start=0, says=1800.0, **pack):
    """Let the device wear four times as fast as forecast; returns the last factor."""
    found = 0.0
    for day in range(start, start + days, 2):
        found = own_log_factor(
            store,
            table_of(0.9 - 0.002 * day, **pack),
            says,
            model_digest=digest,
            now=NOW + timedelta(days=day),
        )
    return found


def test_what_is_learnt_survives_a_restart(tmp_path):
    with new_store(tmp_path) as store:
        factor = taught(store)
        path = store.path
    with TelemetryStore(path) as again:
        state = kept_state(again)

        assert factor < -0.2
        assert state.log_factor == factor
        assert state.num_judged >= 2
        assert taught(again, start=60, days=30) <= factor
        assert kept_state(again).num_judged > state.num_judged


def test_at_most_eight_parameters():
    assert len(PARAMETERS) <= 8


def test_a_new_pack_begins_anew_under_whatever_model(tmp_path):
    for name, digest in (("same", "a" * 64), ("new", "b" * 64)):
        (tmp_path / name).mkdir()
        with new_store(tmp_path / name) as store:
            later = 1_700_000_000 + 3 * 86_400

            assert taught(store) < 0
            assert taught(store, start=60, days=2, digest=digest, pack_since_s=later) == 0.0
            assert kept_state(store).num_judged == 0


def test_a_new_bundle_every_four_weeks_forgets_nothing(tmp_path):
    with new_store(tmp_path) as store:
        found = [taught(store, start=28 * k, days=28, digest=f"{k:064}") for k in range(6)]
        state = kept_state(store)

    assert found[-1] < -0.4
    assert found == sorted(found, reverse=True)
    assert state.model_digest == f"{5:064}"
    assert state.num_judged >= 8


def test_bundles_that_take_turns_for_a_day_cost_what_one_new_bundle_costs(tmp_path):
    def predicted(store, digest, says):
        table = table_of(0.9 - 0.002 * 59)
        when = NOW + timedelta(days=59)
        own_log_factor(store, table, says, model_digest=digest, now=when)
        return kept_state(store).correction

    with new_store(tmp_path) as store:
        before = taught(store)
        once = predicted(store, "b" * 64, 1750.0)
        for _ in range(20):
            predicted(store, "a" * 64, 1800.0)
            last = predicted(store, "b" * 64, 1750.0)
        assert np.array(last) == pytest.approx(np.array(once))
        assert float(last.log_factor[0]) == pytest.approx(before)

        # Two weeks later a new model is a new model again.
        reduced_day = kept_state(store).reduced_day
        taught(store, start=74, days=2, digest="c" * 64)
        assert kept_state(store).reduced_day == reduced_day + 15


def test_a_new_bundle_that_is_right_is_not_corrected_by_what_was_learnt_of_the_old(tmp_path):
    with new_store(tmp_path) as store:
        assert taught(store, days=90) < -0.4
        assert taught(store, start=90, days=2, digest="b" * 64, says=360.0) == 0.0


def test_a_bundle_unlike_the_one_before_or_other_features_begin_anew(tmp_path):
    with new_store(tmp_path) as store:
        taught(store)
        assert taught(store, start=60, days=2, digest="b" * 64, says=100.0) == 0.0
        assert kept_state(store).num_judged == 0
        taught(store, start=62, says=1800.0)
        kept = store.fact(FACT)
        store.keep_fact(FACT, kept | {"feature_spec_version": "0"})
        assert taught(store, start=122, days=2, digest="b" * 64) == 0.0


def test_what_the_first_version_kept_is_read_and_handed_on(tmp_path):
    kept = json.loads(FIRST_VERSION) | {"feature_spec_version": FEATURE_SPEC_VERSION}
    with new_store(tmp_path) as store:
        store.keep_fact(FACT, kept)
        state = kept_state(store)

        assert state.log_factor == kept["log_factor"]
        assert taught(store, start=58, days=2, digest="a" * 64) <= kept["log_factor"]
        store.keep_fact(FACT, kept)
        assert taught(store, start=60, days=2, digest="b" * 64) < -0.2


def test_an_earlier_first_reading_of_the_same_pack_does_not(tmp_path):
    with new_store(tmp_path) as store:
        factor = taught(store)

        assert taught(store, start=60, days=2, pack_since_s=1_690_000_000) <= factor


def test_reset_forgets_and_says_whether_there_was_anything(tmp_path):
    with new_store(tmp_path) as store:
        taught(store)

        assert reset(store) is True
        assert kept_state(store) is None
        assert reset(store) is False
        store.check()


@pytest.mark.parametrize(
    "value",
    [
        {"format": 2},
        {"format": 1},
        [],
        {"format": 1, "parameters": [0.0] * 7, "waiting": [1, 2]},
        {"format": 1, "parameters": [-9.0] + [0.0] * 6, "waiting": [None] * 4},
        {"format": 1, "parameters": [None] * 7, "waiting": [None] * 4},
    ],
)
def test_what_cannot_be_read_counts_as_nothing(tmp_path, value):
    whole = {"model_digest": "a", "feature_spec_version": "1", "pack_since_s": 1}
    with new_store(tmp_path) as store:
        store.keep_fact(FACT, whole | value if isinstance(value, dict) else value)

        assert kept_state(store) is None
        assert taught(store, days=2) == 0.0


def test_most_predictions_write_nothing(tmp_path):
    with new_store(tmp_path) as store:
        written = []
        for day in range(28):
            own_log_factor(
                store,
                table_of(0.9),
                900.0,
                model_digest="a",
                now=NOW + timedelta(days=day, hours=1),
            )
            written.append(json.dumps(store.fact(FACT)))

    assert len(set(written)) == 2


def test_between_two_steps_the_row_alone_says_what_the_rule_would(tmp_path):
    with new_store(tmp_path) as store:
        for day in range(0, 90, 3):
            later = NOW + timedelta(days=day)
            table = table_of(0.9 - 0.002 * day)
            quick = own_log_factor(store, table, 1800.0, model_digest="a", now=later)

            assert learn(store, table, 1800.0, model_digest="a", now=later) == quick


@pytest.mark.slow
def test_a_day_without_a_step_does_not_load_the_rule(tmp_path):
    with new_store(tmp_path) as store:
        taught(store)
        path = store.path
    program = f"""
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from edge_client.personalisation.in_force import own_log_factor
from edge_client.telemetry_store import TelemetryStore
with TelemetryStore(Path({str(path)!r})) as store:
    now = datetime.fromisoformat({NOW.isoformat()!r}) + timedelta(days=59)
    table = SimpleNamespace(pack_since_s=[1_700_000_000])
    print(own_log_factor(store, table, 1800.0, model_digest="a" * 64, now=now))
print("models.personal_correction" in sys.modules)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    factor, is_loaded = answer.stdout.split()

    assert float(factor) < -0.2
    assert is_loaded == "False"


def test_a_sealed_store_keeps_it_sealed(tmp_path):
    with new_store(tmp_path, key=lambda: bytes(range(32))) as store:
        taught(store)
        kept = store.rows("SELECT value FROM fact WHERE name = ?", FACT)[0][0]

    assert isinstance(kept, bytes)
    assert b"parameters" not in kept
