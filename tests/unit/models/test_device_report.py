"""One device's report and the figures that stay on it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.device_report import DeviceFigures, device_report
from models.featurize import featurize_now
from models.inference import Predictor
from models.prediction import Status
from models.telemetry import Telemetry
from tests.support.fleets import DAY, START_S, days_of, profiles, random_bundle, readings, times
from tests.support.line_bundle import CONFIDENCE, line_bundle

NOW = datetime.fromtimestamp(START_S + 100 * DAY, UTC)


def fading(days=100):
    at_s = times(days)
    day = days_of(at_s)
    return readings(
        at_s,
        capacity=3000 - 5.0 * day,
        cycles=np.floor(day),
        charge=np.where(day <= 10, 60.0, 75.0),
        temp_max=34.0,
        temp_avg=26.0,
        shutdowns=np.floor(np.maximum(day - 80, 0) / 5),
        usage=1.5,
        resistance=np.where(day <= 10, 80.0, 100.0),
    )


def report_of(life, *, now=NOW, bundle=None, references=None, **choices):
    now_s = int(now.timestamp())
    return device_report(
        profile=profiles()[0],
        table=featurize_now(life, profiles(), now_s=now_s, references=references),
        predictor=Predictor(bundle or line_bundle()),
        now=now,
        **choices,
    )


def test_a_report_says_what_the_model_says_of_the_devices_own_features():
    found = report_of(fading()).report
    crossing = (3000 - 5.0 * (100 - 0.375) - 2400) / 5.0

    assert found.status is Status.OK
    assert found.device_id == "d0"
    assert found.as_of == NOW
    assert found.days_to_failure_p50 == pytest.approx(crossing, rel=1e-3)
    assert found.days_to_failure_p10 == pytest.approx(0.5 * crossing, rel=1e-3)
    assert (found.recommended_action, found.urgency) == ("schedule_replacement", "high")
    assert (found.flagged, found.notice_is_due()) == (True, True)
    assert found.confidence == pytest.approx(CONFIDENCE)
    assert found.primary_issue == "capacity_fade"
    assert [reason.code for reason in found.reasons] == ["capacity_trend.raises"]
    assert found.state_of_health == pytest.approx((3000 - 5 * 96.625) / 3000, rel=1e-3)


def test_the_devices_own_figures_are_in_words_that_sentences_need():
    figures = report_of(fading()).figures

    assert figures.capacity_mah == pytest.approx(3000 - 5 * 96.625, rel=1e-3)
    assert figures.state_of_health_pct == pytest.approx(100 * (3000 - 5 * 96.625) / 3000, rel=1e-3)
    assert figures.capacity_change_30d_pct == pytest.approx(-100 * 150 / 3000, rel=1e-3)
    assert figures.charge_time_change_pct == pytest.approx(25)
    assert figures.resistance_change_pct == pytest.approx(25)
    assert (figures.temp_max_c, figures.temp_avg_c) == (34, 26)
    assert figures.shutdowns_30d == 4
    assert figures.usage_hours_per_day == pytest.approx(6)
    assert figures.cycles_per_day == pytest.approx(1, rel=0.05)
    assert (figures.charge_cycle_count, figures.age_days) == (100, 110)


def test_readings_later_than_now_are_not_used():
    early = NOW - timedelta(days=30)

    assert report_of(fading(), now=early).report == report_of(fading(70), now=early).report


def test_a_report_without_reasons_costs_one_run():
    assert report_of(fading(), explain=False).report.reasons == ()


@pytest.mark.parametrize(
    ("life", "status"),
    [
        (readings(np.zeros(0)), Status.INSUFFICIENT_HISTORY),
        (fading(20), Status.INSUFFICIENT_HISTORY),
        (fading(90), Status.STALE),
        (readings(times(100), capacity=-1.0), Status.INVALID_DATA),
    ],
    ids=["nothing", "young", "silent", "invalid"],
)
def test_without_a_prediction_the_status_says_why_and_figures_are_none(life, status):
    now = NOW if status is not Status.INSUFFICIENT_HISTORY else NOW - timedelta(days=80)
    found = report_of(life, now=now).report

    assert found.status is status
    assert found.days_to_failure_p50 is None
    assert (found.flagged, found.reasons, found.notice_is_due()) == (None, (), False)


def test_what_is_not_measured_is_no_figure():
    figures = report_of(readings(times(100), capacity=2900.0)).figures

    assert figures.capacity_mah == 2900
    assert {
        figures.charge_time_change_pct,
        figures.resistance_change_pct,
        figures.temp_max_c,
        figures.usage_hours_per_day,
        figures.charge_cycle_count,
    } == {None}
    assert report_of(readings(np.zeros(0))).figures == DeviceFigures()


def test_references_are_handed_on_and_make_up_for_what_the_ring_has_lost():
    life = fading()
    whole = report_of(life, bundle=random_bundle())
    kept = life.at_s > START_S + 40 * DAY
    ring = Telemetry(life.device_ids, np.array([0, kept.sum()]), life.at_s[kept], life.values[kept])
    with_references = report_of(ring, bundle=random_bundle(), references=whole.references)

    assert with_references.references == whole.references
    assert with_references.report.failure_probability_30d == pytest.approx(
        whole.report.failure_probability_30d, rel=1e-4
    )
    assert with_references.figures.charge_time_change_pct == pytest.approx(25)
    assert report_of(ring).figures.charge_time_change_pct == pytest.approx(0)
    assert report_of(readings(times(100), temp_avg=20.0)).references is None


def test_a_report_equals_the_batch_of_the_same_moment():
    life = fading()
    table = featurize_now(life, profiles(), now_s=int(NOW.timestamp()))
    predictions = Predictor(random_bundle()).predict(table.features)
    found = report_of(life, bundle=random_bundle()).report

    assert found.failure_probability_30d == float(predictions.failure_probability_30d[0])
    assert found.days_to_failure_p90 == float(predictions.days_to_failure_p90[0])
    assert found.flagged == bool(predictions.flagged[0])
