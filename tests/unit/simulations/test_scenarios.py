"""Named fleets: their files, their prevalence, and what is refused in a file of one's own."""

import math
import re
from pathlib import Path

import pytest

from simulations import FleetRecipe
from simulations.climates import CLIMATES
from simulations.fleet_faults import POISONS, FaultPlan, Lies
from simulations.scenarios import (
    SCENARIO_NAMES,
    FleetPrevalence,
    ScenarioError,
    load_scenario,
    measured_prevalence,
)
from simulations.streams import simulate_device, stream_telemetry

OWN = """
summary = "A fleet of my own."
description = "Locks in the desert."
devices = 50
days = 40
seed = 3
based_on = "hot"

[recipe]
device_model_mix = { lock = 1.0 }
cadence_h = 24
"""
# Four standard deviations of a count, of the small fleet and of the one that is stated.
SIGMAS = 4.0
SMALL_FLEET = 600


@pytest.mark.parametrize("name", SCENARIO_NAMES)
def test_scenario_has_a_file_that_is_read(name):
    scenario = load_scenario(name)

    assert scenario.name == name
    assert scenario.summary.endswith(".")
    assert len(scenario.description) > 80
    assert scenario.prevalence is not None
    assert scenario.prevalence.seed != scenario.seed


def test_every_file_of_the_catalogue_is_in_the_list():
    folder = Path(load_scenario.__code__.co_filename).parent

    assert {path.stem for path in folder.glob("*.toml")} == set(SCENARIO_NAMES)


def test_page_of_scenarios_states_what_the_files_state():
    page = Path(__file__).parents[3] / "docs" / "reference" / "scenarios.md"
    rows = re.findall(r"^\| ([a-z-]+) \| ([\d.]+) % \|", page.read_text(), re.MULTILINE)

    assert [name for name, _ in rows] == list(SCENARIO_NAMES)
    for name, stated in rows:
        assert stated == f"{100 * load_scenario(name).prevalence.share:.2f}"


def test_stated_prevalences_are_those_that_were_asked_for():
    stated = {name: load_scenario(name).prevalence.share for name in SCENARIO_NAMES}

    assert stated["reference"] == pytest.approx(0.010, abs=0.0004)
    assert stated["healthy"] == pytest.approx(0.003, abs=0.0002)
    assert stated["ageing"] == pytest.approx(0.030, abs=0.001)
    for name in ("noisy-gauge", "sparse-telemetry", "hostile"):
        assert stated[name] == stated["reference"]


# All of them at full size are a soak test.
@pytest.mark.parametrize("name", ["reference", "ageing", "hot", "mixed-chemistry", "drift"])
def test_small_fleet_fails_as_often_as_is_stated(name):
    scenario = load_scenario(name)

    found = measured_prevalence(scenario, devices=SMALL_FLEET, seed=5)

    assert_agrees(found, scenario)


@pytest.mark.soak
@pytest.mark.parametrize("name", SCENARIO_NAMES)
def test_fleet_of_full_size_fails_as_often_as_is_stated(name):
    scenario = load_scenario(name)

    found = measured_prevalence(scenario, devices=scenario.prevalence.devices, seed=6)

    assert_agrees(found, scenario)


def assert_agrees(found, scenario):
    stated = scenario.prevalence
    scatter = math.hypot(1 / math.sqrt(found.failures), 1 / math.sqrt(stated.failures))
    assert found.share == pytest.approx(stated.share, rel=SIGMAS * scatter)


def test_scenarios_differ_in_what_they_are_named_for():
    recipes = {name: load_scenario(name).recipe for name in SCENARIO_NAMES}
    reference = recipes["reference"]
    names = [climate.name for climate in CLIMATES]

    assert recipes["cold"].climate_mix[names.index("cold")] == 0.7
    assert recipes["hot"].warming_c > 0 == reference.warming_c
    assert recipes["bad-lot"].bad_lot_share > 10 * reference.bad_lot_share
    assert recipes["noisy-gauge"].gauge_noise > reference.gauge_noise
    assert recipes["sparse-telemetry"].lost_reading_share > reference.lost_reading_share
    assert len(recipes["mixed-chemistry"].device_model_mix) == 9
    assert recipes["drift"].new_model == "scanner"
    assert recipes["hostile"] == reference


def test_hostile_scenario_takes_its_faults_by_name():
    faults = load_scenario("hostile").faults

    assert faults.poisons == POISONS
    assert faults.lies is Lies.PAST_CLIPPING
    assert faults.dropout == 0.2
    assert load_scenario("reference").faults == FaultPlan()


def test_device_is_made_again_from_scenario_seed_and_number():
    scenario = load_scenario("drift")
    again = simulate_device(4, num_days=20, seed=scenario.seed, recipe=scenario.recipe)
    part = next(
        stream_telemetry(num_devices=6, num_days=20, seed=scenario.seed, recipe=scenario.recipe)
    )

    there = part.telemetry.devices(4, 5)
    assert again.telemetry.device_ids == there.device_ids
    assert again.telemetry.values.tobytes() == there.values.tobytes()


def test_own_file_starts_from_a_scenario_of_the_catalogue(tmp_path):
    path = tmp_path / "desert.toml"
    path.write_text(OWN)

    scenario = load_scenario(path)

    hot = load_scenario("hot").recipe
    assert scenario.name == "desert"
    assert scenario.devices == 50
    assert scenario.prevalence is None
    assert scenario.recipe.climate_mix == hot.climate_mix
    assert scenario.recipe.fade_scale == hot.fade_scale
    assert scenario.recipe.device_model_mix == (0, 0, 1, 0, 0, 0, 0, 0, 0)
    assert scenario.recipe.cadence_h == 24


def test_own_file_may_start_from_the_defaults(tmp_path):
    path = tmp_path / "plain.toml"
    path.write_text(OWN.replace('based_on = "hot"\n', ""))

    assert load_scenario(str(path)).recipe.warming_c == FleetRecipe().warming_c


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("devices = 50", "", "devices is missing"),
        ("devices = 50", "device = 50", "no 'device'; did you mean devices"),
        ("devices = 50", "devices = 5.5", "devices must be a whole number"),
        ("seed = 3", "seed = -3", "seed must be a whole number of at least 0"),
        ('"A fleet of my own."', '""', "summary must be a text"),
        ('"hot"', '"desert"', "based_on cannot be 'desert'"),
        ("[recipe]", "[recipes]", "did you mean recipe"),
        ("cadence_h = 24", "cadence_hours = 24", "no knob 'cadence_hours'; did you mean cadence_h"),
        ("cadence_h = 24", "cadence_h = 7", "cadence_h must be one of"),
        ("cadence_h = 24", "[faults]\ndropout = 1.5", "shares must lie in"),
        ("cadence_h = 24", '[faults]\npoisons = ["rude"]', "'rude' is not a valid Fault"),
        ("cadence_h = 24", "[faults]\ndropouts = 0.1", "did you mean dropout"),
        ("cadence_h = 24", "[prevalence]\nshare = 0.1", "lacks failures"),
        ("cadence_h = 24", "cadence_h 24", "is not TOML"),
    ],
)
def test_file_that_is_no_scenario_is_refused_in_one_line(tmp_path, old, new, said):
    path = tmp_path / "own.toml"
    assert old in OWN
    path.write_text(OWN.replace(old, new))

    with pytest.raises(ScenarioError) as refused:
        load_scenario(path)

    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("referense", "did you mean reference?"),
        ("moon", "name one of reference, healthy"),
        ("no/such.toml", "No such file"),
    ],
)
def test_unknown_name_is_refused_with_what_there_is(name, said):
    with pytest.raises(ScenarioError, match=said):
        load_scenario(name)


def test_interval_of_a_prevalence_narrows_with_failures():
    few, many = FleetPrevalence(share=0.01, failures=25), FleetPrevalence(share=0.01, failures=2500)

    assert few.interval == pytest.approx((0.006, 0.014))
    assert many.interval == pytest.approx((0.0096, 0.0104))
    assert FleetPrevalence(share=0.0, failures=0).interval == (0.0, 0.0)
