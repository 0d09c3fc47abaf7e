"""Judging a predictions table, and the rules that it must beat."""

import numpy as np
import pytest

from models.errors import DatasetError
from models.evaluation import evaluate_predictions, evaluated_rows, rule_baselines
from models.feature_spec import FEATURE_NAMES, NUM_FEATURES
from models.metrics import windows
from models.telemetry import Outcomes
from tests.support.fleets import DAY, START_S

MARGIN = FEATURE_NAMES.index("health_margin")
CROSSING = FEATURE_NAMES.index("days_to_eol_linear_30d")
OUTCOMES = Outcomes(
    ("a", "b"),
    np.full(2, START_S + 200 * DAY),
    np.array([START_S + 100.0 * DAY, np.nan]),
    np.array(["swelling", None], dtype=object),
)


def table_of(*rows):
    """Make a table of (device, day, status, probability, p50) rows."""
    device, day, status, probability, p50 = zip(*rows, strict=True)
    flagged = [None if p is None else p >= 0.5 for p in probability]
    number = [np.nan if p is None else p for p in probability]
    return {
        "device_id": np.array(device, dtype=object),
        "as_of": START_S + np.array(day) * float(DAY),
        "status": np.array(status, dtype=object),
        "failure_probability_30d": np.array(number),
        "days_to_failure_p10": np.array(p50, float) * 0.5,
        "days_to_failure_p50": np.array(p50, float),
        "days_to_failure_p90": np.array(p50, float) * 2,
        "flagged": np.array(flagged, dtype=object),
    }


def test_rows_that_are_ok_are_judged_where_the_future_is_known():
    table = table_of(
        ("a", 40, "ok", 0.1, 80),
        ("a", 80, "ok", 0.9, 15),
        ("b", 90, "ok", 0.7, 20),
        ("b", 190, "ok", 0.9, 10),
        ("b", 60, "stale", None, np.nan),
    )
    found = evaluate_predictions(table, OUTCOMES, where="table")

    assert (found.num_windows, found.prevalence) == (3, pytest.approx(1 / 3))
    assert (found.precision, found.recall) == (0.5, 1)
    assert found.mae_days_when_90_or_less == pytest.approx((20 + 5) / 2)
    assert evaluated_rows(table, OUTCOMES, "table").rows.tolist() == [0, 1, 2, 3]


def test_a_table_of_another_fleet_or_without_an_ok_row_is_refused():
    with pytest.raises(DatasetError, match="device 'z' has no outcome"):
        evaluate_predictions(table_of(("z", 40, "ok", 0.1, 80)), OUTCOMES, where="t.parquet")
    with pytest.raises(DatasetError, match="no row with status ok"):
        evaluate_predictions(table_of(("a", 40, "stale", None, 80)), OUTCOMES, where="t.parquet")


def test_rules_flag_low_margins_and_near_crossings_and_doing_nothing_flags_nothing():
    known = windows(
        np.array([0, 0, 0, 1]),
        np.array([60.0, 80, 90, 50]),
        failed_at_days=np.array([100.0, np.nan]),
        observed_until_days=np.array([100.0, 200]),
        horizon_days=30,
    )
    features = np.full((4, NUM_FEATURES), np.nan, np.float32)
    features[:, MARGIN] = [0.5, 0.11, 0.09, np.nan]
    features[:, CROSSING] = [45, 31, 29, np.nan]
    found = rule_baselines(features, known)

    assert list(found) == ["do_nothing", "capacity_rule", "linear_extrapolation"]
    assert (found["do_nothing"].recall, found["do_nothing"].auc) == (0, 0.5)
    for name in ("capacity_rule", "linear_extrapolation"):
        assert (found[name].precision, found[name].recall) == (1, 0.5)
        assert (found[name].auc, found[name].average_precision) == (1, 1)
    assert found["linear_extrapolation"].mae_days_when_90_or_less == pytest.approx(
        (5 + 11 + 19) / 3
    )
    assert found["capacity_rule"].ece is None
