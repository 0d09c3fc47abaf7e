from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from models.quiet_hours import QuietHours

NIGHT = QuietHours(22, 7, "Europe/Berlin")


@pytest.mark.parametrize(
    ("utc_hour", "holds"),
    [(20, False), (21, True), (23, True), (3, True), (5, True), (6, False), (12, False)],
)
def test_span_over_midnight_is_read_in_the_owners_zone(utc_hour, holds):
    winter = datetime(2026, 1, 15, utc_hour, 0, tzinfo=UTC)
    assert NIGHT.hold(winter) is holds


def test_summer_time_moves_the_span():
    assert NIGHT.hold(datetime(2026, 7, 15, 20, 0, tzinfo=UTC))
    assert not NIGHT.hold(datetime(2026, 7, 15, 5, 0, tzinfo=UTC))


def test_span_within_a_day():
    noon = QuietHours.parse("12-15", "UTC")
    assert noon.hold(datetime(2026, 1, 1, 14, 59, tzinfo=UTC))
    assert not noon.hold(datetime(2026, 1, 1, 15, 0, tzinfo=UTC))


def test_unknown_zone_holds():
    lost = QuietHours(22, 7, "Nowhere/Land")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert lost.hold(noon)
    with pytest.raises(ValueError, match="Nowhere/Land"):
        lost.end(noon)


@pytest.mark.parametrize(
    ("now", "quiet", "ends"),
    [
        # 2026-03-29 01:00 UTC: clocks in Berlin go from 02:00 to 03:00.
        ("2026-03-28T22:30+00:00", (22, 7), "2026-03-29T05:00+00:00"),
        ("2026-03-29T00:30+00:00", (1, 2), "2026-03-29T01:00+00:00"),
        ("2026-03-29T01:30+00:00", (2, 3), None),
        # 2026-10-25 01:00 UTC: clocks go from 03:00 back to 02:00.
        ("2026-10-24T22:30+00:00", (22, 7), "2026-10-25T06:00+00:00"),
        ("2026-10-25T00:30+00:00", (2, 3), "2026-10-25T02:00+00:00"),
        ("2026-06-01T09:00+00:00", (11, 13), "2026-06-01T11:00+00:00"),
        ("2026-06-01T08:59+00:00", (11, 13), None),
        ("2026-06-01T11:00+00:00", (11, 13), None),
    ],
)
def test_quiet_hours_follow_the_owners_clock(now, quiet, ends):
    hours = QuietHours(*quiet, "Europe/Berlin")
    expected = None if ends is None else datetime.fromisoformat(ends)

    assert hours.end(datetime.fromisoformat(now)) == expected


@pytest.mark.parametrize(
    "zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "UTC"]
)
def test_quiet_always_ends_at_a_full_hour_that_is_not_quiet(zone):
    hours = QuietHours(20, 9, zone)
    moment, checked = datetime(2026, 3, 27, tzinfo=UTC), 0
    while moment < datetime(2026, 4, 12, tzinfo=UTC):
        ends = hours.end(moment)
        local = moment.astimezone(ZoneInfo(zone))
        is_quiet = local.hour >= 20 or local.hour < 9

        assert (ends is not None) == hours.hold(moment) == is_quiet
        if ends is not None:
            end = ends.astimezone(ZoneInfo(zone))
            assert (end.hour, end.minute, end.second) == (9, 0, 0)
            assert moment < ends <= moment + timedelta(hours=14)
            checked += 1
        moment += timedelta(minutes=37)

    assert checked > 250


@pytest.mark.parametrize("span", ["22:00", "", "late-early", "22:00-25:00", "22:30-07:00", "7-7"])
def test_what_is_no_span_is_refused(span):
    with pytest.raises(ValueError, match="hour"):
        QuietHours.parse(span, "UTC")


def test_span_survives_its_own_text():
    assert QuietHours.parse(NIGHT.span(), NIGHT.zone) == NIGHT
    assert QuietHours.parse("22:00-07:00", "Europe/Berlin") == NIGHT
