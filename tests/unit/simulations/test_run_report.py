"""`report.json`: what it holds, what it refuses, and that it comes back as it went."""

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from simulations.run_report import (
    MODEL_NAMES,
    RunReport,
    RunReportError,
    read_report,
    write_report,
)
from simulations.run_report_parts import (
    CauseFound,
    DeviceNotice,
    Expectation,
    FleetHealth,
    HealthBin,
    LabelScore,
    LearningPoint,
    Life,
    Notices,
    RealCells,
)
from tests.support.run_reports import life, notices, qualities, quality, run_report

REQUIRED_KEYS = {
    "devices",
    "rounds",
    "epsilon_release",
    "delta",
    "epsilon_server",
    "record_epsilon",
    "record_delta",
    "unit_of_privacy",
    "metrics",
    "notices",
    "broker",
    "seconds",
}
REQUIRED_FIGURES = {
    "prevalence",
    "auc",
    "average_precision",
    "precision",
    "recall",
    "f1",
    "ece",
    "mae_days_when_90_or_less",
    "coverage_p10_p90",
}


@pytest.fixture(scope="module")
def values():
    return run_report().to_json()


def test_report_comes_back_from_its_file_as_it_went(tmp_path):
    report = run_report()

    write_report(report, tmp_path / "demo" / "report.json")

    assert read_report(tmp_path / "demo" / "report.json") == report


def test_file_holds_every_promised_key(values):
    assert values["schema_version"] == 1
    assert set(values) >= REQUIRED_KEYS
    assert tuple(values["metrics"]) == MODEL_NAMES
    assert all(set(figures) >= REQUIRED_FIGURES for figures in values["metrics"].values())
    assert set(values["notices"]) == {"sent", "acknowledged", "suppressed", "per_device"}


def test_an_epsilon_without_bound_is_null(values):
    assert values["epsilon_server"] is None
    assert values["learning_curve"]["federated_no_noise"][3]["epsilon"] is None


def test_bins_of_calibration_are_lists_of_three(values):
    assert values["calibration"]["federated_private"][0] == pytest.approx([0.004, 0.013, 37087])


def test_times_are_written_in_utc(values):
    assert values["started_at"] == "2026-03-02T09:30:00+00:00"


def test_numbers_of_numpy_become_plain():
    report = run_report(devices=np.int64(1600), seconds=np.float32(2.5))

    values = json.loads(json.dumps(report.to_json()))

    assert values["devices"] == 1600
    assert values["seconds"] == 2.5


def test_reader_passes_over_keys_that_it_does_not_know(values):
    later = {**values, "weather": "fine", "life": {**values["life"], "colour": "blue"}}

    assert RunReport.from_json(later) == run_report()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 2}, "schema_version must be 1, got 2"),
        ({"devices": "many"}, "report.devices must be of type int, got 'many'"),
        ({"devices": True}, "report.devices must be of type int, got True"),
        ({"broker": "carrier pigeon"}, "report.broker must be one of mosquitto, embedded"),
        ({"started_at": "yesterday"}, "report.started_at must be a time in ISO 8601"),
        ({"assumptions": "none"}, "report.assumptions must be of type list"),
        ({"calibration": {"default_bundle": [[0.1, 0.2]]}}, "must have 3 entries, got 2"),
        ({"notices": {"sent": 1}}, "report.notices.acknowledged is missing"),
    ],
)
def test_reader_names_what_is_wrong_and_where(values, change, complaint):
    with pytest.raises(ValueError) as error:
        RunReport.from_json({**values, **change})

    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        (b"", "is not JSON"),
        (b'{"devices": 3', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[]", "is not a run report"),
        (b"{}", "schema_version must be 1, got None"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_line(tmp_path, content, complaint):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RunReportError) as error:
        read_report(path)

    assert str(error.value).startswith(f"{path}: ")
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 3


def test_writing_replaces_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "report.json"
    write_report(run_report(seed=1), path)

    write_report(run_report(seed=2), path)

    assert read_report(path).seed == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"seconds": float("nan")}, "report.seconds must be finite, got nan"),
        ({"epsilon_release": float("inf")}, "report.epsilon_release must be finite"),
        ({"epsilon_release": -0.1}, "epsilon_release must be at least 0"),
        ({"delta": 1.0}, "delta must lie in 0 to 1, below 1, got 1.0"),
        ({"record_delta": None}, "record_epsilon and record_delta come together"),
        ({"unit_of_privacy": " "}, "unit_of_privacy must say something"),
        ({"assumptions": ()}, "assumptions must name at least one"),
        ({"devices": -1}, "devices must be at least 0, got -1"),
        ({"broker": "pigeon"}, "broker must be one of mosquitto, embedded, got 'pigeon'"),
        ({"started_at": datetime(2026, 3, 2)}, "started_at must be an aware time"),
        ({"learning_curve": {"do_nothing": ()}}, "learning_curve: a key must be one of"),
        ({"calibration": {"do_nothing": ((0.1, 1.1, 4),)}}, "share must lie in 0 to 1, got 1.1"),
    ],
)
def test_a_report_that_cannot_be_true_is_refused(changes, complaint):
    with pytest.raises(ValueError) as error:
        run_report(**changes)

    assert complaint in str(error.value)


def test_the_private_model_never_stands_without_its_baselines():
    alone = {"federated_private": quality()}

    with pytest.raises(ValueError, match="missing: do_nothing, capacity_rule"):
        run_report(metrics=alone)


def test_models_measured_on_different_windows_are_not_compared():
    apart = {**qualities(), "default_bundle": quality(num_windows=7)}

    with pytest.raises(ValueError, match="must be measured on the same windows"):
        run_report(metrics=apart)


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (lambda: replace(notices(), acknowledged=5), "must not exceed sent, got 5 of 4"),
        (lambda: replace(notices(), suppressed={"quiet_hours": -1}), "quiet_hours must be at"),
        (lambda: replace(life(), as_of_days=(1.0,)), "must have one length"),
        (lambda: LabelScore(by_cause={"gremlins": CauseFound(found=0, total=0)}, false_labels=0),
         "by_cause: a key must be one of capacity_fade"),
        (lambda: CauseFound(found=3, total=2), "found must not exceed total, got 3 of 2"),
        (lambda: RealCells(cells=None, metrics=None, reason=None), "needs metrics or the reason"),
        (lambda: RealCells(cells=1, metrics=quality(auc=1.5), reason=None),
         "real_cells.metrics.auc must lie in 0 to 1, got 1.5"),
        (lambda: FleetHealth(urgency={"panic": 1}, state_of_health=(), statuses={}),
         "urgency: a key must be one of critical"),
        (lambda: FleetHealth(
            urgency={}, state_of_health=(HealthBin(low=1.0, high=0.9, devices=1),), statuses={}),
         "a bin needs 0 <= low < high, got 1.0 to 0.9"),
        (lambda: FleetHealth(urgency={}, state_of_health=(), statuses={}), "at least one bin"),
        (lambda: FleetHealth(
            urgency={}, statuses={}, state_of_health=(
                HealthBin(low=0.0, high=0.5, devices=1), HealthBin(low=0.6, high=1.0, devices=1))),
         "must begin where the one before it ends"),
        (lambda: LearningPoint(
            round=1, average_precision=1.2, auc=None, loss=None, epsilon=None),
         "average_precision must lie in 0 to 1, got 1.2"),
        (lambda: DeviceNotice(device="a", expectation=Expectation.SOON, template=None,
                              state="shown", text="hello", language=None),
         "text and language come together"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_true_is_refused(part, complaint):
    with pytest.raises(ValueError) as error:
        part()

    assert complaint in str(error.value)


def test_fleet_health_counts_the_last_predictions():
    health = FleetHealth.of_predictions(
        status=["ok", "ok", "ok", "stale"],
        urgency=["critical", "low", "low", None],
        state_of_health=[0.31, 0.87, 1.2, np.nan],
    )

    filled = [(one.low, one.high, one.devices) for one in health.state_of_health if one.devices]
    assert health.urgency == {"critical": 1, "high": 0, "standard": 0, "low": 2}
    assert health.statuses["ok"] == 3
    assert health.statuses["stale"] == 1
    assert filled == [(0.0, 0.5, 1), (0.85, 0.9, 1), (1.0, 1.05, 1)]


def test_a_life_of_arrays_knows_the_days_left_until_the_failure():
    built = Life.of_arrays(
        device_id="a",
        as_of_days=[28, 30, 33],
        capacity_health_pct=[80, np.nan, 71],
        days_to_failure=[[1, 2, 3], [np.nan] * 3, [0, 1, 2]],
        failed_at_days=31.0,
        end_of_life_health_pct=70.0,
    )

    assert built.capacity_health_pct == (80.0, None, 71.0)
    assert built.days_to_failure_p90 == (3.0, None, 2.0)
    assert built.days_left == (3.0, 1.0, None)


def test_a_life_without_failure_knows_no_days_left():
    built = Life.of_arrays(
        device_id="a",
        as_of_days=[28.0],
        capacity_health_pct=[80.0],
        days_to_failure=[[1.0, 2.0, 3.0]],
        failed_at_days=None,
        end_of_life_health_pct=70.0,
    )

    assert built.days_left == (None,)


def test_quantiles_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="must ascend from p10 to p90"):
        Life.of_arrays(
            device_id="a",
            as_of_days=[28.0],
            capacity_health_pct=[80.0],
            days_to_failure=[[3.0, 2.0, 1.0]],
            failed_at_days=None,
            end_of_life_health_pct=70.0,
        )


def test_notices_of_no_device_are_no_error():
    nothing = Notices(sent=0, acknowledged=0, suppressed={}, per_device=())

    assert run_report(notices=nothing).notices.per_device == ()
