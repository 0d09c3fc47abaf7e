import numpy as np
import pytest

from models.telemetry import CAUSES
from simulations.failures import (
    CAPACITY_FADE,
    CHARGER_FAULT,
    NO_CAUSE,
    RESISTANCE_GROWTH,
    SUDDEN_DEATH,
    SWELLING,
    FailureTraits,
    first_cause,
    heat_trapped_c,
    shutdowns_a_day,
    swelling_stress,
    waiting_days,
)


def traits(**changed):
    never = np.array([np.inf])
    values = {
        "resistance_limit": np.array([2.1]),
        "swelling_a_day": np.array([1e-4]),
        "charger_onset_day": never,
        "charger_rise_days": np.array([60.0]),
        "charger_rise": np.array([1.0]),
        "sudden_day": never,
    }
    return FailureTraits(**(values | {name: np.array([v]) for name, v in changed.items()}))


def cause_of(*, capacity=900.0, resistance=1.3, swelling=0.2, day=100.0, **changed):
    return first_cause(
        capacity=np.array([capacity]),
        capacity_limit=np.array([800.0]),
        resistance=np.array([resistance]),
        swelling=np.array([swelling]),
        days_in_service=np.array([day]),
        traits=traits(**changed),
    )[0]


def test_numbers_of_causes_are_their_places_in_the_contract():
    assert CAUSES[CAPACITY_FADE] == "capacity_fade"
    assert CAUSES[RESISTANCE_GROWTH] == "resistance_growth"
    assert CAUSES[SWELLING] == "swelling"
    assert CAUSES[CHARGER_FAULT] == "charger_fault"
    assert CAUSES[SUDDEN_DEATH] == "sudden_death"


def test_sound_pack_lives():
    assert cause_of() == NO_CAUSE


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ({"capacity": 799.0}, CAPACITY_FADE),
        ({"resistance": 2.11}, RESISTANCE_GROWTH),
        ({"swelling": 1.0}, SWELLING),
        ({"charger_onset_day": 39.0}, CHARGER_FAULT),
        ({"sudden_day": 99.5}, SUDDEN_DEATH),
        ({"sudden_day": 99.5, "capacity": 1.0, "resistance": 9.0}, SUDDEN_DEATH),
        ({"swelling": 2.0, "capacity": 1.0}, SWELLING),
    ],
)
def test_each_cause_strikes_at_its_limit_and_the_abrupt_ones_first(state, cause):
    assert cause_of(**state) == cause


def test_charges_take_longer_over_the_days_after_the_onset():
    faulty = traits(charger_onset_day=100.0)

    stretch = [faulty.charge_stretch(np.array([day]))[0] for day in (50.0, 100.0, 130.0, 160.0)]

    assert stretch == [1.0, 1.0, 1.5, 2.0]


def test_shutdowns_grow_with_resistance_cold_and_load():
    def expected(resistance, temperature_c, load=1.0):
        return shutdowns_a_day(
            resistance=np.array([resistance]),
            limit=np.array([2.1]),
            temperature_c=np.array([temperature_c]),
            load=np.array([load]),
        )[0]

    assert expected(1.2, 25.0) < 0.003
    assert expected(2.1, 25.0) == pytest.approx(0.402)
    assert expected(1.9, 0.0) > 2 * expected(1.9, 25.0)
    assert expected(2.0, 25.0, load=2.0) > 1.9 * expected(2.0, 25.0)
    assert expected(9.0, -20.0) < 3.1


def test_gas_forms_in_heat_and_at_high_voltage():
    def stress(volts, celsius):
        return swelling_stress(
            voltage_v=np.full((4, 1), volts),
            inverse_kelvin=np.full((4, 1), 1 / (celsius + 273.15)),
        )[0]

    assert stress(4.1, 25.0) == pytest.approx(1.0)
    assert stress(4.1, 45.0) == pytest.approx(4.36, abs=0.05)
    assert stress(3.9, 25.0) < 0.2
    assert stress(3.7, 45.0) == 0.0


def test_swelling_traps_heat_late():
    trapped = heat_trapped_c(np.array([0.2, 0.5, 0.75, 1.0]))

    np.testing.assert_allclose(trapped, [0.0, 0.0, 3.0, 6.0])


def test_rate_of_zero_never_strikes():
    assert waiting_days(0.0) == np.inf
    assert waiting_days(2.0) == pytest.approx(182.625)
