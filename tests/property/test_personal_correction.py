"""Whatever a device measures, and whatever its clock says, the correction keeps its bounds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.personal_correction import (
    JUDGED_AFTER_DAYS,
    LARGEST_STEP,
    LEAST_LOG_FACTOR,
    Correction,
    Forecast,
    corrected_days,
    handed_on,
    learnt,
)

measured = st.floats(-1e6, 1e6) | st.just(float("nan"))
moments = st.lists(
    st.tuples(st.floats(-1e5, 1e5), measured, measured, st.floats(1.0, 3650.0)),
    min_size=1,
    max_size=40,
)


@given(moments, st.lists(st.booleans(), min_size=40, max_size=40))
def test_bounds_hold_and_steps_are_small_and_rare(rows, new_models):
    correction, waiting = Correction.none(), Forecast.none()
    for values, is_new in zip(rows, new_models, strict=False):
        today = Forecast(*(np.array([value]) for value in values))
        if is_new:
            handed, waiting = handed_on(correction, waiting, today)

            assert correction.log_factor[0] <= handed.log_factor[0] <= 0.0
            assert np.isfinite(np.array(handed)).all()
            correction = handed
        age = float(today.day[0] - waiting.day[0])
        after, waiting = learnt(correction, waiting, today)
        moved = abs(float(after.log_factor[0] - correction.log_factor[0]))

        assert LEAST_LOG_FACTOR <= after.log_factor[0] <= 0.0
        assert correction.log_factor[0] - after.log_factor[0] <= LARGEST_STEP + 1e-12
        assert moved == 0.0 or age >= JUDGED_AFTER_DAYS
        assert np.isfinite(np.array(after)).all()
        correction = after


@given(st.floats(0.0, 3650.0), st.floats(0.0, 3650.0), st.floats(-0.7, 0.0))
def test_days_are_never_longer_and_keep_their_order(one, other, log_factor):
    low, high = sorted((one, other))
    days = np.array([low, high])
    shorter = corrected_days(days, np.full(2, log_factor))

    assert (shorter <= days).all()
    assert shorter[0] <= shorter[1] + 1e-9
    assert ((shorter < 30) == (days < 30)).all()
