"""When devices can take part in rounds: day and night, charging, outages."""

from dataclasses import replace

import numpy as np
import pytest

from simulations import FleetRecipe, simulate_fleet
from simulations.availability import availability
from simulations.counter_random import KeyedRandom
from simulations.users import draw_users

RECIPE = FleetRecipe()
DEVICES, WEEK = 400, 7 * 24


def of(indices, *, first_hour=0, num_hours=WEEK, recipe=RECIPE, seed=3):
    return availability(
        np.asarray(indices), first_hour=first_hour, num_hours=num_hours, seed=seed, recipe=recipe
    )


@pytest.fixture(scope="module")
def weeks():
    return of(np.arange(DEVICES), num_hours=4 * WEEK)


def test_any_device_and_any_hour_can_be_asked_for_alone(weeks):
    part = of([7, 311], first_hour=100, num_hours=60)

    for whole, own in zip(weeks, part, strict=True):
        assert np.array_equal(whole[100:160][:, [7, 311]], own)


def test_outage_that_began_long_ago_is_known(weeks):
    often = replace(RECIPE, outage_interval_days=15.0, outage_mean_days=20.0)
    whole = of(np.arange(50), num_hours=60 * 24, recipe=often)
    late = of(np.arange(50), first_hour=55 * 24, num_hours=5 * 24, recipe=often)

    assert np.array_equal(whole.reachable[55 * 24 :], late.reachable)
    assert late.reachable.mean() < 0.6 < weeks.reachable.mean()


def test_readiness_comes_and_goes_with_the_day(weeks):
    by_hour = weeks.can_train.reshape(-1, 24, DEVICES).mean(axis=(0, 2))

    assert 0.1 < by_hour.mean() < 0.5
    assert by_hour.max() > 2 * by_hour.min()
    yesterday, today = by_hour, np.roll(by_hour, 12)
    assert np.corrcoef(yesterday, today)[0, 1] < 0


def test_devices_charge_in_their_own_quarter(weeks):
    random = KeyedRandom(seed=3, device_indices=np.arange(DEVICES))
    slot = draw_users(random, recipe=RECIPE).charge_slot
    of_quarter = weeks.charging.reshape(-1, 4, 6, DEVICES).mean(axis=(0, 2))

    own = of_quarter[slot, np.arange(DEVICES)].mean()
    opposite = of_quarter[(slot + 2) % 4, np.arange(DEVICES)].mean()
    assert own > 0.4
    assert own > 3 * opposite


def test_devices_that_are_used_more_charge_longer_and_are_less_idle(weeks):
    random = KeyedRandom(seed=3, device_indices=np.arange(DEVICES))
    use = draw_users(random, recipe=RECIPE).full_cycles_a_day

    assert np.corrcoef(use, weeks.charging.mean(axis=0))[0, 1] > 0.2
    assert np.corrcoef(use, weeks.idle.mean(axis=0))[0, 1] < -0.5


def test_outages_are_those_that_leave_holes_in_the_readings():
    often = replace(
        RECIPE,
        outage_interval_days=20.0,
        outage_mean_days=4.0,
        clock_fault_interval_days=1e6,
        lost_reading_share=0.0,
        sudden_deaths_a_year=0.0,
        retired_a_year=0.0,
    )
    fleet = simulate_fleet(num_devices=20, num_days=60, seed=3, recipe=often)
    reachable = of(np.arange(20), num_hours=60 * 24, recipe=often).reachable
    start_s = int(often.start_at.timestamp())
    for device in range(20):
        if fleet.truth.is_silent[device]:
            continue
        at_s = fleet.telemetry.devices(device, device + 1).at_s
        read = np.zeros(240, bool)
        read[np.minimum((at_s - start_s) // (6 * 3600), 239)] = True
        dark = ~reachable[:, device].reshape(240, 6).any(axis=1)
        # A burst that ends within the last hour of six leaves their reading.
        assert (read & dark).mean() < 0.02
        assert (read | dark).mean() > 0.97


def test_new_model_is_not_reachable_before_it_is_there():
    newcomers = replace(
        RECIPE,
        new_model="meter",
        new_model_share=1.0,
        new_model_from_day=5.0,
        new_model_over_days=0.0,
    )

    reachable = of(np.arange(30), num_hours=10 * 24, recipe=newcomers).reachable

    assert not reachable[: 5 * 24].any()
    assert reachable[5 * 24 :].mean() > 0.9


@pytest.mark.parametrize("wrong", [{"first_hour": -1}, {"num_hours": 0}])
def test_hours_before_the_study_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 0 and num_hours at least 1"):
        of([0], **wrong)
