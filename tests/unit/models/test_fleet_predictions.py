"""The predictions table: its columns and rows, and that outcomes are never opened."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.explanation import shapley_values, top_reasons
from models.featurize import featurize
from models.fleet_dataset import open_fleet, write_fleet
from models.fleet_predictions import COLUMNS, Reasons, predict_fleet, read_predictions
from models.inference import Predictor
from models.prediction import ACTIONS, URGENCIES
from models.telemetry import CAUSES
from tests.support.fleets import (
    DAY,
    START_S,
    profiles,
    random_bundle,
    random_life,
    readings,
    times,
    together,
)

NOW_S = START_S + 200 * DAY
AS_IN_THE_ARCHITECTURE = [
    "device_id",
    "as_of",
    "status",
    "state_of_health",
    "failure_probability_30d",
    "days_to_failure_p10",
    "days_to_failure_p50",
    "days_to_failure_p90",
    "confidence",
    "primary_issue",
    "recommended_action",
    "urgency",
    "flagged",
    "reasons",
    "model_version",
    "feature_spec_version",
]


def untidy_fleet():
    invalid = np.full(240, 2900.0)
    invalid[120:] = -1.0
    lives = [
        random_life(11, days=80),
        readings(times(60), device_id="d1", capacity=3000 - 2.2 * np.arange(240)),
        readings(times(60), device_id="d2", capacity=invalid),
        readings(times(12), device_id="d3", capacity=2900.0),
        readings(
            np.concatenate([times(40), times(2, start_s=START_S + 58 * DAY)]),
            device_id="d4",
            capacity=2900.0,
        ),
        readings(np.zeros(0), device_id="d5"),
    ]
    return together(*lives)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fleet") / "fleet"
    write_fleet(path, profiles=profiles(6), telemetry=untidy_fleet())
    (path / "outcomes.parquet").write_bytes(b"nobody may read this")
    return path


@pytest.fixture(scope="module")
def predictor():
    return Predictor(random_bundle())


@pytest.fixture(scope="module")
def predicted(folder, predictor):
    out = folder.parent / "p.parquet"
    result = predict_fleet(open_fleet(folder), predictor, out, now_s=NOW_S, reasons=Reasons.ALL)
    return out, result


def test_columns_are_those_that_others_build_on(predicted):
    table = pq.read_table(predicted[0])

    assert table.column_names == AS_IN_THE_ARCHITECTURE == list(COLUMNS)
    assert str(table.schema.field("as_of").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("flagged").type) == "bool"
    for name in ("device_id", "as_of", "status", "model_version", "feature_spec_version"):
        assert table[name].null_count == 0


def test_rows_and_statuses_are_those_of_the_features(predicted):
    out, result = predicted
    table = read_predictions(out)
    features = featurize(untidy_fleet(), profiles(6), now_s=NOW_S)

    assert table["device_id"].tolist() == [f"d{index}" for index in features.device]
    assert table["as_of"].tolist() == features.as_of_s.tolist()
    assert set(table["status"]) == {"ok", "insufficient_history", "stale", "invalid_data"}
    assert result.num_rows == len(table["status"])
    assert result.by_status == {
        status: int((table["status"] == status).sum()) for status in set(table["status"])
    }
    assert result.refused == {"out_of_range:full_charge_capacity_mah": 120}
    assert result.num_flagged == sum(flag is True for flag in table["flagged"])


def test_values_are_null_exactly_where_the_status_is_not_ok(predicted):
    table = pq.read_table(predicted[0])
    ok = np.array([status == "ok" for status in table["status"].to_pylist()])

    for name in AS_IN_THE_ARCHITECTURE[3:14]:
        null = np.array([value is None for value in table[name].to_pylist()])
        assert (null == ~ok).all(), name


def test_values_are_the_models_for_these_features(predicted, predictor):
    table = read_predictions(predicted[0])
    features = featurize(untidy_fleet(), profiles(6), now_s=NOW_S)
    ok = features.is_ok()
    expected = predictor.predict(features.features[ok])

    for name in ("failure_probability_30d", "days_to_failure_p50", "confidence"):
        assert table[name][ok] == pytest.approx(getattr(expected, name), rel=1e-5)
    assert table["recommended_action"][ok].tolist() == [ACTIONS[i] for i in expected.action]
    assert table["urgency"][ok].tolist() == [URGENCIES[i] for i in expected.urgency]
    assert table["primary_issue"][ok].tolist() == [CAUSES[i] for i in expected.cause]
    assert table["flagged"][ok].tolist() == expected.flagged.tolist()
    assert table["state_of_health"][ok] == pytest.approx(features.capacity_mah[ok] / 3000)


def test_reasons_are_the_top_of_the_explanation(predicted, predictor):
    table = read_predictions(predicted[0])
    features = featurize(untidy_fleet(), profiles(6), now_s=NOW_S)
    row = int(np.flatnonzero(features.is_ok())[7])
    top = top_reasons(shapley_values(predictor, features.features[[row]])[0])

    assert table["reasons"][row] == "; ".join(f"{r.code} {r.share:.2f}" for r in top)


def test_reasons_are_given_for_due_rows_or_for_none(folder, predictor, tmp_path):
    fleet = open_fleet(folder)
    due, none = tmp_path / "due.parquet", tmp_path / "none.parquet"
    predict_fleet(fleet, predictor, due, now_s=NOW_S)
    predict_fleet(fleet, predictor, none, now_s=NOW_S, reasons=Reasons.NONE)
    table = read_predictions(due)
    ok = table["status"] == "ok"
    is_due = (table["flagged"] == True) | (table["recommended_action"] != "routine_monitoring")  # noqa: E712 - elementwise, over None too

    explained = np.array([reasons is not None for reasons in table["reasons"]])
    assert (explained[ok] == is_due[ok]).all()
    assert not explained[~ok].any()
    assert set(read_predictions(none)["reasons"]) == {None}


def test_every_nth_row_is_the_same_as_among_all(folder, predictor, predicted, tmp_path):
    out = tmp_path / "week.parquet"
    predict_fleet(open_fleet(folder), predictor, out, now_s=NOW_S, every_days=7)
    weekly, daily = read_predictions(out), read_predictions(predicted[0])
    keys = list(zip(daily["device_id"], daily["as_of"], strict=True))
    rows = [keys.index(key) for key in zip(weekly["device_id"], weekly["as_of"], strict=True)]

    assert len(rows) < len(keys) / 5
    assert weekly["failure_probability_30d"] == pytest.approx(
        daily["failure_probability_30d"][rows], abs=1e-6, nan_ok=True
    )


def test_predictions_do_not_depend_on_how_the_fleet_is_dealt_into_blocks(
    folder, predictor, predicted, tmp_path, monkeypatch
):
    monkeypatch.setattr("models.fleet_predictions.DEVICES_PER_BLOCK", 2)
    done = []
    out = tmp_path / "p.parquet"
    predict_fleet(open_fleet(folder), predictor, out, now_s=NOW_S, on_devices=done.append)

    assert done == [2, 4, 6]
    assert read_predictions(out)["days_to_failure_p90"] == pytest.approx(
        read_predictions(predicted[0])["days_to_failure_p90"], rel=1e-4, nan_ok=True
    )


def test_an_interrupted_prediction_leaves_the_old_table(folder, predictor, tmp_path):
    out = tmp_path / "p.parquet"
    out.write_bytes(b"yesterday's")

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_fleet(open_fleet(folder), predictor, out, now_s=NOW_S, on_devices=stop)

    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]
    assert out.read_bytes() == b"yesterday's"
