import pytest

from edge_client.sensing.gauge_mapping import (
    CAPACITY_RULES,
    MEANING,
    ChargeMark,
    GaugeFacts,
    GaugeStatus,
    is_system_battery,
    map_gauge,
    rules_table,
    temperature_c,
)

BATTERY = {"type": "Battery", "present": 1}


def mapped(*, design=3000.0, mark=None, **facts):
    return map_gauge(GaugeFacts(**(BATTERY | facts)), design_capacity_mah=design, mark=mark)


@pytest.mark.parametrize(
    ("facts", "rule", "capacity_mah"),
    [
        ({"charge_full": 2_712_000}, "charge_full", 2712.0),
        ({"energy_full": 40_000_000, "energy_full_design": 50_000_000}, "energy_share", 2400.0),
        ({"energy_full": 28_500_000, "voltage_min_design": 11_400_000}, "energy_full", 2500.0),
        ({"state_of_health": 91}, "state_of_health", 2730.0),
        ({"charge_now": 2_600_000, "capacity": 100}, "charge_when_full", 2600.0),
        ({"charge_now": 2_508_000, "capacity": 96}, "charge_when_full", 2612.5),
    ],
)
def test_each_rule_gives_the_capacity_by_its_formula(facts, rule, capacity_mah):
    found = mapped(**facts)

    assert (found.status, found.rule) == (GaugeStatus.OK, rule)
    assert found.measurements["full_charge_capacity_mah"] == pytest.approx(capacity_mah)


def test_counter_gives_a_capacity_once_it_moved_by_forty_percent_in_one_run():
    facts = {"charge_counter": 2_350_000, "capacity": 84}
    near, far = (ChargeMark(1_054_000, percent, "boot") for percent in (60, 34))

    assert mapped(mark=near, **facts).status is GaugeStatus.NOT_YET_KNOWN
    found = mapped(mark=far, **facts)
    assert found.rule == "counter_swing"
    assert found.measurements["full_charge_capacity_mah"] == pytest.approx(2592.0)


def test_rule_with_the_smaller_error_comes_first():
    facts = {"charge_full": 2_700_000, "charge_now": 2_600_000, "capacity": 100}

    assert mapped(**facts).rule == "charge_full"


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"capacity": 71}, GaugeStatus.NO_FULL_CHARGE_CAPACITY),
        ({"charge_now": 1_000_000, "capacity": 60}, GaugeStatus.NOT_YET_KNOWN),
        ({"charge_full": 3010}, GaugeStatus.IMPLAUSIBLE),
        ({"charge_full": 5_000_000}, GaugeStatus.IMPLAUSIBLE),
        ({"charge_full": 0, "capacity": 50}, GaugeStatus.NO_FULL_CHARGE_CAPACITY),
        ({"present": 0, "charge_full": 2_700_000}, GaugeStatus.NO_BATTERY),
        ({}, GaugeStatus.UNREADABLE),
        ({"type": None}, GaugeStatus.NO_BATTERY),
    ],
)
def test_gauge_without_a_usable_capacity_has_a_status_that_says_why(facts, status):
    found = mapped(**facts)

    assert found.status is status
    assert "full_charge_capacity_mah" not in found.measurements
    assert MEANING[status]


def test_cycles_and_resistance_are_taken_as_they_stand_and_zero_means_not_known():
    found = mapped(charge_full=2_700_000, cycle_count=312, internal_resistance=48_500)
    unknown = mapped(charge_full=2_700_000, cycle_count=0, internal_resistance=0)

    assert found.measurements["charge_cycle_count"] == 312.0
    assert found.measurements["internal_resistance_mohm"] == 48.5
    assert set(unknown.measurements) == {"full_charge_capacity_mah"}


def test_values_that_cannot_be_are_named():
    found = mapped(charge_full=3010, cycle_count=-1, temp=-2732)

    assert found.refused == {"charge_full": 3010, "cycle_count": -1, "temp": -2732}


def test_temperature_is_in_tenths_of_a_degree():
    assert temperature_c(GaugeFacts(temp=287)) == 28.7
    assert temperature_c(GaugeFacts(temp=-55)) == -5.5
    assert temperature_c(GaugeFacts(temp=-2732)) is None


def test_battery_of_a_mouse_is_none_of_the_machine():
    assert is_system_battery(GaugeFacts(type="Battery"))
    assert not is_system_battery(GaugeFacts(type="Battery", scope="Device"))
    assert not is_system_battery(GaugeFacts(type="Mains"))


def test_table_has_a_row_for_each_rule():
    rows = rules_table().splitlines()[2:]

    assert [row.split("`")[1] for row in rows] == [rule.name for rule in CAPACITY_RULES]
