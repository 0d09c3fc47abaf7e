"""Which six devices run as agents, and when."""

import numpy as np
import pytest

from simulations.demo.chosen_devices import Moments, best_moment, cast_of
from simulations.demo.scene import SceneError
from simulations.run_report_parts import Expectation

URGENT, SOON = Expectation.URGENT, Expectation.SOON
HEALTHY, QUIET = Expectation.HEALTHY, Expectation.QUIET_HOURS


def moments(*rows):
    """Build rows of (midnight, device, days, flagged), and whether the battery has failed."""
    at, device, days, flagged, failed = zip(*((*row, False)[:5] for row in rows), strict=True)
    return Moments(
        as_of_s=np.array(at, np.int64),
        device=np.array(device, np.intp),
        days_p50=np.array(days, np.float32),
        flagged=np.array(flagged, bool),
        failed=np.array(failed, bool),
    )


def at_once(*devices, midnight=0):
    return [(midnight, *device) for device in devices]


FULL = at_once(
    (10, 3, True),
    (11, 5, False),
    (12, 20, True),
    (13, 200, True),
    (14, 28, False),
    (15, 900, False),
    (16, 2000, False),
)


def test_six_devices_get_the_parts_that_they_play():
    cast = dict(cast_of(moments(*FULL)))

    assert cast == {10: URGENT, 11: URGENT, 12: SOON, 14: SOON, 16: HEALTHY, 13: QUIET}


def test_with_one_urgent_battery_another_that_is_due_takes_its_place_under_its_own_name():
    cast = cast_of(moments(*[row for row in FULL if row[1] != 11], *at_once((17, 29, True))))

    assert cast == [(10, URGENT), (12, SOON), (14, SOON), (17, SOON), (16, HEALTHY), (13, QUIET)]


def test_with_two_due_batteries_one_owner_sleeps():
    cast = cast_of(moments(*at_once((1, 12, False), (2, 3, True), (3, 400, False))))

    assert cast == [(2, URGENT), (3, HEALTHY), (1, QUIET)]


def test_healthy_devices_take_the_parts_that_nobody_due_can_play():
    many = at_once((1, 12, False), (2, 3, True), *((n, 100.0 * n, False) for n in range(3, 20)))
    cast = cast_of(moments(*many))

    assert len(cast) == 6
    assert [part for _, part in cast] == [URGENT, HEALTHY, HEALTHY, HEALTHY, HEALTHY, QUIET]


def test_moment_is_the_latest_with_all_that_are_wanted():
    complete = [(day, *row[1:]) for day in (100, 200) for row in FULL]
    poorer = at_once((10, 3, True), (11, 20, True), (12, 500, False), midnight=300)

    assert best_moment(moments(*complete, *poorer)) == 200


def test_moment_without_two_due_batteries_is_refused():
    with pytest.raises(SceneError, match="another --seed"):
        best_moment(moments(*at_once((1, 3, True), (2, 500, False))))


def test_moment_without_a_healthy_battery_is_refused():
    with pytest.raises(SceneError, match="another --seed"):
        best_moment(moments(*at_once((1, 3, True), (2, 5, False))))


def test_battery_that_failed_unnoticed_is_urgent_where_none_is_found_that_still_works():
    one_works = [row for row in FULL if row[1] != 11]
    overdue = at_once((20, 1, True, True), (21, 12, True, True))

    assert cast_of(moments(*one_works, *overdue))[:2] == [(10, URGENT), (20, URGENT)]
    assert cast_of(moments(*FULL, *overdue))[:2] == [(10, URGENT), (11, URGENT)]
    assert 21 not in dict(cast_of(moments(*one_works, *overdue)))


def test_moment_at_which_urgent_batteries_still_work_is_preferred():
    overdue = [(300, *row[1:], row[1] == 11) for row in FULL]

    assert best_moment(moments(*FULL, *overdue)) == 0
