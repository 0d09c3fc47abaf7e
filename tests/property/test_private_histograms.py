"""Answers to counts: whatever a device holds, the answer has the public shape and the bound."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.feature_spec import FEATURE_NAMES
from models.private_histograms import (
    DRIFT_FEATURES,
    DeviceMoment,
    cell_of,
    count_vector,
    drift_question,
    evaluation_question,
    similar_devices_question,
    spread_of,
)
from models.wire.counts import PROBABILITY, Bins, CountKind, CountQuestion
from privacy.counts import sum_is_possible

DAY = 86_400
AS_OF = 20_000 * DAY
REFERENCE = np.random.default_rng(0).normal(size=(200, len(FEATURE_NAMES)))
NAMES = (PROBABILITY, *FEATURE_NAMES)


@st.composite
def bins(draw, names=NAMES):
    edges = draw(st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=6))
    return Bins(draw(st.sampled_from(names)), tuple(sorted(edges)))


@st.composite
def questions(draw):
    kind = draw(st.sampled_from(CountKind))
    if kind is CountKind.EVALUATION:
        return CountQuestion(
            kind=kind,
            as_of_s=AS_OF,
            horizon_days=30,
            model_version="m",
            bins=(draw(bins((PROBABILITY,))),),
        )
    chosen = draw(st.lists(bins(), min_size=1, max_size=3, unique_by=lambda one: one.name))
    return CountQuestion(
        kind=kind,
        as_of_s=AS_OF,
        horizon_days=0 if kind is CountKind.DRIFT else 60,
        model_version="m" if any(one.name == PROBABILITY for one in chosen) else "",
        bins=tuple(chosen),
    )


anything = st.floats(allow_nan=True, allow_infinity=True)
moments = st.none() | st.builds(
    DeviceMoment,
    values=st.dictionaries(st.sampled_from(NAMES), anything),
    failed_within=st.none() | st.booleans(),
)


@given(questions(), moments)
def test_an_answer_has_the_public_shape_and_a_norm_within_the_bound(question, moment):
    answer = count_vector(question, moment)

    assert answer.dtype == np.int64
    assert answer.shape == (question.size,)
    assert set(answer.tolist()) <= {0, 1}
    assert int((answer**2).sum()) <= question.sensitivity_squared


@given(questions(), st.lists(moments, max_size=6))
def test_sums_of_answers_are_exact_in_any_order_and_possible(question, several):
    answers = [count_vector(question, moment) for moment in several]
    total = sum(answers, np.zeros(question.size, np.int64))

    assert (total == sum(answers[::-1], np.zeros(question.size, np.int64))).all()
    assert sum_is_possible(
        total, num_devices=len(several), sensitivity_squared=question.sensitivity_squared
    )


@given(questions(), moments, moments)
def test_what_one_device_says_moves_the_sum_by_the_bound_at_most(question, moment, others):
    """Neighbours: one device's answer replaced by zeros."""
    base = count_vector(question, others)
    moved = base + count_vector(question, moment)

    assert math.dist(moved, base) <= math.sqrt(question.sensitivity_squared) + 1e-12


def test_one_more_failure_than_devices_is_impossible():
    total = np.array([0, 3], np.int64)

    assert not sum_is_possible(total, num_devices=2, sensitivity_squared=1)
    assert not sum_is_possible(np.array([-1, 1]), num_devices=2, sensitivity_squared=1)
    assert not sum_is_possible(np.array([2, 2]), num_devices=2, sensitivity_squared=1)
    assert sum_is_possible(np.array([2, 2]), num_devices=2, sensitivity_squared=2)
    huge = np.array([2**62, 2**62, 2**62], np.int64)
    assert not sum_is_possible(huge, num_devices=2**62, sensitivity_squared=1)


def test_an_evaluation_counts_the_failed_behind_those_that_lived():
    question = evaluation_question(as_of_s=AS_OF, model_version="m")
    low = count_vector(question, DeviceMoment(values={PROBABILITY: 0.0005}, failed_within=False))
    high = count_vector(question, DeviceMoment(values={PROBABILITY: 0.9}, failed_within=True))

    assert low.tolist().index(1) == 0
    assert high.tolist().index(1) == question.size - 1
    unknown = DeviceMoment(values={PROBABILITY: 0.9}, failed_within=None)
    assert not count_vector(question, unknown).any()


def test_a_threshold_becomes_an_edge_without_another_bin():
    usual = evaluation_question(as_of_s=AS_OF, model_version="m")
    with_threshold = evaluation_question(as_of_s=AS_OF, model_version="m", threshold=0.27)

    assert 0.27 in with_threshold.bins[0].edges
    assert with_threshold.size == usual.size
    beyond = evaluation_question(as_of_s=AS_OF, model_version="m", threshold=1.0)
    assert beyond == usual


def test_similar_devices_share_a_cell():
    question = similar_devices_question(as_of_s=AS_OF)
    worn = {"charge_capacity_remaining": 0.72, "capacity_slope_30d": -0.3}
    new = {"charge_capacity_remaining": 0.99, "capacity_slope_30d": 0.0}

    assert cell_of(question, worn) == 1 * 3 + 0
    assert cell_of(question, new) == 3 * 3 + 2
    assert cell_of(question, worn | {"capacity_slope_30d": math.nan}) is None
    failed = count_vector(question, DeviceMoment(values=worn, failed_within=True))
    assert failed.tolist().index(1) == question.size // 2 + 3


def test_drift_counts_missing_values_in_a_bin_of_their_own():
    question = drift_question(REFERENCE, as_of_s=AS_OF)
    answer = count_vector(question, DeviceMoment(values={}))

    ends = np.cumsum([one.size + 1 for one in question.bins]) - 1
    assert np.flatnonzero(answer).tolist() == ends.tolist()
    assert question.sensitivity_squared == len(DRIFT_FEATURES) == int(answer.sum())


def test_the_spread_of_public_rows_is_what_devices_like_them_would_count():
    question = drift_question(REFERENCE, as_of_s=AS_OF)
    rows = REFERENCE[:50].copy()
    rows[::7, 9] = np.nan
    answers = [
        count_vector(question, DeviceMoment(values=dict(zip(FEATURE_NAMES, row, strict=True))))
        for row in rows
    ]
    shares = [share for one in spread_of(question, rows).values() for share in one]

    assert shares == (np.sum(answers, axis=0) / 50).tolist()


def test_a_value_that_is_mostly_its_least_is_split_above_it():
    rows = np.zeros((100, len(FEATURE_NAMES)))
    rows[:5] = 3.0
    question = drift_question(rows, as_of_s=AS_OF, names=["unexpected_shutdowns"])

    assert question.bins[0].edges == (3.0,)
    with pytest.raises(ValueError, match="tell apart"):
        drift_question(np.zeros((9, len(FEATURE_NAMES))), as_of_s=AS_OF)
    with pytest.raises(ValueError, match="tell apart"):
        drift_question(np.full((9, len(FEATURE_NAMES)), np.nan), as_of_s=AS_OF)
