from datetime import UTC, datetime

import pytest

from edge_client.quiet_hours import QuietHours

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
    assert lost.end_after(noon) is None


def test_end_is_the_next_local_end():
    assert NIGHT.end_after(datetime(2026, 1, 15, 23, tzinfo=UTC)) == datetime(
        2026, 1, 16, 6, tzinfo=UTC
    )
    assert NIGHT.end_after(datetime(2026, 1, 15, 12, tzinfo=UTC)) == datetime(
        2026, 1, 15, 12, tzinfo=UTC
    )


@pytest.mark.parametrize("span", ["22:00", "", "late-early", "22:00-25:00", "22:30-07:00", "7-7"])
def test_what_is_no_span_is_refused(span):
    with pytest.raises(ValueError, match="hour"):
        QuietHours.parse(span, "UTC")


def test_span_survives_its_own_text():
    assert QuietHours.parse(NIGHT.span(), NIGHT.zone) == NIGHT
    assert QuietHours.parse("22:00-07:00", "Europe/Berlin") == NIGHT
