"""What a device's forecasts were worth, and how far that may shorten the next one."""

import numpy as np
import pytest

from models.feature_spec import FEATURE_NAMES, NUM_FEATURES
from models.personal_correction import (
    FORGOTTEN_AFTER_DAYS,
    GREATEST_RATIO,
    JUDGED_AFTER_DAYS,
    KEPT_FOR_NEW_MODEL,
    LARGEST_STEP,
    LEAST_BY_RESISTANCE,
    LEAST_LOG_FACTOR,
    Correction,
    Forecast,
    corrected_days,
    corrected_outputs,
    forecast_of,
    handed_on,
    learnt,
)

NAN = float("nan")


def moment(day, *, margin=NAN, resistance=NAN, days=1000.0):
    return Forecast(*(np.array([value]) for value in (day, margin, resistance, days)))


def lived(rows, correction=None, made=None):
    """Let a device live through (day, margin, resistance, p50); returns the correction and log."""
    correction, made = correction or Correction.none(), made or Forecast.none()
    factors = []
    for day, margin, resistance, days in rows:
        today = moment(day, margin=margin, resistance=resistance, days=days)
        correction, made = learnt(correction, made, today)
        factors.append(float(correction.log_factor[0]))
    return correction, factors


def fading(days, *, a_day, p50, resistance=NAN, start=0, every=1):
    return [(start + d, 0.9 - a_day * d, resistance, p50) for d in range(0, days, every)]


def test_wear_as_forecast_corrects_nothing():
    _, factors = lived([(d, 0.9 - 0.001 * d, NAN, 900.0 - d) for d in range(200)])

    assert factors == pytest.approx(np.zeros(200), abs=0.02)


def test_faster_wear_than_forecast_shortens_in_steps_to_the_bound():
    _, factors = lived(fading(150, a_day=0.004, p50=2000.0))
    steps = -np.diff(factors)

    assert factors[27] == 0.0
    assert factors[28] == pytest.approx(-LARGEST_STEP)
    assert factors[-1] == pytest.approx(LEAST_LOG_FACTOR)
    assert steps.max() <= LARGEST_STEP + 1e-9
    assert (np.diff(np.flatnonzero(steps > 0)) >= JUDGED_AFTER_DAYS).all()


def test_slower_wear_never_lengthens():
    _, factors = lived(fading(400, a_day=0.0, p50=100.0))

    assert factors == [0.0] * 400


def test_one_judged_forecast_is_too_little():
    _, factors = lived(fading(28, a_day=0.02, p50=3000.0))

    assert factors == [0.0] * 28


def test_resistance_alone_can_tell_and_may_be_missing():
    _, by_resistance = lived([(d, NAN, 1.0 + 0.004 * d, 2000.0) for d in range(120)])
    _, neither = lived([(d, NAN, NAN, 2000.0) for d in range(120)])

    assert by_resistance[-1] < -0.3
    assert neither == [0.0] * 120


def test_the_channel_that_wears_faster_counts_but_resistance_against_margin_one_step():
    _, by_resistance = lived([(d, 0.9 - 0.0005 * d, 1 + 0.005 * d, 1800.0) for d in range(150)])
    _, by_margin = lived([(d, 0.9 - 0.004 * d, 1 + 0.0001 * d, 2000.0) for d in range(150)])

    assert by_resistance[-1] == LEAST_BY_RESISTANCE
    assert by_margin[-1] == LEAST_LOG_FACTOR


def test_a_gauge_that_only_reads_noisily_learns_next_to_nothing():
    generator = np.random.default_rng(4)
    noisy = 0.9 - 0.0009 * np.arange(365) + 0.01 * generator.standard_normal(365)
    _, factors = lived([(d, noisy[d], NAN, 1000.0) for d in range(365)])

    assert min(factors) > -0.25


def as_forecast(days, *, jump=0.0):
    """A battery that wears as its model says; its gauge reads lower by `jump` from day 100 on."""
    margin = 0.9 - 0.001 * np.arange(days)
    read = margin - np.where(np.arange(days) >= 100, jump, 0.0)
    return [(d, read[d], NAN, margin[d] / 0.001) for d in range(days)]


def test_one_jump_of_a_gauge_shortens_for_a_while_and_fades():
    _, factors = lived(as_forecast(600, jump=0.1))

    assert min(factors[:100]) == pytest.approx(0.0, abs=1e-9)
    assert min(factors) > LEAST_LOG_FACTOR
    assert factors[-1] > 0.6 * min(factors)


def rises(day, *, to, since, repaired_on):
    """Return what a fault adds: it grows for 60 days, or comes at once, and is repaired."""
    return 0.0 if day >= repaired_on else to * min(max(day - since, 0) / 60, 1.0)


@pytest.mark.parametrize(
    ("resistance", "margin", "least", "days"),
    [
        pytest.param((0.6, 0, 90), (0, 0, 0), 0.77, 70, id="resistance from the first day"),
        pytest.param((0.6, 200, 290), (0, 0, 0), 0.77, 70, id="resistance later"),
        pytest.param((0, 0, 0), (0.3, 100, 190), 0.49, 84, id="margin"),
        pytest.param((6.0, 100, 130), (0, 0, 0), 0.77, 28, id="a month of far too much resistance"),
        pytest.param((0, 0, 0), (2.0, 100, 130), 0.60, 28, id="a month of no margin at all"),
    ],
)
def test_a_fault_that_is_repaired_ends_with_the_next_judged_forecast(
    resistance, margin, least, days
):
    def fault(day, of):
        return rises(day, to=of[0], since=of[1], repaired_on=of[2])

    rows = [
        (d, 0.5 - 0.0005 * d - fault(d, margin), 1.0 + fault(d, resistance), 1000.0 - d)
        for d in range(500)
    ]
    said = np.exp(lived(rows)[1])
    repaired = max(resistance[2], margin[2])

    assert said.min() >= least
    assert (said < 0.9).sum() <= days
    assert (said[repaired + int(JUDGED_AFTER_DAYS) :] > 0.9).all()


def at_day_100(model=1.0):
    """A battery that wears twice as fast as forecast; on day 100 a new model speaks."""
    rows = [(d, 0.8 - 0.001 * d, 1 + 0.001 * d, 1600.0 - 2 * d) for d in range(100)]
    correction, made = Correction.none(), Forecast.none()
    for day, margin, resistance, days in rows:
        today = moment(day, margin=margin, resistance=resistance, days=days)
        correction, made = learnt(correction, made, today)
    new = moment(100, margin=0.7, resistance=1.1, days=1400.0 * model)
    return correction, made, new


def test_a_new_model_that_says_the_same_takes_over_what_was_learnt():
    correction, made, today = at_day_100()
    after, waiting = handed_on(correction, made, today)

    assert correction.log_factor < -0.4
    assert after.log_factor == pytest.approx(correction.log_factor, abs=0.05)
    assert after.num_margins == correction.num_margins
    assert after.margin_measured == KEPT_FOR_NEW_MODEL * correction.margin_measured
    assert waiting[:3] == made[:3]
    assert waiting.days == pytest.approx(made.days, rel=0.02)


def test_a_new_model_that_is_right_is_not_corrected():
    correction, made, today = at_day_100(model=0.5)
    after, waiting = handed_on(correction, made, today)

    assert after.log_factor > -0.05
    assert waiting.days == pytest.approx(0.5 * made.days, rel=0.02)


def test_a_new_model_that_hopes_more_strengthens_nothing_before_a_forecast_is_judged():
    correction, made, today = at_day_100(model=1.2)
    after, _ = handed_on(correction, made, today)

    assert after.log_factor == correction.log_factor
    assert after.margin_forecast < KEPT_FOR_NEW_MODEL * correction.margin_forecast


@pytest.mark.parametrize("model", [2.5 * GREATEST_RATIO, 0.4 / GREATEST_RATIO])
def test_a_model_unlike_the_one_before_begins_anew(model):
    after, waiting = handed_on(*at_day_100(model=model))

    assert after == Correction.none()
    assert np.isnan(np.array(waiting)).all()


@pytest.mark.parametrize("day", [-5.0, 300.0, NAN])
def test_without_a_forecast_of_these_weeks_a_new_model_begins_anew(day):
    correction, made, today = at_day_100()
    after, waiting = handed_on(correction, made, today._replace(day=np.array([day])))

    assert after == Correction.none()
    assert np.isnan(np.array(waiting)).all()


@pytest.mark.slow
@pytest.mark.parametrize("a_day", [1, 100, 10_000])
def test_a_storm_of_readings_makes_no_more_steps(a_day):
    _, calm = lived(fading(60, a_day=0.004, p50=2000.0))
    _, storm = lived(
        [row for row in fading(60, a_day=0.004, p50=2000.0) for _ in range(min(a_day, 50))]
    )

    assert storm[-1] == calm[-1]


@pytest.mark.parametrize("jump", [-4000, -30, 30, 300, 9000])
def test_a_clock_that_jumps_there_and_back_makes_no_false_step(jump):
    rows = as_forecast(200)
    jumped = [(d + (jump if 80 <= d < 83 else 0), *rest) for d, *rest in rows]
    _, factors = lived(jumped)

    assert min(factors) > -0.02


def test_a_forecast_that_waited_too_long_is_dropped():
    correction, _ = lived([(0, 0.9, NAN, 2000.0), (FORGOTTEN_AFTER_DAYS + 1, 0.5, NAN, 2000.0)])

    assert correction == Correction.none()


def test_many_devices_at_once_are_each_as_alone():
    paces = np.array([0.0, 0.002, 0.006, NAN])
    correction, made = Correction.none(4), Forecast.none(4)
    for day in range(100):
        today = Forecast(np.full(4, day), 0.9 - paces * day, np.full(4, NAN), np.full(4, 2000.0))
        correction, made = learnt(correction, made, today)
    alone = [lived(fading(100, a_day=pace, p50=2000.0))[1][-1] for pace in paces]

    assert correction.log_factor.tolist() == alone


def test_near_days_stay_and_nothing_is_brought_below_thirty():
    days = np.array([0.0, 6.9, 29.9, 30.0, 31.0, 36.0, 60.0, 120.0, 1000.0, 3650.0])
    shorter = corrected_days(days, np.full(10, LEAST_LOG_FACTOR))

    assert shorter[:4].tolist() == days[:4].tolist()
    assert (shorter[3:] >= 30).all()
    assert (np.diff(shorter) >= 0).all()
    assert shorter[-1] == pytest.approx(3650 * np.exp(LEAST_LOG_FACTOR))


@pytest.mark.parametrize("log_factor", [NAN, -50.0, 0.5, float("inf"), float("-inf")])
def test_a_factor_out_of_bounds_is_brought_into_them(log_factor):
    shorter = corrected_days(np.array([1000.0]), np.array([log_factor]))

    assert 1000 * np.exp(LEAST_LOG_FACTOR) - 1e-9 <= shorter[0] <= 1000.0


def outputs_of(days, bands):
    return {
        "failure_probability_30d": np.array([0.2], np.float32),
        "days_to_failure": np.array([days], np.float32),
        "action_probabilities": np.array([bands], np.float32),
        "cause_probabilities": np.full((1, 5), 0.2, np.float32),
    }


def test_quantiles_shrink_alike_and_bands_follow():
    before = outputs_of([40.0, 160.0, 500.0], [0.01, 0.05, 0.24, 0.70])
    after = corrected_outputs(before, np.array([-0.7]))
    bands = after["action_probabilities"][0]

    assert after["days_to_failure"][0] == pytest.approx(np.exp(-0.7) * np.array([40, 160, 500]))
    assert bands.sum() == pytest.approx(1.0, abs=1e-6)
    assert (bands >= 0).all()
    assert bands[3] < 0.6
    for name in ("failure_probability_30d", "cause_probabilities"):
        assert after[name] is before[name]


def test_no_correction_changes_no_bit():
    before = outputs_of([40.0, 160.0, 500.0], [0.01, 0.05, 0.24, 0.70])
    after = corrected_outputs(before, np.array([0.0]))

    for name, values in before.items():
        assert after[name].tobytes() == values.tobytes()


def test_a_margin_without_a_line_is_the_weeks_median():
    features = np.full((2, NUM_FEATURES), NAN, np.float32)
    features[:, FEATURE_NAMES.index("health_margin")] = 0.7
    features[1, FEATURE_NAMES.index("health_margin_fitted_30d")] = 0.8
    made = forecast_of(features, np.array([0.0, 50.0]), np.array([3.0, 3.0]))

    assert made.margin == pytest.approx([0.7, 0.8])
    assert made.days.tolist() == [1.0, 50.0]
