"""Invariants of clipping, accounting and the ledger."""

import math
from datetime import UTC, datetime
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from privacy import (
    GaussianRelease,
    LedgerBrokenError,
    UpdateGrid,
    clip_update,
    gaussian_delta,
    gaussian_epsilon,
    next_entry,
    noise_multiplier_for,
    policy_for,
    read_ledger,
)
from privacy.budget import ParticipationHistory, participation_refusal
from tests.support.examples import examples

any_float = st.floats(allow_nan=True, allow_infinity=True, width=32)
updates = st_numpy.arrays(np.float32, st.integers(1, 40), elements=any_float)
norms = st.floats(1e-3, 1e3)


def exact_norm_squared(values):
    return sum(int(value) ** 2 for value in values)


@given(update=updates, clipping_norm=norms)
def test_no_update_leaves_the_ball_in_exact_arithmetic(update, clipping_norm):
    grid = UpdateGrid(clipping_norm=clipping_norm)
    sent = grid.quantise(clip_update(update, clipping_norm=clipping_norm))
    assert exact_norm_squared(sent) <= (2**36) ** 2


@given(cohort=st.lists(st_numpy.arrays(np.float32, 6, elements=any_float), min_size=1, max_size=20))
def test_sum_does_not_depend_on_order_or_blocks(cohort):
    grid = UpdateGrid(clipping_norm=0.5)
    sent = [grid.quantise(clip_update(update, clipping_norm=0.5)) for update in cohort]
    total = np.sum(sent, axis=0)
    half = len(sent) // 2
    blocks = [sum(sent[half:], np.zeros(6, np.int64)), sum(sent[:half], np.zeros(6, np.int64))]
    assert np.array_equal(np.sum(blocks, axis=0), total)
    assert np.array_equal(np.sum(sent[::-1], axis=0), total)
    assert grid.sum_is_possible(total, num_devices=len(sent))


@settings(max_examples=examples(60))
@given(mu=st.floats(1e-2, 20), log_delta=st.floats(-12, -2))
def test_epsilon_is_never_below_the_exact_one_and_hardly_above(mu, log_delta):
    delta = 10.0**log_delta
    epsilon = gaussian_epsilon(mu=mu, delta=delta)
    with mpmath.workdps(50):

        def exact_delta(value):
            upper = mpmath.ncdf(-value / mu + mpmath.mpf(mu) / 2)
            return upper - mpmath.e**value * mpmath.ncdf(-value / mu - mpmath.mpf(mu) / 2)

        assert exact_delta(mpmath.mpf(epsilon)) <= delta
        if epsilon > 0:
            assert exact_delta(mpmath.mpf(epsilon) * (1 - mpmath.mpf(10) ** -6)) > delta


@given(st.floats(0.01, 50), st.floats(0, 40), st.floats(1e-6, 5))
def test_delta_falls_with_epsilon_and_grows_with_mu(mu, epsilon, more):
    delta = gaussian_delta(mu=mu, epsilon=epsilon)
    assert 0 <= delta <= 1
    assert gaussian_delta(mu=mu, epsilon=epsilon + more) <= delta * (1 + 1e-9)
    assert gaussian_delta(mu=mu + more, epsilon=epsilon) >= delta * (1 - 1e-9)


@given(epsilon=st.floats(0.1, 20), log_delta=st.floats(-10, -3), k=st.integers(1, 500))
def test_noise_multiplier_keeps_the_promise_and_no_more(epsilon, log_delta, k):
    delta = 10.0**log_delta
    sigma = noise_multiplier_for(epsilon=epsilon, delta=delta, participations=k)
    assert gaussian_epsilon(mu=math.sqrt(k) / sigma, delta=delta) <= epsilon * (1 + 1e-7)
    assert gaussian_epsilon(mu=math.sqrt(k) / (sigma * 0.999), delta=delta) > epsilon


@given(
    invitations=st.lists(st.integers(0, 60), max_size=60),
    k=st.integers(1, 6),
    separation=st.integers(1, 8),
)
def test_no_scheduler_gets_a_device_past_its_budget(invitations, k, separation):
    policy = policy_for(
        epsilon=2.0,
        delta=1e-8,
        max_participations=k,
        clipping_norm=1.0,
        min_separation=separation,
    )
    history, taken = ParticipationHistory(), []
    for index in invitations:
        if participation_refusal(policy, history=history, index=index) is None:
            history = history.after(index, noise_multiplier=policy.noise_multiplier)
            taken.append(index)
    assert policy.epsilon_after(len(taken)) <= 2.0 * (1 + 1e-7)
    assert all(later - earlier >= separation for earlier, later in pairwise(taken))


releases = st.builds(
    GaussianRelease,
    stream=st.text(max_size=8),
    index=st.integers(0, 1000),
    mechanism=st.sampled_from(["independent_gaussian", "none"]),
    noise_multiplier=st.floats(0, 1e6),
    clipping_norm=st.floats(1e-6, 1e6),
    cohort_size=st.integers(1, 10**6),
    most_participations=st.just(1),
)


@settings(max_examples=examples(60))
@given(events=st.lists(releases, min_size=1, max_size=5), data=st.data())
def test_ledger_reads_back_and_any_altered_character_is_found(events, data):
    entries = []
    for event in events:
        previous = entries[-1] if entries else None
        at = datetime(2026, 1, 1, tzinfo=UTC)
        entries.append(next_entry(previous, event, kind="stream", at=at))
    text = "".join(entry.to_line() + "\n" for entry in entries)
    assert [entry.event for entry in read_ledger(text)] == events

    position = data.draw(st.integers(0, len(text) - 1))
    replacement = data.draw(st.sampled_from("0x,}7"))
    altered = text[:position] + replacement + text[position + 1 :]
    if altered == text:
        return
    with pytest.raises(LedgerBrokenError):
        read_ledger(altered)
