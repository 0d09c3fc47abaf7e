"""What an owner could change: honest translation, plausible direction, smallest change."""

import numpy as np
import pytest

from models.bundle import load_bundle
from models.counterfactual import (
    Change,
    Estimate,
    Lever,
    Search,
    Trial,
    choose,
    find_counterfactual,
    trials_of,
)
from models.feature_spec import FEATURE_NAMES, FEATURES
from models.featurize import featurize
from models.inference import Predictor
from models.training.network import MASKED
from tests.support.fleets import simulated_fleet, simulated_rows

AT = {name: index for index, name in enumerate(FEATURE_NAMES)}
COOL = Change(Lever.TEMPERATURE, 40.0, 1.0)
COOLER = Change(Lever.TEMPERATURE, 35.0, 2.0)
LESS = Change(Lever.USE, 25.0, 2.0)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(load_bundle())


def a_device(**values):
    row = load_bundle().explanation_reference.copy()
    for name, value in values.items():
        row[AT[name]] = value
    return row


def changed_names(before, after):
    return {name for name in FEATURE_NAMES if before[AT[name]] != after[AT[name]]}


def of_lever(trials, lever):
    return [trial for trial in trials if trial.lever is lever and trial.change is not None]


def test_a_limit_caps_the_highest_and_never_overstates_what_happens_to_the_mean():
    row = a_device(battery_temp_max=47.0, battery_temp_avg=36.0, temp_spread=6.0)
    trials = of_lever(trials_of(row, chemistry="NMC111"), Lever.TEMPERATURE)
    told = [
        tuple(
            round(float(trial.features[AT[name]]), 3)
            for name in ("battery_temp_max", "battery_temp_avg", "temp_spread")
        )
        for trial in trials
    ]

    assert [trial.change.amount for trial in trials] == [45.0, 40.0, 35.0, 30.0]
    assert told == [(45, 36, 6), (40, 36, 4), (35, 35, 0), (30, 30, 0)]


def test_what_is_true_already_is_not_offered():
    row = a_device(battery_temp_max=35.5)
    limits = [
        trial.change.amount
        for trial in of_lever(trials_of(row, chemistry="NCA"), Lever.TEMPERATURE)
    ]
    assert limits == [30.0]
    assert not of_lever(
        trials_of(a_device(battery_temp_max=30.4), chemistry="NCA"), Lever.TEMPERATURE
    )


def test_what_was_not_measured_cannot_be_changed():
    row = a_device(battery_temp_max=np.nan, usage_intensity=np.nan, cycles_per_day=np.nan)
    levers = {trial.lever for trial in trials_of(row, chemistry="NMC111")}
    assert levers == {Lever.CHARGING_CEILING}


def test_missing_values_stay_missing():
    row = a_device(battery_temp_max=44.0, battery_temp_avg=np.nan, temp_spread=np.nan)
    for trial in trials_of(row, chemistry="NMC111"):
        assert np.isnan(trial.features[AT["battery_temp_avg"]])
        assert np.isnan(trial.features[AT["temp_spread"]])


def test_a_ceiling_flattens_falling_lines_by_the_days_that_it_held():
    row = a_device(
        capacity_slope_10d=-0.1,
        capacity_slope_30d=-0.1,
        capacity_slope_60d=-0.1,
        capacity_slope_90d=-0.1,
        health_margin_fitted_30d=0.2,
        health_margin_fitted_90d=0.3,
        days_to_eol_linear_30d=60.0,
        days_to_eol_linear_90d=90.0,
    )
    (trial,) = of_lever(trials_of(row, chemistry="NMC111"), Lever.CHARGING_CEILING)
    found = {name: float(trial.features[AT[name]]) for name in FEATURE_NAMES}

    assert found["capacity_slope_10d"] == pytest.approx(-0.09)
    assert found["capacity_slope_30d"] == pytest.approx(-0.09)
    assert found["capacity_slope_60d"] == pytest.approx(-0.095)
    assert found["capacity_slope_90d"] == pytest.approx(-0.1 * (1 - 0.1 / 3))
    assert found["fade_acceleration"] == pytest.approx(0.1 * (0.1 - 0.1 / 3), abs=1e-6)
    assert found["days_to_eol_linear_30d"] == pytest.approx(0.2 / 0.09 * 30, rel=1e-5)
    assert found["health_margin_fitted_30d"] == pytest.approx(0.2)


def test_no_ceiling_where_voltage_hardly_rises_or_nothing_fades():
    fading = a_device(capacity_slope_30d=-0.1)
    assert not of_lever(trials_of(fading, chemistry="LFP-A123"), Lever.CHARGING_CEILING)
    slopes = {f"capacity_slope_{days}d": 0.0 for days in (10, 30, 60, 90)}
    assert not of_lever(trials_of(a_device(**slopes), chemistry="NCA"), Lever.CHARGING_CEILING)


def test_less_use_is_fewer_hours_and_cycles_now_and_against_ninety_days():
    row = a_device(usage_intensity=8.0, cycles_per_day=1.2, usage_change=1.0)
    quarter, half = of_lever(trials_of(row, chemistry="NCA"), Lever.USE)

    assert quarter.features[AT["usage_intensity"]] == pytest.approx(6.0)
    assert half.features[AT["cycles_per_day"]] == pytest.approx(0.6)
    assert half.features[AT["usage_change"]] == pytest.approx(0.5 / (2 / 3 + 0.5 / 3))


def test_a_change_touches_features_of_its_lever_that_the_network_sees():
    row = a_device(battery_temp_max=48.0, battery_temp_avg=47.0, usage_change=0.9)
    allowed = {
        Lever.TEMPERATURE: {"temperature"},
        Lever.CHARGING_CEILING: {"capacity_trend"},
        Lever.USE: {"usage"},
    }
    for trial in trials_of(row, chemistry="NMC111"):
        names = changed_names(row, trial.features)
        assert names
        assert {FEATURES[AT[name]].group for name in names} <= allowed[trial.lever]
        assert names.isdisjoint(MASKED)


def trial(change, lever=None):
    return Trial(change, lever or change.lever, np.zeros(1, np.float32))


def chosen(trials, days, *, now=40.0, probability=None):
    """Choose among estimates of days, the probability falling with each unless it is given."""
    chance = probability or [0.1] * len(days)
    estimates = [Estimate(*pair) for pair in zip(days, chance, strict=True)]
    found = choose(trials, estimates, now=Estimate(now, 0.2))
    return None if found is None else (found[0], found[1].days)


def test_the_smallest_change_that_is_worth_telling_is_chosen():
    trials = [trial(COOL), trial(COOLER), trial(LESS)]
    assert chosen(trials, [41.0, 61.0, 70.0]) == (LESS, 70.0)
    assert chosen(trials, [55.0, 61.0, 70.0]) == (COOL, 55.0)
    assert chosen(trials, [41.0, 61.0, 45.0]) == (COOLER, 61.0)


@pytest.mark.parametrize(
    ("now", "after", "is_told"),
    [(20.0, 26.9, False), (20.0, 27.0, True), (200.0, 219.0, False), (200.0, 220.1, True)],
)
def test_a_gain_is_told_from_seven_days_and_a_tenth(now, after, is_told):
    assert (chosen([trial(COOL)], [after], now=now) is not None) == is_told


def test_a_longer_estimate_with_a_likelier_failure_is_not_told():
    assert chosen([trial(COOL)], [60.0], probability=[0.21]) is None
    assert chosen([trial(COOL)], [60.0], probability=[0.2]) == (COOL, 60.0)


def test_a_lever_whose_harm_would_help_is_silent():
    probe = trial(None, Lever.TEMPERATURE)
    trials = [probe, trial(COOL), trial(COOLER), trial(LESS)]
    assert chosen(trials, [44.0, 60.0, 70.0, 41.0]) is None
    assert chosen(trials, [39.0, 60.0, 70.0, 41.0]) == (COOL, 60.0)
    assert chosen(trials, [44.0, 60.0, 70.0, 50.0]) == (LESS, 50.0)


def test_a_lever_whose_stronger_step_shortens_the_estimate_is_silent():
    trials = [trial(COOL), trial(COOLER)]
    assert chosen(trials, [60.0, 50.0]) is None
    assert chosen(trials, [38.0, 60.0]) is None


class Inverted:
    """The model, but for whom heat heals: what it says of temperatures is turned round."""

    def __init__(self, predictor):
        self._predictor = predictor

    def outputs(self, features, names=None):
        mirrored = features.copy()
        for name in ("battery_temp_max", "battery_temp_avg"):
            mirrored[:, AT[name]] = 80.0 - mirrored[:, AT[name]]
        return self._predictor.outputs(mirrored, names)


def test_nothing_is_said_of_temperature_where_the_model_likes_heat(predictor):
    features = simulated_rows().features
    days = predictor.predict(features).days_to_failure_p50
    asked = features[np.flatnonzero((days >= 7) & (days < 365))[::40]]
    hot = asked[asked[:, AT["battery_temp_max"]] > 36]
    told = {"as it is": set(), "inverted": set()}
    for name, model in (("as it is", predictor), ("inverted", Inverted(predictor))):
        outputs = model.outputs(hot)
        for row, p50, chance in zip(
            hot,
            outputs["days_to_failure"][:, 1].tolist(),
            outputs["failure_probability_30d"].tolist(),
            strict=True,
        ):
            found = find_counterfactual(
                model, row, chemistry="NMC111", now=Estimate(p50, chance)
            ).change
            told[name] |= {found.lever} if found else set()
    assert Lever.TEMPERATURE in told["as it is"]
    assert Lever.TEMPERATURE not in told["inverted"]


def searches(predictor, features, chemistry="NMC111"):
    """Search for each row whose estimate lies between 7 days and a year."""
    said = predictor.predict(features)
    days = said.days_to_failure_p50.astype(float)
    chance = said.failure_probability_30d.astype(float)
    for row in np.flatnonzero((days >= 7) & (days < 365)):
        kind = chemistry if isinstance(chemistry, str) else str(chemistry[row])
        now = Estimate(float(days[row]), float(chance[row]))
        yield row, find_counterfactual(predictor, features[row], chemistry=kind, now=now)


def test_the_model_itself_gives_both_figures(predictor):
    features = simulated_rows().features[::150]
    found = 0
    for row, result in searches(predictor, features):
        if result.search is Search.FOUND:
            found += 1
            match = next(
                trial
                for trial in trials_of(features[row], chemistry="NMC111")
                if trial.change == result.change
            )
            again = predictor.predict(match.features[None])
            assert result.after.days == pytest.approx(again.days_to_failure_p50[0], rel=1e-5)
            assert result.after.days >= result.now.days + max(7, 0.1 * result.now.days)
            assert result.after.probability <= result.now.probability
    assert found > 5


def test_all_changes_are_one_run(predictor, monkeypatch):
    runs = []
    outputs = predictor.outputs
    monkeypatch.setattr(
        predictor, "outputs", lambda x, names=None: runs.append(len(x)) or outputs(x, names)
    )
    row = a_device(battery_temp_max=47.0)
    result = find_counterfactual(predictor, row, chemistry="NMC111", now=Estimate(60.0, 0.1))
    assert runs == [10]
    assert result.num_tried == 7


@pytest.mark.parametrize(("now", "search"), [(400.0, "not_needed"), (6.9, "too_late")])
def test_where_nothing_is_to_be_told_the_model_is_not_run(now, search):
    result = find_counterfactual(None, a_device(), chemistry="NMC111", now=Estimate(now, 0.1))
    assert result.search == search
    assert result.num_tried == 0


@pytest.mark.slow
def test_a_change_is_found_for_a_good_part_of_the_devices_that_need_one(predictor):
    fleet = simulated_fleet()
    table = featurize(fleet.telemetry, fleet.profiles, every_days=7)
    ok = table.is_ok()
    chemistry = fleet.profiles.chemistry[table.device[ok]]
    found = [result.search for _, result in searches(predictor, table.features[ok], chemistry)]
    assert len(found) > 500
    assert 0.3 < found.count(Search.FOUND) / len(found) < 0.9
