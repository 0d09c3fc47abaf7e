import pytest

from edge_client.sensing.gauge_history import (
    GaugeHistory,
    Look,
    after_reading,
    ended,
    history_of_json,
    looked,
    measured_over,
)
from edge_client.sensing.gauge_mapping import GaugeFacts, map_gauge

TEN_MINUTES = 600.0


def a_look(number, *, boot="a", awake_s=None, **facts):
    said = GaugeFacts(type="Battery", **({"charge_full": 2_700_000} | facts))
    elapsed_s = number * TEN_MINUTES
    return Look(
        facts=said,
        mapping=map_gauge(said),
        boot=boot,
        awake_s=elapsed_s if awake_s is None else awake_s,
        elapsed_s=elapsed_s,
    )


def history_of(*looks, start=None):
    history = start or GaugeHistory()
    for look in looks:
        history = looked(history, look)
    return history


def test_mean_temperature_is_of_all_looks_and_the_highest_needs_six():
    few = history_of(*(a_look(n, temp=200 + 10 * n) for n in range(5)))
    enough = history_of(*(a_look(n, temp=200 + 10 * n) for n in range(6)))

    assert measured_over(few)["battery_temp_avg_c"] == pytest.approx(22.0)
    assert "battery_temp_max_c" not in measured_over(few)
    assert measured_over(enough)["battery_temp_max_c"] == 25.0


def test_charge_is_timed_from_low_to_full_by_the_middle_of_the_looks():
    history = history_of(
        a_look(0, status="Discharging", capacity=22),
        a_look(1, status="Charging", capacity=24),
        a_look(2, status="Charging", capacity=60),
        a_look(3, status="Charging", capacity=92),
        a_look(4, status="Full", capacity=100),
    )

    assert measured_over(history)["charge_duration_min"] == pytest.approx(30.0)


@pytest.mark.parametrize(
    "looks",
    [
        [("Discharging", 70), ("Charging", 71), ("Full", 100)],
        [("Discharging", 20), ("Charging", 22), ("Discharging", 60)],
        [("Charging", 22), ("Full", 100)],
        [("Unknown", 20), ("Charging", 22), ("Full", 100)],
    ],
    ids=["from high", "ended early", "start not seen", "status not known"],
)
def test_charge_that_was_not_seen_from_low_to_full_is_not_timed(looks):
    history = history_of(
        *(a_look(n, status=status, capacity=percent) for n, (status, percent) in enumerate(looks))
    )

    assert "charge_duration_min" not in measured_over(history)


def test_charge_with_an_hour_without_a_look_is_not_timed():
    history = history_of(
        a_look(0, status="Discharging", capacity=22),
        a_look(1, status="Charging", capacity=24),
        a_look(7, status="Charging", capacity=90),
        a_look(8, status="Full", capacity=100),
    )

    assert "charge_duration_min" not in measured_over(history)


def test_hours_are_those_awake_in_one_run():
    history = history_of(a_look(0, awake_s=50.0), a_look(6, awake_s=1850.0))

    assert measured_over(history)["usage_hours"] == pytest.approx(0.5)


def test_hours_go_on_over_an_ordered_restart_and_are_not_known_after_a_crash():
    before = history_of(a_look(0), a_look(6))
    in_order = looked(ended(before), a_look(1, boot="b"))
    crashed = looked(before, a_look(1, boot="b"))

    assert measured_over(in_order)["usage_hours"] == pytest.approx((3600 + 600) / 3600)
    assert "usage_hours" not in measured_over(crashed)
    again = looked(after_reading(crashed), a_look(4, boot="b"))
    assert measured_over(again)["usage_hours"] == pytest.approx(0.5)


def test_shutdown_is_one_that_ended_a_run_while_the_program_was_looking():
    first = history_of(a_look(0))
    assert measured_over(first)["unexpected_shutdown_count"] == 0.0
    assert measured_over(looked(first, a_look(1)))["unexpected_shutdown_count"] == 0.0

    in_order = looked(ended(first), a_look(0, boot="b"))
    cut = looked(in_order, a_look(0, boot="c"))
    cut_again = looked(after_reading(cut), a_look(0, boot="d"))

    assert measured_over(in_order)["unexpected_shutdown_count"] == 0.0
    assert measured_over(cut)["unexpected_shutdown_count"] == 1.0
    assert measured_over(cut_again)["unexpected_shutdown_count"] == 2.0


def test_program_that_was_killed_alone_counts_no_shutdown():
    history = history_of(a_look(0), a_look(1))

    assert looked(history, a_look(2)).shutdowns == 0


def test_counter_of_charge_is_marked_and_the_mark_moves_with_use_age_and_restart():
    def phone(number, counter, percent, start, boot="a"):
        said = GaugeFacts(type="Battery", charge_counter=counter, capacity=percent)
        mapping = map_gauge(said, design_capacity_mah=3000.0, mark=start.mark(boot))
        return Look(facts=said, mapping=mapping, boot=boot, awake_s=0.0, elapsed_s=number * 600.0)

    history = GaugeHistory()
    for number, (counter, percent) in enumerate([(300_000, 10), (1_500_000, 50)]):
        history = looked(history, phone(number, counter, percent, history))
    assert measured_over(history)["full_charge_capacity_mah"] == pytest.approx(3000.0)
    assert history.mark_percent == 50

    history = looked(history, phone(200, 1_600_000, 53, history))
    assert history.mark_percent == 53
    assert history.mark("b") is None


def test_history_survives_json_and_takes_one_of_another_version():
    history = history_of(*(a_look(n, temp=201) for n in range(3)))

    assert history_of_json(history.as_json()) == history
    assert history_of_json({"shutdowns": 4, "new_in_later_versions": 1}).shutdowns == 4
    assert history_of_json(None) == GaugeHistory()
