"""Whatever clocks and gauges do, readings come in their rhythm and hold what can be."""

import math
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge_client.sensing.gauge_history import GaugeHistory, Look, looked, measured_over
from edge_client.sensing.gauge_mapping import (
    LEAST_OF_DESIGN,
    MOST_OF_DESIGN,
    NUMBERS,
    ChargeMark,
    GaugeFacts,
    GaugeStatus,
    map_gauge,
)
from edge_client.sensing.sampling import (
    SamplingSettings,
    after_failure,
    after_reading,
    age_s,
    begin,
)

EVERY_S = 6 * 3600.0
POLL_S = 300.0
START = datetime(2026, 6, 1, tzinfo=UTC)
AWAKE = st.floats(60.0, 2 * 86_400.0)
ASLEEP = st.floats(0.0, 30 * 86_400.0)
WALL_JUMPS = st.floats(-10 * 366 * 86_400.0, 10 * 366 * 86_400.0)


@given(
    st.lists(st.tuples(AWAKE, ASLEEP, WALL_JUMPS, st.booleans()), min_size=1, max_size=6),
    st.text(min_size=1, max_size=8),
)
def test_no_clock_floods_or_starves(stretches, device_id):
    """Stretches awake and asleep, the wall clock set in between, some with a new process."""
    elapsed_s, wall = 0.0, START
    settings = SamplingSettings(every_s=EVERY_S)
    taken_s, awake_s, last_wall = [], 0.0, None
    schedule = begin(settings, device_id=device_id, elapsed_s=0.0, since_last_s=None)
    num_processes = 1
    for awake, asleep, jump, is_restarted in stretches:
        for _ in range(int(awake / POLL_S) + 1):
            if schedule.reading_is_due(elapsed_s):
                taken_s.append(elapsed_s)
                last_wall = wall
                schedule = after_reading(schedule, elapsed_s)
            assert schedule.reading_at_s - elapsed_s <= 1.5 * EVERY_S
            elapsed_s += POLL_S
            awake_s += POLL_S
            wall += timedelta(seconds=POLL_S)
        elapsed_s += asleep
        wall = min(
            max(wall + timedelta(seconds=asleep + jump), START - timedelta(days=9999)),
            START + timedelta(days=9999),
        )
        if is_restarted:
            num_processes += 1
            since = age_s(last_wall, wall)
            schedule = begin(settings, device_id=device_id, elapsed_s=elapsed_s, since_last_s=since)

    gaps = [after - before for before, after in pairwise(taken_s)]
    assert sum(gap < EVERY_S / 2 for gap in gaps) <= num_processes - 1
    assert len(taken_s) <= awake_s / (EVERY_S / 2) + num_processes + len(stretches)


@given(st.floats(0, 1e7), st.integers(1, 50))
def test_failing_sensor_is_asked_every_five_minutes(start_s, failures):
    schedule = begin(SamplingSettings(), device_id="d", elapsed_s=start_s, since_last_s=None)
    asked, now_s = 0, start_s
    while asked < failures:
        if schedule.reading_is_due(now_s):
            asked += 1
            schedule = after_failure(schedule, now_s)
        now_s += 60.0

    assert now_s - start_s >= (failures - 1) * 300.0


INTEGERS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63),
    st.integers(-100, 300),
    st.integers(1_000_000, 5_000_000),
)
FACTS = st.builds(
    GaugeFacts,
    **dict.fromkeys(NUMBERS, INTEGERS),
    status=st.sampled_from([None, "Charging", "Discharging", "Full", "Not charging", "Unknown"]),
    type=st.sampled_from([None, "Battery"]),
)


@given(
    FACTS,
    st.one_of(st.none(), st.floats(1.0, 1e6)),
    st.one_of(st.none(), st.builds(ChargeMark, st.integers(), st.integers(-5, 300), st.just("b"))),
)
def test_gauge_of_any_values_gives_what_can_be_or_a_status(facts, design, mark):
    found = map_gauge(facts, design_capacity_mah=design, mark=mark)
    capacity = found.measurements.get("full_charge_capacity_mah")

    assert (capacity is None) == (found.status is not GaugeStatus.OK) == (found.rule is None)
    if capacity is not None and design is not None:
        assert LEAST_OF_DESIGN <= capacity / design <= MOST_OF_DESIGN
    assert all(value > 0 and math.isfinite(value) for value in found.measurements.values())


LOOKS = st.builds(
    Look,
    facts=FACTS,
    mapping=st.builds(lambda facts: map_gauge(facts, design_capacity_mah=3000.0), FACTS),
    boot=st.sampled_from("abc"),
    awake_s=st.floats(0, 1e7),
    elapsed_s=st.floats(0, 1e7),
)


@given(st.lists(LOOKS, max_size=6))
def test_looks_of_any_order_give_measurements_that_can_be(looks):
    history = GaugeHistory()
    for look in looks:
        history = looked(history, look)
    found = measured_over(history)

    assert all(math.isfinite(value) for value in found.values())
    assert found["unexpected_shutdown_count"] <= max(len(looks) - 1, 0)
    assert found.get("usage_hours", 0.0) >= 0
    assert found.get("charge_duration_min", 0.0) >= 0
    assert -60 <= found.get("battery_temp_avg_c", 0.0) <= found.get("battery_temp_max_c", 120.0)
    assert {entry.name for entry in fields(GaugeHistory)} == set(history.as_json())
