"""Exposure and failure bins against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.hazard_bins import EDGES_DAYS, exposure
from tests.support.naive_exposure import naive_exposure


@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(1e-3, 2000), st.sampled_from([float(e) for e in EDGES_DAYS[1:]])),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_exposure_and_bin_of_failure_equal_loops(lives):
    days, event = np.array([d for d, _ in lives]), np.array([e for _, e in lives])
    share, event_bin = exposure(days, event)

    for row in range(len(lives)):
        expected_share, expected_bin = naive_exposure(days[row], event[row])
        assert event_bin[row] == expected_bin
        assert share[row] == pytest.approx(expected_share, abs=1e-6)
