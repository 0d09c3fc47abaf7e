"""Invariants of a device's store over arbitrary readings, clocks and choices."""

import math
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.errors import ReadingRefusedError
from edge_client.telemetry_store import readings_of
from models.quiet_hours import QuietHours
from models.telemetry import MEASUREMENTS, Reading
from tests.support.edge_devices import NOW, PROFILE, new_store
from tests.support.examples import examples

ANY_NUMBER = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.floats(min_value=0, max_value=5000, width=32),
)
MOMENTS = st.datetimes(
    min_value=datetime(1971, 1, 1),
    max_value=datetime(2037, 1, 1),
    timezones=st.just(UTC),
).map(lambda at: at.replace(microsecond=0))
READINGS = st.builds(
    lambda at, values: Reading(
        at=at, **{m.name: value for m, value in zip(MEASUREMENTS, values, strict=True)}
    ),
    st.one_of(MOMENTS, st.integers(-9000, 30).map(lambda hours: NOW + timedelta(hours=hours))),
    st.tuples(*[ANY_NUMBER] * len(MEASUREMENTS)),
)


def breaks_a_rule(reading):
    """The rules, written down once more."""
    values = [value for value in reading.values() if not math.isnan(value)]
    ranges_hold = all(
        math.isnan(value) or m.low <= value <= m.high
        for m, value in zip(MEASUREMENTS, reading.values(), strict=True)
    )
    day = timedelta(days=1)
    is_timely = PROFILE.manufactured_at - day <= reading.at <= NOW + day
    return not (values and ranges_hold and is_timely)


def as_float32(values):
    return [struct.unpack("<f", struct.pack("<f", value))[0] for value in values]


@given(readings=st.lists(READINGS, max_size=12))
@settings(max_examples=examples(20))
def test_every_reading_is_kept_exactly_or_counted(tmp_path_factory, readings):
    with new_store(tmp_path_factory.mktemp("store")) as store:
        done = store.record_many(readings, now=NOW)
        telemetry = store.telemetry()
        refusals = store.refusals()
    expected = [reading for reading in readings if not breaks_a_rule(reading)]
    assert done.num_kept == len(telemetry) == len(expected)
    assert done.num_kept + sum(refusals.values()) == len(readings)
    assert telemetry.at_s.tolist() == [int(reading.at.timestamp()) for reading in expected]
    for row, reading in zip(telemetry.values, expected, strict=True):
        np.testing.assert_array_equal(row, np.array(as_float32(reading.values()), np.float32))


@given(readings=st.lists(READINGS, max_size=8))
@settings(max_examples=examples(10))
def test_one_by_one_and_in_bulk_are_the_same(tmp_path_factory, readings):
    with (
        new_store(tmp_path_factory.mktemp("bulk")) as bulk,
        new_store(tmp_path_factory.mktemp("single")) as single,
    ):
        bulk.record_many(readings, now=NOW)
        for reading in readings:
            with suppress(ReadingRefusedError):
                single.record(reading, now=NOW)
        assert bulk.refusals() == single.refusals()
        assert list(readings_of(bulk.telemetry())) == list(readings_of(single.telemetry()))


@given(clocks=st.lists(MOMENTS, min_size=1, max_size=30), retention_days=st.integers(1, 800))
@settings(max_examples=examples(10))
def test_no_clock_can_empty_the_ring_at_once(tmp_path_factory, clocks, retention_days):
    folder = tmp_path_factory.mktemp("store")
    with new_store(folder, retention_days=retention_days) as store:
        for now in clocks:
            before = store.num_readings()
            with suppress(ReadingRefusedError):
                store.record(Reading(at=now, usage_hours=1.0), now=now)
            assert store.num_readings() >= before - 8


@given(
    hours=st.tuples(st.integers(0, 23), st.integers(0, 23)).filter(lambda span: span[0] != span[1]),
    now=MOMENTS,
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
)
def test_quiet_that_holds_ends_within_a_day_and_then_holds_no_more(hours, now, zone):
    quiet = QuietHours(*hours, zone)
    assert QuietHours.parse(quiet.span(), zone) == quiet
    end = quiet.end(now)
    if quiet.hold(now):
        assert now < end <= now + timedelta(hours=25)
        assert not quiet.hold(end)
    else:
        assert end is None
