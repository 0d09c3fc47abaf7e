import numpy as np
import pytest

from simulations import FleetRecipe
from simulations.chemistries import LAWS
from simulations.climates import CLIMATES, outdoor_temperature, yearly_temperature
from simulations.counter_random import KeyedRandom
from simulations.manufacturing import DEVICE_MODELS, draw_cells, draw_hardware
from simulations.users import cell_temperature, depth_of, draw_users, state_of_charge

RECIPE = FleetRecipe()
HOT, TROPICAL = 3, 4


@pytest.fixture(scope="module")
def random():
    return KeyedRandom(seed=1, device_indices=np.arange(20_000, dtype=np.int64))


@pytest.fixture(scope="module")
def users(random):
    return draw_users(random, recipe=RECIPE)


def test_year_has_the_climates_means_seasons_and_days():
    year = outdoor_temperature(num_days=365, seed=1, first_day_of_year=0, warming_c=0.0)

    assert year.shape == (365, 4, 5)
    for number, climate in enumerate(CLIMATES):
        assert year[:, :, number].mean() == pytest.approx(climate.mean_c, abs=1.5)
        summer = year[climate.warmest_day - 15 : climate.warmest_day + 15, :, number].mean()
        assert summer - climate.mean_c == pytest.approx(climate.seasonal_c, abs=4.5)
    assert np.ptp(year[:, :, HOT], axis=1).mean() > np.ptp(year[:, :, TROPICAL], axis=1).mean()


def test_weather_of_the_first_days_does_not_depend_on_the_length():
    short = outdoor_temperature(num_days=20, seed=4, first_day_of_year=0, warming_c=0.0)
    long = outdoor_temperature(num_days=90, seed=4, first_day_of_year=0, warming_c=0.0)

    assert np.array_equal(short, long[:20])


def test_warming_lifts_every_temperature():
    cool = outdoor_temperature(num_days=9, seed=4, first_day_of_year=0, warming_c=0.0)
    warm = outdoor_temperature(num_days=9, seed=4, first_day_of_year=0, warming_c=5.0)

    np.testing.assert_allclose(warm - cool, 5.0)


def test_mean_year_is_the_mean_of_the_climate():
    mean = yearly_temperature(warming_c=0.0).mean(axis=(0, 1))

    np.testing.assert_allclose(mean, [climate.mean_c for climate in CLIMATES], atol=1e-9)


def test_users_are_spread_as_the_recipe_says(users):
    spread = np.std(np.log(users.full_cycles_a_day))

    assert np.median(users.full_cycles_a_day) == pytest.approx(0.55, abs=0.02)
    assert spread == pytest.approx(0.55, abs=0.03)
    assert (users.soc_ceiling < 1).mean() == pytest.approx(0.30, abs=0.02)
    assert users.indoor_share.mean() == pytest.approx(5 / 7, abs=0.01)
    assert np.bincount(users.climate) / 20_000 == pytest.approx(RECIPE.climate_mix, abs=0.02)


def test_days_of_a_user_are_gamma_distributed_about_the_users_mean(random, users):
    days = users.cycles_of_days(random, days=np.arange(40), weekend=np.zeros(40, bool), shape=8.0)
    typical = np.abs(users.full_cycles_a_day - 0.55) < 0.1
    ratio = (days / users.full_cycles_a_day)[:, typical]

    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert ratio.std() == pytest.approx(1 / np.sqrt(8), abs=0.01)
    skewness = ((ratio - ratio.mean()) ** 3).mean() / ratio.std() ** 3
    assert skewness == pytest.approx(2 / np.sqrt(8), abs=0.06)


def test_no_charge_is_deeper_than_the_ceiling_allows():
    cycles = np.array([0.05, 0.5, 0.89, 0.95, 1.8])

    depth = depth_of(cycles, np.ones(5))

    np.testing.assert_allclose(depth, [0.05, 0.5, 0.89, 0.475, 0.9])
    assert (depth_of(cycles, np.full(5, 0.8)) <= 0.72 + 1e-12).all()


def test_charge_stays_between_empty_and_the_ceiling(users):
    depth = depth_of(users.full_cycles_a_day, users.soc_ceiling)

    charge = state_of_charge(users, depth, ceiling=users.soc_ceiling)

    assert (charge <= users.soc_ceiling).all()
    assert charge.min() > 0.05


def test_indoor_devices_feel_less_of_the_weather(users):
    cold_day = np.full((4, 5), -20.0)

    temperature = cell_temperature(
        users,
        outdoor_c=cold_day,
        indoor_c=np.full(5, 20.0),
        full_cycles=np.full(20_000, 1e-9),
    )

    np.testing.assert_allclose(temperature[0], 40.0 * users.indoor_share - 20.0, atol=1e-6)


def test_packs_differ_as_the_recipe_says(random):
    cells, bad_lot = draw_cells(random, pack_number=np.zeros(20_000, np.int64), recipe=RECIPE)
    good = np.log(cells.fade_factor[~bad_lot])

    assert bad_lot.mean() == pytest.approx(0.03, abs=0.005)
    assert good.std() == pytest.approx(0.15, abs=0.005)
    assert np.log(cells.fade_factor[bad_lot]).mean() - good.mean() == pytest.approx(
        np.log(2), abs=0.05
    )
    assert cells.capacity_factor.std() == pytest.approx(0.012, abs=0.001)
    assert cells.knee_soh.mean() == pytest.approx(0.845, abs=0.002)


def test_every_device_model_has_a_chemistry_that_is_known_and_the_first_six_the_oldest(random):
    assert {model.chemistry for model in DEVICE_MODELS} == set(LAWS)
    assert {model.chemistry for model in DEVICE_MODELS[:6]} == {"NMC111"}
    assert set(draw_hardware(random, recipe=RECIPE).chemistries) == {"NMC111"}


def test_second_pack_is_another_draw(random):
    first, _ = draw_cells(random, pack_number=np.zeros(20_000, np.int64), recipe=RECIPE)
    second, _ = draw_cells(random, pack_number=np.ones(20_000, np.int64), recipe=RECIPE)

    assert abs(np.corrcoef(first.capacity_factor, second.capacity_factor)[0, 1]) < 0.04


def test_end_of_life_differs_by_model_between_70_and_85_percent(random):
    hardware = draw_hardware(random, recipe=RECIPE)
    shares = {model.end_of_life_share for model in DEVICE_MODELS}

    assert min(shares) == 0.70
    assert max(shares) == 0.85
    assert set(hardware.of_model("end_of_life_share").tolist()) == shares
    assert set(hardware.criticality.tolist()) == {"low", "medium", "high"}


def test_some_models_lack_measurements(random):
    hardware = draw_hardware(random, recipe=RECIPE)

    lacks = hardware.lacks("internal_resistance_mohm")

    assert lacks.any()
    assert not lacks.all()
    assert not hardware.lacks("full_charge_capacity_mah").any()
